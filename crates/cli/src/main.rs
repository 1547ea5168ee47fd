//! `gitspace`: the user's command.
//!
//! Responsible for: turning a command line into calls of the control plane's API, waiting with the timeline in view, and carrying
//! terminals and commands through the gateway. It keeps one file, `cli.toml`, and no state beside it.
//!
//! Invariants: a token is never in an argument, in output that was not asked for, or at another server than its own; what comes from
//! elsewhere is made harmless before it reaches the terminal (`text`), but for the bytes of exec and shell, which are the user's own.

mod api;
mod args;
mod cmd;
mod config;
mod error;
mod exit;
mod follow;
mod net;
mod output;
mod progress;
mod session;
mod ssh;
#[cfg(test)]
mod test_server;
mod text;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::explain(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return error::report(&error::CliError::Signals(error)),
    };
    let environment = config::Environment::of_process();
    let done = runtime.block_on(cmd::run(cli, environment));
    // A read of a terminal cannot be cancelled, and must not hold up the end.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(error) => error::report(&error),
    }
}
