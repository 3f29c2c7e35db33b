//! The `belayd` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    belayd::cli::main()
}
