//! Exec: one process, over one WebSocket; it dies with the connection.

use super::{
    attach::prefixed,
    socket::{self, FIRST_MESSAGE_LIMIT, PING_INTERVAL, Said, Socket},
};
use crate::{
    agent::Agent,
    environment,
    pty::Pty,
    spawn::{Bond, Group, Program, Streams, exit_code},
};
use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::{Request, Response};
use hyper::body::Incoming;
use local_rpc::server::Body;
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_tungstenite::tungstenite::Message;
use wire::{
    failure::{Failure, FailureCode},
    workspace::{Channel, ClientMessage, ExecRequest, ServerMessage, Size},
};

const READ: usize = 16 * 1024;
/// Output of a process that has ended; only something left behind makes us wait for the whole of it.
const DRAIN: Duration = Duration::from_millis(250);
/// From SIGHUP to SIGKILL, after the client went away.
const HANG_UP_GRACE: Duration = Duration::from_secs(2);

pub(super) fn answer(agent: &Arc<Agent>, mut request: Request<Incoming>) -> Response<Body> {
    let (pending, response) = match socket::accept(&mut request) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let shared = Arc::clone(agent);
    agent.tasks.spawn(async move {
        if let Some(socket) = pending.open().await {
            shared.dialled.workspace_opened();
            run(&shared, socket).await;
            shared.dialled.workspace_closed();
        }
    });
    response
}

async fn run(agent: &Arc<Agent>, mut socket: Socket) {
    let first = tokio::time::timeout(FIRST_MESSAGE_LIMIT, socket.next()).await;
    let Ok(Some(Ok(message))) = first else {
        return;
    };
    let started = match socket::understand(message) {
        Ok(Said::Message(ClientMessage::Exec(request))) => start(agent, request),
        Ok(_) => Err(Failure::new(
            FailureCode::PreconditionFailed,
            "the first message is not `exec`",
        )),
        Err(error) => Err(Failure::new(
            FailureCode::PreconditionFailed,
            "the message is not understood",
        )
        .detail(error)),
    };
    let (child, pty) = match started {
        Ok(started) => started,
        Err(failure) => {
            drop(socket.send(socket::failed(failure)).await);
            drop(socket.close(None).await);
            return;
        }
    };
    agent.note_exec();
    follow(socket, child, pty).await;
    agent.note_exec();
}

fn start(agent: &Agent, request: ExecRequest) -> Result<(Child, Option<Arc<Pty>>), Failure> {
    let (config, account) = agent.remote_user().map_err(|problem| {
        let mut failure = Failure::new(FailureCode::PreconditionFailed, problem.message);
        failure.hint = problem.hint;
        failure
    })?;
    let mut asked: BTreeMap<String, Option<String>> = request
        .env
        .into_iter()
        .map(|(name, value)| (name, Some(value)))
        .collect();
    if request.tty.is_some() {
        asked
            .entry("TERM".to_owned())
            .or_insert_with(|| Some("xterm-256color".to_owned()));
    }
    let program = Program {
        argv: request.argv,
        cwd: request
            .cwd
            .unwrap_or_else(|| config.workspace_folder.clone()),
        env: environment::of_user(agent, &account, Some(&config), [&asked]),
        account,
    };
    match request.tty {
        None => Ok((program.spawn(Streams::Pipes, Bond::DiesWithUs)?, None)),
        Some(size) => {
            let (pty, slave) = Pty::open(size, &program.account).map_err(|error| {
                Failure::new(FailureCode::Internal, "the container gives no terminal")
                    .detail(error.to_string())
            })?;
            Ok((
                program.spawn(Streams::Tty(slave), Bond::DiesWithUs)?,
                Some(Arc::new(pty)),
            ))
        }
    }
}

/// Where input goes.
enum Input {
    Pipe(Option<ChildStdin>),
    Pty(Arc<Pty>),
}

async fn follow(socket: Socket, mut child: Child, pty: Option<Arc<Pty>>) {
    let group = Group::of(&child);
    let (mut sink, stream) = socket.split();
    let input = match &pty {
        Some(pty) => Input::Pty(Arc::clone(pty)),
        None => Input::Pipe(child.stdin.take()),
    };
    let ended = tokio::select! {
        ended = show(&mut sink, &mut child, pty.as_deref()) => ended,
        () = listen(stream, input, group) => None,
    };
    match ended {
        Some(exit_code) => {
            drop(
                sink.send(socket::text(&ServerMessage::Exited { exit_code }))
                    .await,
            );
            drop(sink.close().await);
        }
        None => {
            // Nobody listens any more.
            drop((sink, pty));
            hang_up(&mut child, group).await;
        }
    }
}

