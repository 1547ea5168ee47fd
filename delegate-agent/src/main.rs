//! The delegate: the outbound link of one host. See the library's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    admin::main(delegate_agent::cli::run)
}
