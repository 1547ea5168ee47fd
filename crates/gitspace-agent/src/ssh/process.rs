//! A program of the remote user, and the channel that it talks over.

use super::channels::{Channel, Control, Gone};
use crate::{
    agent::Agent,
    environment,
    pty::Pty,
    shell,
    spawn::{Bond, Group, Program, Streams},
};
use bytes::Bytes;
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap, io, os::fd::OwnedFd, os::unix::process::ExitStatusExt as _, pin::pin,
    process::ExitStatus, time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt as _},
    process::{Child, ChildStdin},
    time::Instant,
};
use wire::failure::{Failure, FailureCode};

/// Of a terminal, read at once: as much as a packet holds.
const READ: usize = 32 * 1024;
/// Output of a terminal after its program has ended: something left behind may hold it open for ever.
const DRAIN: Duration = Duration::from_millis(250);
/// For what a client said before it went.
const LAST_WORDS: Duration = Duration::from_secs(30);
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
pub(super) async fn run(started: Result<Running, Failure>, channel: Channel) {
    let end = match started {
        Ok(running) => follow(running, &channel).await,
        Err(failure) => {
            let words = format!("gitspaces: {failure}\r\n");
            match channel.write(Some(1), words.into()).await {
                Ok(()) => Some(End::Code(NOT_STARTED)),
                // There is nobody to tell.
                Err(Gone) => None,
            }
        }
    };
    match end {
        Some(End::Code(code)) => channel.exit_status(code),
        Some(End::Signal(signal)) => channel.exit_signal(signal.as_str().trim_start_matches("SIG")),
        None => return,
    }
    channel.end();
}

enum End {
    Code(u32),
    Signal(Signal),
}

impl End {
    fn of(status: &io::Result<ExitStatus>) -> Self {
        let Ok(status) = status else {
            return Self::Code(u32::MAX);
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(u32::try_from(code).unwrap_or(u32::MAX)),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(signal) => Self::Signal(signal),
                Err(_) => Self::Code(128 + u32::try_from(signal).unwrap_or(0)),
            },
            (None, None) => Self::Code(u32::MAX),
        }
    }
}

/// `None` where the client went first.
async fn follow(running: Running, channel: &Channel) -> Option<End> {
    let Running { mut child, pty } = running;
    let group = Group::of(&child);
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let outputs = async {
        match &pty {
            Some(pty) => show(pty, &mut child, channel).await,
            None => {
                tokio::join!(copy(stdout, channel, None), copy(stderr, channel, Some(1)));
                child.wait().await
            }
        }
    };
    let mut outputs = pin!(outputs);
    let mut feeding = pin!(feed(channel, stdin, pty.as_ref()));
    let mut listening = pin!(listen(channel, group, pty.as_ref()));
    let (mut fed, mut gone) = (false, None);
    loop {
        tokio::select! {
            status = &mut outputs => return Some(End::of(&status)),
            () = &mut feeding, if !fed => fed = true,
            // What it said before is still taken.
            () = &mut listening, if gone.is_none() => gone = Some(Instant::now() + LAST_WORDS),
            () = sleep_until(gone), if gone.is_some() => return None,
        }
        if fed && gone.is_some() {
            return None;
        }
    }
}

/// From a pipe to the client, to its end.
async fn copy<R: AsyncRead + Unpin>(from: Option<R>, channel: &Channel, extended: Option<u32>) {
    if let Some(from) = from
        && let Err(error) = channel.send_all(from, extended).await
    {
        tracing::debug!(%error, "A program's output broke off");
    }
}

/// From a terminal to the client, until its program has ended and what it said is told.
async fn show(pty: &Pty, child: &mut Child, channel: &Channel) -> io::Result<ExitStatus> {
    let mut buffer = vec![0; READ];
    let mut ended = None;
    let mut until = None;
    loop {
        tokio::select! {
            // What is there is told before the time is looked at: a slow client takes its time.
            biased;
            read = pty.read(&mut buffer) => match read {
                Ok(count @ 1..) => {
                    let bytes = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                    if channel.write(None, bytes).await.is_err() {
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

/// From the client to the program, to the end of its input.
async fn feed(channel: &Channel, stdin: Option<ChildStdin>, pty: Option<&Pty>) {
    let fed = match (stdin, pty) {
        (_, Some(pty)) => type_into(channel, pty).await,
        (Some(stdin), None) => pour_into(channel, stdin).await,
        (None, None) => Ok(()),
    };
    if let Err(error) = fed {
        // It closed its input, as `head` does; its output and its end are still to come.
        tracing::debug!(%error, "A program does not take its input");
    }
    // What comes now is for nobody, and must not be what the client waits for.
    while channel.input().await.is_some() {}
}

async fn pour_into(channel: &Channel, mut stdin: ChildStdin) -> io::Result<()> {
    while let Some(bytes) = channel.input().await {
        stdin.write_all(&bytes).await?;
    }
    Ok(())
}

async fn type_into(channel: &Channel, pty: &Pty) -> io::Result<()> {
    while let Some(bytes) = channel.input().await {
        pty.write_all(&bytes).await?;
    }
    Ok(())
}

/// Signals and sizes, until the client is gone.
async fn listen(channel: &Channel, group: Option<Group>, pty: Option<&Pty>) {
    while let Some(control) = channel.control().await {
        match (control, group, pty) {
            (Control::Signal(signal), Some(group), _) => group.signal(signal),
            (Control::Resize(size), _, Some(pty)) => pty.resize(size),
            (Control::Signal(_), None, _) | (Control::Resize(_), _, None) => {}
        }
    }
}

/// As RFC 4254 names them.
pub(super) fn signal_of(name: &str) -> Option<Signal> {
    Some(match name {
        "ABRT" => Signal::SIGABRT,
        "ALRM" => Signal::SIGALRM,
        "FPE" => Signal::SIGFPE,
        "HUP" => Signal::SIGHUP,
        "ILL" => Signal::SIGILL,
        "INT" => Signal::SIGINT,
        "KILL" => Signal::SIGKILL,
        "PIPE" => Signal::SIGPIPE,
        "QUIT" => Signal::SIGQUIT,
        "SEGV" => Signal::SIGSEGV,
        "TERM" => Signal::SIGTERM,
        "USR1" => Signal::SIGUSR1,
        "USR2" => Signal::SIGUSR2,
        _ => return None,
    })
}