async fn hang_up(child: &mut Child, group: Option<Group>) {
    let Some(group) = group else {
        return;
    };
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
        group.signal(signal);
    }
    // Its leader may end at once and leave others behind.
    if tokio::time::timeout(HANG_UP_GRACE, child.wait())
        .await
        .is_err()
    {
        tracing::debug!("A process did not end with its connection, and is killed");
    }
    group.signal(Signal::SIGKILL);
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "Cannot wait for a process");
    }
}

/// From the process to the client; the exit code, or `None` where the client is gone.
async fn show(
    sink: &mut SplitSink<Socket, Message>,
    child: &mut Child,
    pty: Option<&Pty>,
) -> Option<i32> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut exited = None;
    let mut drained_at = None;
    let pipe_buffer = || {
        if pty.is_some() {
            Vec::new()
        } else {
            vec![0; READ]
        }
    };
    let (mut out_buffer, mut error_buffer) = (pipe_buffer(), pipe_buffer());
    let mut pty_buffer = vec![0; if pty.is_some() { READ } else { 0 }];
    let mut pty = pty;
    loop {
        if let Some(code) = exited
            && stdout.is_none()
            && stderr.is_none()
            && pty.is_none()
        {
            return Some(code);
        }
        let message = tokio::select! {
            read = read_some(&mut stdout, &mut out_buffer), if stdout.is_some() => {
                chunk(&read, &mut stdout, Channel::Stdout, &out_buffer)
            }
            read = read_some(&mut stderr, &mut error_buffer), if stderr.is_some() => {
                chunk(&read, &mut stderr, Channel::Stderr, &error_buffer)
            }
            read = read_pty(pty, &mut pty_buffer), if pty.is_some() => {
                chunk(&read, &mut pty, Channel::Stdout, &pty_buffer)
            }
            status = child.wait(), if exited.is_none() => {
                exited = Some(status.map_or(-1, exit_code));
                drained_at = Some(Instant::now() + DRAIN);
                None
            }
            () = until(drained_at), if exited.is_some() => return exited,
            _ = pings.tick() => Some(Message::Ping(Bytes::new())),
        };
        if let Some(message) = message
            && sink.send(message).await.is_err()
        {
            return None;
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn read_some<R: AsyncRead + Unpin>(
    from: &mut Option<R>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn read_pty(pty: Option<&Pty>, buffer: &mut [u8]) -> io::Result<usize> {
    match pty {
        Some(pty) => pty.read(buffer).await,
        None => std::future::pending().await,
    }
}

/// A message of what was read; at its end the source is done with.
fn chunk<T>(
    read: &io::Result<usize>,
    from: &mut Option<T>,
    channel: Channel,
    buffer: &[u8],
) -> Option<Message> {
    match read {
        Ok(read) if *read > 0 => Some(Message::Binary(prefixed(
            channel,
            buffer.get(..*read).unwrap_or_default(),
        ))),
        Ok(_) | Err(_) => {
            *from = None;
            None
        }
    }
}

/// From the client to the process, until the client is gone.
async fn listen(mut stream: SplitStream<Socket>, mut input: Input, group: Option<Group>) {
    while let Some(Ok(message)) = stream.next().await {
        match socket::understand(message) {
            Ok(Said::Input(bytes)) => write(&mut input, &bytes).await,
            Ok(Said::Message(ClientMessage::Eof {})) => match &mut input {
                Input::Pipe(pipe) => *pipe = None,
                // What a user types for it: ^D.
                Input::Pty(_) => write(&mut input, &[4]).await,
            },
            Ok(Said::Message(ClientMessage::Resize { size })) => resize(&input, size),
            Ok(Said::Message(ClientMessage::Signal { signal })) => {
                if let (Some(signal), Some(group)) = (signal_of(&signal), group) {
                    group.signal(signal);
                }
            }
            Ok(Said::Nothing) => {}
            Ok(
                Said::Bye | Said::Message(ClientMessage::Attach { .. } | ClientMessage::Exec(_)),
            )
            | Err(_) => return,
        }
    }
}

async fn write(input: &mut Input, bytes: &[u8]) {
    let written = match input {
        Input::Pipe(Some(pipe)) => pipe.write_all(bytes).await,
        Input::Pipe(None) => Ok(()),
        Input::Pty(pty) => pty.write_all(bytes).await,
    };
    if let Err(error) = written {
        // It closed its input, as `head` does; its output and its end are still to come.
        tracing::debug!(%error, "A process does not take its input");
        if let Input::Pipe(pipe) = input {
            *pipe = None;
        }
    }
}

fn resize(input: &Input, size: Size) {
    if let Input::Pty(pty) = input {
        pty.resize(size);
    }
}

fn signal_of(name: &str) -> Option<Signal> {
    Some(match name.strip_prefix("SIG").unwrap_or(name) {
        "TERM" => Signal::SIGTERM,
        "INT" => Signal::SIGINT,
        "HUP" => Signal::SIGHUP,
        "KILL" => Signal::SIGKILL,
        "QUIT" => Signal::SIGQUIT,
        _ => return None,
    })
}
