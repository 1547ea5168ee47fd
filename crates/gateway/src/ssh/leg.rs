//! A transport on its socket.

use super::keep_alive::Silent;
use bytes::BytesMut;
use ssh_transport::{Disconnect, Packet, Transport, TransportError};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::poll_read_buf;

/// Read at once; and while little comes, because most sessions are idle most of the time.
const READ: usize = 32 * 1024;
const LITTLE: usize = 2 * 1024;
/// Beyond it nothing more is passed on to a leg before it has sent.
const OUT_HIGH: usize = 128 * 1024;
/// The same while the other leg waits for its peer's part of a change of keys: what stands in front of that has to go somewhere.
const OUT_RESCUE: usize = 4 * 1024 * 1024;
/// For the last words to be taken.
const FAREWELL: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub(super) enum LegError {
    #[error("it was closed")]
    Closed,
    #[error(transparent)]
    Silent(#[from] Silent),
    #[error("it broke")]
    Io {
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Transport(#[from] TransportError),
}

#[derive(Debug)]
pub(super) struct Leg<S> {
    stream: S,
    pub(super) transport: Transport,
    closed: bool,
    /// The last read took all that there was room for.
    is_busy: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Leg<S> {
    pub(super) fn new(stream: S, transport: Transport) -> Self {
        Self {
            stream,
            transport,
            closed: false,
            is_busy: false,
        }
    }

    /// Whether it takes another message, which `other` has.
    pub(super) fn has_room<T>(&self, other: &Leg<T>) -> bool {
        let most = if other.transport.waits_for_offer() {
            OUT_RESCUE
        } else {
            OUT_HIGH
        };
        self.transport.can_send() && self.transport.output().len() < most
    }

    /// As long as it has room for what is not another leg's.
    pub(super) fn is_free(&self) -> bool {
        self.transport.can_send() && self.transport.output().len() < OUT_HIGH
    }

    /// Whether its messages are taken: what they are answered with has to go somewhere.
    pub(super) fn reads(&self) -> bool {
        self.transport.output().len() < OUT_HIGH
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Reads and writes what can be; answers with whether anything moved.
    pub(super) fn poll_move(&mut self, cx: &mut Context<'_>) -> Result<bool, LegError> {
        let mut moved = false;
        while !self.transport.output().is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, self.transport.output()) {
                Poll::Ready(Ok(0)) => return Err(LegError::Closed),
                Poll::Ready(Ok(written)) => {
                    self.transport.sent(written);
                    moved = true;
                }
                Poll::Ready(Err(source)) => return Err(LegError::Io { source }),
                Poll::Pending => break,
            }
        }
        while !self.closed && self.transport.wants_input() {
            let inbound: &mut BytesMut = self.transport.inbound();
            inbound.reserve(if self.is_busy { READ } else { LITTLE });
            let room = inbound.capacity() - inbound.len();
            match poll_read_buf(Pin::new(&mut self.stream), cx, inbound) {
                Poll::Ready(Ok(0)) => {
                    self.closed = true;
                    moved = true;
                }
                Poll::Ready(Ok(read)) => {
                    self.is_busy |= read == room;
                    moved = true;
                }
                Poll::Ready(Err(source)) => return Err(LegError::Io { source }),
                Poll::Pending => break,
            }
        }
        Ok(moved)
    }

    /// The next message. Cancel-safe.
    pub(super) async fn packet(&mut self) -> Result<Packet, LegError> {
        poll_fn(|cx| {
            loop {
                let moved = match self.poll_move(cx) {
                    Ok(moved) => moved,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                let before = self.transport.output().len();
                match self.transport.next() {
                    Ok(Some(packet)) => return Poll::Ready(Ok(packet)),
                    Ok(None) if self.closed => return Poll::Ready(Err(LegError::Closed)),
                    // What it answered has to go out, too.
                    Ok(None) if moved || self.transport.output().len() != before => {}
                    Ok(None) => return Poll::Pending,
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
        })
        .await
    }

    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), LegError> {
        self.transport.send(message).map_err(LegError::from)
    }

    /// Gives back memory that nothing is in.
    pub(super) fn relax(&mut self) {
        self.transport.relax();
        self.is_busy = false;
    }

    /// Says why, and closes. Whoever does not take it is left alone soon.
    pub(super) async fn farewell(mut self, reason: Disconnect, words: &str) {
        self.transport.disconnect(reason, words);
        let work = async {
            while !self.transport.output().is_empty() {
                match self.stream.write(self.transport.output()).await {
                    Ok(0) | Err(_) => return,
                    Ok(written) => self.transport.sent(written),
                }
            }
            if self.stream.shutdown().await.is_err() {
                return;
            }
            // A reset must not take the words with it: until the client has closed, too.
            let mut rest = BytesMut::new();
            while let Ok(1..) = poll_fn(|cx| {
                rest.clear();
                rest.reserve(READ);
                poll_read_buf(Pin::new(&mut self.stream), cx, &mut rest)
            })
            .await
            {}
        };
        drop(tokio::time::timeout(FAREWELL, work).await);
    }
}
