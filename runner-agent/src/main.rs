//! runner-agent: makes gitspaces on a host's Docker, and keeps them as its ledger says.
//!
//! | module | subject |
//! |---|---|
//! | [`api`] | the API socket (`wire::runner`) and the admin socket |
//! | [`gitspace`] | one task per gitspace: carries out its tasks, observes it |
//! | [`journal`], [`ledger`], [`board`] | tasks with their events; what is made; what was seen |
//! | [`machine`], [`docker`] | which Docker; what it is asked |
//! | [`devcontainer`] | what the repository says of its dev container |
//! | [`sandbox`] | where repositories are cloned; the pool of ready ones |
//! | [`reconcile`], [`firewall`] | Docker and the packet filter as they should be |
//! | [`dial`], [`agent_client`] | into a gitspace |
//!
//! Invariant: killed at any instruction, the next start looks, compares and goes on: nothing is lost, nothing is made twice.
//!
//! It does not know users, policy, the control plane or the gateway.

mod agent_client;
mod agent_copy;
mod api;
mod app;
mod board;
mod cli;
mod config;
mod devcontainer;
mod dial;
mod docker;
mod firewall;
mod gitspace;
mod host_report;
mod journal;
mod ledger;
mod machine;
mod names;
mod reconcile;
mod sandbox;
mod shared;
mod silence;

use clap::Parser as _;
use cli::{Cli, Command, ConfigCommand};
use daemon::{Exit, Lifecycle, RandomIds, SystemClock, report};
use std::{process::ExitCode, sync::Arc, time::Duration};

/// For tasks to reach their next step and the spares to be removed.
const GRACE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
            drop(error.print());
            return code;
        }
    };
    let loaded = match cli.load() {
        Ok(loaded) => loaded,
        Err(error) => return report(&error),
    };
    let _log = match daemon::logging::init(&loaded.value.log, "runner-agent") {
        Ok(log) => log,
        Err(error) => return report(&error),
    };
    loaded.log();
    let config = loaded.value;
    match cli.command.unwrap_or(Command::Run) {
        Command::Config {
            command: ConfigCommand::Check,
        } => match config.check().map_err(app::BuildError::from) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&error),
        },
        Command::Purge { yes: _ } => match app::purge(&config).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&error),
        },
        Command::Run => {
            let lifecycle = Lifecycle::new(GRACE);
            match config.build(&lifecycle, Arc::new(SystemClock), Arc::new(RandomIds)) {
                Ok(app) => {
                    app.start(&lifecycle).await;
                    lifecycle.run().await
                }
                Err(error) => report(&error),
            }
        }
    }
}
