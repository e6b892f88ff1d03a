//! What several test binaries share: where the example models lie, and ONNX files written byte by byte.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod onnx;

use std::path::PathBuf;

/// A file or folder of the example data; `None` where it is not there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("SAMEBIT_SHARED") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"),
    };
    let path = root.join(path);
    path.exists().then_some(path)
}
