//! Everything that ends this command badly, and its last words.

use crate::{config::ConfigError, exit::Exit, net::RequestError, output, text};
use daemon::ErrorChain;
use std::{io, process::ExitCode};
use wire::failure::Failure;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("{message}")]
    Usage {
        message: String,
        hint: Option<String>,
    },
    #[error("there is no {what} `{name}`")]
    NotFound { what: &'static str, name: String },
    /// Made, and not shown: what it was for cannot be done with it.
    #[error("{url} answered without the token that it made")]
    NoToken { url: String },
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    #[error("cannot read {what}")]
    Input {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write `{path}`")]
    Write {
        path: camino::Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Pages(#[from] pages::PagesError),
    #[error("cannot {step} the terminal")]
    Terminal {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// What was waited for went wrong.
    #[error("gitspace `{name}` is in state {state}")]
    Ended {
        name: String,
        state: String,
        failure: Option<Box<Failure>>,
    },
    /// What was asked for was found, and is bad.
    #[error("the way through the delegate `{delegate}` ends at `{hop}`")]
    Broken {
        delegate: String,
        hop: wire::control::Hop,
    },
    /// Somebody asked for something else meanwhile.
    #[error("another action on gitspace `{name}` came in between; it is {state}")]
    Overtaken { name: String, state: String },
    #[error("interrupted: gitspace `{name}` goes on by itself")]
    Interrupted { name: String },
    /// The agent did not start what it was asked to start.
    #[error("cannot start the command in gitspace `{name}`: {failure}")]
    NotStarted { name: String, failure: Box<Failure> },
    #[error("cannot attach to the terminal in gitspace `{name}`: {failure}")]
    NotAttached { name: String, failure: Box<Failure> },
    #[error("cannot run {what}")]
    Program {
        what: &'static str,
        hint: Option<&'static str>,
        #[source]
        source: io::Error,
    },
    #[error("the SSH host key of gitspace `{name}` is not known")]
    NoHostKey { name: String },
    #[error("the agent in gitspace `{name}` is too old for ssh")]
    OldAgent { name: String },
    /// Exec, shell and ssh: the line is gone for good.
    #[error("the line to gitspace `{name}` was cut: {why}")]
    Line { name: String, why: String },
}

impl CliError {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Config,
            Self::Request(error) => error.exit(),
            Self::Usage { .. } => Exit::Usage,
            Self::NotFound { .. } => Exit::NotFound,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Pipe,
            Self::Overtaken { .. } | Self::Broken { .. } => Exit::TryAgain,
            Self::Interrupted { .. } => Exit::Interrupted,
            Self::NotStarted { .. } | Self::Program { .. } => Exit::CannotStart,
            Self::NotAttached { .. } => Exit::NotFound,
            Self::Line { .. }
            | Self::OldAgent { .. }
            | Self::NoToken { .. }
            | Self::NoHostKey { .. } => Exit::Unavailable,
            Self::Output(_)
            | Self::Input { .. }
            | Self::Write { .. }
            | Self::Pages(_)
            | Self::Terminal { .. }
            | Self::Signals(_)
            | Self::Ended { .. } => Exit::Failure,
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Ended { failure, .. } => failure.as_deref(),
            Self::NotStarted { failure, .. } | Self::NotAttached { failure, .. } => Some(failure),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(hint) = self.failure().and_then(|failure| failure.hint.clone()) {
            return Some(hint);
        }
        match self {
            Self::Config(error) => error.hint(),
            Self::Request(error) => error.hint(),
            Self::Usage { hint, .. } => hint.clone(),
            Self::Ended { name, .. } => Some(format!(
                "`gitspace logs {name}` has the whole output, `gitspace show {name}` what can be done from here"
            )),
            Self::Program { hint, .. } => hint.map(str::to_owned),
            Self::NoHostKey { name } => Some(format!(
                "its agent is of an older version, or cannot write to its volume: `gitspace stop {name}` and start it again; `gitspace shell {name}` works without"
            )),
            Self::NoToken { .. } => Some(
                "check that nothing between here and the control plane changes its answers; revoke what was made and ask for another one"
                    .to_owned(),
            ),
            Self::Broken { delegate, .. } => Some(format!(
                "mend that part; `gitspace delegate show {delegate}` says when the next probe found it whole"
            )),
            Self::Interrupted { name } => Some(format!(
                "look after it with `gitspace events {name} -f`, stop it with `gitspace cancel {name}`"
            )),
            Self::OldAgent { name } => Some(format!(
                "`gitspace reset {name}` and `gitspace start {name}` make its container anew, and keep its files"
            )),
            Self::Overtaken { name, .. } | Self::Line { name, .. } => {
                Some(format!("see `gitspace show {name}`"))
            }
            _ => None,
        }
    }
}

/// Says on stderr what went wrong; the result is for `main` to return.
pub(crate) fn report(error: &CliError) -> ExitCode {
    let exit = error.exit();
    if exit != Exit::Pipe {
        output::note(&words(error));
    }
    exit.into()
}

fn words(error: &CliError) -> String {
    let mut words = format!("error: {}\n", text::line(&ErrorChain(error).to_string()));
    if let Some(failure) = error.failure() {
        if matches!(error, CliError::Ended { .. }) {
            words.push_str(&format!("cause: {}\n", text::line(&failure.message)));
        }
        if let Some(detail) = &failure.detail {
            indented(&mut words, detail);
        }
    }
    if let Some(hint) = error.hint() {
        words.push_str(&format!("hint: {}\n", text::line(&hint)));
    }
    words
}

/// Output of a command under what it belongs to.
pub(crate) fn indented(words: &mut String, detail: &str) {
    for line in text::output(detail).trim_end().lines() {
        words.push_str(&format!("    {line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use wire::{failure::FailureCode, problem::Problem};

    #[test]
    fn a_failure_is_told_with_cause_output_and_hint_and_cannot_move_the_cursor() {
        let failure = Failure::new(
            FailureCode::LifecycleCommandFailed,
            "postCreateCommand ended with exit code 3\x1b[2J",
        )
        .detail("npm ERR!\r\n\x1b[31mno\x1b[0m \x1b]0;x\x07\n")
        .hint("mend it\nand start it again");
        let error = CliError::Ended {
            name: "demo".to_owned(),
            state: "error".to_owned(),
            failure: Some(Box::new(failure)),
        };
        assert_eq!(
            words(&error),
            "error: gitspace `demo` is in state error\n\
             cause: postCreateCommand ended with exit code 3\\x1b[2J\n    npm ERR!\n    no \\x1b]0;x\\x07\n\
             hint: mend it\\nand start it again\n"
        );
        assert_eq!(error.exit(), Exit::Failure);
    }

    #[test]
    fn an_answer_without_its_token_is_not_a_missing_thing() {
        let error = CliError::NoToken {
            url: "https://control.example/api/v1".to_owned(),
        };
        let words = words(&error);
        assert!(
            words.starts_with("error: https://control.example/api/v1 answered without")
                && words.contains("\nhint: "),
            "{words}"
        );
        assert_eq!(error.exit(), Exit::Unavailable);
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words_and_has_its_exit_code() {
        for (status, code, exit) in [
            (401, "unauthenticated", Exit::Refused),
            (403, "admin_only", Exit::Refused),
            (404, "not_found", Exit::NotFound),
            (400, "invalid", Exit::Data),
            (409, "taken", Exit::Data),
            (409, "busy", Exit::TryAgain),
            (421, "misdirected", Exit::Config),
            (429, "too_many_failures", Exit::TryAgain),
            (502, "bad_gateway", Exit::Unavailable),
            (503, "unavailable", Exit::TryAgain),
            (500, "internal", Exit::Failure),
        ] {
            let error = CliError::from(RequestError::Refused {
                status: StatusCode::from_u16(status).unwrap(),
                problem: Box::new(Problem::new(code, "it is so").cause("because")),
            });
            assert_eq!(error.exit(), exit, "{status} {code}");
            assert!(words(&error).starts_with("error: it is so: because\n"));
        }
    }
}
