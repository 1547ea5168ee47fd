//! The sub-commands that speak to a running daemon: the same of every daemon.

use crate::{Check, DrainRequest, DrainState, LogLevel, Readiness, http_body::MAX_ANSWER, words};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Subcommand, ValueEnum};
use daemon::{Exit, Hint};
use http::StatusCode;
use local_rpc::{Client, ClientError};
use serde::Serialize;
use serde_json::Value;
use std::{
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::ExitCode,
    time::Duration,
};

/// A check may wait for something that does not answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longer than the checks of `readyz` take, each of which has a limit of its own.
const LOOK_LIMIT: Duration = Duration::from_secs(12);
/// Between looks at a drain that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// What every daemon answers.
#[derive(Clone, Debug, Subcommand)]
pub enum Look {
    /// Show what the daemon is doing.
    Status {
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Say whether the daemon is ready, with every check. Exit code 75 where it is not, 69 where it does not answer.
    Health {
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show the tasks it holds.
    Tasks {
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print its metrics, as Prometheus reads them.
    Metrics,
    /// Show or change the log filter, until the next restart.
    LogLevel {
        /// As `debug` or `warn,link=debug`.
        filter: Option<String>,
    },
    /// Write a tar file for whoever helps you; it holds no secret.
    SupportBundle {
        /// Made with mode 0600; it must not exist.
        #[arg(long, value_name = "FILE")]
        output: Utf8PathBuf,
    },
}

/// Of a daemon that takes nothing more when told so, and hands back what does not end in time.
#[derive(Clone, Debug, Subcommand)]
pub enum DrainBy {
    /// Take nothing more; what runs may finish. Kept over a restart, until `undrain`. With --wait, exit code 75 where it was taken back meanwhile.
    Drain {
        /// After so many seconds, what still runs is handed back.
        #[arg(long, value_name = "SECONDS")]
        deadline: Option<u64>,
        /// Come back when nothing is left.
        #[arg(long)]
        wait: bool,
    },
    /// Take work again.
    Undrain,
}

/// Of a daemon that takes nothing more when told so, and has nobody to hand tasks back to.
#[derive(Clone, Debug, Subcommand)]
pub enum Drain {
    /// Take nothing more; what runs may finish. Kept over a restart, until `undrain`. With --wait, exit code 75 where it was taken back meanwhile.
    Drain {
        /// Come back when nothing is left.
        #[arg(long)]
        wait: bool,
    },
    /// Take work again.
    Undrain,
}

/// Of a daemon with a link to the control plane.
#[derive(Clone, Debug, Subcommand)]
pub enum Link {
    /// Make the link to the control plane anew.
    Reconnect,
}

/// What can be asked of a running daemon. Which of it a daemon has is said by the sub-commands that it offers.
#[derive(Clone, Debug)]
pub enum Command {
    Look(Look),
    Drain { deadline_s: Option<u64>, wait: bool },
    Undrain,
    Reconnect,
}

impl From<Look> for Command {
    fn from(look: Look) -> Self {
        Self::Look(look)
    }
}

impl From<DrainBy> for Command {
    fn from(drain: DrainBy) -> Self {
        match drain {
            DrainBy::Drain { deadline, wait } => Self::Drain {
                deadline_s: deadline,
                wait,
            },
            DrainBy::Undrain => Self::Undrain,
        }
    }
}

impl From<Drain> for Command {
    fn from(drain: Drain) -> Self {
        match drain {
            Drain::Drain { wait } => Self::Drain {
                deadline_s: None,
                wait,
            },
            Drain::Undrain => Self::Undrain,
        }
    }
}

impl From<Link> for Command {
    fn from(link: Link) -> Self {
        match link {
            Link::Reconnect => Self::Reconnect,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{daemon} does not answer on its admin socket")]
    Unreachable {
        daemon: &'static str,
        #[source]
        source: ClientError,
    },
    #[error("{daemon} refuses")]
    Refused {
        daemon: &'static str,
        #[source]
        source: ClientError,
    },
    #[error("{daemon} does not say whether it is ready")]
    Unclear {
        daemon: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot write `{path}`")]
    Write {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

impl CommandError {
    /// Of a call that failed: nobody answered, or the answer is a refusal.
    pub(crate) fn of_call(daemon: &'static str, source: ClientError) -> Self {
        if source.status().is_some() {
            Self::Refused { daemon, source }
        } else {
            Self::Unreachable { daemon, source }
        }
    }
}

impl CommandError {
    /// Whether there is no daemon that could answer.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Unreachable { source: ClientError::Connect { source, .. }, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
    }
}

impl Hint for CommandError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { daemon, source } => Some(match source {
                _ if is_denied(source) => {
                    format!(
                        "run it as root, or as a member of the admin socket's group (`{daemon}`'s)"
                    )
                }
                ClientError::Timeout { .. } => format!(
                    "it takes connections and hangs; its service manager replaces it, or `systemctl restart {daemon}` does"
                ),
                _ => {
                    // The two that others stand on look at their host, too.
                    let look = match *daemon {
                        "delegate-agent" | "runner-agent" => "doctor",
                        _ => "config check",
                    };
                    format!("is it running? see `systemctl status {daemon}` and `{daemon} {look}`")
                }
            }),
            Self::Unclear { daemon, .. } => Some(format!(
                "is `{daemon}` of another version than this command? see `{daemon} --version`"
            )),
            Self::Refused { source, .. } => {
                source.problem().and_then(|problem| problem.hint.clone())
            }
            Self::Write { source, .. } => (source.kind() == io::ErrorKind::AlreadyExists)
                .then(|| "name a file that does not exist yet".to_owned()),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { source, .. } if is_denied(source) => Exit::Refused,
            Self::Unreachable { .. } => Exit::Unavailable,
            Self::Refused { source, .. } if source.status() == Some(StatusCode::FORBIDDEN) => {
                Exit::Refused
            }
            Self::Refused { .. } | Self::Unclear { .. } | Self::Write { .. } => Exit::Failure,
        }
    }
}

/// The socket's file mode keeps the caller out.
fn is_denied(error: &ClientError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if one
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        {
            return true;
        }
        cause = one.source();
    }
    false
}

/// Where the daemon is.
#[derive(Clone, Copy, Debug)]
pub struct RunAdmin<'a> {
    /// As its binary is called.
    pub daemon: &'static str,
    pub socket: &'a Utf8Path,
}

/// Carries a sub-command out.
///
/// # Errors
/// See [`CommandError`].
pub async fn run(command: Command, at: RunAdmin<'_>) -> Result<ExitCode, CommandError> {
    let caller = Caller {
        daemon: at.daemon,
        client: Client::new(at.socket)
            .with_deadline(command.limit())
            .with_max_response(MAX_ANSWER),
    };
    match command {
        Command::Look(look) => caller.look(look).await,
        Command::Drain { deadline_s, wait } => {
            let request = DrainRequest { deadline_s };
            let state: DrainState = caller.post("/drain", &request).await?;
            caller.drained(state, wait).await
        }
        Command::Undrain => {
            let state: DrainState = caller.post("/undrain", &Value::Null).await?;
            caller.drained(state, false).await
        }
        Command::Reconnect => {
            let _: Option<Value> = caller.post("/reconnect", &Value::Null).await?;
            say("reconnecting; `status` shows what comes of it\n");
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Command {
    /// How long an answer is waited for. A daemon that hangs is told soon from one that is busy.
    const fn limit(&self) -> Duration {
        match self {
            Self::Look(
                Look::Status { .. }
                | Look::Tasks { .. }
                | Look::Health { .. }
                | Look::Metrics
                | Look::LogLevel { .. },
            )
            | Self::Reconnect => LOOK_LIMIT,
            Self::Look(Look::SupportBundle { .. }) | Self::Drain { .. } | Self::Undrain => {
                ANSWER_LIMIT
            }
        }
    }
}

/// Prints the checks that a `doctor` made; fails with [`Exit::Unavailable`] where one of them is fatal.
#[must_use]
pub fn doctor(checks: Vec<Check>, output: Output) -> ExitCode {
    report_readiness(&Readiness::of(checks), output, Exit::Unavailable)
}

fn report_readiness(readiness: &Readiness, output: Output, otherwise: Exit) -> ExitCode {
    match output {
        Output::Text => say(&words::checks(&readiness.checks)),
        Output::Json => say_json(readiness),
    }
    if readiness.ready {
        ExitCode::SUCCESS
    } else {
        otherwise.into()
    }
}

struct Caller {
    daemon: &'static str,
    client: Client,
}

impl Caller {
    fn fail(&self, source: ClientError) -> CommandError {
        CommandError::of_call(self.daemon, source)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.client
            .get(path)
            .await
            .map_err(|source| self.fail(source))
    }

    async fn bytes(&self, path: &str) -> Result<Vec<u8>, CommandError> {
        self.client
            .fetch(path, &[])
            .await
            .map(|bytes| bytes.to_vec())
            .map_err(|source| self.fail(source))
    }

    async fn post<B, T>(&self, path: &str, body: &B) -> Result<T, CommandError>
    where
        B: Serialize + Sync,
        T: serde::de::DeserializeOwned,
    {
        self.client
            .post(path, body)
            .await
            .map_err(|source| self.fail(source))
    }

    async fn look(&self, look: Look) -> Result<ExitCode, CommandError> {
        match look {
            Look::Status { output } => return self.show("/status", output).await,
            Look::Tasks { output } => return self.show("/tasks", output).await,
            Look::Health { output } => return self.health(output).await,
            Look::Metrics => say(&String::from_utf8_lossy(&self.bytes("/metrics").await?)),
            Look::LogLevel { filter: None } => {
                let level: LogLevel = self.get("/log-level").await?;
                say(&format!("{}\n", level.filter));
            }
            Look::LogLevel {
                filter: Some(filter),
            } => {
                let level: LogLevel = self
                    .client
                    .put("/log-level", &LogLevel { filter })
                    .await
                    .map_err(|source| self.fail(source))?;
                say(&format!("{}\n", level.filter));
            }
            Look::SupportBundle { output } => {
                let bytes = self.bytes("/support-bundle").await?;
                write_new(&output, &bytes).map_err(|source| CommandError::Write {
                    path: output.clone(),
                    source,
                })?;
                say(&format!("wrote {output} ({} bytes)\n", bytes.len()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn show(&self, path: &str, output: Output) -> Result<ExitCode, CommandError> {
        let value: Value = self.get(path).await?;
        match output {
            Output::Text => say(&words::value(&value)),
            Output::Json => say_json(&value),
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn health(&self, output: Output) -> Result<ExitCode, CommandError> {
        // Not ready is an answer, too.
        let bytes = self
            .client
            .fetch("/readyz", &[StatusCode::SERVICE_UNAVAILABLE])
            .await
            .map_err(|source| self.fail(source))?;
        let readiness: Readiness =
            serde_json::from_slice(&bytes).map_err(|source| CommandError::Unclear {
                daemon: self.daemon,
                source,
            })?;
        Ok(report_readiness(&readiness, output, Exit::TryAgain))
    }

    async fn drained(&self, state: DrainState, wait: bool) -> Result<ExitCode, CommandError> {
        let mut state = state;
        say(&words::drain(state));
        while wait && state.draining && state.left > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            let next: DrainState = self.get("/drain").await?;
            if next != state {
                say(&words::drain(next));
            }
            state = next;
        }
        // Somebody may have taken the drain back meanwhile: who waits must not take that for an empty host.
        if wait && !state.is_drained() {
            return Ok(Exit::TryAgain.into());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write_new(path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // A part of it is in the way of the next try.
        drop(std::fs::remove_file(path));
    }
    written
}

/// A value to whoever ran the command.
pub fn say_json<T: Serialize>(value: &T) {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    say(&format!("{}\n", wire::shown::json(&text)));
}

/// Where nobody reads, the exit code is all that is left to say.
fn say(text: &str) {
    drop(io::stdout().write_all(text.as_bytes()));
}
