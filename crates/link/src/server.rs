//! The control plane's end: one connection.
//!
//! ```text
//! AwaitHello --hello--> Verifying --Accept--> Live --bye, cut, silence, violation, Close--> Closed
//!      \--too long, not a hello--\   \--Refuse, too long--\--------------------------------->/
//! ```
//!
//! Its stream lives as long as the connection: what was not acknowledged is void, because the next connection's hello is reconciled with
//! what is desired. Of the delegate's stream it is told what earlier connections took ([`Acceptance::inbox`]).

use crate::{
    client::chain,
    codec,
    inbox::Inbox,
    limits::{GREETING_LIMIT, HELLO_LIMIT},
    outbox::{Class, SendRefused},
    session::{Heard, Session, Timing, Violation, name},
};
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use wire::{
    control::{ByeCode, Down, Epoch, Frame, Hello, MAX_FRAME, MAX_GREETING_FRAME, Up, Welcome},
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
    Cut { reason: String },
    #[error("nothing was heard for {} ms", limit.as_millis())]
    Silence { limit: Duration },
    #[error("the delegate said: {reason}")]
    Bye { code: ByeCode, reason: String },
    #[error("the delegate broke the protocol: {reason}")]
    Violation { reason: String },
    /// This side refused or hung up.
    #[error("{reason}")]
    Told { code: ByeCode, reason: String },
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
    Accept(Acceptance),
    Refuse {
        code: ByeCode,
        reason: String,
        hint: Option<String>,
    },
    /// Hang up, in whatever state.
    Close {
        code: ByeCode,
        reason: String,
        hint: Option<String>,
    },
    /// The connection is gone.
    Closed {
        reason: String,
    },
    Tick,
}

#[derive(Debug)]
pub enum Output {
    /// Check the proof; answer [`Input::Accept`] or [`Input::Refuse`].
    Hello {
        proof: String,
        stream: StreamUuid,
        hello: Box<Hello>,
    },
    /// For the application; [`Server::consumed`] when it is stored.
    Deliver { seq: u64, body: Box<Up> },
    /// Send what [`Server::poll_transmit`] still gives, then close.
    Ended { cause: Cause },
}

#[derive(Debug)]
enum State {
    AwaitHello { since: Instant },
    Verifying { since: Instant, stream: StreamUuid },
    Live { epoch: Epoch },
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
            Input::Accept(acceptance) => self.accept(now, acceptance),
            Input::Refuse { code, reason, hint } => {
                if matches!(self.state, State::Verifying { .. }) {
                    self.hang_up(code, reason, hint.as_deref());
                }
            }
            Input::Close { code, reason, hint } => self.hang_up(code, reason, hint.as_deref()),
            Input::Closed { reason } => self.end(Cause::Cut { reason }),
            Input::Tick => self.tick(now),
        }
    }

    fn on_text(&mut self, now: Instant, text: &str) {
        let limit = match self.state {
            State::AwaitHello { .. } | State::Verifying { .. } => MAX_GREETING_FRAME,
            State::Live { .. } => MAX_FRAME,
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
        match self.state {
            State::Live { .. } => match self.session.take(now, frame) {
                Ok(Some(delivery)) => self.outputs.push_back(Output::Deliver {
                    seq: delivery.seq,
                    body: Box::new(delivery.body),
                }),
                Ok(None) => {}
                Err(violation) => self.on_violation(&violation),
            },
            State::AwaitHello { since } => {
                if let Frame::Hello {
                    proof,
                    stream,
                    hello,
                } = frame
                {
                    self.state = State::Verifying { since, stream };
                    self.outputs.push_back(Output::Hello {
                        proof,
                        stream,
                        hello,
                    });
                } else {
                    self.on_violation(&Violation::Unexpected {
                        frame: name(&frame),
                        state: "waiting for a hello",
                    });
                }
            }
            State::Verifying { .. } => self.on_violation(&Violation::Unexpected {
                frame: name(&frame),
                state: "checking a hello",
            }),
            State::Closed => {}
        }
    }

    fn accept(&mut self, now: Instant, acceptance: Acceptance) {
        let State::Verifying { stream: peer, .. } = self.state else {
            return;
        };
        let Acceptance {
            epoch,
            stream,
            inbox,
            mut welcome,
        } = acceptance;
        welcome.heartbeat_ms = millis(self.timing.heartbeat);
        welcome.silence_limit_ms = millis(self.timing.silence_limit);
        let mut session = Session::resumed(inbox);
        if let Err(beyond) = session.begin(now, epoch, self.timing, peer, 0) {
            return self.on_violation(&beyond.into());
        }
        let frame = Frame::<Down>::Welcome {
            epoch,
            stream,
            received: session.inbox().received(),
            welcome,
        };
        match codec::encode(&frame) {
            Ok(text) => self.greeting.push_back(text),
            Err(error) => {
                return self.hang_up(ByeCode::Other, error.to_string(), None);
            }
        }
        self.session = session;
        self.state = State::Live { epoch };
    }

    fn tick(&mut self, now: Instant) {
        match self.state {
            State::AwaitHello { since } if now.saturating_duration_since(since) >= HELLO_LIMIT => {
                self.say_bye(ByeCode::Silence, "no hello came in time", None);
                self.end(Cause::NoHello);
            }
            State::Verifying { since, .. }
                if now.saturating_duration_since(since) >= GREETING_LIMIT =>
            {
                self.say_bye(ByeCode::Overloaded, "the greeting took too long", None);
                self.end(Cause::GreetingTooLong);
            }
            State::Live { .. } => {
                if let Heard::Silence(limit) = self.session.tick(now) {
                    self.say_bye(ByeCode::Silence, "nothing was heard", None);
                    self.end(Cause::Silence { limit });
                }
            }
            State::AwaitHello { .. } | State::Verifying { .. } | State::Closed => {}
        }
    }

    fn on_violation(&mut self, violation: &Violation) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let reason = chain(violation);
        self.say_bye(ByeCode::Protocol, &reason, None);
        self.end(Cause::Violation { reason });
    }

    fn hang_up(&mut self, code: ByeCode, reason: String, hint: Option<&str>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.say_bye(code, &reason, hint);
        self.end(Cause::Told { code, reason });
    }

    fn say_bye(&mut self, code: ByeCode, reason: &str, hint: Option<&str>) {
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
        match self.state {
            State::AwaitHello { since } => Some(since + HELLO_LIMIT),
            State::Verifying { since, .. } => Some(since + GREETING_LIMIT),
            State::Live { .. } => self.session.deadline(),
            State::Closed => None,
        }
    }

    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        match self.state {
            State::Live { epoch } => Some(epoch),
            State::AwaitHello { .. } | State::Verifying { .. } | State::Closed => None,
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
