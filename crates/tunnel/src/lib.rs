//! Many streams over one WebSocket at a time, for a host that nobody can connect to.
//!
//! A tunnel outlives its lines: batches are numbered, kept until the other end has them, and sent again on the next line, so that a cut costs its
//! streams time and nothing else. The order in which streams are served is fair, and favours those that say little.
//!
//! | module | what |
//! |---|---|
//! | `frame` | how streams are written down |
//! | `mux` | the streams and the rules, without a line |
//! | `fair` | whose turn it is |
//! | `window` | how much a stream may have under way |
//! | `replay` | what may have to be sent again |
//! | `pace` | how much of a line may be under way |
//! | `stream` | a stream as a reader and writer |
//! | `pump` | a stream and a socket, joined |
//! | `line` | a tunnel on a WebSocket |
//!
//! Tasks: none of its own. Whoever has the line runs [`Tunnel::carry`].
//!
//! Invariants:
//! - What is held of a stream is bounded by its window and [`mux`]'s limits, and of all by the [`Budget`].
//! - A stream ends at both ends in the same way: an end is one that was said.
//! - Nothing is opened by the end that accepts.
//!
//! Who the two ends are, and what a stream's first words mean, is not decided here.

mod fair;
mod frame;
mod line;
mod mux;
mod pace;
mod pump;
mod replay;
mod stream;
mod window;

#[cfg(test)]
mod tests;

pub use frame::{MAX_BATCH, MAX_WORDS, Violation};
pub use line::{Cut, prefer_small, websocket_config};
pub use mux::{Broken, MAX_STREAMS, OpenError, Role};
pub use pump::pump;
pub use stream::TunnelStream;
pub use window::Budget;

use bytes::Bytes;
use line::Line;
use mux::Mux;
use std::{future::poll_fn, sync::Arc, time::Duration};
use stream::Shared;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_tungstenite::WebSocketStream;

/// One end of a tunnel. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tunnel {
    pub(crate) shared: Arc<Shared>,
}

impl Tunnel {
    /// Without a line. `budget` is what it may use beside others.
    #[must_use]
    pub fn new(role: Role, budget: Budget) -> Self {
        Self {
            shared: Arc::new(Shared::new(Mux::new(role, budget))),
        }
    }

    /// Asks the other end for a stream to where `words` say. Cancel-safe: what is not waited for is given up.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, words: Bytes) -> Result<TunnelStream, OpenError> {
        let id = self.shared.lock().open(words)?;
        let stream = TunnelStream {
            shared: Arc::clone(&self.shared),
            id,
        };
        poll_fn(|cx| self.shared.lock().poll_opened(id, cx)).await?;
        Ok(stream)
    }

    /// A stream that the other end wants. `None` at the tunnel's end.
    pub async fn incoming(&self) -> Option<Incoming> {
        let (id, words) = poll_fn(|cx| self.shared.lock().poll_incoming(cx)).await?;
        let stream = TunnelStream {
            shared: Arc::clone(&self.shared),
            id,
        };
        Some(Incoming { stream, words })
    }

    /// Another line is to come, and the one of before is over.
    #[must_use]
    pub fn begin(&self) -> NextLine {
        let (number, received) = self.shared.lock().begin();
        NextLine { number, received }
    }

    /// How many there are, also those that end just now.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.shared.lock().streams()
    }

    /// To the other end and back, when that was last measured.
    #[must_use]
    pub fn trip(&self) -> Option<Duration> {
        self.shared.lock().trip()
    }

    /// Goes on over `socket`, whose other end has `received` numbered batches, until that is cut.
    pub async fn carry<S>(&self, next: NextLine, socket: WebSocketStream<S>, received: u64) -> Cut
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let resumed = {
            let mut mux = self.shared.lock();
            if !mux.is_on(next.number) {
                return Cut::Replaced;
            }
            mux.resume(received, Instant::now())
        };
        let cut = match resumed {
            Ok(()) => Line::new(self, next.number, socket).run().await,
            Err(source) => Cut::Violation { source },
        };
        match &cut {
            Cut::Violation { source } => self.end(&source.to_string()),
            Cut::Over { why } => self.end(why),
            Cut::Closed | Cut::Silent | Cut::Broken { .. } | Cut::Replaced | Cut::Ended { .. } => {}
        }
        cut
    }

    /// There is no other line to come: every stream breaks, and the other end is told where a line is there.
    pub fn end(&self, why: &str) {
        self.shared.lock().end(why);
    }

    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.shared.lock().is_ended()
    }
}

/// A line that is agreed on, and not there yet.
#[derive(Debug)]
pub struct NextLine {
    number: u64,
    /// Numbered batches that came so far, for the greeting.
    pub received: u64,
}

/// A stream that is wanted, and not there yet.
#[derive(Debug)]
pub struct Incoming {
    stream: TunnelStream,
    words: Bytes,
}

impl Incoming {
    /// Where it is to lead.
    #[must_use]
    pub fn words(&self) -> &[u8] {
        &self.words
    }

    /// Its bytes may come.
    #[must_use]
    pub fn accept(self) -> TunnelStream {
        self.stream.shared.lock().accept(self.stream.id);
        self.stream
    }

    /// With the reason, of at most [`MAX_WORDS`].
    pub fn refuse(self, words: Bytes) {
        self.stream.shared.lock().refuse(self.stream.id, words);
    }
}
