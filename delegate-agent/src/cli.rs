//! The command line.

use crate::{
    VERSION,
    app::{self, Sources},
    config::{ADMIN_SOCKET, Config, ConfigError, Settings},
    doctor,
    enrol::{Enrolment, enrol},
    identity::IdentityFile,
    rotate::{RotateError, Rotated, Rotation},
    state_folder::{self, StateFolderError},
    transport::{ProxyEnv, Transport, TransportError},
};
use admin::{Program, ProgramError, RuntimeError};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Parser, Subcommand};
use daemon::{
    Clock, CredentialError, Credentials, Exit, Hint, PassedSockets, RandomIds, SystemClock, Wrong,
    logging::LogConfig,
};
use std::{process::ExitCode, sync::Arc, time::Duration};
use wire::secret::Secret;

/// For tasks to hand over what they hold.
const GRACE: Duration = Duration::from_secs(20);
/// Credential with which a host enrols itself at its first start.
const JOIN_TOKEN: &str = "join-token";
/// Credential of the proxy's user.
const PROXY_PASSWORD: &str = "proxy-password";
/// It asks the control plane four times.
const ROTATION_LIMIT: Duration = Duration::from_secs(150);
/// A join token is one line.
const MAX_TOKEN_FILE: u64 = 4096;

/// Connects this host to its Gitspaces control plane.
///
/// Exit codes: 0 done, or stopped when told to; 1 failed; 64 wrong command line; 69 something it needs is not there, or its state folder is in
/// use; 75 try again later; 77
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
    /// Register this host at a control plane with a join token. Exit code 69 while the daemon runs.
    Enroll(EnrollArgs),
    /// Find what is wrong on this host: every step to a running delegate is tried, and nothing changed.
    Doctor {
        #[arg(short, long, value_enum, default_value_t)]
        output: admin::Output,
    },
    /// Make a new key and end the one in use. A running delegate does it without dropping its link.
    ///
    /// Killed at any moment, the host still gets in; run it again to finish.
    Rotate {
        #[arg(short, long, value_enum, default_value_t)]
        output: admin::Output,
    },
    /// Probe the way from here to the control plane and into this host's gitspaces: each part with its time.
    ///
    /// Exit code 75 where a part of the host's way is broken. A silent agent is its gitspace's matter: it is shown, and the code is 0.
    Probe {
        #[arg(short, long, value_enum, default_value_t)]
        output: admin::Output,
    },
    /// Make a token for the first administrator of the control plane that the daemon embeds, and print the file it lies in.
    ///
    /// It holds for a day, in place of the one before; `gitspace login --token-file` exchanges it for one to keep.
    AdminToken,
    #[command(flatten)]
    Drain(admin::DrainBy),
    #[command(flatten)]
    Link(admin::Link),
    #[command(flatten)]
    Common(admin::Common),
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
    /// Make a new key. It takes the place of the identity of before once the control plane has taken it.
    #[arg(long)]
    again: bool,
}

/// Why the settings are not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl Refusal {
    fn inner(&self) -> &dyn Hint {
        match self {
            Self::Config(error) => error,
            Self::Transport(error) => error,
            Self::Credential(error) => error,
        }
    }
}

impl Hint for Refusal {
    fn hint(&self) -> Option<String> {
        self.inner().hint()
    }

    fn exit(&self) -> Exit {
        self.inner().exit()
    }
}

/// A file that cannot be read, or standard input that cannot.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the join token in `{path}`")]
pub struct JoinTokenError {
    path: Utf8PathBuf,
    #[source]
    source: std::io::Error,
}

