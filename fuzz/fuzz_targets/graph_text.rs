//! Any text as a graph: read or refused. What is read prints as a text that reads back equal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use samebit::graph::text::{parse, print};
use samebit::ops::by_name;
use std::collections::BTreeMap;

fuzz_target!(|data: &str| {
    if let Ok(g) = parse(data, by_name, &BTreeMap::new()) {
        let text = print(&g);
        assert_eq!(parse(&text, by_name, &g.constants_by_hash()).as_ref(), Ok(&g), "{text}");
    }
});
