//! The control plane as a daemon of its own; what it does is in the crate `control-plane`.

mod admin;
mod cli;
mod config;

use std::process::ExitCode;

fn main() -> ExitCode {
    ::admin::main(cli::run)
}
