//! The command line of a daemon, as far as it is the same of all.

use crate::{
    call,
    command::{self, CommandError, Output, RunAdmin},
    examine,
};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{CommandFactory, Parser, Subcommand};
use daemon::{
    Exit, Hint, Lifecycle, Loaded, Loader, Reloaded, SettingsError, Wrong,
    logging::{self, LogConfig, LogError, LogHandle},
};
use local_rpc::BindError;
use serde::de::DeserializeOwned;
use std::{
    error::Error,
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};

/// What the command line has to know of a daemon: its settings, as they are written in the file.
pub trait Program: DeserializeOwned + Send + 'static {
    /// As its binary is called.
    const NAME: &'static str;
    /// The configuration that is read where nobody names another; it may be missing.
    const CONFIG: &'static str;
    /// Of environment variables that override single keys.
    const ENV_PREFIX: &'static str;
    /// Why the settings are not taken.
    type Refusal: Hint + Send + Sync;

    fn admin_socket(&self) -> Utf8PathBuf;

    fn log(&self) -> &LogConfig;

    /// Whether a start would take them; nothing is opened or changed. The answer tells a person what they come to.
    ///
    /// # Errors
    /// Says all that a start would refuse, as far as one thing does not hide another.
    fn examine(self) -> Result<String, Wrong<Self::Refusal>>;
}

/// Sub-commands of every daemon.
#[derive(Clone, Debug, Subcommand)]
pub enum Common {
    /// Of the running daemon.
    #[command(flatten)]
    Look(command::Look),
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
pub enum ConfigCommand {
    /// Read the configuration, say all that is wrong with it, and change nothing. Exit code 78 where a start would refuse it.
    Check {
        /// Refuse unknown keys, too; a start only warns of them.
        #[arg(long)]
        strict: bool,
    },
}

/// What ends a sub-command that all daemons have. `R` is the daemon's [`Program::Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum ProgramError<R: Error + 'static> {
    #[error(transparent)]
    Settings(SettingsError),
    #[error("the configuration is wrong")]
    Refused(#[source] R),
    #[error(transparent)]
    Log(LogError),
    #[error(transparent)]
    Runtime(RuntimeError),
    #[error(transparent)]
    Command(CommandError),
    #[error(transparent)]
    Pages(pages::PagesError),
}

impl<R: Hint> ProgramError<R> {
    fn inner(&self) -> &dyn Hint {
        match self {
            Self::Settings(error) => error,
            Self::Refused(error) => error,
            Self::Log(error) => error,
            Self::Runtime(error) => error,
            Self::Command(error) => error,
            Self::Pages(error) => error,
        }
    }
}

impl<R: Hint> Hint for ProgramError<R> {
    fn hint(&self) -> Option<String> {
        self.inner().hint()
    }

