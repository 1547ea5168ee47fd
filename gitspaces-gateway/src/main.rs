//! The gateway as a daemon of its own, beside the runner of its host; what it does is in the crate `gateway`.

mod admin;
mod cli;
mod config;

use std::process::ExitCode;

fn main() -> ExitCode {
    ::admin::main(cli::run)
}
