//! Any bytes as a graph file: read or refused. What is read survives text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use samebit::graph::file::from_bytes;
use samebit::graph::text::{parse, print};
use samebit::ops::by_name;

fuzz_target!(|data: &[u8]| {
    if let Ok(g) = from_bytes(data, by_name) {
        let text = print(&g);
        assert_eq!(parse(&text, by_name, &g.constants_by_hash()).as_ref(), Ok(&g), "{text}");
    }
});
