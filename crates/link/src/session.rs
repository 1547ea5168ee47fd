//! What a live connection does, the same at both ends: numbers, acknowledgements, heartbeats, silence.

use crate::{
    codec,
    hello::HelloRefused,
    inbox::{Inbox, OutOfOrder, Taken},
    limits::{
        ACK_DELAY, ACK_EVERY, BACKOFF_CAP_TENTHS, DIAL_HEARTBEATS, HEARTBEAT, MAX_HEARTBEAT,
        MAX_SENT_BODY, MAX_SILENCE_LIMIT, MIN_DIAL_LIMIT, MIN_HEARTBEAT, SERVER_PATIENCE_QUARTERS,
        SILENCE_QUARTERS,
    },
    outbox::{AckBeyond, Class, Outbox, SendRefused},
};
use serde::Serialize;
use std::time::{Duration, Instant};
use wire::{
    control::{DisconnectCode, Epoch, Frame, ProbeReport},
    ids::StreamUuid,
};

/// How often a side speaks and how long it bears silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat: Duration,
    pub silence_limit: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self::of_heartbeat(HEARTBEAT)
    }
}

impl Timing {
    /// With the silence limit that goes with it.
    #[must_use]
    pub fn of_heartbeat(heartbeat: Duration) -> Self {
        let heartbeat = heartbeat.clamp(MIN_HEARTBEAT, MAX_HEARTBEAT);
        Self {
            heartbeat,
            silence_limit: heartbeat * SILENCE_QUARTERS / 4,
        }
    }

    /// How long a dial may take.
    #[must_use]
    pub fn dial_limit(&self) -> Duration {
        (self.heartbeat * DIAL_HEARTBEATS).max(MIN_DIAL_LIMIT)
    }

    /// Longest pause before a control plane that is not reached is dialled again.
    #[must_use]
    pub fn backoff_cap(&self) -> Duration {
        self.heartbeat * BACKOFF_CAP_TENTHS / 10
    }

    /// What the server asks for, within what makes sense: the silence limit is at least two heartbeats.
    #[must_use]
    pub fn clamped(heartbeat_ms: u64, silence_limit_ms: u64) -> Self {
        let heartbeat = Duration::from_millis(heartbeat_ms).clamp(MIN_HEARTBEAT, MAX_HEARTBEAT);
        let silence_limit =
            Duration::from_millis(silence_limit_ms).clamp(heartbeat * 2, MAX_SILENCE_LIMIT);
        Self {
            heartbeat,
            silence_limit,
        }
    }
}