    fn exit(&self) -> Exit {
        self.inner().exit()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot start a runtime")]
pub struct RuntimeError(#[source] io::Error);

impl Hint for RuntimeError {}

#[derive(Debug, thiserror::Error)]
#[error("cannot serve the admin socket")]
pub struct AdminSocketError(#[source] pub BindError);

impl Hint for AdminSocketError {
    fn hint(&self) -> Option<String> {
        self.0.hint()
    }

    fn exit(&self) -> Exit {
        Exit::Unavailable
    }
}

/// A daemon's `main`: does what the command line says, and puts its end into words and an exit code.
pub fn main<C: Parser, E: Hint>(run: impl FnOnce(C) -> Result<ExitCode, E>) -> ExitCode {
    match parse(std::env::args_os()) {
        Ok(cli) => run(cli).unwrap_or_else(|error| daemon::report(&error)),
        Err(code) => code,
    }
}

/// Usage errors have a code of their own; `--help` and `--version` are none.
fn parse<C: Parser>(line: impl IntoIterator<Item = OsString>) -> Result<C, ExitCode> {
    C::try_parse_from(line).map_err(|error| {
        // Where the output is gone, the code is all that is left to say.
        drop(error.print());
        if error.use_stderr() {
            Exit::Usage.into()
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// Reads the configuration. A file that somebody named must exist; the default need not.
///
/// # Errors
/// It cannot be read, or is not understood.
pub fn load<P: Program>(path: Option<&Utf8Path>) -> Result<Loaded<P>, ProgramError<P::Refusal>> {
    loader::<P>(path).load().map_err(ProgramError::Settings)
}

pub(crate) fn loader<P: Program>(path: Option<&Utf8Path>) -> Loader {
    let loader = match path {
        Some(path) => Loader::new(path),
        None => Loader::new(P::CONFIG).optional(),
    };
    loader.env_prefix(P::ENV_PREFIX)
}

/// Sets logging up, and says in it what was loaded.
///
/// # Errors
/// The filter is not understood, or there is no journal.
pub fn log<P: Program>(loaded: &Loaded<P>) -> Result<LogHandle, ProgramError<P::Refusal>> {
    let log = logging::init(loaded.value.log(), P::NAME).map_err(ProgramError::Log)?;
    loaded.log();
    Ok(log)
}

/// Turns of tasks after which a thread that is never idle looks for what came. Tokio's own, 61, is meant for turns of microseconds: those that move bulk
/// take a hundred, and whoever asks for little waits for all of them.
const EVENT_INTERVAL: u32 = 8;

/// # Errors
/// The kernel refuses threads or descriptors.
pub fn runtime() -> Result<Runtime, RuntimeError> {
    Builder::new_multi_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()
        .map_err(RuntimeError)
}

/// Does what a sub-command of every daemon says; `C` is the whole command line, for its man pages.
///
/// # Errors
/// See [`ProgramError`].
pub fn common<P: Program, C: CommandFactory>(
    command: Common,
    path: Option<&Utf8Path>,
) -> Result<ExitCode, ProgramError<P::Refusal>> {
    match command {
        Common::Look(look) => ask_admin::<P>(look, path),
        Common::Config(ConfigCommand::Check { strict }) => Ok(examine::check::<P>(path, strict)),
        Common::Pages { dir } => {
            pages::write(C::command(), pages::Section::SystemAdministration, &dir)
                .map_err(ProgramError::Pages)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Carries out what the admin socket of the running daemon is for.
///
/// # Errors
/// See [`ProgramError`].
pub fn ask_admin<P: Program>(
    command: impl Into<command::Command>,
    path: Option<&Utf8Path>,
) -> Result<ExitCode, ProgramError<P::Refusal>> {
    let socket = load::<P>(path)?.value.admin_socket();
    runtime()
        .map_err(ProgramError::Runtime)?
        .block_on(command::run(command.into(), at::<P>(&socket)))
        .map_err(ProgramError::Command)
}

/// `admin-token`, of the daemons that have a control plane: asks the running one, and prints the file that the token lies in.
///
/// # Errors
/// See [`ProgramError`].
pub fn admin_token<P: Program>(
    path: Option<&Utf8Path>,
) -> Result<ExitCode, ProgramError<P::Refusal>> {
    let socket = load::<P>(path)?.value.admin_socket();
    let file = runtime()
        .map_err(ProgramError::Runtime)?
        .block_on(call::admin_token(at::<P>(&socket)))
        .map_err(ProgramError::Command)?;
    say(file.as_str());
    Ok(ExitCode::SUCCESS)
}

/// A call that this daemon alone answers. `None` where none runs.
///
/// # Errors
/// See [`ProgramError`].
pub fn ask_daemon<P: Program, T: DeserializeOwned>(
    path: Option<&Utf8Path>,
    route: &str,
    limit: Duration,
) -> Result<Option<T>, ProgramError<P::Refusal>> {
    let socket = load::<P>(path)?.value.admin_socket();
    let answer = runtime()
        .map_err(ProgramError::Runtime)?
        .block_on(call::post(at::<P>(&socket), route, limit));
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(ProgramError::Command(error)),
    }
}

/// Probes the way from a running daemon in both directions, and prints each part. Exit code 75 where a part of the host's way is broken; a
/// silent agent is its gitspace's matter, and only shown.
///
/// # Errors
/// See [`ProgramError`].
pub fn probe<P: Program>(
    path: Option<&Utf8Path>,
    output: Output,
) -> Result<ExitCode, ProgramError<P::Refusal>> {
    let socket = load::<P>(path)?.value.admin_socket();
    let report = runtime()
        .map_err(ProgramError::Runtime)?
        .block_on(call::probe(at::<P>(&socket)))
        .map_err(ProgramError::Command)?;
    match output {
        Output::Text => say(report.to_string().trim_end()),
        Output::Json => command::say_json(&report),
    }
    Ok(match report.broken_at() {
        None => ExitCode::SUCCESS,
        Some(_) => Exit::TryAgain.into(),
    })
}

const fn at<P: Program>(socket: &Utf8Path) -> RunAdmin<'_> {
    RunAdmin {
        daemon: P::NAME,
        socket,
    }
}

/// Of a daemon that reads its configuration again on SIGHUP.
#[must_use]
pub fn lifecycle<P: Program>(
    grace: Duration,
    path: Option<&Utf8Path>,
    log: &LogHandle,
) -> Lifecycle {
    let mut lifecycle = Lifecycle::new(grace);
    let (path, log) = (path.map(Utf8Path::to_owned), log.clone());
    lifecycle.on_reload(move || reload::<P>(path.clone(), log.clone()));
    lifecycle
}

/// What can change while a daemon runs: its log filter. The rest is checked, so that the next start does not fail. Where the configuration is
/// wrong, everything stays as it is.
async fn reload<P: Program>(path: Option<Utf8PathBuf>, log: LogHandle) -> Reloaded {
    let config = tokio::task::spawn_blocking(move || {
        let settings = load::<P>(path.as_deref())?.value;
        let config = settings.log().clone();
        settings
            .examine()
            .map_err(|wrong| ProgramError::Refused(wrong.first))?;
        Ok::<_, ProgramError<P::Refusal>>(config)
    })
    .await??;
    let filter = log.reload(&config)?;
    Ok(format!(
        "log filter `{filter}`; what else has changed is taken at the next start"
    ))
}

/// One line to whoever ran the command. Where nobody reads, the exit code is all that is left to say.
pub fn say(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use local_rpc::ClientError;
    use serde::Deserialize;

    #[derive(Debug, Parser)]
    pub(crate) struct Line {
        #[command(subcommand)]
        pub(crate) command: Common,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    pub(crate) struct Settings {
        admin_socket: Utf8PathBuf,
        good: bool,
        log: LogConfig,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("`good` is not set")]
    pub(crate) struct Bad;

    impl Hint for Bad {
        fn hint(&self) -> Option<String> {
            Some("set it".to_owned())
        }

        fn exit(&self) -> Exit {
            Exit::Config
        }
    }

    impl Program for Settings {
        const NAME: &'static str = "some-daemon";
        const CONFIG: &'static str = "/nonexistent/some-daemon.toml";
        const ENV_PREFIX: &'static str = "GITSPACES_TEST_SOME_DAEMON";
        type Refusal = Bad;

        fn admin_socket(&self) -> Utf8PathBuf {
            self.admin_socket.clone()
        }

        fn log(&self) -> &LogConfig {
            &self.log
        }

        fn examine(self) -> Result<String, Wrong<Bad>> {
            if self.good {
                Ok("it is good".to_owned())
            } else {
                Err(Bad.into())
            }
        }
    }

    pub(crate) fn line(words: &str) -> Result<Line, ExitCode> {
        parse(words.split(' ').map(OsString::from))
    }

    #[test]
    fn a_wrong_line_has_its_own_code_and_help_is_no_error() {
        assert_eq!(line("x nonsense").unwrap_err(), Exit::Usage.into());
        assert_eq!(line("x --help").unwrap_err(), ExitCode::SUCCESS);
        line("x config check").unwrap();
    }

    pub(crate) fn file(guard: &tempfile::TempDir, text: &str) -> Utf8PathBuf {
        let file = Utf8Path::from_path(guard.path()).unwrap().join("x.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_daemon_that_is_not_there_is_told_from_one_that_refuses() {
        let guard = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(guard.path()).unwrap();
        let file = dir.join("x.toml");
        std::fs::write(&file, format!("admin_socket = \"{dir}/none.sock\"")).unwrap();
        let error = admin_token::<Settings>(Some(&file)).unwrap_err();
        assert!(
            matches!(
                &error,
                ProgramError::Command(CommandError::Unreachable {
                    daemon: "some-daemon",
                    source: ClientError::Connect { .. },
                })
            ),
            "{error:?}"
        );
        assert_eq!(error.exit(), Exit::Unavailable);
    }
}
