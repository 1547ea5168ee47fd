//! `ssh`'s `ProxyCommand`: its bytes, as they are, to the gitspace's SSH server and back.

use super::{known_hosts::KnownHosts, options::HOSTS};
use crate::{
    api::{Entry, Object},
    cmd::Context,
    error::CliError,
    net::Stream,
    progress::{self, Goal, path_of},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::unix::pipe,
};
use wire::{
    api::{ActionRequest, Gitspace, GitspaceAction},
    gitspace::GitspaceState,
    text::GitspaceName,
    workspace::SSH_PROTOCOL,
};

const PATH: &str = "/api/v1/ssh";
/// As much as fits into a pipe.
const CHUNK: usize = 64 * 1024;

pub(super) async fn run(
    context: &Context,
    known_hosts: &KnownHosts,
    name: &GitspaceName,
    start: bool,
) -> Result<ExitCode, CliError> {
    let line = match open(context, known_hosts, name).await {
        Ok(line) => line,
        // Most of the time it runs, and nobody waits for a look at it.
        Err(error) if start && woken(context, name, &error).await? => {
            open(context, known_hosts, name).await?
        }
        Err(error) => return Err(error),
    };
    carry(name, line).await?;
    Ok(ExitCode::SUCCESS)
}

async fn open(
    context: &Context,
    known_hosts: &KnownHosts,
    name: &GitspaceName,
) -> Result<Stream, CliError> {
    let entry: Entry = context.api.grant(name.as_str()).await?;
    let line = entry
        .upgrade(context.api.client(), PATH, SSH_PROTOCOL)
        .await?;
    let key = entry.ssh_host_key().ok_or_else(|| CliError::NoHostKey {
        name: name.to_string(),
    })?;
    known_hosts.set(&format!("{name}.{HOSTS}"), key)?;
    Ok(line)
}

/// Whether a gitspace that could not be entered did not run, and does. What is done meanwhile is shown on stderr, which is the user's.
async fn woken(context: &Context, name: &GitspaceName, error: &CliError) -> Result<bool, CliError> {
    if !matches!(error, CliError::Request(_) | CliError::NoHostKey { .. }) {
        return Ok(false);
    }
    let path = path_of(name.as_str());
    let found: Object<Gitspace> = match context.api.get(&path).await {
        Ok(found) => found,
        // The first error says more.
        Err(_) => return Ok(false),
    };
    let after = progress::last_event(&context.api, &path).await?;
    let goal = Goal::State(GitspaceState::Running);
    let starting = match found.it.state {
        GitspaceState::Starting => found,
        GitspaceState::Stopped | GitspaceState::Uninitialized => {
            let body = ActionRequest {
                action: GitspaceAction::Start,
            };
            context.api.post(&format!("{path}/actions"), &body).await?
        }
        _ => return Ok(false),
    };
    progress::wait(&context.api, starting, goal, after).await?;
    Ok(true)
}

/// Until either end has said its last word.
async fn carry(name: &GitspaceName, line: Stream) -> Result<(), CliError> {
    let (mut from_line, mut to_line) = tokio::io::split(line);
    let input = input().map_err(|source| CliError::Input {
        what: "stdin".to_owned(),
        source,
    })?;
    let output = output().map_err(CliError::Output)?;
    let cut = |error: io::Error| CliError::Line {
        name: name.to_string(),
        why: error.to_string(),
    };
    tokio::select! {
        done = copy(input, &mut to_line) => done.map_err(cut),
        done = copy(&mut from_line, output) => done.map_err(cut),
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default())
            .await?;
        to.flush().await?;
    }
}

/// `ssh` gives pipes, which need no thread. They are its own and ours alone, so that they may be made not to block.
fn input() -> io::Result<Box<dyn AsyncRead + Unpin + Send>> {
    match pipe::Receiver::from_owned_fd(own(io::stdin())?) {
        Ok(pipe) => Ok(Box::new(pipe)),
        // Somebody else than ssh.
        Err(_) => Ok(Box::new(File::from_std(own(io::stdin())?.into()))),
    }
}

fn output() -> io::Result<Box<dyn AsyncWrite + Unpin + Send>> {
    match pipe::Sender::from_owned_fd(own(io::stdout())?) {
        Ok(pipe) => Ok(Box::new(pipe)),
        Err(_) => Ok(Box::new(File::from_std(own(io::stdout())?.into()))),
    }
}

fn own(of: impl AsFd) -> io::Result<OwnedFd> {
    of.as_fd().try_clone_to_owned()
}
