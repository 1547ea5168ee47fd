//! A tunnel on a line: moves batches between a WebSocket and the streams, until one of the two ends.

use crate::{
    Tunnel,
    frame::{MAX_BATCH, Violation},
    mux::{Mux, Taken},
};
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use socket2::SockRef;
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, MutexGuard},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

const PING_PERIOD: Duration = Duration::from_secs(5);
/// Without a word for so long the line is cut: the tunnel goes on on another.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// What came is acknowledged after so long where nothing is said anyway.
const ACK_AFTER: Duration = Duration::from_millis(5);
const READ_BUFFER: usize = 64 * 1024;
/// In a close frame: the tunnel is over, and not this line of it.
const OVER: CloseCode = CloseCode::Library(4001);
/// For that to be written.
const OVER_LIMIT: Duration = Duration::from_secs(1);
/// Characters, of up to four bytes; a close frame has 123 bytes for them.
const MAX_REASON: usize = 30;
/// Messages in a period of pings that say nothing: pings, and acknowledgements of what was acknowledged. A line that is well has a few.
const MAX_IDLE: u32 = 200;
/// Messages in a row in one direction.
const READS: usize = 4;
const WRITES: usize = 4;
/// Times that both directions are looked at before others have the thread.
const ROUNDS: usize = 2;

/// Bytes of a line that the kernel holds and has not sent. What goes first is decided here: whatever is held there goes before a keystroke.
const UNSENT: u32 = 64 * 1024;

/// Makes a line of a TCP connection, before it is written to.
///
/// # Errors
/// Of `setsockopt`: the line works, and a small message may wait for much that was written before it.
pub fn prefer_small(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(UNSENT)
}

/// Why a line ended. The tunnel goes on on another one, but for the last three.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    #[error("the other end closed the line")]
    Closed,
    #[error("nothing was heard for {} s", SILENCE_LIMIT.as_secs())]
    Silent,
    #[error("the line broke")]
    Broken {
        #[source]
        source: Box<tungstenite::Error>,
    },
    #[error("another line took its place")]
    Replaced,
    #[error("the other end does not keep to the protocol")]
    Violation {
        #[source]
        source: Violation,
    },
    #[error("the other end ended the tunnel: {why}")]
    Over { why: String },
    #[error("the tunnel ended: {why}")]
    Ended { why: Arc<str> },
}

/// Of a WebSocket that becomes a line.
#[must_use]
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // What is to be sent waits where it can still be overtaken.
        .write_buffer_size(0)
        // Also what it answers to pings.
        .max_write_buffer_size(4 * MAX_BATCH)
        .max_message_size(Some(MAX_BATCH))
        .max_frame_size(Some(MAX_BATCH))
}

