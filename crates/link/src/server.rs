//! The control plane's end: one connection.
//!
//! ```text
//! AwaitHello --hello--> Proving --Proved--> Collecting --its last frame--> Reconciling --Accept--> Live
//!      \                     \    \--Proved, nothing follows-----------------^  \                    \
//!       \--too long, not a hello, Refuse, bye, cut, silence, violation, Close-----------------------------> Closed
//! ```
//!
//! While the proof is checked nothing is read ([`Server::is_reading`]): the rest of a long hello waits in the sender's socket, and a peer
//! that has not proved who it is takes no more memory than one small frame.
//!
//! Its stream lives as long as the connection: what was not acknowledged is void, because the next connection's hello is reconciled with
//! what is desired. Of the delegate's stream it is told what earlier connections took ([`Acceptance::inbox`]).

use crate::{
    client::chain,
    codec,
    hello::Collected,
    inbox::Inbox,
    limits::{GREETING_LIMIT, HELLO_LIMIT},
    outbox::{Class, SendRefused},
    session::{Arrived, Heard, Session, Timing, Violation, name},
};
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use wire::{
    control::{
        DisconnectCode, Down, Epoch, Frame, Hello, MAX_FRAME, MAX_GREETING_FRAME, ProbeReport, Up,
        Welcome,
    },
    ids::StreamUuid,
};

/// Why the connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("no hello came within {} s", HELLO_LIMIT.as_secs())]
    NoHello,
    #[error("the greeting took longer than {} s", GREETING_LIMIT.as_secs())]
    GreetingTooLong,
    #[error("the connection ended: {reason}")]
    Cut {
        code: DisconnectCode,
        reason: String,
    },
    #[error("nothing was heard for {} ms", limit.as_millis())]
    Silence { limit: Duration },
    #[error("the delegate said: {reason}")]
    Bye {
        code: DisconnectCode,
        reason: String,
    },
    #[error("the delegate broke the protocol: {reason}")]
    Violation {
        code: DisconnectCode,
        reason: String,
    },
    /// This side refused or hung up.
    #[error("{reason}")]
    Told {
        code: DisconnectCode,
        reason: String,
    },
}

impl Cause {
    /// The same word at both ends, where the other end was told or told us.
    #[must_use]
    pub const fn code(&self) -> DisconnectCode {
        match self {
            Self::Cut { code, .. }
            | Self::Bye { code, .. }
            | Self::Violation { code, .. }
            | Self::Told { code, .. } => *code,
            Self::NoHello | Self::Silence { .. } => DisconnectCode::Silence,
            Self::GreetingTooLong => DisconnectCode::Overloaded,
        }
    }
}

/// What the shell knows of a delegate whose proof is good.
#[derive(Debug)]
pub struct Acceptance {
    pub epoch: Epoch,
    /// Fresh for each connection.
    pub stream: StreamUuid,
    /// What earlier connections took of the delegate's streams.
    pub inbox: Inbox,
    pub welcome: Box<Welcome>,
}

#[derive(Debug)]
pub enum Input<'a> {
    Text(&'a str),
    Binary,
    /// A message that the WebSocket would not take.
    Oversized,
    /// The proof of [`Output::Proof`] is good.
    Proved,
    /// What becomes of [`Output::Hello`].
    Accept(Acceptance),
    /// The answer to either where it is no.
    Refuse {
        code: DisconnectCode,
        reason: String,
        hint: Option<String>,
    },
    /// Hang up, in whatever state.
    Close {
        code: DisconnectCode,
        reason: String,
        hint: Option<String>,
    },
    /// The connection is gone. `code` is that of its close frame, where it had one of ours.
    Closed {
        code: Option<DisconnectCode>,
        reason: String,
    },
    Tick,
}

#[derive(Debug)]
pub enum Output {
    /// Check the proof; answer [`Input::Proved`] or [`Input::Refuse`].
    Proof { proof: String, stream: StreamUuid },
    /// The whole hello; answer [`Input::Accept`] or [`Input::Refuse`].
    Hello { hello: Box<Hello> },
    /// For the application; [`Server::consumed`] when it is stored.
    Deliver { seq: u64, body: Box<Up> },
    /// The answer to [`Server::probe`].
    Probed { id: u64, report: Box<ProbeReport> },
    /// Send what [`Server::poll_transmit`] still gives, then close.
    Ended { cause: Cause },
}

/// Who greets.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// Since when the connection is there.
    since: Instant,
    stream: StreamUuid,
    /// Of its stream, as it says.
    acked: Option<u64>,
}

#[derive(Debug)]
enum State {
    AwaitHello {
        since: Instant,
    },
    Proving {
        peer: Peer,
        hello: Collected,
        more: bool,
    },
    Collecting {
        peer: Peer,
        hello: Collected,
    },
    Reconciling {
        peer: Peer,
    },
    Live {
        epoch: Epoch,
    },
    Closed,
}

