//! `gitspace exec`: one command, with its own stdin, stdout, stderr, signals and exit code. It ends with its line.

use super::{
    Heard, PING_EVERY, Sink, Stream, exit_code, hear, say, stdin_chunks,
    terminal::{self, RawMode},
    write, writer,
};
use crate::{args::Exec, cmd::Context, error::CliError, exit::Exit, net::Socket};
use futures_util::{SinkExt as _, StreamExt as _};
use std::process::ExitCode;
use tokio::{
    io::AsyncWrite,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_tungstenite::tungstenite::Message;
use wire::workspace::{Channel, ClientMessage, ExecRequest};

const PATH: &str = "/api/v1/exec";
/// After so many Ctrl-C the user no longer waits for a command that does not listen.
const PATIENCE: u32 = 3;

pub(crate) async fn run(context: &Context, args: Exec) -> Result<ExitCode, CliError> {
    let entry = context.api.grant(&args.name).await?;
    let socket = entry.websocket(context.api.client(), PATH).await?;
    let request = ExecRequest {
        argv: args.command,
        cwd: args.cwd,
        env: args.env.into_iter().collect(),
        tty: args.tty.then(terminal::size),
    };
    let input = if args.no_stdin {
        None
    } else {
        Some(stdin_chunks().map_err(|source| CliError::Input {
            what: "stdin".to_owned(),
            source,
        })?)
    };
    let signals = Signals::listen(args.tty)?;
    let _raw = if args.tty && terminal::stdin_is_terminal() {
        Some(RawMode::enter()?)
    } else {
        None
    };
    let end = carry(
        socket,
        request,
        input,
        signals,
        writer(std::io::stdout())?,
        writer(std::io::stderr())?,
    )
    .await?;
    match end {
        Heard::Exited(code) => Ok(exit_code(code)),
        Heard::Failed(failure) => Err(CliError::NotStarted {
            name: args.name,
            failure,
        }),
        Heard::Cut(why) => Err(CliError::Line {
            name: args.name,
            why,
        }),
        Heard::Bytes(..) | Heard::Attached { .. } => Ok(Exit::Failure.into()),
    }
}

/// From the request to the last word about it.
async fn carry(
    socket: Socket,
    request: ExecRequest,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    signals: Signals,
    stdout: impl AsyncWrite + Unpin,
    stderr: impl AsyncWrite + Unpin,
) -> Result<Heard, CliError> {
    let (mut sink, mut stream) = socket.split();
    if let Err(error) = say(&mut sink, &ClientMessage::Exec(request)).await {
        return Ok(Heard::Cut(error.to_string()));
    }
    let up = send(&mut sink, input, signals);
    let down = receive(&mut stream, stdout, stderr);
    let end = tokio::select! {
        end = down => end,
        end = up => Ok(end),
    };
    // A courtesy: the process dies with the line anyhow.
    drop(sink.close().await);
    end
}

async fn receive(
    stream: &mut Stream,
    mut stdout: impl AsyncWrite + Unpin,
    mut stderr: impl AsyncWrite + Unpin,
) -> Result<Heard, CliError> {
    loop {
        match hear(stream).await {
            Heard::Bytes(Channel::Stdout, bytes) => write(&mut stdout, &bytes).await?,
            Heard::Bytes(Channel::Stderr, bytes) => write(&mut stderr, &bytes).await?,
            Heard::Attached { .. } => {}
            end @ (Heard::Exited(_) | Heard::Failed(_) | Heard::Cut(_)) => return Ok(end),
        }
    }
}

/// Ends only where the user gives up: what becomes of the command is for the other direction to say.
async fn send(
    sink: &mut Sink,
    mut input: Option<mpsc::Receiver<Vec<u8>>>,
    mut signals: Signals,
) -> Heard {
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    let mut interrupts = 0;
    if input.is_none() && say(sink, &ClientMessage::Eof {}).await.is_err() {
        return std::future::pending().await;
    }
    loop {
        let sent = tokio::select! {
            chunk = next(&mut input) => match chunk {
                Some(bytes) => sink.send(Message::binary(bytes)).await,
                None => {
                    input = None;
                    say(sink, &ClientMessage::Eof {}).await
                }
            },
            event = signals.next() => match event {
                Event::Resized => say(sink, &ClientMessage::Resize { size: terminal::size() }).await,
                Event::Signal(signal) => {
                    interrupts += u32::from(signal == "INT");
                    if interrupts >= PATIENCE {
                        return Heard::Exited(i32::from(Exit::Interrupted as u8));
                    }
                    say(sink, &ClientMessage::Signal { signal: signal.to_owned() }).await
                }
            },
            _ = ping.tick() => sink.send(Message::Ping(Vec::new().into())).await,
        };
        if sent.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn next(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

enum Event {
    Resized,
    Signal(&'static str),
}

/// Signals to pass on. With a terminal Ctrl-C is a key, and the size matters.
struct Signals {
    tty: bool,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    resize: Signal,
}

impl Signals {
    fn listen(tty: bool) -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::Signals);
        Ok(Self {
            tty,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            resize: listen(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.interrupt.recv() => Event::Signal("INT"),
            _ = self.terminate.recv() => Event::Signal("TERM"),
            _ = self.hangup.recv() => Event::Signal("HUP"),
            _ = self.quit.recv() => Event::Signal("QUIT"),
            _ = self.resize.recv(), if self.tty => Event::Resized,
        }
    }
}

#[cfg(test)]
mod tests;
