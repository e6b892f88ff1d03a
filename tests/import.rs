//! Import of ONNX models.

mod support;

use samebit::onnx::{ImportError, ImportOptions, ProblemKind, import};

/// Every operator of the models that exists is read without a complaint.
#[test]
fn example_models_lack_operators_at_most() {
    let Some(folder) = support::shared("data/models") else {
        eprintln!("ignored: the example models are not here");
        return;
    };
    let mut failed = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "onnx") {
            continue;
        }
        count += 1;
        match import(&path, &ImportOptions::default()) {
            Ok(_) => {}
            Err(ImportError::Problems(problems)) => failed.extend(
                problems
                    .iter()
                    .filter(|p| {
                        !matches!(p.kind, ProblemKind::Operator { .. } | ProblemKind::OnlyFolded { .. })
                    })
                    .map(|p| format!("{}: {p}", path.display())),
            ),
            Err(e) => failed.push(format!("{}: {e}", path.display())),
        }
    }
    assert!(count > 0, "no models");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
