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
mod checks;
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

use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, CliError, Command, ConfigCommand};
use daemon::{Exit, Lifecycle, PassedSockets, RandomIds, Reloaded, SystemClock, report};
use std::{process::ExitCode, sync::Arc, time::Duration};

/// For tasks to reach their next step and the spares to be removed.
const GRACE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => Box::pin(run(cli))
            .await
            .unwrap_or_else(|error| report(&error)),
        Err(error) => {
            let code = if error.use_stderr() {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
            drop(error.print());
            code
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let loaded = cli.load()?;
    match cli.command.clone().unwrap_or(Command::Run) {
        Command::Config {
            command: ConfigCommand::Check,
        } => {
            daemon::logging::init(&loaded.value.log, "runner-agent")?;
            loaded.log();
            loaded.value.check().map_err(app::BuildError::from)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor { output } => {
            loaded.value.check().map_err(app::BuildError::from)?;
            Ok(admin::doctor(checks::host(&loaded.value).await, output))
        }
        Command::Admin(command) => {
            let at = admin::RunAdmin {
                daemon: "runner-agent",
                socket: &loaded.value.admin_socket,
            };
            Ok(admin::run(command, at).await?)
        }
        Command::Purge { yes: _ } => {
            daemon::logging::init(&loaded.value.log, "runner-agent")?;
            loaded.log();
            app::purge(&loaded.value).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pages { dir } => {
            pages::write(Cli::command(), pages::Section::SystemAdministration, &dir)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run => {
            let log = daemon::logging::init(&loaded.value.log, "runner-agent")?;
            loaded.log();
            let mut lifecycle = Lifecycle::new(GRACE);
            let sources = app::Sources {
                clock: Arc::new(SystemClock),
                ids: Arc::new(RandomIds),
                sockets: PassedSockets::of_process()?,
                log: log.clone(),
                config_files: loaded.files,
            };
            lifecycle.on_reload(move || reload(cli.clone(), log.clone()));
            let app = loaded.value.build(&lifecycle, sources)?;
            app.start(&lifecycle).await;
            Ok(lifecycle.run().await)
        }
    }
}

/// What can change while the daemon runs: its log filter. The rest is checked, so that the next start does not fail.
async fn reload(cli: Cli, log: daemon::logging::LogHandle) -> Reloaded {
    let loaded = tokio::task::spawn_blocking(move || cli.load()).await??;
    loaded.value.check()?;
    let filter = loaded.value.log.filter();
    log.set_filter(filter)?;
    Ok(format!(
        "log filter `{filter}`; what else has changed is taken at the next start"
    ))
}
