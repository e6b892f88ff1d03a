//! What several test binaries share: where the example models lie, and ONNX files written byte by byte.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod artefacts;
pub mod binary;
pub mod onnx;
pub mod python;
pub mod sketch;

use libtest_mimic::Trial;
use samebit::gpu::{Choice, Device, Gpu};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A test of a binary without the standard harness, reported as ignored where `ignored` holds.
pub fn trial(name: &str, ignored: bool, f: fn()) -> Trial {
    let run = move || {
        f();
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(ignored)
}

/// A file or folder of the example data; `None` where it is not there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("SAMEBIT_SHARED") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"),
    };
    let path = root.join(path);
    path.exists().then_some(path)
}

/// The GPU of these tests, a software one included. Without one they are reported as ignored, unless `SAMEBIT_REQUIRE_GPU=1`.
pub fn gpu() -> Option<Arc<Gpu>> {
    static GPU: OnceLock<Option<Arc<Gpu>>> = OnceLock::new();
    let open = || match Device::open(&Choice::Gpu) {
        Ok(Device::Gpu(gpu)) => Some(gpu),
        Ok(Device::Cpu) => unreachable!("a GPU was asked for"),
        Err(e) => {
            assert_ne!(std::env::var("SAMEBIT_REQUIRE_GPU").as_deref(), Ok("1"), "{e}");
            eprintln!("no GPU: {e}");
            None
        }
    };
    GPU.get_or_init(open).clone()
}
