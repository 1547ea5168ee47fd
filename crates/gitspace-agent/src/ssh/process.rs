//! A program of the remote user, and the channel that it talks over.

use super::connection;
use crate::{
    agent::Agent,
    environment,
    pty::Pty,
    shell,
    spawn::{Bond, Group, Program, Streams},
};
use bytes::BytesMut;
use nix::sys::signal::Signal;
use russh::{
    Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig,
    server::{Handle, Msg},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::OwnedFd,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin},
    time::Instant,
};
use wire::failure::{Failure, FailureCode};

/// Read at once: as much as a packet holds.
const READ: usize = 32 * 1024;
/// Input that the program has not taken. Signals are heard meanwhile.
const MAX_INPUT: usize = 1 << 20;
/// Output of a terminal after its program has ended: something left behind may hold it open for ever.
const DRAIN: Duration = Duration::from_millis(250);
/// As shells say it of what cannot be started.
const NOT_STARTED: u32 = 127;

/// What a client wants to run.
#[derive(Debug)]
pub(super) enum Asked {
    Shell,
    /// Of the user's shell.
    Command(Vec<u8>),
    Sftp,
    /// Bytes to and from a Unix socket.
    Socket(String),
}

/// Both ends of a new one.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) pty: Pty,
    pub(super) slave: OwnedFd,
}

pub(super) struct Running {
    child: Child,
    pty: Option<Pty>,
}

pub(super) fn start(
    agent: &Agent,
    asked: Asked,
    variables: &BTreeMap<String, Option<String>>,
    terminal: Option<Terminal>,
) -> Result<Running, Failure> {
    let (config, account) = agent.remote_user().map_err(|problem| {
        let mut failure = Failure::new(FailureCode::PreconditionFailed, problem.message);
        failure.hint = problem.hint;
        failure
    })?;
    let argv = match asked {
        Asked::Shell => vec![shell::of(&account)?, "-l".to_owned()],
        Asked::Command(command) => {
            let command = String::from_utf8(command).map_err(|_| {
                Failure::new(
                    FailureCode::PreconditionFailed,
                    "the command is not UTF-8 text",
                )
            })?;
            vec![shell::of(&account)?, "-c".to_owned(), command]
        }
        Asked::Sftp => vec![agent.binary.to_string(), "sftp".to_owned()],
        Asked::Socket(path) => vec![agent.binary.to_string(), "socket".to_owned(), path],
    };
    // Programs look at it to see that they are far from their user. The addresses of the road are not known here.
    let mut about = BTreeMap::from([(
        "SSH_CONNECTION".to_owned(),
        Some("127.0.0.1 0 127.0.0.1 22".to_owned()),
    )]);
    if let Some(name) = terminal
        .as_ref()
        .and_then(|terminal| nix::unistd::ttyname(&terminal.slave).ok())
        .and_then(|name| name.into_os_string().into_string().ok())
    {
        about.insert("SSH_TTY".to_owned(), Some(name));
    }
    let program = Program {
        argv,
        cwd: shell::folder(&config.workspace_folder, &account.home),
        env: environment::of_user(agent, &account, Some(&config), [&about, variables]),
        account,
    };
    let (streams, pty) = match terminal {
        None => (Streams::Pipes, None),
        Some(Terminal { pty, slave }) => (Streams::Tty(slave), Some(pty)),
    };
    Ok(Running {
        child: program.spawn(streams, Bond::DiesWithUs)?,
        pty,
    })
}

/// To its end, or the client's. One without a terminal is not killed when its client goes, as with any SSH server: what it starts in the
/// background is meant to stay. It finds its pipes closed. A terminal's is hung up by the kernel.
pub(super) async fn run(started: Result<Running, Failure>, channel: Channel<Msg>, handle: Handle) {
    let id = channel.id();
    let (mut from_client, to_client) = channel.split();
    let end = match started {
        Ok(running) => follow(running, &mut from_client, &to_client).await,
        Err(failure) => {
            let words = format!("gitspaces: {failure}\r\n");
            drop(to_client.extended_data_bytes(1, words.into_bytes()).await);
            Some(End::Code(NOT_STARTED))
        }
    };
    // Where the client is gone there is nobody to tell.
    match end {
        Some(End::Code(code)) => drop(to_client.exit_status(code).await),
        Some(End::Signal(signal)) => drop(
            handle
                .exit_signal_request(id, signal, false, String::new(), String::new())
                .await,
        ),
        None => {}
    }
    drop(to_client.eof().await);
    drop(to_client.close().await);
}

enum End {
    Code(u32),
    Signal(Sig),
}

impl End {
    fn of(status: &io::Result<ExitStatus>) -> Self {
        let Ok(status) = status else {
            return Self::Code(u32::MAX);
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(u32::try_from(code).unwrap_or(u32::MAX)),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(signal) => Self::Signal(name_of(signal)),
                Err(_) => Self::Code(128 + u32::try_from(signal).unwrap_or(0)),
            },
            (None, None) => Self::Code(u32::MAX),
        }
    }
}

/// Where a client's bytes go.
enum Input<'a> {
    Pipe(ChildStdin),
    Pty(&'a Pty),
    Closed,
}

impl Input<'_> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.write(bytes).await,
            Self::Pty(pty) => pty.write(bytes).await,
            Self::Closed => Ok(bytes.len()),
        }
    }
}

/// What a client said and the program has not taken.
#[derive(Default)]
struct Backlog {
    chunks: VecDeque<bytes::Bytes>,
    bytes: usize,
    ended: bool,
}

