//! The shape of the source tree: dependencies point one way, wgpu is named in one place, no catch-all files.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules and what each of them may use beside itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("atomic", &[]),
    ("digest", &[]),
    ("names", &[]),
    ("tensor", &[]),
    ("quant", &["tensor"]),
    ("graph", &["tensor", "quant", "atomic", "digest"]),
    ("ops", &["tensor", "quant", "graph"]),
    ("onnx", &["tensor", "quant", "graph", "ops", "atomic", "names"]),
    ("passes", &["tensor", "quant", "graph", "ops", "observers", "names"]),
    ("observers", &["tensor", "quant", "graph", "ops"]),
    // A device runs kernels, which are plain data of the graph.
    ("gpu", &["graph", "tensor"]),
    ("data", &["tensor", "quant", "atomic", "digest"]),
    ("exec", &["tensor", "quant", "graph", "ops", "onnx", "passes", "observers", "gpu", "data", "atomic"]),
    // What any library call below the analyses may fail with.
    ("error", &["onnx", "passes", "graph", "data", "exec", "gpu", "atomic"]),
    ("model", &["onnx", "passes", "graph", "error"]),
    (
        "analysis",
        &[
            "names",
            "tensor",
            "quant",
            "graph",
            "ops",
            "onnx",
            "passes",
            "observers",
            "gpu",
            "data",
            "exec",
            "atomic",
            "error",
            "report",
            "error",
        ],
    ),
    ("error", &["graph", "onnx", "gpu", "data", "exec", "atomic"]),
    ("report", &["tensor", "quant", "graph", "ops", "atomic"]),
];

/// Modules at the top, which may use everything.
const TOP: &[&str] = &["cli", "lib", "main"];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            out.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out.sort();
    out
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The file's path below `src`, and the top-level module it belongs to.
fn place(path: &Path) -> (String, String) {
    let below = path.strip_prefix(src()).expect("below src").to_string_lossy().replace('\\', "/");
    let module = below.split(['/', '.']).next().unwrap_or_default().to_owned();
    (below, module)
}

/// Top-level modules that a text names after `crate::`, those in braces included; not what test modules use.
fn named(text: &str) -> Vec<(usize, String)> {
    let code: Vec<&str> = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).collect();
    let mut out = Vec::new();
    for (i, line) in code.iter().enumerate() {
        let line = line.split("//").next().unwrap_or("");
        for (at, _) in line.match_indices("crate::") {
            if line[..at].ends_with(|c: char| c == '$' || c == '_' || c.is_alphanumeric()) {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            let word =
                |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
            if let Some(group) = rest.strip_prefix('{') {
                let inside = group.split(['}', ';']).next().unwrap_or("");
                out.extend(inside.split(',').map(|m| (i + 1, word(m.trim()))));
            } else {
                out.push((i + 1, word(rest)));
            }
        }
    }
    out.retain(|(_, m)| m.starts_with(|c: char| c.is_lowercase()));
    out
}

/// Fails with all findings at once.
fn report(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// What is wrong with a use of `target` in `module`.
fn judge(module: &str, target: &str) -> Option<String> {
    // Macros are exported at the crate's root.
    if TOP.contains(&module) || module == target || ["params", "kernel"].contains(&target) {
        return None;
    }
    let Some((_, allowed)) = ALLOWED.iter().find(|(m, _)| *m == module) else {
        return Some(format!("module {module} is not in the list of tests/layout.rs"));
    };
    (!allowed.contains(&target)).then(|| format!("{module} may not use {target}; it may use {allowed:?}"))
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for path in rust_files(&src()) {
        let (below, module) = place(&path);
        let text = fs::read_to_string(&path).expect("UTF-8");
        for (line, target) in named(&text) {
            wrong.extend(judge(&module, &target).map(|e| format!("src/{below}:{line}: {e}")));
        }
    }
    report(&wrong);
}

#[test]
fn wgpu_is_named_in_gpu_only() {
    let mut wrong = Vec::new();
    for path in rust_files(&src()) {
        let (below, module) = place(&path);
        let text = fs::read_to_string(&path).expect("UTF-8");
        let lines = text.lines().enumerate().filter(|(_, l)| l.contains("wgpu::") || l.contains("use wgpu"));
        if module != "gpu" {
            wrong.extend(lines.map(|(i, _)| format!("src/{below}:{}: names wgpu", i + 1)));
        }
    }
    report(&wrong);
}

#[test]
fn no_file_is_a_catch_all() {
    const BANNED: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for dir in ["src", "shaders", "examples", "benches"].map(|d| root.join(d)).iter().filter(|d| d.exists()) {
        let mut stack = vec![dir.clone()];
        while let Some(d) = stack.pop() {
            for entry in fs::read_dir(d).expect("a readable folder") {
                let path = entry.expect("a readable entry").path();
                let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
                if BANNED.contains(&stem) {
                    wrong.push(format!("{}: say what is in it", path.display()));
                }
                if path.is_dir() {
                    stack.push(path);
                }
            }
        }
    }
    report(&wrong);
}

#[test]
fn the_checks_find_what_they_look_for() {
    let text = "use crate::tensor::Tensor;\nuse crate::{exec::Plan, ops};\n// crate::cli\n$crate::gpu\nlet x = crate::graph::op::f();\n#[cfg(test)]\nuse crate::data;";
    let found: Vec<(usize, String)> = named(text);
    let want = [(1, "tensor"), (2, "exec"), (2, "ops"), (5, "graph")];
    assert_eq!(found, want.map(|(l, m)| (l, m.to_owned())));
    assert!(judge("tensor", "graph").is_some());
    assert!(judge("exec", "analysis").is_some());
    assert!(judge("unheard", "tensor").is_some());
    assert!(
        judge("exec", "gpu").is_none() && judge("cli", "exec").is_none() && judge("ops", "params").is_none()
    );
}
