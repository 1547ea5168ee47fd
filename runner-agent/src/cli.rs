//! The command line.

use crate::{
    app::{self, BuildError, PurgeError},
    checks,
    config::{ConfigError, RunnerConfig},
};
use admin::{Program, ProgramError, RuntimeError};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};
use daemon::{
    ActivationError, Exit, Hint, PassedSockets, RandomIds, SystemClock, Wrong, logging::LogConfig,
};
use std::{process::ExitCode, sync::Arc, time::Duration};

/// For tasks to reach their next step and the spares to be removed.
const GRACE: Duration = Duration::from_secs(20);

/// Makes and keeps gitspaces on this host's Docker.
///
/// Exit codes: 0 stopped when told to; 1 failed; 64 wrong command line; 69 something it needs is not there (a socket or state folder in
/// use, Docker for `purge`); 78 wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "runner-agent", version, about, long_about)]
pub(crate) struct Cli {
    /// The configuration; without this option the default file may be missing.
    #[arg(long, global = true, value_name = "FILE", help = format!("the configuration [default: {}]", RunnerConfig::CONFIG))]
    config: Option<Utf8PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (also without a command).
    Run,
    /// Find what is wrong on this host, running daemon or not; nothing is changed.
    Doctor {
        #[arg(short, long, value_enum, default_value_t)]
        output: admin::Output,
    },
    /// Remove every gitspace of this deployment with its disk, everything else it has in Docker, and the state folder.
    Purge {
        /// Say that the work in all gitspaces may be lost.
        #[arg(long, required = true)]
        yes: bool,
    },
    #[command(flatten)]
    Drain(admin::Drain),
    #[command(flatten)]
    Common(admin::Common),
}

/// What ends the process with a failing code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Program(#[from] ProgramError<ConfigError>),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Passed(#[from] ActivationError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Purge(#[from] PurgeError),
}

impl CliError {
    fn inner(&self) -> &dyn Hint {
        match self {
            Self::Program(error) => error,
            Self::Runtime(error) => error,
            Self::Passed(error) => error,
            Self::Build(error) => error,
            Self::Purge(error) => error,
        }
    }
}

impl Hint for CliError {
    fn hint(&self) -> Option<String> {
        self.inner().hint()
    }

    fn exit(&self) -> Exit {
        self.inner().exit()
    }
}

impl Program for RunnerConfig {
    const NAME: &'static str = "runner-agent";
    const CONFIG: &'static str = "/etc/gitspaces/runner-agent.toml";
    const ENV_PREFIX: &'static str = "GITSPACES_RUNNER";
    type Refusal = ConfigError;

    fn admin_socket(&self) -> Utf8PathBuf {
        self.admin_socket.clone()
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn examine(self) -> Result<String, Wrong<ConfigError>> {
        self.check()?;
        Ok(format!("gitspaces on the Docker at {}", self.docker_host))
    }
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let path = cli.config.as_deref();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => serve(path),
        Command::Doctor { output } => {
            let config = admin::load::<RunnerConfig>(path)?.value;
            config
                .check()
                .map_err(|wrong| ProgramError::Refused(wrong.first))?;
            let checks = admin::runtime()?.block_on(checks::host(&config));
            Ok(admin::doctor(checks, output))
        }
        Command::Purge { yes: _ } => {
            let loaded = admin::load::<RunnerConfig>(path)?;
            admin::log(&loaded)?;
            admin::runtime()?.block_on(app::purge(&loaded.value))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Drain(command) => Ok(admin::ask_admin::<RunnerConfig>(command, path)?),
        Command::Common(command) => Ok(admin::common::<RunnerConfig, Cli>(command, path)?),
    }
}

fn serve(path: Option<&Utf8Path>) -> Result<ExitCode, CliError> {
    let loaded = admin::load::<RunnerConfig>(path)?;
    let log = admin::log(&loaded)?;
    let sources = app::Sources {
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        sockets: PassedSockets::of_process()?,
        log: log.clone(),
        config_files: loaded.files,
    };
    admin::runtime()?.block_on(async {
        let lifecycle = admin::lifecycle::<RunnerConfig>(GRACE, path, &log);
        let app = loaded.value.build(&lifecycle, sources)?;
        app.start(&lifecycle).await;
        Ok(lifecycle.run().await)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn what_a_runner_would_refuse_is_not_offered() {
        let command = Cli::command();
        assert!(
            command.find_subcommand("reconnect").is_none(),
            "it has no link"
        );
        let drain = command.find_subcommand("drain").unwrap();
        assert!(
            drain.get_arguments().all(|arg| arg.get_id() != "deadline"),
            "it has nobody to hand tasks back to"
        );
        assert!(drain.get_arguments().any(|arg| arg.get_id() == "wait"));
        for daemon in ["undrain", "status", "health", "support-bundle"] {
            assert!(command.find_subcommand(daemon).is_some(), "no {daemon}");
        }
    }
}
