//! The command line.

use crate::admin::Admin;
use crate::config::{ConfigError, Settings};
use admin::{AdminSocketError, Program, ProgramError, RuntimeError};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};
use daemon::{Credentials, Exit, Hint, PassedSockets, SystemClock};
use gateway::{Dial, Gateway, GatewayError};
use local_rpc::Client;
use runner_dial::RunnerDial;
use std::{process::ExitCode, sync::Arc, time::Duration};
use tls_server::{ServedCertificate, TlsStartError};

/// For exchanges under way; streams that last longer are cut, and their clients come back.
const GRACE: Duration = Duration::from_secs(20);

/// Carries HTTP, WebSocket and SSH traffic into the gitspaces of its host, for whoever the control plane lets in.
///
/// Exit codes: 0 stopped when told to; 1 failed; 64 wrong command line; 69 its address is in use; 78 wrong configuration, or no token.
#[derive(Debug, Parser)]
#[command(name = "gitspaces-gateway", version, about, long_about)]
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
    #[command(flatten)]
    Link(admin::Link),
    #[command(flatten)]
    Common(admin::Common),
}

/// What went wrong before there was anything to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Program(#[from] ProgramError<ConfigError>),
    #[error("the configuration is wrong")]
    Config(#[source] ConfigError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("cannot start the gateway")]
    Gateway(#[source] GatewayError),
    #[error(transparent)]
    Tls(#[from] TlsStartError),
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
            Self::Runtime(error) => error,
            Self::Gateway(error) => error,
            Self::Tls(error) => error,
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
        Command::Link(command) => Ok(admin::ask_admin::<Settings>(command, path)?),
        Command::Common(command) => Ok(admin::common::<Settings, Cli>(command, path)?),
    }
}

fn serve(path: Option<&Utf8Path>) -> Result<ExitCode, CliError> {
    let loaded = admin::load::<Settings>(path)?;
    let log = admin::log(&loaded)?;
    let config_files = loaded.files.clone();
    let (admin_path, gid) = (loaded.value.admin_socket(), loaded.value.socket_gid);
    let mut sockets = PassedSockets::of_process()?;
    let config = loaded
        .value
        .check(&Credentials::of_process())
        .map_err(|wrong| CliError::Config(wrong.first))?;
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
        let public_url = config.gateway.public_url.clone();
        let certificate = config
            .tls
            .start(
                config.names,
                &config.state_dir,
                Arc::new(SystemClock),
                &lifecycle,
            )
            .await?;
        if let Some(certificate) = certificate.clone() {
            lifecycle.on_reload(move || certificate.reload());
        }
        let mut config_of_gateway = config.gateway;
        config_of_gateway.tls = certificate
            .as_ref()
            .map(ServedCertificate::server_config)
            .transpose()
            .map_err(|source| TlsStartError::Certificate { source })?;
        let runner = config.runner_socket.as_ref().map(Client::new);
        let local = runner.clone().map(RunnerDial::new);
        let local = local.map(|local| Arc::new(local) as Arc<dyn Dial>);
        let gateway = Gateway::build(config_of_gateway, local, Arc::new(SystemClock))
            .map_err(CliError::Gateway)?;
        let address = gateway.local_addr();
        let ssh = gateway.ssh_addr().map(tracing::field::display);
        tracing::info!(%address, url = %public_url, ssh, "Gateway listens");
        let admin = Admin {
            gateway: gateway.view(),
            runner,
            certificate,
            certificate_warn_days: config.certificate_warn_days,
            config_files,
        };
        gateway.start(&lifecycle);
        admin_socket.spawn(&lifecycle, admin, log, Arc::new(SystemClock));
        lifecycle
            .tasks()
            .status(&format!("serves {public_url} on {address}"));
        Ok(lifecycle.run().await)
    })
}
