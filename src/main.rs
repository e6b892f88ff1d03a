//! The `samebit` command line.

fn main() {}
