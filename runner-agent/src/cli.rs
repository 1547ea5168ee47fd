//! The command line.

use crate::config::{DEFAULT_PATH, ENV_PREFIX, RunnerConfig};
use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};
use daemon::{Loaded, Loader, SettingsError};

/// Makes and keeps gitspaces on this host's Docker.
///
/// Exit codes: 0 stopped when told to; 1 failed; 64 wrong command line; 69 something it needs is not there (a socket or state folder in
/// use, Docker for `purge`); 78 wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "runner-agent", version, about, long_about)]
pub(crate) struct Cli {
    /// The configuration; without this option the default file may be missing.
    #[arg(long, global = true, value_name = "FILE", help = format!("the configuration [default: {DEFAULT_PATH}]"))]
    config: Option<Utf8PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon (also without a command).
    Run,
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