#[derive(Debug)]
pub struct Server {
    state: State,
    timing: Timing,
    session: Session,
    /// Frames outside of the session: `challenge`, `welcome`, `bye`.
    greeting: VecDeque<String>,
    outputs: VecDeque<Output>,
}

impl Server {
    /// `nonce` has to be unpredictable; `wall` is what the delegate's clock is compared with.
    #[must_use]
    pub fn new(now: Instant, timing: Timing, nonce: String, wall: Timestamp) -> Self {
        let challenge = codec::encode::<()>(&Frame::Challenge { nonce, now: wall });
        Self {
            state: State::AwaitHello { since: now },
            timing,
            session: Session::default(),
            greeting: challenge.into_iter().collect(),
            outputs: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Text(text) => self.on_text(now, text),
            Input::Binary => self.on_violation(&Violation::Binary),
            Input::Oversized => self.on_violation(&Violation::Oversized),
            Input::Proved => self.proved(),
            Input::Accept(acceptance) => self.accept(now, acceptance),
            Input::Refuse { code, reason, hint } => {
                if matches!(
                    self.state,
                    State::Proving { .. } | State::Collecting { .. } | State::Reconciling { .. }
                ) {
                    self.hang_up(code, reason, hint.as_deref());
                }
            }
            Input::Close { code, reason, hint } => self.hang_up(code, reason, hint.as_deref()),
            Input::Closed { code, reason } => self.end(Cause::Cut {
                code: code.unwrap_or(DisconnectCode::ConnectionLost),
                reason,
            }),
            Input::Tick => self.tick(now),
        }
    }

    fn on_text(&mut self, now: Instant, text: &str) {
        let limit = match self.state {
            State::AwaitHello { .. } | State::Proving { .. } => MAX_GREETING_FRAME,
            State::Collecting { .. } | State::Reconciling { .. } | State::Live { .. } => MAX_FRAME,
            State::Closed => return,
        };
        let frame = match codec::decode::<Up>(text, limit) {
            Ok(frame) => frame,
            Err(error) => return self.on_violation(&error.into()),
        };
        if let Frame::Bye { code, reason, .. } = frame {
            let reason = codec::cut(&reason).to_owned();
            return self.end(Cause::Bye { code, reason });
        }
        if let Err(violation) = self.on_frame(now, frame, text.len()) {
            self.on_violation(&violation);
        }
    }

    fn on_frame(&mut self, now: Instant, frame: Frame<Up>, length: usize) -> Result<(), Violation> {
        let unexpected = |frame: &Frame<Up>, state| {
            Err(Violation::Unexpected {
                frame: name(frame),
                state,
            })
        };
        match &mut self.state {
            State::Live { .. } => {
                match self.session.take(now, frame)? {
                    Some(Arrived::Body(delivery)) => self.outputs.push_back(Output::Deliver {
                        seq: delivery.seq,
                        body: Box::new(delivery.body),
                    }),
                    Some(Arrived::Probed { id, report }) => {
                        self.outputs.push_back(Output::Probed { id, report });
                    }
                    Some(Arrived::Probe { .. }) | None => {}
                }
                Ok(())
            }
            State::AwaitHello { since } => match frame {
                Frame::Hello {
                    proof,
                    stream,
                    acked,
                    hello,
                    more,
                } => {
                    self.state = State::Proving {
                        peer: Peer {
                            since: *since,
                            stream,
                            acked,
                        },
                        hello: Collected::begin(hello, length)?,
                        more,
                    };
                    self.outputs.push_back(Output::Proof { proof, stream });
                    Ok(())
                }
                other => unexpected(&other, "waiting for a hello"),
            },
            State::Proving { .. } => unexpected(&frame, "checking a proof"),
            State::Collecting { hello, .. } => match frame {
                Frame::HelloRest {
                    tasks,
                    gitspaces,
                    more,
                } => {
                    hello.add(tasks, gitspaces, length)?;
                    if !more {
                        self.collected();
                    }
                    Ok(())
                }
                other => unexpected(&other, "reading a hello"),
            },
            State::Reconciling { .. } => unexpected(&frame, "comparing a hello"),
            State::Closed => Ok(()),
        }
    }

