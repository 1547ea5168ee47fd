//! SSH into gitspaces, with the user's own `ssh`.
//!
//! `ssh` speaks to the gitspace's own SSH server, from end to end: [`relay`] is the `ProxyCommand` that carries its bytes over the gateway's
//! HTTP port. Whoever may enter is decided by the grant; what answers is known by its host key, which the control plane publishes and
//! [`known_hosts`] writes down before the first byte passes. So nobody is asked for a password, and nobody whether a key is the right one.

mod config_file;
mod known_hosts;
mod options;
mod relay;

use crate::{
    args::{ConfigSshArgs, SshArgs},
    cmd::Context,
    config::{Environment, Overrides},
    error::CliError,
    output::Output,
    text,
};
use camino::Utf8PathBuf;
use options::{HOSTS, Options};
use serde::Serialize;
use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};
use wire::{api::Gitspace, text::GitspaceName};

/// `gitspace ssh`.
pub(crate) async fn ssh(
    context: &Context,
    overrides: &Overrides,
    environment: &Environment,
    args: SshArgs,
) -> Result<ExitCode, CliError> {
    let name = name_of(&args.name)?;
    if args.stdio {
        let known_hosts = known_hosts::KnownHosts::of(environment)?;
        return relay::run(context, &known_hosts, &name, !args.no_start).await;
    }
    let options = Options::new(overrides, environment, args.no_start)?;
    let mut command = Command::new("ssh");
    for (key, value) in options.for_host(&name) {
        command.arg(format!("-o{key}={value}"));
    }
    command.arg(format!("{name}.{HOSTS}")).args(args.arguments);
    // Takes the place of this process, and comes back only where it cannot.
    let error = command.exec();
    Err(CliError::Program {
        what: "ssh",
        hint: (error.kind() == io::ErrorKind::NotFound)
            .then_some("install OpenSSH's client, or use `gitspace shell` and `gitspace exec`"),
        source: error,
    })
}

/// `gitspace config-ssh`.
pub(crate) async fn config_ssh(
    out: Output,
    context: impl FnOnce() -> Result<Context, CliError>,
    overrides: &Overrides,
    environment: &Environment,
    args: ConfigSshArgs,
) -> Result<(), CliError> {
    let path = match args.file {
        Some(path) => path,
        None => config_file::usual(environment)?,
    };
    let block = if args.remove {
        None
    } else {
        let gitspaces = context()?.api.list::<Gitspace>("/gitspaces").await?;
        let names: Vec<String> = gitspaces
            .iter()
            .map(|gitspace| format!("{}.{HOSTS}", gitspace.it.name))
            .collect();
        let options = Options::new(overrides, environment, args.no_start)?;
        Some(options.block(&names))
    };
    let changed = config_file::set(&path, block.as_deref())?;
    let written = Written {
        file: path,
        changed,
    };
    out.show(&written, || {
        let path = &written.file;
        Ok(match (&block, changed) {
            (Some(_), true) => format!("wrote {path}: `ssh NAME.{HOSTS}` opens a gitspace\n"),
            (None, true) => format!("took the block of gitspaces out of {path}\n"),
            (_, false) => format!("{path} is as it should be\n"),
        })
    })
}

/// What became of the configuration of ssh.
#[derive(Debug, Serialize)]
struct Written {
    file: Utf8PathBuf,
    changed: bool,
}

/// As it is typed: `demo`, or `demo.gitspace` as in the configuration of ssh.
fn name_of(typed: &str) -> Result<GitspaceName, CliError> {
    let name = typed
        .strip_suffix(HOSTS)
        .and_then(|rest| rest.strip_suffix('.'))
        .unwrap_or(typed);
    name.parse().map_err(|error| {
        CliError::usage(
            format!(
                "`{}` is not the name of a gitspace: {error}",
                text::line(typed)
            ),
            "`gitspace list` shows them",
        )
    })
}
