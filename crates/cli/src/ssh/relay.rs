//! `ssh`'s `ProxyCommand`: its bytes, as they are, to the gitspace's SSH server and back. A line that is cut is opened again, and the session goes on.

use super::{known_hosts::KnownHosts, options::HOSTS};
use crate::{
    api::{Entry, Object},
    cmd::Context,
    error::CliError,
    net::Stream,
    progress::{self, Goal, path_of},
    session::{FIRST_WAIT, again, aside, longer},
};
use http::StatusCode;
use newtype_uuid::GenericUuid as _;
use resumable::{Endpoint, Line, Lines, Side};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    process::ExitCode,
    task::{self, Poll, ready},
    time::Duration,
};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout},
};
use wire::{
    api::{ActionRequest, Gitspace, GitspaceAction},
    gitspace::GitspaceState,
    ids::SshSessionUuid,
    text::GitspaceName,
    workspace::{SSH_LINE_PROTOCOL, SSH_PROTOCOL, SSH_SESSION_KEPT},
};

const PATH: &str = "/api/v1/ssh";
/// How an agent says that it does not know a path.
const NO_ROUTE: &str = "no_route";
/// As much as fits into a pipe.
const CHUNK: usize = 64 * 1024;
/// A line that is back within this was never gone.
const UNNOTICED: Duration = Duration::from_secs(2);
/// A line that lasted as long was a good one.
const QUIET: Duration = Duration::from_secs(60);
/// For the other end to hear that this one is done.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) async fn run(
    context: &Context,
    known_hosts: &KnownHosts,
    name: &GitspaceName,
    start: bool,
) -> Result<ExitCode, CliError> {
    let opening = Opening {
        context,
        known_hosts,
        name,
    };
    let way = match opening.open().await {
        Ok(way) => way,
        // Most of the time it runs, and nobody waits for a look at it.
        Err(error) if start && woken(context, name, &error).await? => opening.open().await?,
        Err(error) => return Err(error),
    };
    let cut = |error: io::Error| match error.downcast::<CliError>() {
        Ok(error) => error,
        Err(error) => CliError::Line {
            name: name.to_string(),
            why: error.to_string(),
        },
    };
    match way {
        Way::Resumable(lines) => {
            let endpoint = Endpoint::new(Side::Calling(lines));
            carry(endpoint).await?.map_err(cut)?;
        }
        Way::Bare(line) => carry(line).await?.map_err(cut)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the bytes go through.
enum Way<'a> {
    /// Cut lines are replaced.
    Resumable(Redial<'a>),
    /// To an agent of before there were those: a container keeps its agent until its gitspace is reset.
    Bare(Stream),
}

struct Opening<'a> {
    context: &'a Context,
    known_hosts: &'a KnownHosts,
    name: &'a GitspaceName,
}

impl<'a> Opening<'a> {
    async fn open(&self) -> Result<Way<'a>, CliError> {
        let client = self.context.api.client();
        let entry: Entry = self.context.api.grant(self.name.as_str()).await?;
        let session = SshSessionUuid::from_untyped_uuid(client.fresh_id());
        let path = format!("{PATH}?session={session}");
        let way = match entry.upgrade(client, &path, SSH_LINE_PROTOCOL).await {
            Ok(line) => Way::Resumable(Redial {
                context: self.context,
                name: self.name,
                session,
                first: Some(line),
                making: None,
                wait: FIRST_WAIT,
                opened: Instant::now(),
            }),
            Err(error) if error.status() == Some(StatusCode::UPGRADE_REQUIRED) => {
                Way::Bare(entry.upgrade(client, PATH, SSH_PROTOCOL).await?)
            }
            Err(error) if error.code() == Some(NO_ROUTE) => {
                return Err(CliError::OldAgent {
                    name: self.name.to_string(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let key = entry.ssh_host_key().ok_or_else(|| CliError::NoHostKey {
            name: self.name.to_string(),
        })?;
        self.known_hosts
            .set(&format!("{}.{HOSTS}", self.name), key)?;
        Ok(way)
    }
}

/// The lines of one session: whenever one is cut, the next.
struct Redial<'a> {
    context: &'a Context,
    name: &'a GitspaceName,
    session: SshSessionUuid,
    first: Option<Stream>,
    making: Option<Making<'a>>,
    /// Before the next line: longer where the last ones did not last.
    wait: Duration,
    opened: Instant,
}

type Making<'a> = Pin<Box<dyn Future<Output = Result<Stream, CliError>> + 'a>>;

impl Lines for Redial<'_> {
    fn poll_next(
        &mut self,
        cx: &mut task::Context<'_>,
        is_cut: bool,
    ) -> Poll<io::Result<Box<dyn Line>>> {
        if !is_cut {
            return Poll::Pending;
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(Box::new(first)));
        }
        if self.making.is_none() {
            self.wait = if self.opened.elapsed() < QUIET {
                longer(self.wait)
            } else {
                FIRST_WAIT
            };
        }
        let making = self.making.get_or_insert_with(|| {
            Box::pin(redial(self.context, self.name, self.session, self.wait))
        });
        let made = ready!(making.as_mut().poll(cx));
        self.making = None;
        self.opened = Instant::now();
        Poll::Ready(match made {
            Ok(line) => Ok(Box::new(line)),
            Err(error) => Err(io::Error::other(error)),
        })
    }
}

/// The user hears of it where it takes long enough to be noticed.
async fn redial(
    context: &Context,
    name: &GitspaceName,
    session: SshSessionUuid,
    wait: Duration,
) -> Result<Stream, CliError> {
    let path = format!("{PATH}?session={session}&resume=true");
    let open = async |entry: &Entry| {
        let line = entry.upgrade(context.api.client(), &path, SSH_LINE_PROTOCOL);
        Ok(line.await?)
    };
    let opening = again(context, name.as_str(), wait, open);
    tokio::pin!(opening);
    tokio::select! {
        opened = &mut opening => return opened,
        () = sleep(UNNOTICED) => {}
    }
    aside(&format!("the line to `{name}` is cut; connecting again"));
    let line = timeout(SSH_SESSION_KEPT, opening).await;
    let line = line.map_err(|_| CliError::Line {
        name: name.to_string(),
        why: "it could not be opened again for a day".to_owned(),
    })??;
    aside(&format!("the line to `{name}` is back"));
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

/// Until either end has said its last word, or this process is told to end. The inner error is the line's.
async fn carry(line: impl AsyncRead + AsyncWrite) -> Result<io::Result<()>, CliError> {
    let (mut from_line, mut to_line) = tokio::io::split(line);
    let input = input().map_err(|source| CliError::Input {
        what: "stdin".to_owned(),
        source,
    })?;
    let output = output().map_err(CliError::Output)?;
    let listen = |kind| signal(kind).map_err(CliError::Signals);
    // So `ssh` ends its ProxyCommand, and so do terminals that are closed.
    let (mut hung_up, mut told_to_end, mut interrupted) = (
        listen(SignalKind::hangup())?,
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let done = tokio::select! {
        done = copy(input, &mut to_line) => done,
        done = copy(&mut from_line, output) => done,
        _ = hung_up.recv() => Ok(()),
        _ = told_to_end.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    };
    // Whatever ended it, ssh's pipes too: else the session waits for another line.
    let goodbye = async {
        to_line.shutdown().await?;
        tokio::io::copy(&mut from_line, &mut tokio::io::sink()).await
    };
    drop(timeout(GOODBYE, goodbye).await);
    Ok(done)
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.flush().await;
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
