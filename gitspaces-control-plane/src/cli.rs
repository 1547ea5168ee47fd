//! The command line.

use crate::admin::Admin;
use crate::config::{Refusal, SEAL_KEY, Settings};
use admin::{AdminSocketError, Program, ProgramError, RuntimeError};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};
use control_plane::{BuildError, ControlPlane, Deps, StartError};
use daemon::{Credentials, Exit, Hint, PassedSockets, RandomIds, SystemClock};
use std::{process::ExitCode, sync::Arc, time::Duration};
use tls_server::{ServedCertificate, TlsStartError};

/// For answers under way, and for delegates to be told.
const GRACE: Duration = Duration::from_secs(20);

/// Knows users, gitspaces and hosts, and decides what is done where.
///
/// Exit codes: 0 stopped when told to; 1 failed; 64 wrong command line; 69 its address is in use; 78 wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "gitspaces-control-plane", version, about, long_about)]
pub(crate) struct Cli {
    /// The configuration; without this option the default file may be missing.
    #[arg(long, global = true, value_name = "FILE", help = format!("the configuration [default: {}]", Settings::CONFIG))]
    config: Option<Utf8PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (also without a command).
    Run,
    /// Make a token for the first administrator, and print the file it lies in.
    ///
    /// It holds for a day, in place of the one before; `gitspace login --token-file` exchanges it for one to keep.
    AdminToken,
    #[command(flatten)]
    Common(admin::Common),
}

/// What went wrong before there was anything to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Program(#[from] ProgramError<Refusal>),
    #[error("the configuration is wrong")]
    Config(#[source] Refusal),
    #[error(transparent)]
    Tls(#[from] TlsStartError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Credential(#[from] daemon::CredentialError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    AdminSocket(#[from] AdminSocketError),
    #[error(transparent)]
    Passed(#[from] daemon::ActivationError),
}

impl CliError {
    fn inner(&self) -> &dyn Hint {
        match self {
            Self::Program(error) => error,
            Self::Config(error) => error,
            Self::Tls(error) => error,
            Self::Runtime(error) => error,
            Self::Credential(error) => error,
            Self::Build(error) => error,
            Self::Start(error) => error,
            Self::AdminSocket(error) => error,
            Self::Passed(error) => error,
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

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let path = cli.config.as_deref();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => serve(path),
        Command::AdminToken => Ok(admin::admin_token::<Settings>(path)?),
        Command::Common(command) => Ok(admin::common::<Settings, Cli>(command, path)?),
    }
}

fn serve(path: Option<&Utf8Path>) -> Result<ExitCode, CliError> {
    let loaded = admin::load::<Settings>(path)?;
    let log = admin::log(&loaded)?;
    let config_files = loaded.files.clone();
    let (admin_path, gid) = (loaded.value.admin_socket(), loaded.value.socket_gid);
    let mut sockets = PassedSockets::of_process()?;
    let credentials = Credentials::of_process();
    let checked = loaded
        .value
        .check(&credentials)
        .map_err(|wrong| CliError::Config(wrong.first))?;
    let config = checked.control_plane;
    let state_dir = config.state_dir.clone();
    let seal_key = credentials.get(SEAL_KEY)?;
    admin::runtime()?.block_on(async {
        let mut lifecycle = admin::lifecycle::<Settings>(GRACE, path, &log);
        let admin_socket = admin::AdminSocket {
            path: &admin_path,
            gid,
            passed: sockets.unix("admin")?,
        }
        .bind()
        .map_err(AdminSocketError)?;
        sockets.finish()?;
        let certificate = checked
            .tls
            .start(checked.names, &state_dir, Arc::new(SystemClock), &lifecycle)
            .await?;
        if let Some(certificate) = certificate.clone() {
            lifecycle.on_reload(move || certificate.reload());
        }
        let tls = certificate
            .as_ref()
            .map(ServedCertificate::server_config)
            .transpose()
            .map_err(|source| TlsStartError::Certificate { source })?;
        let deps = Deps {
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            listener: None,
            seal_key,
            tls,
        };
        let mut control_plane = Box::pin(ControlPlane::build(config, deps)).await?;
        let address = control_plane.start(&lifecycle)?;
        let admin = Admin {
            control_plane: control_plane.view(),
            bootstrap: control_plane.bootstrap(),
            state_dir,
            certificate,
            certificate_warn_days: checked.certificate_warn_days,
            config_files,
        };
        admin_socket.spawn(&lifecycle, admin, log, Arc::new(SystemClock));
        lifecycle.tasks().status(&format!(
            "serves {} on {address}",
            control_plane.public_url()
        ));
        Ok(lifecycle.run().await)
    })
}