    fn proved(&mut self) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Proving { peer, hello, more } => {
                self.state = State::Collecting { peer, hello };
                if !more {
                    self.collected();
                }
            }
            other => self.state = other,
        }
    }

    /// The hello is whole.
    fn collected(&mut self) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Collecting { peer, hello } => {
                self.state = State::Reconciling { peer };
                let hello = hello.hello;
                self.outputs.push_back(Output::Hello { hello });
            }
            other => self.state = other,
        }
    }

    fn accept(&mut self, now: Instant, acceptance: Acceptance) {
        let State::Reconciling { peer } = self.state else {
            return;
        };
        let Acceptance {
            epoch,
            stream,
            mut inbox,
            mut welcome,
        } = acceptance;
        welcome.heartbeat_ms = millis(self.timing.heartbeat);
        welcome.silence_limit_ms = millis(self.timing.silence_limit);
        inbox.begin(peer.stream);
        match peer.acked {
            Some(acked) => inbox.catch_up(acked),
            None => inbox.start_anywhere(),
        }
        let mut session = Session::resumed(inbox);
        if let Err(beyond) = session.begin(now, epoch, self.timing, peer.stream, 0) {
            return self.on_violation(&beyond.into());
        }
        let frame = Frame::<Down>::Welcome {
            epoch,
            stream,
            received: session.inbox().received(),
            welcome,
        };
        match codec::encode(&frame) {
            Ok(text) if text.len() <= MAX_FRAME => self.greeting.push_back(text),
            Ok(text) => {
                let reason = format!(
                    "the welcome has {} bytes, more than {MAX_FRAME}",
                    text.len()
                );
                return self.hang_up(DisconnectCode::TooLarge, reason, None);
            }
            Err(error) => {
                return self.hang_up(DisconnectCode::Other, error.to_string(), None);
            }
        }
        self.session = session;
        self.state = State::Live { epoch };
    }

    fn tick(&mut self, now: Instant) {
        match &self.state {
            State::AwaitHello { since } if now.saturating_duration_since(*since) >= HELLO_LIMIT => {
                self.say_bye(DisconnectCode::Silence, "no hello came in time", None);
                self.end(Cause::NoHello);
            }
            State::Proving { peer, .. }
            | State::Collecting { peer, .. }
            | State::Reconciling { peer }
                if now.saturating_duration_since(peer.since) >= GREETING_LIMIT =>
            {
                self.say_bye(
                    DisconnectCode::Overloaded,
                    "the greeting took too long",
                    None,
                );
                self.end(Cause::GreetingTooLong);
            }
            State::Live { .. } => {
                if let Heard::Silence(limit) = self.session.tick(now) {
                    self.say_bye(DisconnectCode::Silence, "nothing was heard", None);
                    self.end(Cause::Silence { limit });
                }
            }
            State::AwaitHello { .. }
            | State::Proving { .. }
            | State::Collecting { .. }
            | State::Reconciling { .. }
            | State::Closed => {}
        }
    }

    fn on_violation(&mut self, violation: &Violation) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let (code, reason) = (violation.code(), chain(violation));
        self.say_bye(code, &reason, None);
        self.end(Cause::Violation { code, reason });
    }

    fn hang_up(&mut self, code: DisconnectCode, reason: String, hint: Option<&str>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.say_bye(code, &reason, hint);
        self.end(Cause::Told { code, reason });
    }

    fn say_bye(&mut self, code: DisconnectCode, reason: &str, hint: Option<&str>) {
        self.greeting.clear();
        self.greeting.extend(codec::bye(code, reason, hint));
    }

    fn end(&mut self, cause: Cause) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.state = State::Closed;
        self.session.end();
        self.outputs.push_back(Output::Ended { cause });
    }

    /// Queues a body for the delegate.
    ///
    /// # Errors
    /// Refuses while the delegate is not in, and what does not fit beside what waits.
    pub fn send(&mut self, body: &Down, class: Class) -> Result<(), SendRefused> {
        if !self.is_live() {
            return Err(SendRefused::Closed);
        }
        self.session.send(body, class)
    }

    /// Asks a delegate whose hello says that it answers probes. One that it does not answer is replaced by the next.
    pub fn probe(&mut self, id: u64, all: bool) {
        self.session.say_aside(|epoch| codec::probe(epoch, id, all));
    }

    /// Asks the delegate for a sign of life, which [`Session::answered`] tells of. Nothing where it is not in.
    pub fn ping(&mut self) -> Option<u64> {
        self.session.ping()
    }

    /// The application has stored everything up to `seq`.
    pub fn consumed(&mut self, now: Instant, seq: u64) {
        self.session.consumed(now, seq);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next frame to send; ask only when the socket can take one.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<String> {
        self.greeting
            .pop_front()
            .or_else(|| self.session.poll_transmit(now))
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitHello { since } => Some(*since + HELLO_LIMIT),
            State::Proving { peer, .. }
            | State::Collecting { peer, .. }
            | State::Reconciling { peer } => Some(peer.since + GREETING_LIMIT),
            State::Live { .. } => self.session.deadline(),
            State::Closed => None,
        }
    }

    /// Whether the shell may take another message from the socket.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        !matches!(self.state, State::Proving { .. })
    }

    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        match self.state {
            State::Live { epoch } => Some(epoch),
            State::AwaitHello { .. }
            | State::Proving { .. }
            | State::Collecting { .. }
            | State::Reconciling { .. }
            | State::Closed => None,
        }
    }

    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
