//! The `bnkit` command as a program; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(bnkit_cli::main(std::env::args_os()))
}
