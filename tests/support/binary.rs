//! The binary as a user runs it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_samebit"));
    command.args(args).args(["--device", "cpu", "--quiet"]);
    command
}

pub fn samebit(args: &[&str]) -> Output {
    command(args).output().expect("the binary runs")
}

/// Runs, checks the exit code, and returns the JSON.
pub fn json(code: i32, args: &[&str]) -> Value {
    let o = samebit(&[args, &["--json", "-"]].concat());
    assert_eq!(o.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&o.stderr));
    serde_json::from_slice(&o.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

pub fn refused(args: &[&str], parts: &[&str]) {
    let o = samebit(args);
    let text = String::from_utf8_lossy(&o.stderr);
    assert_eq!(o.status.code(), Some(2), "{args:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{args:?} must say {part:?}: {text}");
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

pub fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("reads")
}
