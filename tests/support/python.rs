//! A Python with numpy, for checks that are written twice.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The one of `SAMEBIT_PEER_PYTHON`, that of the node tests (`./test` makes it), or `python3`, whichever has numpy first.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("SAMEBIT_PEER_PYTHON").map(PathBuf::from);
    let venv = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python"));
    let has_numpy = |p: &PathBuf| {
        let mut c = Command::new(p);
        c.args(["-c", "import numpy"]).stdout(Stdio::null()).stderr(Stdio::null());
        c.status().is_ok_and(|s| s.success())
    };
    named.into_iter().chain([venv, PathBuf::from("python3")]).find(has_numpy)
}
