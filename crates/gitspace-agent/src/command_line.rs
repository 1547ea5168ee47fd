//! The command line: few words, as nobody types them.

use camino::Utf8PathBuf;
use std::ffi::OsString;
use wire::{
    agent::{AGENT_RUN_DIR, WORKSPACES_DIR},
    ids::TerminalUuid,
};

pub(crate) const HELP: &str = "\
gitspace-agent: the one process put into every gitspace

  gitspace-agent init [-- SERVE OPTIONS]     PID 1 of the container
  gitspace-agent serve [--run-dir DIR] [--volume DIR]
                                             control socket, workspace service, SSH server
  gitspace-agent credential [--run-dir DIR] [--job ID] get|store|erase
                                             git's credential helper
  gitspace-agent sftp                        an SFTP session on standard input and output
  gitspace-agent socket PATH                 standard input and output, joined to a Unix socket
  gitspace-agent version | help

The run folder is /.gitspaces/run where not given, the volume /workspaces. GITSPACES_LOG sets the log filter.
";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    Init(ServeOptions),
    Serve(ServeOptions),
    TerminalHolder {
        run_dir: Utf8PathBuf,
        id: TerminalUuid,
    },
    Credential(CredentialRequest),
    Sftp,
    Socket {
        path: String,
    },
    Version,
    Help,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServeOptions {
    pub(crate) run_dir: Utf8PathBuf,
    /// Keeps what stays as long as the gitspace's files do.
    pub(crate) volume: Utf8PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CredentialRequest {
    pub(crate) run_dir: Utf8PathBuf,
    /// The clone job whose own credentials are asked for.
    pub(crate) job: Option<String>,
    pub(crate) operation: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("a sub-command is missing")]
    Empty,
    #[error("the argument `{0}` is not UTF-8")]
    NotUtf8(String),
    #[error("`{0}` is no sub-command")]
    Unknown(String),
    #[error("`{command}` does not take `{argument}`")]
    Argument {
        command: &'static str,
        argument: String,
    },
    #[error("`{0}` needs a value")]
    Value(String),
    #[error("`{command}` needs {what}")]
    Missing {
        command: &'static str,
        what: &'static str,
    },
}

/// Options in any order, then words.
struct Parsed {
    run_dir: Utf8PathBuf,
    volume: Utf8PathBuf,
    id: Option<String>,
    job: Option<String>,
    words: Vec<String>,
}

pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut arguments = arguments
        .map(|argument| {
            argument
                .into_string()
                .map_err(|bad| UsageError::NotUtf8(bad.to_string_lossy().into_owned()))
        })
        .collect::<Result<Vec<_>, _>>()?
        .into_iter();
    let command = arguments.next().ok_or(UsageError::Empty)?;
    match command.as_str() {
        "init" => serve_options("init", arguments).map(Invocation::Init),
        "serve" => serve_options("serve", arguments).map(Invocation::Serve),
        "terminal-holder" => {
            let parsed = options("terminal-holder", arguments)?;
            let id = parsed.id.as_deref().and_then(|id| id.parse().ok());
            Ok(Invocation::TerminalHolder {
                run_dir: parsed.run_dir,
                id: id.ok_or(UsageError::Missing {
                    command: "terminal-holder",
                    what: "`--id UUID`",
                })?,
            })
        }
        "credential" => {
            let parsed = options("credential", arguments)?;
            let mut words = parsed.words.into_iter();
            let operation = words.next();
            Ok(Invocation::Credential(CredentialRequest {
                run_dir: parsed.run_dir,
                job: parsed.job,
                operation: operation.ok_or(UsageError::Missing {
                    command: "credential",
                    what: "an operation",
                })?,
            }))
        }
        "sftp" => words("sftp", arguments, 0).map(|_| Invocation::Sftp),
        "socket" => {
            let path = words("socket", arguments, 1)?.into_iter().next();
            path.map(|path| Invocation::Socket { path })
                .ok_or(UsageError::Missing {
                    command: "socket",
                    what: "a path",
                })
        }
        "version" | "--version" => Ok(Invocation::Version),
        "help" | "--help" | "-h" => Ok(Invocation::Help),
        _ => Err(UsageError::Unknown(command)),
    }
}

/// At most so many, and no options: a path may begin with a dash.
fn words(
    command: &'static str,
    arguments: impl Iterator<Item = String>,
    most: usize,
) -> Result<Vec<String>, UsageError> {
    let mut words: Vec<String> = arguments.collect();
    if words.len() > most {
        let argument = words.swap_remove(most);
        return Err(UsageError::Argument { command, argument });
    }
    Ok(words)
}

fn serve_options(
    command: &'static str,
    arguments: impl Iterator<Item = String>,
) -> Result<ServeOptions, UsageError> {
    let parsed = options(command, arguments.filter(|argument| argument != "--"))?;
    match parsed.words.into_iter().next() {
        Some(argument) => Err(UsageError::Argument { command, argument }),
        None => Ok(ServeOptions {
            run_dir: parsed.run_dir,
            volume: parsed.volume,
        }),
    }
}

fn options(
    command: &'static str,
    mut arguments: impl Iterator<Item = String>,
) -> Result<Parsed, UsageError> {
    let mut parsed = Parsed {
        run_dir: Utf8PathBuf::from(AGENT_RUN_DIR),
        volume: Utf8PathBuf::from(WORKSPACES_DIR),
        id: None,
        job: None,
        words: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| UsageError::Value(argument.clone()))
        };
        match argument.as_str() {
            "--run-dir" => parsed.run_dir = value()?.into(),
            "--volume" if matches!(command, "init" | "serve") => parsed.volume = value()?.into(),
            "--id" if command == "terminal-holder" => parsed.id = Some(value()?),
            "--job" if command == "credential" => parsed.job = Some(value()?),
            option if option.starts_with('-') => {
                return Err(UsageError::Argument { command, argument });
            }
            _ => parsed.words.push(argument),
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Invocation, UsageError> {
        parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn init_takes_the_options_of_serve_after_two_dashes() {
        let options = ServeOptions {
            run_dir: "/x".into(),
            volume: "/y".into(),
        };
        assert_eq!(
            parsed("init -- --run-dir /x --volume /y"),
            Ok(Invocation::Init(options.clone()))
        );
        assert_eq!(
            parsed("serve --volume /y --run-dir /x"),
            Ok(Invocation::Serve(options))
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parsed("").is_err());
        assert!(parsed("serve --verbose").is_err());
        assert!(parsed("serve word").is_err());
        assert!(parsed("serve --run-dir").is_err());
        assert!(parsed("terminal-holder --id no").is_err());
    }
}
