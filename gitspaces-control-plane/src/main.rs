//! The control plane as a daemon of its own; what it does is in the crate `control-plane`.

mod admin;
mod cli;
mod config;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => cli::run(cli).unwrap_or_else(|error| daemon::report(&error)),
        Err(error) => cli::explain(&error),
    }
}
