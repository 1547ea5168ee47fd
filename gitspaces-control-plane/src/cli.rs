//! The command line.

use crate::admin::Admin;
use crate::config::{DEFAULT_PATH, ENV_PREFIX, SEAL_KEY, Settings};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{CommandFactory as _, Parser, Subcommand};
use control_plane::{BuildError, ConfigError, ControlPlane, Deps, StartError};
use daemon::{
    Exit, Hint, Lifecycle, Loaded, PassedSockets, RandomIds, Reloaded, SystemClock, logging,
    settings::Loader,
};
use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

/// For answers under way, and for delegates to be told.
const GRACE: Duration = Duration::from_secs(20);

/// Knows users, gitspaces and hosts, and decides what is done where.
///
/// Exit codes: 0 stopped when told to; 1 failed; 64 wrong command line; 69 its address is in use; 78 wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "gitspaces-control-plane", version, about, long_about)]
pub(crate) struct Cli {
    /// The configuration; without this option the default file may be missing.
    #[arg(long, global = true, value_name = "FILE", help = format!("the configuration [default: {DEFAULT_PATH}]"))]
    config: Option<Utf8PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (also without a command).
    Run,
    /// Of the running daemon.
    #[command(flatten)]
    Admin(admin::Command),
    /// About the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write the man pages and completions.
    #[command(hide = true)]
    Pages {
        /// Folder for them, as /usr/share.
        dir: Utf8PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum ConfigCommand {
    /// Read the configuration, say what is wrong with it, and change nothing.
    Check,
}

/// What went wrong before there was anything to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Settings(#[from] daemon::SettingsError),
    #[error("the configuration is wrong")]
    Config(#[from] ConfigError),
    #[error("cannot log")]
    Log(#[from] logging::LogError),
    #[error("cannot start a runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Credential(#[from] daemon::CredentialError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot serve the admin socket")]
    AdminSocket(#[from] local_rpc::BindError),
    #[error(transparent)]
    Admin(#[from] admin::CommandError),
    #[error(transparent)]
    Passed(#[from] daemon::ActivationError),
    #[error(transparent)]
    Pages(#[from] pages::PagesError),
}

impl Hint for CliError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Log(error) => error.hint(),
            Self::Credential(error) => error.hint(),
            Self::Build(error) => error.hint(),
            Self::Start(error) => error.hint(),
            Self::AdminSocket(error) => error.hint(),
            Self::Admin(error) => error.hint(),
            Self::Passed(error) => error.hint(),
            Self::Runtime(_) | Self::Pages(_) => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Settings(error) => error.exit(),
            Self::Config(error) => error.exit(),
            Self::Log(error) => error.exit(),
            Self::Credential(error) => error.exit(),
            Self::Build(error) => error.exit(),
            Self::Start(error) => error.exit(),
            Self::AdminSocket(_) => Exit::Unavailable,
            Self::Admin(error) => error.exit(),
            Self::Passed(error) => error.exit(),
            Self::Runtime(_) | Self::Pages(_) => Exit::Failure,
        }
    }
}

/// Usage errors have a code of their own; `--help` and `--version` are none.
pub(crate) fn explain(error: &clap::Error) -> ExitCode {
    // Where the output is gone, the code is all that is left to say.
    drop(error.print());
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        ExitCode::SUCCESS
    }
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let path = cli.config.as_deref();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => serve(path),
        Command::Admin(command) => admin_command(path, command),
        Command::Config(ConfigCommand::Check) => check(path),
        Command::Pages { dir } => {
            pages::write(Cli::command(), pages::Section::SystemAdministration, &dir)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What can change while the daemon runs: its log filter. The rest is checked, so that the next start does not fail.
async fn reload(path: Option<Utf8PathBuf>, log: logging::LogHandle) -> Reloaded {
    let loaded = tokio::task::spawn_blocking(move || load(path.as_deref())).await??;
    let filter = loaded.value.log.filter().to_owned();
    loaded.value.into_config().check()?;
    log.set_filter(&filter)?;
    Ok(format!(
        "log filter `{filter}`; what else has changed is taken at the next start"
    ))
}

fn admin_command(path: Option<&Utf8Path>, command: admin::Command) -> Result<ExitCode, CliError> {
    let socket = load(path)?.value.admin_socket();
    let at = admin::RunAdmin {
        daemon: "gitspaces-control-plane",
        socket: &socket,
    };
    Ok(runtime()?.block_on(admin::run(command, at))?)
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
}

/// A file that somebody named must exist; the default need not.
fn load(path: Option<&Utf8Path>) -> Result<Loaded<Settings>, CliError> {
    let loader = match path {
        Some(path) => Loader::new(path),
        None => Loader::new(DEFAULT_PATH).optional(),
    };
    Ok(loader.env_prefix(ENV_PREFIX).load()?)
}

fn serve(path: Option<&Utf8Path>) -> Result<ExitCode, CliError> {
    let loaded = load(path)?;
    let log = logging::init(&loaded.value.log, "gitspaces-control-plane")?;
    loaded.log();
    let config_files = loaded.files.clone();
    let (admin_path, gid) = (loaded.value.admin_socket(), loaded.value.socket_gid);
    let mut sockets = PassedSockets::of_process()?;
    let config = loaded.value.into_config();
    let state_dir = config.state_dir.clone();
    let deps = Deps {
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        listener: None,
        seal_key: daemon::credential(SEAL_KEY)?,
    };
    runtime()?.block_on(async {
        let mut lifecycle = Lifecycle::new(GRACE);
        let (reload_path, reload_log) = (path.map(Utf8Path::to_owned), log.clone());
        lifecycle.on_reload(move || reload(reload_path.clone(), reload_log.clone()));
        let admin_socket = admin::AdminSocket {
            path: &admin_path,
            gid,
            passed: sockets.unix("admin")?,
        }
        .bind()?;
        sockets.finish()?;
        let mut control_plane = Box::pin(ControlPlane::build(config, deps)).await?;
        let address = control_plane.start(&lifecycle)?;
        let admin = Admin {
            control_plane: control_plane.view(),
            bootstrap: control_plane.bootstrap(),
            state_dir,
            config_files,
        };
        lifecycle.spawn(
            "admin",
            admin_socket.serve(
                admin,
                log,
                lifecycle.tasks().pulses(),
                Arc::new(SystemClock),
                lifecycle.drain_token(),
            ),
        );
        lifecycle.tasks().status(&format!(
            "serves {} on {address}",
            control_plane.public_url()
        ));
        Ok(lifecycle.run().await)
    })
}

fn check(path: Option<&Utf8Path>) -> Result<ExitCode, CliError> {
    let loaded = load(path)?;
    for file in &loaded.files {
        say(&format!("read {file}"));
    }
    for key in &loaded.unknown_keys {
        say(&format!("warning: unknown key `{key}` is ignored"));
    }
    let config = loaded.value.into_config();
    config.check()?;
    say(&format!(
        "ok: {} on {}, gitspaces below {}",
        config.public_url, config.listen, config.gateway_url
    ));
    Ok(ExitCode::SUCCESS)
}

/// One line to whoever ran the command. Where nobody reads, the exit code is all that is left to say.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
