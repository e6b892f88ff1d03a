//! Any bytes as an ONNX model: imported or refused. What is imported survives text and file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use samebit::graph::text::{parse, print};
use samebit::onnx::{ImportOptions, import_bytes};

fuzz_target!(|data: &[u8]| {
    if let Ok(g) = import_bytes(data.to_vec(), &ImportOptions::default()) {
        let text = print(&g);
        let again = parse(&text, samebit::ops::by_name, &g.constants_by_hash());
        assert_eq!(again.as_ref(), Ok(&g), "{text}");
    }
});