/// The peer broke the protocol; the connection ends.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    #[error(transparent)]
    Frame(#[from] codec::FrameError),
    #[error("a frame of epoch {} came on a connection of epoch {}", found.0, expected.0)]
    Epoch { expected: Epoch, found: Epoch },
    #[error(transparent)]
    Order(#[from] OutOfOrder),
    #[error(transparent)]
    Ack(#[from] AckBeyond),
    #[error("a `{frame}` frame came while the link is {state}")]
    Unexpected {
        frame: &'static str,
        state: &'static str,
    },
    #[error("a binary message came, and only text is spoken")]
    Binary,
    #[error("a message came that is larger than the WebSocket takes")]
    Oversized,
    #[error(transparent)]
    Hello(#[from] HelloRefused),
}

impl Violation {
    /// What the peer is told.
    #[must_use]
    pub const fn code(&self) -> DisconnectCode {
        match self {
            Self::Frame(codec::FrameError::TooLarge { .. }) | Self::Oversized | Self::Hello(_) => {
                DisconnectCode::TooLarge
            }
            Self::Frame(codec::FrameError::Unreadable { .. })
            | Self::Epoch { .. }
            | Self::Order(_)
            | Self::Ack(_)
            | Self::Unexpected { .. }
            | Self::Binary => DisconnectCode::Protocol,
        }
    }
}

/// What a frame of a live connection is for others than the session.
#[derive(Debug)]
pub enum Arrived<R> {
    Body(Delivery<R>),
    /// The way from here on is asked for.
    Probe {
        id: u64,
        all: bool,
    },
    Probed {
        id: u64,
        report: Box<ProbeReport>,
    },
}

/// Something for the application.
#[derive(Debug)]
pub struct Delivery<R> {
    /// Give it back to [`Session::consumed`] when done with it.
    pub seq: u64,
    pub body: R,
}

/// Which end of the link this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Speaks at least once a heartbeat.
    #[default]
    Client,
    /// Asks where the other side is late with that.
    Server,
}

#[derive(Debug)]
struct Connection {
    epoch: Epoch,
    timing: Timing,
    last_heard: Instant,
    last_sent: Instant,
    /// Highest acknowledgement sent on this connection.
    ack_sent: u64,
    ack_due: Option<Instant>,
    pong: Option<u64>,
    ping_due: bool,
    ping_id: u64,
    pong_heard: u64,
    /// A probe, or the answer to one. A later one takes its place: it is about this moment.
    aside: Option<Box<str>>,
}

impl Connection {
    /// When a ping is due.
    fn ping_at(&self, role: Role) -> Instant {
        let heartbeat = self.timing.heartbeat;
        match role {
            Role::Client => self.last_sent + heartbeat,
            Role::Server => {
                self.last_sent.max(self.last_heard) + heartbeat * SERVER_PATIENCE_QUARTERS / 4
            }
        }
    }
}

/// Queues and numbers of one end, over its connections.
#[derive(Debug, Default)]
pub struct Session {
    role: Role,
    outbox: Outbox,
    inbox: Inbox,
    connection: Option<Connection>,
}

impl Session {
    /// The server's, that knows what an earlier connection took.
    #[must_use]
    pub const fn resumed(inbox: Inbox) -> Self {
        Self {
            role: Role::Server,
            outbox: Outbox::new(),
            inbox,
            connection: None,
        }
    }

    /// Both sides have greeted: `peer` numbers what comes, and has `received` of ours.
    ///
    /// # Errors
    /// Refuses a peer that has received what was never sent.
    pub fn begin(
        &mut self,
        now: Instant,
        epoch: Epoch,
        timing: Timing,
        peer: StreamUuid,
        received: u64,
    ) -> Result<(), AckBeyond> {
        self.outbox.resume(received)?;
        self.inbox.begin(peer);
        self.connection = Some(Connection {
            epoch,
            timing,
            last_heard: now,
            last_sent: now,
            ack_sent: self.inbox.consumed(),
            ack_due: None,
            pong: None,
            ping_due: false,
            ping_id: 0,
            pong_heard: 0,
            aside: None,
        });
        Ok(())
    }

    /// The connection ended; queues stay.
    pub fn end(&mut self) {
        self.connection = None;
    }

    /// Queues a body.
    ///
    /// # Errors
    /// Refuses what is too large or does not fit beside what waits.
    pub fn send<S: Serialize>(&mut self, body: &S, class: Class) -> Result<(), SendRefused> {
        let text = serde_json::to_string(body).map_err(|error| SendRefused::Encoding {
            reason: error.to_string(),
        })?;
        if text.len() > MAX_SENT_BODY {
            return Err(SendRefused::TooLarge {
                length: text.len(),
                limit: MAX_SENT_BODY,
            });
        }
        self.outbox.push(text.into(), class)
    }

    /// A frame of a live connection, other than a greeting or a `bye`.
    ///
    /// # Errors
    /// Says how the peer broke the protocol.
    pub fn take<R>(
        &mut self,
        now: Instant,
        frame: Frame<R>,
    ) -> Result<Option<Arrived<R>>, Violation> {
        let unexpected = |frame| Violation::Unexpected {
            frame,
            state: "live",
        };
        let Some(connection) = &mut self.connection else {
            return Err(Violation::Unexpected {
                frame: "data",
                state: "not live",
            });
        };
        let check = |found| {
            if found == connection.epoch {
                Ok(())
            } else {
                Err(Violation::Epoch {
                    expected: connection.epoch,
                    found,
                })
            }
        };
        match frame {
            Frame::Data {
                epoch,
                seq,
                ack,
                body,
            } => {
                check(epoch)?;
                self.outbox.acknowledge(ack)?;
                let taken = self.inbox.take(seq)?;
                connection.last_heard = now;
                Ok(match taken {
                    Taken::Fresh => Some(Arrived::Body(Delivery { seq, body })),
                    Taken::Duplicate => {
                        connection.ack_due = Some(now);
                        None
                    }
                })
            }
            Frame::Ack { epoch, ack } => {
                check(epoch)?;
                self.outbox.acknowledge(ack)?;
                connection.last_heard = now;
                Ok(None)
            }
            Frame::Ping { epoch, id } => {
                check(epoch)?;
                connection.last_heard = now;
                // Pings that came while the socket was full are answered once.
                connection.pong = Some(id);
                Ok(None)
            }
            Frame::Pong { epoch, id } => {
                check(epoch)?;
                connection.pong_heard = connection.pong_heard.max(id.min(connection.ping_id));
                connection.last_heard = now;
                Ok(None)
            }
            Frame::Probe { epoch, id, all } => {
                check(epoch)?;
                // Only a server asks.
                if self.role == Role::Server {
                    return Err(unexpected("probe"));
                }
                connection.last_heard = now;
                Ok(Some(Arrived::Probe { id, all }))
            }
            Frame::Probed { epoch, id, report } => {
                check(epoch)?;
                if self.role == Role::Client {
                    return Err(unexpected("probed"));
                }
                connection.last_heard = now;
                Ok(Some(Arrived::Probed { id, report }))
            }
            Frame::Challenge { .. } => Err(unexpected("challenge")),
            Frame::Hello { .. } => Err(unexpected("hello")),
            Frame::HelloRest { .. } => Err(unexpected("hello_rest")),
            Frame::Welcome { .. } => Err(unexpected("welcome")),
            Frame::Bye { .. } => Err(unexpected("bye")),
        }
    }

    /// Sends a probe, or the answer to one, in front of every body. Nothing where no connection is live.
    pub(crate) fn say_aside(&mut self, frame: impl FnOnce(Epoch) -> Option<String>) {
        if let Some(connection) = &mut self.connection {
            connection.aside = frame(connection.epoch).map(String::into_boxed_str);
        }
    }

    /// Asks for a sign of life, whoever spoke last. The answer is the number of the ping that will go out.
    pub(crate) fn ping(&mut self) -> Option<u64> {
        let connection = self.connection.as_mut()?;
        connection.ping_due = true;
        Some(connection.ping_id.saturating_add(1))
    }

    /// Whether the peer has answered the ping of this number, or a later one.
    #[must_use]
    pub fn answered(&self, ping: u64) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.pong_heard >= ping)
    }

    /// The application is done with everything up to `seq`: it may be acknowledged.
    pub fn consumed(&mut self, now: Instant, seq: u64) {
        self.inbox.consume(seq);
        let consumed = self.inbox.consumed();
        if let Some(connection) = &mut self.connection {
            let owed = consumed.saturating_sub(connection.ack_sent);
            if owed >= ACK_EVERY {
                connection.ack_due = Some(now);
            } else if owed > 0 {
                let due = now + ACK_DELAY;
                connection.ack_due = Some(connection.ack_due.map_or(due, |at| at.min(due)));
            }
        }
    }

    /// The next frame; `None` where there is nothing to say.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<String> {
        let ack = self.inbox.consumed();
        let connection = self.connection.as_mut()?;
        let epoch = connection.epoch;
        let frame = if let Some(id) = connection.pong.take() {
            codec::pong(epoch, id)
        } else if std::mem::replace(&mut connection.ping_due, false) {
            connection.ping_id = connection.ping_id.saturating_add(1);
            codec::ping(epoch, connection.ping_id)
        } else if let Some(frame) = connection.aside.take() {
            frame.into_string()
        } else if let Some((seq, body)) = self.outbox.next_to_send() {
            connection.ack_sent = ack;
            connection.ack_due = None;
            codec::data(epoch, seq, ack, body)
        } else if connection.ack_due.is_some_and(|due| due <= now) {
            connection.ack_sent = ack;
            connection.ack_due = None;
            codec::ack(epoch, ack)
        } else {
            return None;
        };
        connection.last_sent = now;
        Some(frame)
    }

    /// When [`Session::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let connection = self.connection.as_ref()?;
        let heartbeat = connection.ping_at(self.role);
        let silence = connection.last_heard + connection.timing.silence_limit;
        // A ping that waits for the socket wakes nobody.
        let next = if connection.ping_due {
            silence
        } else {
            heartbeat.min(silence)
        };
        Some(connection.ack_due.map_or(next, |due| due.min(next)))
    }

    /// Time went on. The answer says whether the peer still lives.
    pub fn tick(&mut self, now: Instant) -> Heard {
        let Some(connection) = &mut self.connection else {
            return Heard::Enough;
        };
        if now.saturating_duration_since(connection.last_heard) >= connection.timing.silence_limit {
            return Heard::Silence(connection.timing.silence_limit);
        }
        if now >= connection.ping_at(self.role) {
            connection.ping_due = true;
        }
        Heard::Enough
    }

    #[must_use]
    pub const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    #[must_use]
    pub const fn inbox(&self) -> &Inbox {
        &self.inbox
    }
}

/// What the silence limit says of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Enough,
    Silence(Duration),
}

/// Name of a frame, for messages.
pub(crate) const fn name<B>(frame: &Frame<B>) -> &'static str {
    match frame {
        Frame::Challenge { .. } => "challenge",
        Frame::Hello { .. } => "hello",
        Frame::HelloRest { .. } => "hello_rest",
        Frame::Welcome { .. } => "welcome",
        Frame::Data { .. } => "data",
        Frame::Ack { .. } => "ack",
        Frame::Ping { .. } => "ping",
        Frame::Pong { .. } => "pong",
        Frame::Probe { .. } => "probe",
        Frame::Probed { .. } => "probed",
        Frame::Bye { .. } => "bye",
    }
}