impl Backlog {
    fn push(&mut self, chunk: bytes::Bytes) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    fn take(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        if let Some(front) = self.chunks.front_mut() {
            bytes::Buf::advance(front, count.min(front.len()));
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
    }
}

/// `None` where the client went first.
async fn follow(
    running: Running,
    from_client: &mut ChannelReadHalf,
    to_client: &ChannelWriteHalf<Msg>,
) -> Option<End> {
    let Running { mut child, pty } = running;
    let group = Group::of(&child);
    let input = match &pty {
        Some(pty) => Input::Pty(pty),
        None => child.stdin.take().map_or(Input::Closed, Input::Pipe),
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let outputs = async {
        let plain = async {
            tokio::join!(
                copy(stdout, to_client, None),
                copy(stderr, to_client, Some(1))
            )
        };
        match &pty {
            Some(pty) => show(pty, &mut child, to_client).await,
            None => {
                let ((), ()) = plain.await;
                child.wait().await
            }
        }
    };
    tokio::select! {
        status = outputs => Some(End::of(&status)),
        () = listen(from_client, input, group, pty.as_ref()) => None,
    }
}

/// From a pipe to the client, to its end.
async fn copy<R: AsyncRead + Unpin>(
    from: Option<R>,
    to_client: &ChannelWriteHalf<Msg>,
    extended: Option<u32>,
) {
    let Some(mut from) = from else {
        return;
    };
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let bytes = buffer.split().freeze();
                let sent = match extended {
                    None => to_client.data_bytes(bytes).await,
                    Some(kind) => to_client.extended_data_bytes(kind, bytes).await,
                };
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

/// From a terminal to the client, until its program has ended and what it said is told.
async fn show(
    pty: &Pty,
    child: &mut Child,
    to_client: &ChannelWriteHalf<Msg>,
) -> io::Result<ExitStatus> {
    let mut buffer = vec![0; READ];
    let mut ended = None;
    let mut until = None;
    loop {
        tokio::select! {
            read = pty.read(&mut buffer) => match read {
                Ok(count @ 1..) => {
                    let bytes = bytes::Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                    if to_client.data_bytes(bytes).await.is_err() {
                        break;
                    }
                }
                Ok(0) | Err(_) => break,
            },
            status = child.wait(), if ended.is_none() => {
                ended = Some(status);
                until = Some(Instant::now() + DRAIN);
            }
            () = sleep_until(until), if until.is_some() => break,
        }
    }
    match ended {
        Some(status) => status,
        None => child.wait().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// From the client to the program, until the client is gone.
async fn listen(
    from_client: &mut ChannelReadHalf,
    mut input: Input<'_>,
    group: Option<Group>,
    pty: Option<&Pty>,
) {
    let mut backlog = Backlog::default();
    loop {
        if backlog.ended && backlog.chunks.is_empty() && matches!(input, Input::Pipe(_)) {
            input = Input::Closed;
        }
        let message = tokio::select! {
            message = from_client.wait(), if backlog.bytes < MAX_INPUT => message,
            written = write(&mut input, &backlog), if !backlog.chunks.is_empty() => {
                match written {
                    Ok(count) => backlog.take(count),
                    Err(error) => {
                        // It closed its input, as `head` does; its output and its end are still to come.
                        tracing::debug!(%error, "A program does not take its input");
                        backlog.clear();
                        input = Input::Closed;
                    }
                }
                continue;
            }
        };
        match message {
            Some(ChannelMsg::Data { data }) if !data.is_empty() => backlog.push(data),
            Some(ChannelMsg::Eof) => backlog.ended = true,
            Some(ChannelMsg::Signal { signal }) => {
                if let (Some(signal), Some(group)) = (signal_of(&signal), group) {
                    group.signal(signal);
                }
            }
            Some(ChannelMsg::WindowChange {
                col_width,
                row_height,
                ..
            }) => {
                if let Some(pty) = pty {
                    pty.resize(connection::size(col_width, row_height));
                }
            }
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    }
}

async fn write(input: &mut Input<'_>, backlog: &Backlog) -> io::Result<usize> {
    match backlog.chunks.front() {
        Some(chunk) => input.write(chunk).await,
        None => Ok(0),
    }
}

/// RFC 4254 has names for these; OpenSSH sends no others.
const SIGNALS: &[(Sig, Signal)] = &[
    (Sig::ABRT, Signal::SIGABRT),
    (Sig::ALRM, Signal::SIGALRM),
    (Sig::FPE, Signal::SIGFPE),
    (Sig::HUP, Signal::SIGHUP),
    (Sig::ILL, Signal::SIGILL),
    (Sig::INT, Signal::SIGINT),
    (Sig::KILL, Signal::SIGKILL),
    (Sig::PIPE, Signal::SIGPIPE),
    (Sig::QUIT, Signal::SIGQUIT),
    (Sig::SEGV, Signal::SIGSEGV),
    (Sig::TERM, Signal::SIGTERM),
    (Sig::USR1, Signal::SIGUSR1),
];

fn signal_of(name: &Sig) -> Option<Signal> {
    if let Sig::Custom(name) = name {
        return (name == "USR2").then_some(Signal::SIGUSR2);
    }
    SIGNALS
        .iter()
        .find(|(known, _)| std::mem::discriminant(known) == std::mem::discriminant(name))
        .map(|(_, signal)| *signal)
}

fn name_of(signal: Signal) -> Sig {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == signal)
        .map_or_else(
            || Sig::Custom(signal.as_str().trim_start_matches("SIG").to_owned()),
            |(name, _)| name.clone(),
        )
}
