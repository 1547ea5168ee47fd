//! The command line.

use crate::{
    app::{BuildError, PurgeError},
    config::{DEFAULT_PATH, ENV_PREFIX, RunnerConfig},
};
use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};
use daemon::{ActivationError, Exit, Hint, Loaded, Loader, SettingsError, logging::LogError};

/// Makes and keeps gitspaces on this host's Docker.
///
/// Exit codes: 0 stopped when told to; 1 failed; 64 wrong command line; 69 something it needs is not there (a socket or state folder in
/// use, Docker for `purge`); 78 wrong configuration.
#[derive(Clone, Debug, Parser)]
#[command(name = "runner-agent", version, about, long_about)]
pub(crate) struct Cli {
    /// The configuration; without this option the default file may be missing.
    #[arg(long, global = true, value_name = "FILE", help = format!("the configuration [default: {DEFAULT_PATH}]"))]
    config: Option<Utf8PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon (also without a command).
    Run,
    /// Find what is wrong on this host, running daemon or not; nothing is changed.
    Doctor {
        #[arg(short, long, value_enum, default_value_t)]
        output: admin::Output,
    },
    /// Of the running daemon.
    #[command(flatten)]
    Admin(admin::Command),
    /// About the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Remove every gitspace of this deployment with its disk, everything else it has in Docker, and the state folder.
    Purge {
        /// Say that the work in all gitspaces may be lost.
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Write the man pages and completions.
    #[command(hide = true)]
    Pages {
        /// Folder for them, as /usr/share.
        dir: Utf8PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read the configuration, say what is wrong with it, and change nothing.
    Check,
}

impl Cli {
    pub(crate) fn load(&self) -> Result<Loaded<RunnerConfig>, SettingsError> {
        let loader = match &self.config {
            Some(path) => Loader::new(path.clone()),
            None => Loader::new(DEFAULT_PATH).optional(),
        };
        loader.env_prefix(ENV_PREFIX).load()
    }
}

/// What ends the process with a failing code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot log")]
    Log(#[from] LogError),
    #[error(transparent)]
    Passed(#[from] ActivationError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Purge(#[from] PurgeError),
    #[error(transparent)]
    Admin(#[from] admin::CommandError),
    #[error(transparent)]
    Pages(#[from] pages::PagesError),
}

impl CliError {
    fn inner(&self) -> &dyn Hint {
        match self {
            Self::Settings(error) => error,
            Self::Log(error) => error,
            Self::Passed(error) => error,
            Self::Build(error) => error,
            Self::Purge(error) => error,
            Self::Admin(error) => error,
            Self::Pages(error) => error,
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
