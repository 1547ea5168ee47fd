//! The command line.

use crate::{
    VERSION,
    app::{self, Sources},
    config::{Config, ConfigError, DEFAULT_PATH, ENV_PREFIX, Settings},
    doctor,
    enrol::{Enrolment, enrol},
    identity::IdentityFile,
    transport::{ProxyEnv, Transport},
};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use daemon::{
    Exit, Hint, Lifecycle, Loaded, PassedSockets, RandomIds, Reloaded, SystemClock, logging,
    report, settings::Loader,
};
use serde::Deserialize;
use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};
use wire::secret::Secret;

/// For tasks to hand over what they hold.
const GRACE: Duration = Duration::from_secs(20);
/// A join token is one line.
const MAX_TOKEN_FILE: u64 = 4096;

/// Connects this host to its Gitspaces control plane.
///
/// Exit codes: 0 done, or stopped when told to; 1 failed; 64 wrong command line; 69 something it needs is not there; 75 try again later; 77
/// refused; 78 wrong configuration, or not enrolled.
#[derive(Debug, Parser)]
#[command(name = "delegate-agent", version = VERSION)]
pub struct Cli {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        env = "GITSPACES_DELEGATE_CONFIG",
        value_name = "FILE"
    )]
    config: Option<Utf8PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (the default).
    Run,
    /// Register this host at a control plane with a join token.
    Enroll(EnrollArgs),
    /// Find what is wrong on this host: every step to a running delegate is tried, and nothing changed.
    Doctor {
        #[arg(short, long, value_enum, default_value_t)]
        output: admin::Output,
    },
    /// Of the running daemon.
    #[command(flatten)]
    Admin(admin::Command),
    /// Make a token for the first administrator of the control plane that the daemon embeds, and print the file it lies in.
    ///
    /// It holds for a day, in place of the one before; `gitspace login --token-file` exchanges it for one to keep.
    AdminToken,
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write the man pages and completions.
    #[command(hide = true)]
    Pages {
        /// Folder for them, as /usr/share.
        dir: Utf8PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is right.
    Check,
}

#[derive(Debug, Args)]
struct EnrollArgs {
    /// Of the control plane; that of the configuration where missing.
    #[arg(long)]
    url: Option<String>,
    /// A file with the join token; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    join_token_file: Utf8PathBuf,
    /// What the control plane calls this host; its host name where missing.
    #[arg(long)]
    name: Option<String>,
    /// Separated by commas.
    #[arg(long, value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// Throw the identity of before away and make a new key.
    #[arg(long)]
    again: bool,
}

