//! Attaching to a terminal: between a WebSocket and the terminal's holder.

use super::socket::{self, FIRST_MESSAGE_LIMIT, PING_INTERVAL, Said, Socket};
use crate::{
    agent::Agent,
    terminal::{
        client::{self, Reader, Writer},
        protocol::{Attach, Attached, Exited, ask, tell},
    },
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::{Request, Response};
use hyper::body::Incoming;
use local_rpc::server::Body;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_tungstenite::tungstenite::Message;
use wire::{
    failure::{Failure, FailureCode},
    ids::TerminalUuid,
    workspace::{Channel, ClientMessage, ServerMessage},
};

/// For input that was under way when the line was cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) fn answer(
    agent: &Arc<Agent>,
    mut request: Request<Incoming>,
    id: TerminalUuid,
) -> Response<Body> {
    let (pending, response) = match socket::accept(&mut request) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let shared = Arc::clone(agent);
    agent.tasks.spawn(async move {
        if let Some(socket) = pending.open().await {
            shared.dialled.workspace_opened();
            run(&shared, socket, id).await;
            shared.dialled.workspace_closed();
        }
    });
    response
}

async fn run(agent: &Agent, mut socket: Socket, id: TerminalUuid) {
    let first = tokio::time::timeout(FIRST_MESSAGE_LIMIT, socket.next()).await;
    let Ok(Some(Ok(message))) = first else {
        return;
    };
    let attach = match socket::understand(message) {
        Ok(Said::Message(ClientMessage::Attach { from, size })) => Attach { from, size },
        Ok(_) => return refuse(&mut socket, "the first message is not `attach`").await,
        Err(error) => return refuse(&mut socket, &error).await,
    };
    let Some((reader, writer)) = client::attach(&agent.run_dir, id, &attach).await else {
        drop(socket.send(no_terminal()).await);
        drop(socket.close(None).await);
        return;
    };
    let (mut sink, stream) = socket.split();
    let mut listening = pin!(listen(stream, writer));
    tokio::select! {
        shown = show(reader, &mut sink) => match shown {
            Shown::ToTheEnd => {}
            // What was typed before the line was cut still counts.
            Shown::ClientGone => drop(tokio::time::timeout(LAST_WORDS, listening).await),
            Shown::Nothing => drop(sink.send(no_terminal()).await),
        },
        () = &mut listening => {}
    }
    // The peer may be gone: then there is nobody to say good-bye to.
    drop(sink.close().await);
}

fn no_terminal() -> Message {
    socket::failed(
        Failure::new(FailureCode::PreconditionFailed, "there is no such terminal")
            .hint("it has ended, or the gitspace was stopped; open another one"),
    )
}

enum Shown {
    /// The exit code was told, or the holder was killed: the client attaches again and is told that there is no such terminal.
    ToTheEnd,
    ClientGone,
    /// The holder ended before it said anything.
    Nothing,
}

async fn refuse(socket: &mut Socket, why: &str) {
    let failure = Failure::new(
        FailureCode::PreconditionFailed,
        "the message is not understood",
    )
    .detail(why);
    drop(socket.send(socket::failed(failure)).await);
    drop(socket.close(None).await);
}

/// From the holder to the client.
async fn show(mut reader: Reader, sink: &mut SplitSink<Socket, Message>) -> Shown {
    let mut said_something = false;
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (message, last) = tokio::select! {
            frame = reader.next() => match frame {
                Ok(Some(frame)) => match frame.kind {
                    tell::OUTPUT => (Message::Binary(prefixed(Channel::Stdout, &frame.payload)), false),
                    tell::ATTACHED => match serde_json::from_slice::<Attached>(&frame.payload) {
                        Ok(Attached { position, snapshot, size }) => {
                            (socket::text(&ServerMessage::Attached { position, snapshot, size }), false)
                        }
                        Err(_) => return Shown::ToTheEnd,
                    },
                    tell::EXITED => match serde_json::from_slice::<Exited>(&frame.payload) {
                        Ok(Exited { exit_code }) => (socket::text(&ServerMessage::Exited { exit_code }), true),
                        Err(_) => return Shown::ToTheEnd,
                    },
                    _ => return Shown::ToTheEnd,
                },
                Ok(None) | Err(_) if said_something => return Shown::ToTheEnd,
                Ok(None) | Err(_) => return Shown::Nothing,
            },
            _ = pings.tick() => (Message::Ping(Bytes::new()), false),
        };
        said_something = true;
        if sink.send(message).await.is_err() {
            return Shown::ClientGone;
        }
        if last {
            return Shown::ToTheEnd;
        }
    }
}

/// From the client to the holder.
async fn listen(mut stream: SplitStream<Socket>, mut writer: Writer) {
    while let Some(Ok(message)) = stream.next().await {
        let sent = match socket::understand(message) {
            Ok(Said::Input(bytes)) => writer.send(ask::INPUT, &bytes).await,
            Ok(Said::Message(ClientMessage::Resize { size })) => {
                writer
                    .send(ask::RESIZE, &serde_json::to_vec(&size).unwrap_or_default())
                    .await
            }
            Ok(Said::Nothing) => Ok(()),
            Ok(Said::Bye | Said::Message(_)) | Err(_) => return,
        };
        if sent.is_err() {
            // What the holder said last is still to be shown.
            return std::future::pending().await;
        }
    }
}

/// Bytes of a channel, as a binary message.
pub(super) fn prefixed(channel: Channel, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel.byte());
    message.put_slice(bytes);
    message.freeze()
}