pub(crate) struct Line<'a, S> {
    tunnel: &'a Tunnel,
    number: u64,
    socket: WebSocketStream<S>,
    heard: Instant,
    ticks: Interval,
    /// Sent and not answered; the number is in it.
    ping: Option<(u64, Instant)>,
    pings: u64,
    /// Messages since the last of those that said nothing.
    idle: u32,
    ping_now: bool,
    ack: Pin<Box<Sleep>>,
    ack_armed: bool,
    flushed: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Line<'a, S> {
    pub(crate) fn new(tunnel: &'a Tunnel, number: u64, socket: WebSocketStream<S>) -> Self {
        let mut ticks = interval(PING_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            tunnel,
            number,
            socket,
            heard: Instant::now(),
            ticks,
            ping: None,
            pings: 0,
            idle: 0,
            ping_now: false,
            ack: Box::pin(sleep(ACK_AFTER)),
            ack_armed: false,
            flushed: true,
        }
    }

    pub(crate) async fn run(mut self) -> Cut {
        let cut = match poll_fn(|cx| self.poll(cx)).await {
            Ok(never) => match never {},
            Err(cut) => cut,
        };
        match &cut {
            Cut::Ended { why } => self.say_over(why).await,
            Cut::Violation { source } => self.say_over(&source.to_string()).await,
            Cut::Closed | Cut::Silent | Cut::Broken { .. } | Cut::Replaced | Cut::Over { .. } => {}
        }
        cut
    }

    /// So that nobody at the other end waits for another line.
    async fn say_over(&mut self, why: &str) {
        let reason: String = why.chars().take(MAX_REASON).collect();
        let frame = CloseFrame {
            code: OVER,
            reason: reason.into(),
        };
        // Where it does not hear that, it finds out when it opens another line.
        drop(timeout(OVER_LIMIT, self.socket.close(Some(frame))).await);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::convert::Infallible, Cut>> {
        while self.ticks.poll_tick(cx).is_ready() {
            if self.heard.elapsed() >= SILENCE_LIMIT {
                return Poll::Ready(Err(Cut::Silent));
            }
            self.ping_now = true;
            self.idle = 0;
            self.mux()?.sweep(Instant::now());
        }
        let mut is_busy = true;
        for _ in 0..ROUNDS {
            let read = self.read(cx)?;
            let wrote = self.write(cx)?;
            is_busy = read || wrote;
            if !is_busy {
                break;
            }
        }
        if is_busy {
            // What came is in a buffer here: nobody else wakes for it.
            cx.waker().wake_by_ref();
        }
        if !self.ack_armed && self.mux()?.owes_ack() {
            self.ack_armed = true;
            self.ack.as_mut().reset(Instant::now() + ACK_AFTER);
        }
        if self.ack_armed {
            ready!(self.ack.as_mut().poll(cx));
            self.ack_armed = false;
            self.mux()?.acknowledge();
            // What is to be said now is said in another turn.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The streams, as long as this is their line.
    fn mux(&self) -> Result<MutexGuard<'_, Mux>, Cut> {
        let mux = self.tunnel.shared.lock();
        if let Some(why) = mux.why_ended() {
            Err(Cut::Ended { why })
        } else if mux.is_on(self.number) {
            Ok(mux)
        } else {
            Err(Cut::Replaced)
        }
    }

    /// Whether anything came.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Cut> {
        let mut any = false;
        for _ in 0..READS {
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(message)) => message.map_err(broken)?,
                Poll::Ready(None) => return Err(Cut::Closed),
                Poll::Pending => break,
            };
            any = true;
            self.heard = Instant::now();
            match message {
                Message::Binary(batch) => {
                    let taken = self.mux()?.take(batch, self.heard);
                    if taken.map_err(violation)? == Taken::Nothing {
                        self.says_nothing()?;
                    }
                }
                Message::Pong(payload) => {
                    self.says_nothing()?;
                    self.pong(&payload);
                }
                Message::Close(Some(CloseFrame { code: OVER, reason })) => {
                    return Err(Cut::Over {
                        why: reason.as_str().to_owned(),
                    });
                }
                Message::Close(_) => return Err(Cut::Closed),
                // tungstenite answers them by itself.
                Message::Ping(_) => self.says_nothing()?,
                Message::Text(_) | Message::Frame(_) => return Err(violation(Violation::Text)),
            }
        }
        Ok(any)
    }

    fn says_nothing(&mut self) -> Result<(), Cut> {
        self.idle += 1;
        if self.idle > MAX_IDLE {
            return Err(violation(Violation::Flood));
        }
        Ok(())
    }

    fn pong(&mut self, payload: &Bytes) {
        if let Some((number, sent)) = self.ping
            && payload.as_ref() == number.to_be_bytes()
        {
            self.ping = None;
            let now = Instant::now();
            self.tunnel.shared.lock().measured(now - sent, now);
        }
    }

    /// Whether anything was given to the socket.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Cut> {
        let mut any = false;
        let now = Instant::now();
        for _ in 0..WRITES {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(ready) => ready.map_err(broken)?,
                Poll::Pending => return Ok(any),
            }
            let message = if std::mem::take(&mut self.ping_now) {
                self.pings += 1;
                self.ping = Some((self.pings, Instant::now()));
                Message::Ping(Bytes::copy_from_slice(&self.pings.to_be_bytes()))
            } else if let Poll::Ready(batch) = self.mux()?.poll_batch(cx, now) {
                Message::Binary(batch)
            } else {
                break;
            };
            Pin::new(&mut self.socket)
                .start_send(message)
                .map_err(broken)?;
            self.flushed = false;
            any = true;
        }
        if !self.flushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx)
        {
            flushed.map_err(broken)?;
            self.flushed = true;
        }
        Ok(any)
    }
}

fn violation(source: Violation) -> Cut {
    Cut::Violation { source }
}

fn broken(source: tungstenite::Error) -> Cut {
    match source {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Cut::Closed,
        source => Cut::Broken {
            source: Box::new(source),
        },
    }
}