/// What went wrong before there was anything to run.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Settings(#[from] daemon::SettingsError),
    #[error("the configuration is wrong")]
    Config(#[from] ConfigError),
    #[error("cannot log")]
    Log(#[source] logging::LogError),
    #[error("cannot start a runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot read the join token in `{path}`")]
    JoinToken {
        path: Utf8PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Transport(#[from] crate::transport::TransportError),
    #[error(transparent)]
    Enrol(#[from] crate::enrol::EnrolError),
    #[error(transparent)]
    Start(#[from] app::StartError),
    #[error(transparent)]
    Pages(#[from] pages::PagesError),
    #[error("delegate-agent makes no token for the first administrator")]
    AdminToken(#[source] local_rpc::ClientError),
    #[error(transparent)]
    Admin(#[from] admin::CommandError),
    #[error(transparent)]
    Passed(#[from] daemon::ActivationError),
}

impl Hint for CliError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Log(error) => error.hint(),
            Self::Runtime(_) | Self::Pages(_) => None,
            Self::JoinToken { .. } => Some(
                "put what `gitspace join-token create` printed into a file that only you can read"
                    .to_owned(),
            ),
            Self::Transport(error) => error.hint(),
            Self::Enrol(error) => error.hint(),
            Self::Start(error) => error.hint(),
            Self::AdminToken(_) => Some("systemctl status delegate-agent".to_owned()),
            Self::Admin(error) => error.hint(),
            Self::Passed(error) => error.hint(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Settings(error) => error.exit(),
            Self::Config(error) => error.exit(),
            Self::Log(error) => error.exit(),
            Self::Runtime(_) | Self::Pages(_) => Exit::Failure,
            Self::JoinToken { .. } => Exit::Usage,
            Self::Transport(error) => error.exit(),
            Self::Enrol(error) => error.exit(),
            Self::Start(error) => error.exit(),
            Self::AdminToken(_) => Exit::Unavailable,
            Self::Admin(error) => error.exit(),
            Self::Passed(error) => error.exit(),
        }
    }
}

/// Does what the command line says.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let path = cli.config.as_deref();
    let done = match cli.command.unwrap_or(Command::Run) {
        Command::Run => serve(path),
        Command::Enroll(args) => enroll(path, args),
        Command::AdminToken => admin_token(path),
        Command::Doctor { output } => doctor(path, output),
        Command::Admin(command) => admin_command(path, command),
        Command::Config(ConfigCommand::Check) => check(path),
        Command::Pages { dir } => {
            pages::write(Cli::command(), pages::Section::SystemAdministration, &dir)
                .map(|()| ExitCode::SUCCESS)
                .map_err(CliError::from)
        }
    };
    done.unwrap_or_else(|error| report(&error))
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
    let log = logging::init(&loaded.value.log, "delegate-agent").map_err(CliError::Log)?;
    loaded.log();
    let config_files = loaded.files.clone();
    let config = loaded.value.check()?;
    let sources = Sources {
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        proxy_env: ProxyEnv::of_process(),
        sockets: PassedSockets::of_process()?,
        log: log.clone(),
        config_files,
    };
    let path = path.map(Utf8Path::to_owned);
    runtime()?.block_on(async {
        let mut lifecycle = Lifecycle::new(GRACE);
        lifecycle.on_reload(move || reload(path.clone(), log.clone()));
        Box::pin(app::start(config, sources, &lifecycle)).await?;
        Ok(lifecycle.run().await)
    })
}

/// What can change while the daemon runs: its log filter. The rest is checked, so that the next start does not fail.
async fn reload(path: Option<Utf8PathBuf>, log: logging::LogHandle) -> Reloaded {
    let loaded = tokio::task::spawn_blocking(move || load(path.as_deref())).await??;
    let settings = loaded.value;
    let filter = settings.log.filter().to_owned();
    settings.check()?;
    log.set_filter(&filter)?;
    Ok(format!(
        "log filter `{filter}`; what else has changed is taken at the next start"
    ))
}

fn enroll(path: Option<&Utf8Path>, args: EnrollArgs) -> Result<ExitCode, CliError> {
    let mut settings = load(path)?.value;
    settings.control_plane_url = args.url.or(settings.control_plane_url);
    settings.name = args.name.or(settings.name);
    settings.tags = args.tags.unwrap_or(settings.tags);
    let config: Config = settings.check()?;
    let join_token = read_token(&args.join_token_file).map_err(|source| CliError::JoinToken {
        path: args.join_token_file.clone(),
        source,
    })?;
    let transport = Transport::new(
        config.control_plane_url.clone(),
        config.proxy.clone(),
        &ProxyEnv::of_process(),
        config.ca_file.as_deref(),
    )?;
    let file = IdentityFile::new(config.state_dir.clone());
    let enrolment = Enrolment {
        transport: &transport,
        file: &file,
        name: &config.name,
        tags: &config.tags,
        join_token,
        again: args.again,
    };
    runtime()?.block_on(enrol(enrolment, &SystemClock, say))?;
    Ok(ExitCode::SUCCESS)
}

fn doctor(path: Option<&Utf8Path>, output: admin::Output) -> Result<ExitCode, CliError> {
    let config = load(path)?.value.check()?;
    let checks = runtime()?.block_on(doctor::examine(
        &config,
        &ProxyEnv::of_process(),
        &SystemClock,
    ));
    Ok(admin::doctor(checks, output))
}

fn admin_command(path: Option<&Utf8Path>, command: admin::Command) -> Result<ExitCode, CliError> {
    let config = load(path)?.value.check()?;
    let at = admin::RunAdmin {
        daemon: "delegate-agent",
        socket: &config.admin_socket,
    };
    Ok(runtime()?.block_on(admin::run(command, at))?)
}

fn admin_token(path: Option<&Utf8Path>) -> Result<ExitCode, CliError> {
    let config = load(path)?.value.check()?;
    let made: AdminTokenFile = runtime()?
        .block_on(local_rpc::Client::new(&config.admin_socket).post("/admin-token", &()))
        .map_err(CliError::AdminToken)?;
    say(made.file.as_str());
    Ok(ExitCode::SUCCESS)
}

/// What `POST /admin-token` answers.
#[derive(Debug, Deserialize)]
struct AdminTokenFile {
    file: Utf8PathBuf,
}

fn check(path: Option<&Utf8Path>) -> Result<ExitCode, CliError> {
    let loaded = load(path)?;
    for file in &loaded.files {
        say(&format!("read {file}"));
    }
    for key in &loaded.unknown_keys {
        say(&format!("warning: unknown key `{key}` is ignored"));
    }
    let config = loaded.value.check()?;
    // The embedded control plane is reached without either.
    if config.embedded.is_none() {
        Transport::new(
            config.control_plane_url.clone(),
            config.proxy.clone(),
            &ProxyEnv::of_process(),
            config.ca_file.as_deref(),
        )?;
    }
    say(&format!(
        "ok: `{}` connects to {}",
        config.name, config.control_plane_url
    ));
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
}

fn read_token(path: &Utf8Path) -> std::io::Result<Secret> {
    use std::io::Read as _;
    let mut text = String::new();
    if path == "-" {
        std::io::stdin()
            .take(MAX_TOKEN_FILE)
            .read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?
            .take(MAX_TOKEN_FILE)
            .read_to_string(&mut text)?;
    }
    Ok(Secret::new(text.trim()))
}

/// One line to whoever ran the command. Where nobody reads, the exit code is all that is left to say.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
