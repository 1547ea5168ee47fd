//! Exec and shell: bytes between this terminal and a process in a gitspace, through the gateway.
//!
//! Both directions run at the same time, so that a process that writes and does not read (or the other way round) never blocks the
//! other one. Invariant: the terminal's settings are put back on every way out.

mod again;
pub(crate) mod exec;
mod keys;
pub(crate) mod shell;
mod terminal;

pub(crate) use again::{FIRST_WAIT, again, longer};
pub(crate) use terminal::aside;

use crate::{error::CliError, net::Socket};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use std::{io, os::fd::AsFd, process::ExitCode, time::Duration};
use tokio::{
    fs::File,
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use wire::{
    failure::Failure,
    workspace::{Channel, ClientMessage, ServerMessage},
};

/// A ping each, so that a line that is dead is found by both ends.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Nothing heard for so long, pongs included: the line is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(40);
/// Bytes read from stdin at once.
const CHUNK: usize = 16 * 1024;
/// Chunks of stdin on their way: enough to keep the line busy. When full, stdin is not read.
const CHUNKS: usize = 4;

type Sink = SplitSink<Socket, Message>;
type Stream = SplitStream<Socket>;

/// What the other end said.
#[derive(Debug)]
enum Heard {
    Bytes(Channel, Bytes),
    Attached {
        position: u64,
        snapshot: bool,
    },
    Exited(i32),
    Failed(Box<Failure>),
    /// The line is gone, and why.
    Cut(String),
}

/// The next thing that matters.
async fn hear(stream: &mut Stream) -> Heard {
    loop {
        let message = match timeout(SILENCE_LIMIT, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return Heard::Cut(error.to_string()),
            Ok(None) => return Heard::Cut("it was closed".to_owned()),
            Err(_) => {
                return Heard::Cut(format!("nothing came for {} s", SILENCE_LIMIT.as_secs()));
            }
        };
        match message {
            Message::Binary(mut bytes) => {
                let channel = bytes.first().copied().and_then(Channel::from_byte);
                let Some(channel) = channel else {
                    return Heard::Cut("it sent bytes for no known channel".to_owned());
                };
                return Heard::Bytes(channel, bytes.split_off(1));
            }
            Message::Text(text) => match serde_json::from_str(text.as_str()) {
                Ok(ServerMessage::Attached {
                    position, snapshot, ..
                }) => return Heard::Attached { position, snapshot },
                Ok(ServerMessage::Exited { exit_code }) => return Heard::Exited(exit_code),
                Ok(ServerMessage::Failed { failure }) => return Heard::Failed(Box::new(failure)),
                Err(error) => {
                    return Heard::Cut(format!("it sent what is not understood: {error}"));
                }
            },
            Message::Close(frame) => {
                let why = frame
                    .map(|frame| frame.reason.to_string())
                    .unwrap_or_default();
                return Heard::Cut(if why.is_empty() {
                    "it was closed".to_owned()
                } else {
                    why
                });
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

async fn say(sink: &mut Sink, message: &ClientMessage) -> Result<(), tungstenite::Error> {
    let text = serde_json::to_string(message)
        .map_err(|error| tungstenite::Error::Io(io::Error::other(error)))?;
    sink.send(Message::text(text)).await
}

/// Stdin, in chunks; ends with its end. A thread of its own: a blocked read of a terminal cannot be cancelled, and must not
/// hold up the end of the process.
fn stdin_chunks() -> Result<mpsc::Receiver<Vec<u8>>, io::Error> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            use std::io::Read as _;
            let mut stdin = io::stdin().lock();
            let mut chunk = vec![0; CHUNK];
            loop {
                match stdin.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(count) => {
                        let bytes = chunk.get(..count).unwrap_or_default().to_vec();
                        if sender.blocking_send(bytes).is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A terminal that is gone reads as an error: the end as well.
                    Err(_) => return,
                }
            }
        })?;
    Ok(receiver)
}

/// Stdout or stderr for writes that do not stop the runtime: a slow reader of ours must not stop our own reading.
fn writer(of: impl AsFd) -> Result<File, CliError> {
    let own = of.as_fd().try_clone_to_owned().map_err(CliError::Output)?;
    Ok(File::from_std(std::fs::File::from(own)))
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), CliError> {
    let written = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    written.await.map_err(CliError::Output)
}

/// The command's own code. What no process can end with on Unix is a failure.
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
