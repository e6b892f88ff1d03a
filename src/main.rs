//! The `samebit` command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    samebit::cli::main()
}