impl Hint for JoinTokenError {
    fn hint(&self) -> Option<String> {
        Some(
            "put what `gitspace join-token create` printed into a file that only you can read"
                .to_owned(),
        )
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// What went wrong before there was anything to run.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Program(#[from] ProgramError<Refusal>),
    #[error("the configuration is wrong")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    JoinToken(#[from] JoinTokenError),
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Enrol(#[from] crate::enrol::EnrolError),
    #[error(transparent)]
    Rotate(#[from] RotateError),
    #[error(transparent)]
    StateFolder(#[from] StateFolderError),
    #[error(transparent)]
    Start(#[from] app::StartError),
    #[error(transparent)]
    Passed(#[from] daemon::ActivationError),
}

impl CliError {
    fn inner(&self) -> &dyn Hint {
        match self {
            Self::Program(error) => error,
            Self::Config(error) => error,
            Self::Runtime(error) => error,
            Self::JoinToken(error) => error,
            Self::Refusal(error) => error,
            Self::Credential(error) => error,
            Self::Enrol(error) => error,
            Self::Rotate(error) => error,
            Self::StateFolder(error) => error,
            Self::Start(error) => error,
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
///
/// # Errors
/// See [`CliError`].
pub fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let path = cli.config.as_deref();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => serve(path),
        Command::Enroll(args) => enroll(path, args),
        Command::Doctor { output } => doctor(path, output),
        Command::Rotate { output } => rotate(path, output),
        Command::Probe { output } => Ok(admin::probe::<Settings>(path, output)?),
        Command::AdminToken => Ok(admin::admin_token::<Settings>(path)?),
        Command::Drain(command) => Ok(admin::ask_admin::<Settings>(command, path)?),
        Command::Link(command) => Ok(admin::ask_admin::<Settings>(command, path)?),
        Command::Common(command) => Ok(admin::common::<Settings, Cli>(command, path)?),
    }
}

impl Program for Settings {
    const NAME: &'static str = "delegate-agent";
    const CONFIG: &'static str = "/etc/gitspaces/delegate-agent.toml";
    const ENV_PREFIX: &'static str = "GITSPACES_DELEGATE";
    type Refusal = Refusal;

    fn admin_socket(&self) -> Utf8PathBuf {
        self.admin_socket
            .clone()
            .unwrap_or_else(|| ADMIN_SOCKET.into())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn examine(self) -> Result<String, Wrong<Refusal>> {
        let config = self
            .check_all(&Credentials::of_command())
            .map_err(|wrong| wrong.map(Refusal::from))?;
        // The embedded control plane is reached without either.
        if config.embedded.is_none() {
            transport(&config)?;
        }
        Ok(format!(
            "`{}` connects to {}",
            config.name, config.control_plane_url
        ))
    }
}

fn serve(path: Option<&Utf8Path>) -> Result<ExitCode, CliError> {
    let loaded = admin::load::<Settings>(path)?;
    let log = admin::log(&loaded)?;
    let config_files = loaded.files.clone();
    let credentials = Credentials::of_process();
    let config = loaded.value.check(&credentials)?;
    let sources = Sources {
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        proxy_env: proxy_env(&credentials)?,
        join_token: credentials.get(JOIN_TOKEN)?,
        sockets: PassedSockets::of_process()?,
        log: log.clone(),
        config_files,
    };
    admin::runtime()?.block_on(async {
        let mut lifecycle = admin::lifecycle::<Settings>(GRACE, path, &log);
        let started = Box::pin(app::start(config, sources, &lifecycle)).await?;
        if let Some(certificate) = started.certificate.clone() {
            lifecycle.on_reload(move || certificate.reload());
        }
        Ok(lifecycle.run().await)
    })
}

fn enroll(path: Option<&Utf8Path>, args: EnrollArgs) -> Result<ExitCode, CliError> {
    let mut settings = admin::load::<Settings>(path)?.value;
    settings.control_plane_url = args.url.or(settings.control_plane_url);
    settings.name = args.name.or(settings.name);
    settings.tags = args.tags.unwrap_or(settings.tags);
    let config: Config = settings.check(&Credentials::of_command())?;
    let join_token = read_token(&args.join_token_file).map_err(|source| JoinTokenError {
        path: args.join_token_file.clone(),
        source,
    })?;
    let transport = transport(&config)?;
    let _lock = state_folder::take(&config.state_dir)?;
    let file = IdentityFile::new(config.state_dir.clone());
    let enrolment = Enrolment {
        transport: &transport,
        file: &file,
        name: &config.name,
        tags: &config.tags,
        join_token,
        again: args.again,
    };
    admin::runtime()?.block_on(enrol(enrolment, &SystemClock, admin::say))?;
    Ok(ExitCode::SUCCESS)
}

fn rotate(path: Option<&Utf8Path>, output: admin::Output) -> Result<ExitCode, CliError> {
    let step = |step: &str| {
        if output == admin::Output::Text {
            admin::say(step);
        }
    };
    let rotated: Rotated = match admin::ask_daemon::<Settings, _>(path, "/rotate", ROTATION_LIMIT)?
    {
        Some(rotated) => rotated,
        // No daemon has the identity in use.
        None => {
            let settings = admin::load::<Settings>(path)?.value;
            let config = settings.check(&Credentials::of_command())?;
            let transport = transport(&config)?;
            // One that serves another socket has it in use all the same.
            let _lock = state_folder::take(&config.state_dir)?;
            let rotation = Rotation {
                transport: &transport,
                file: &IdentityFile::new(config.state_dir),
                in_use: None,
                link: None,
            };
            admin::runtime()?.block_on(rotation.run(&SystemClock, step))?
        }
    };
    match output {
        admin::Output::Text => admin::say(&format!(
            "the key {} is in use; {} has ended",
            rotated.key.fingerprint, rotated.ended
        )),
        admin::Output::Json => admin::say_json(&rotated),
    }
    Ok(ExitCode::SUCCESS)
}

fn doctor(path: Option<&Utf8Path>, output: admin::Output) -> Result<ExitCode, CliError> {
    let credentials = Credentials::of_command();
    let config = admin::load::<Settings>(path)?.value.check(&credentials)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let checks = admin::runtime()?.block_on(doctor::examine(
        &config,
        &proxy_env(&credentials)?,
        credentials.get(JOIN_TOKEN)?.is_some(),
        &clock,
    ));
    Ok(admin::doctor(checks, output))
}

fn transport(config: &Config) -> Result<Transport, Refusal> {
    Ok(Transport::new(
        config.control_plane_url.clone(),
        config.proxy.clone(),
        &proxy_env(&Credentials::of_command())?,
        config.trusted().as_deref(),
    )?)
}

fn proxy_env(credentials: &Credentials) -> Result<ProxyEnv, CredentialError> {
    let password = credentials.get(PROXY_PASSWORD)?;
    Ok(ProxyEnv::of_process().with_password(password))
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
