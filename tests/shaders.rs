//! Every kernel links and validates, fits its Rust side, and keeps the rules for WGSL. Needs no device.

use samebit::gpu::kernels::{Access, Linked};
use samebit::graph::lower::Kernel;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every kernel of every operator and of the executor, with who lists it.
fn kernels() -> Vec<(&'static str, &'static Kernel)> {
    let of_ops = samebit::ops::OPS.iter().flat_map(|d| d.kernels.iter().map(move |k| (d.name, *k)));
    of_ops.chain(samebit::exec::KERNELS.iter().map(|k| ("executor", *k))).collect()
}

/// Fails with all findings at once.
fn report(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{} {what}:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_kernel_links_and_validates() {
    assert!(!kernels().is_empty());
    let errors: Vec<String> =
        kernels().iter().filter_map(|(by, k)| Linked::new(k).err().map(|e| format!("{by}: {e}"))).collect();
    report("kernels do not validate", &errors);
}

#[test]
fn params_of_every_kernel_equal_their_rust_struct() {
    let mut errors = Vec::new();
    for (by, k) in kernels() {
        let Ok(linked) = Linked::new(k) else { continue };
        let wgsl: Vec<(&str, usize)> = linked.params.iter().map(|(n, o)| (n.as_str(), *o)).collect();
        if wgsl != k.params {
            errors.push(format!("{by}: {}: WGSL has {wgsl:?}, Rust {:?}", k.name, k.params));
        }
        if k.params.iter().any(|(_, offset)| *offset >= linked.params_bytes) {
            errors.push(format!("{by}: {}: a field lies beyond {} bytes", k.name, linked.params_bytes));
        }
    }
    report("kernels have other parameters", &errors);
}

#[test]
fn every_kernel_runs_within_the_least_limits() {
    let mut errors = Vec::new();
    for (by, k) in kernels() {
        let Ok(linked) = Linked::new(k) else { continue };
        if !linked.bindings.contains(&Access::ReadWrite) {
            errors.push(format!("{by}: {} writes nothing", k.name));
        }
        // What every driver grants without asking for more.
        if linked.storage_buffers() > 8 {
            errors.push(format!("{by}: {} binds {} buffers, at most 8", k.name, linked.storage_buffers()));
        }
        match linked.workgroup_size(&[]) {
            Ok(s) if s.iter().product::<u32>() <= 256 => {}
            size => errors.push(format!("{by}: {}: workgroup size {size:?}, at most 256", k.name)),
        }
        if linked.workgroup_bytes > 16 * 1024 {
            errors.push(format!("{by}: {}: {} bytes of workgroup memory", k.name, linked.workgroup_bytes));
        }
    }
    report("kernels ask for too much", &errors);
}

#[test]
fn kernels_of_one_name_have_one_source() {
    let mut by_name: BTreeMap<&str, &Kernel> = BTreeMap::new();
    let mut errors = Vec::new();
    for (by, k) in kernels() {
        let first = by_name.entry(k.name).or_insert(k);
        if first.sources != k.sources {
            errors.push(format!("{by}: {} is the name of two kernels", k.name));
        }
    }
    report("names are taken twice", &errors);
}

fn shader_files() -> BTreeSet<String> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() { walk(&path, out) } else { out.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let relative = |p: &PathBuf| {
        let name = p.strip_prefix(&root).ok().and_then(Path::to_str).expect("a UTF-8 name below the root");
        name.replace('\\', "/")
    };
    files.iter().map(relative).collect()
}

#[test]
fn every_shader_file_is_used_and_lies_where_it_says() {
    let used: BTreeSet<String> =
        kernels().iter().flat_map(|(_, k)| k.sources.iter().map(|(f, _)| (*f).to_owned())).collect();
    let there = shader_files();
    let unused: Vec<String> =
        there.difference(&used).map(|f| format!("shaders/{f} is in no kernel")).collect();
    report("files are unused", &unused);
    let missing: Vec<String> = used.difference(&there).cloned().collect();
    report("files are missing", &missing);
}

/// The text without `//` comments.
fn code(text: &str) -> String {
    text.lines().map(|l| l.split("//").next().unwrap_or("").to_owned() + "\n").collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What the rules for WGSL say against a line of code in this file.
fn lint(file: &str, line: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut words = line.match_indices("round(").filter(|(at, _)| !line[..*at].ends_with(is_word));
    if !file.starts_with("shared/") && words.next().is_some() {
        found.push("round( outside shared/: rounding has one definition, link it");
    }
    if let Some(at) = line.find("@workgroup_size(") {
        let size = &line[at + "@workgroup_size(".len()..];
        let size = size.split(')').next().unwrap_or("");
        if size.split(',').any(|s| s.trim().starts_with(|c: char| c.is_ascii_digit())) {
            found.push("a literal workgroup size: use an override");
        }
    }
    for op in ["!=", "=="] {
        for (at, _) in line.match_indices(op) {
            let part = |c: char| is_word(c) || ".[]".contains(c);
            let before = line[..at].trim_end();
            let left = &before[before.trim_end_matches(part).len()..];
            let after = line[at + op.len()..].trim_start();
            let right = &after[..after.len() - after.trim_start_matches(part).len()];
            if !left.is_empty() && left == right {
                found.push("x != x: some drivers fold it; look at the bits");
            }
        }
    }
    if ["12582912", "8388608.0", "0x1.8p23", "0x1.8p+23"].iter().any(|magic| line.contains(magic)) {
        found.push("rounding by a magic number: compilers fold it");
    }
    found
}

#[test]
fn shader_files_keep_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut errors = Vec::new();
    for file in shader_files() {
        let text = fs::read_to_string(root.join(&file)).unwrap();
        for (i, line) in code(&text).lines().enumerate() {
            errors.extend(lint(&file, line).iter().map(|e| format!("shaders/{file}:{}: {e}", i + 1)));
        }
        if !text.starts_with("//") && !file.contains('/') {
            errors.push(format!("shaders/{file}: must begin with a comment: formula, bindings, invocation"));
        }
    }
    report("rules are broken", &errors);
}

#[test]
fn the_lint_finds_what_it_looks_for() {
    let bad = |file, line: &str| lint(file, line).len();
    assert_eq!(bad("a.wgsl", "let y = round(x);"), 1);
    assert_eq!(bad("a.wgsl", "let y = half_even_round(x);"), 0);
    assert_eq!(bad("shared/a.wgsl", "let y = round(x);"), 0);
    assert_eq!(bad("a.wgsl", "@compute @workgroup_size(64)"), 1);
    assert_eq!(bad("a.wgsl", "@compute @workgroup_size(WG, 4u)"), 1);
    assert_eq!(bad("a.wgsl", "@compute @workgroup_size(WG)"), 0);
    assert_eq!(bad("a.wgsl", "if v.x != v.x {"), 1);
    assert_eq!(bad("a.wgsl", "if a[i] == a[j] {"), 0);
    assert_eq!(bad("a.wgsl", "return (x + 12582912.0) - 12582912.0;"), 1);
    assert_eq!(code("a // round(b)\n"), "a \n");
}
