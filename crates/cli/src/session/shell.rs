//! `gitspace shell`: a terminal that outlives its line. A cut line is connected again, from the byte it was cut at.

use super::{
    FIRST_WAIT, Heard, PING_EVERY, Sink, Stream, again, exit_code, hear,
    keys::Keys,
    say, stdin_chunks,
    terminal::{self, LEAVE_ALTERNATE, RESET, RawMode, aside},
    write, writer,
};
use crate::{api::Entry, args::ShellArgs, cmd::Context, error::CliError, net::Socket, output};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{cell::Cell, process::ExitCode};
use tokio::{
    io::AsyncWrite,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_tungstenite::tungstenite::Message;
use wire::{
    ids::TerminalUuid,
    workspace::{ClientMessage, TerminalInfo, TerminalRequest},
};

const TERMINALS: &str = "/api/v1/terminals";
/// What is typed while the line is cut is kept up to this, as a socket's buffer would.
const MAX_HELD: usize = 4096;

/// How a session ends, of the user's or the shell's own will.
#[derive(Debug)]
enum End {
    Exited(i32),
    /// `~.`, or this terminal is gone.
    Left,
}

pub(crate) async fn run(context: &Context, args: ShellArgs) -> Result<ExitCode, CliError> {
    if !terminal::stdin_is_terminal() {
        return Err(CliError::usage(
            "stdin is not a terminal",
            format!("run a command with `gitspace exec {} -- CMD`", args.name),
        ));
    }
    let entry = context.api.grant(&args.name).await?;
    let id = match args.attach {
        Some(id) => id,
        None => start(context, &entry).await?,
    };
    // The first line is opened before the terminal is touched: what goes wrong is told as usual.
    let socket = open(context, &entry, id).await?;
    let mut input = Input::listen()?;
    let mut stdout = writer(std::io::stdout())?;
    let raw = RawMode::enter()?;
    let position = Cell::new(None);
    let end = attend(
        context,
        (&args.name, id),
        &position,
        &mut input,
        &mut stdout,
        socket,
    )
    .await;
    let mut last = RESET.to_owned();
    if !matches!(end, Ok(End::Exited(_))) {
        last.push_str(LEAVE_ALTERNATE);
    }
    drop(write(&mut stdout, last.as_bytes()).await);
    drop(raw);
    match end? {
        End::Exited(code) => Ok(exit_code(code)),
        End::Left => {
            output::note(&format!(
                "\nleft it running; go back with `gitspace shell {} --attach {id}`",
                args.name
            ));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn start(context: &Context, entry: &Entry) -> Result<TerminalUuid, CliError> {
    let request = TerminalRequest {
        argv: Vec::new(),
        size: Some(terminal::size()),
    };
    let info: TerminalInfo = entry
        .post(context.api.client(), TERMINALS, &request)
        .await?;
    Ok(info.id)
}

async fn open(context: &Context, entry: &Entry, id: TerminalUuid) -> Result<Socket, CliError> {
    let path = format!("{TERMINALS}/{id}/attach");
    Ok(entry.websocket(context.api.client(), &path).await?)
}

async fn attend(
    context: &Context,
    (name, id): (&str, TerminalUuid),
    position: &Cell<Option<u64>>,
    input: &mut Input,
    stdout: &mut (impl AsyncWrite + Unpin),
    first: Socket,
) -> Result<End, CliError> {
    let mut socket = first;
    loop {
        let (mut sink, mut stream) = socket.split();
        let why = tokio::select! {
            heard = receive(&mut stream, position, &mut *stdout) => match heard? {
                Heard::Exited(code) => return Ok(End::Exited(code)),
                Heard::Failed(failure) => {
                    return Err(CliError::NotAttached { name: name.to_owned(), failure });
                }
                Heard::Cut(why) => why,
                Heard::Bytes(..) | Heard::Attached { .. } => "it sent what was not expected".to_owned(),
            },
            () = send(&mut sink, input, position.get()) => return Ok(End::Left),
        };
        aside(&format!(
            "the line was cut ({why}); connecting again, ~. leaves"
        ));
        socket = tokio::select! {
            again = again(context, name, FIRST_WAIT, async |entry| open(context, entry, id).await) => again?,
            () = input.hold() => return Ok(End::Left),
        };
    }
}

/// Shows what comes, and counts it.
async fn receive(
    stream: &mut Stream,
    position: &Cell<Option<u64>>,
    stdout: &mut (impl AsyncWrite + Unpin),
) -> Result<Heard, CliError> {
    // A snapshot is the one message after such an `attached`. It stands for what came before, and is not counted.
    let mut is_snapshot = false;
    loop {
        match hear(stream).await {
            Heard::Attached {
                position: at,
                snapshot,
            } => {
                position.set(Some(at));
                is_snapshot = snapshot;
                if snapshot {
                    // A snapshot draws from the top: what is on the screen scrolls away, and is not lost.
                    let rows = usize::from(terminal::size().rows);
                    let clear = format!("{LEAVE_ALTERNATE}{RESET}{}", "\r\n".repeat(rows));
                    write(stdout, clear.as_bytes()).await?;
                }
            }
            Heard::Bytes(_, bytes) => {
                write(stdout, &bytes).await?;
                if std::mem::take(&mut is_snapshot) {
                    continue;
                }
                let count = bytes.len() as u64;
                position.set(position.get().map(|at| at.saturating_add(count)));
            }
            end @ (Heard::Exited(_) | Heard::Failed(_) | Heard::Cut(_)) => return Ok(end),
        }
    }
}

/// Ends where the user leaves: that the line is cut is for the other direction to say.
async fn send(sink: &mut Sink, input: &mut Input, from: Option<u64>) {
    let attach = ClientMessage::Attach {
        from,
        size: terminal::size(),
    };
    let mut lost = say(sink, &attach).await.is_err();
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    loop {
        if lost {
            return input.hold().await;
        }
        if !input.held.is_empty() {
            let typed = std::mem::take(&mut input.held);
            lost = sink.send(Message::binary(typed)).await.is_err();
            continue;
        }
        let event = tokio::select! {
            event = input.next() => event,
            _ = ping.tick() => Event::Quiet,
        };
        let sent = match event {
            Event::Typed => continue,
            Event::Left => return drop(sink.close().await),
            Event::Resized => {
                let size = terminal::size();
                say(sink, &ClientMessage::Resize { size }).await
            }
            Event::Quiet => sink.send(Message::Ping(Vec::new().into())).await,
        };
        lost = sent.is_err();
    }
}

enum Event {
    /// Something is in `held`.
    Typed,
    Left,
    Resized,
    Quiet,
}

/// What the user does. It lives as long as the session, whatever becomes of its lines.
struct Input {
    chunks: mpsc::Receiver<Vec<u8>>,
    keys: Keys,
    /// Typed and not sent.
    held: Vec<u8>,
    resize: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Input {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::Signals);
        Ok(Self {
            resize: listen(SignalKind::window_change())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            chunks: stdin_chunks().map_err(|source| CliError::Input {
                what: "stdin".to_owned(),
                source,
            })?,
            keys: Keys::default(),
            held: Vec::new(),
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            chunk = self.chunks.recv() => match chunk {
                Some(typed) => {
                    if self.keys.feed(&typed, &mut self.held) {
                        Event::Left
                    } else {
                        Event::Typed
                    }
                }
                None => Event::Left,
            },
            _ = self.resize.recv() => Event::Resized,
            _ = self.terminate.recv() => Event::Left,
            _ = self.hangup.recv() => Event::Left,
        }
    }

    /// While there is no line. Ends where the user leaves.
    async fn hold(&mut self) {
        while !matches!(self.next().await, Event::Left) {
            self.held.truncate(MAX_HELD);
        }
    }
}
