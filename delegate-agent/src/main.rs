//! The delegate: the outbound link of one host. See the library's documentation.

use clap::Parser as _;
use delegate_agent::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(Cli::parse())
}
