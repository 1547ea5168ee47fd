//! The delegate's end.
//!
//! ```text
//! Idle --Start--> Connecting --Connected--> Greeting --welcome--> Live
//!                     ^  \--DialFailed, too long--\   \--bye, cut, too long--\  \--bye, cut, silence--\
//!                     \----------- time is up ----- Backoff <----------------/-----------------------/
//! any --Stop--> Stopped
//! ```
//!
//! Dials for ever: a refusal (revoked, unknown, …) only makes it slower. The shell keeps one connection: it drops the one it has, or is
//! making, on [`Output::HangUp`].

use crate::{
    backoff::{Retry, Rng},
    codec,
    hello::{self, HelloRefused},
    limits::{GREETING_LIMIT, QUIET},
    outbox::{Class, SendRefused},
    session::{Arrived, Heard, Session, Timing, Violation, name},
};
use jiff::Timestamp;
use serde::Serialize;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use wire::{
    control::{DisconnectCode, Down, Epoch, Frame, Hello, MAX_FRAME, ProbeReport, Up, Welcome},
    ids::StreamUuid,
};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("cannot connect: {reason}")]
    Dial {
        code: DisconnectCode,
        reason: String,
    },
    #[error("connecting took longer than {} ms", limit.as_millis())]
    DialTooLong { limit: Duration },
    #[error("the greeting took longer than {} s", GREETING_LIMIT.as_secs())]
    GreetingTooLong,
    #[error("the greeting cannot be answered: {reason}")]
    Greeting {
        code: DisconnectCode,
        reason: String,
    },
    #[error("the connection ended: {reason}")]
    Cut {
        code: DisconnectCode,
        reason: String,
    },
    #[error("nothing was heard for {} ms", limit.as_millis())]
    Silence { limit: Duration },
    /// The control plane hung up and said why.
    #[error("{reason}")]
    Bye {
        code: DisconnectCode,
        reason: String,
        hint: Option<String>,
    },
    #[error("the control plane broke the protocol: {reason}")]
    Violation {
        code: DisconnectCode,
        reason: String,
    },
    #[error("a reconnect was asked for")]
    Asked,
    #[error("the delegate stops")]
    Stopping,
}

impl Cause {
    /// What a person can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Bye { hint, .. } => hint.as_deref(),
            Self::Dial { .. }
            | Self::DialTooLong { .. }
            | Self::GreetingTooLong
            | Self::Greeting { .. }
            | Self::Cut { .. }
            | Self::Silence { .. }
            | Self::Violation { .. }
            | Self::Asked
            | Self::Stopping => None,
        }
    }

    /// The same word at both ends, where the other end was told or told us.
    #[must_use]
    pub const fn code(&self) -> DisconnectCode {
        match self {
            Self::Dial { code, .. }
            | Self::Greeting { code, .. }
            | Self::Cut { code, .. }
            | Self::Bye { code, .. }
            | Self::Violation { code, .. } => *code,
            Self::DialTooLong { .. } => DisconnectCode::CannotConnect,
            Self::GreetingTooLong | Self::Silence { .. } => DisconnectCode::Silence,
            Self::Asked | Self::Stopping => DisconnectCode::GoingAway,
        }
    }
}

#[derive(Debug)]
pub enum Input<'a> {
    /// Begin to dial.
    Start,
    /// The WebSocket is open.
    Connected,
    DialFailed {
        /// [`DisconnectCode::CannotConnect`], or what the server answered instead of a WebSocket.
        code: DisconnectCode,
        reason: String,
    },
    /// A text message.
    Text(&'a str),
    /// A binary message, which the protocol does not have.
    Binary,
    /// A message that the WebSocket would not take.
    Oversized,
    /// The answer to [`Output::Challenged`].
    Greet { proof: String, hello: Box<Hello> },
    /// No answer to [`Output::Challenged`] can be made.
    CannotGreet { reason: String },
    /// The connection is gone. `code` is that of its close frame, where it had one of ours.
    Closed {
        code: Option<DisconnectCode>,
        reason: String,
    },
    /// [`Client::deadline`] has come.
    Tick,
    /// Hang up and dial at once.
    Reconnect,
    /// Say good-bye for good.
    Stop,
}

#[derive(Debug)]
pub enum Output {
    Dial,
    /// Sign `nonce`, describe yourself, answer [`Input::Greet`].
    Challenged {
        nonce: String,
        server_now: Timestamp,
    },
    Live {
        epoch: Epoch,
        welcome: Box<Welcome>,
    },
    /// For the application; [`Client::consumed`] when it has it.
    Deliver {
        seq: u64,
        body: Down,
    },
    /// Go the rest of the way, and answer with [`Client::probed`].
    Probe {
        id: u64,
        all: bool,
    },
    /// Send what [`Client::poll_transmit`] still gives, then close. `retry_in` is missing where it was stopped.
    HangUp {
        cause: Cause,
        retry_in: Option<Duration>,
    },
}

#[derive(Debug)]
pub enum State {
    Idle,
    Connecting {
        since: Instant,
        attempt: u32,
    },
    Greeting {
        since: Instant,
        attempt: u32,
        challenged: bool,
    },
    Live {
        since: Instant,
        attempt: u32,
        epoch: Epoch,
    },
    Backoff {
        until: Instant,
        attempt: u32,
        cause: Cause,
    },
    Stopped,
}

impl State {
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Idle => Stage::Idle,
            Self::Connecting { .. } => Stage::Connecting,
            Self::Greeting { .. } => Stage::Greeting,
            Self::Live { .. } => Stage::Live,
            Self::Backoff { .. } => Stage::Backoff,
            Self::Stopped => Stage::Stopped,
        }
    }
}

/// A [`State`] without what it carries, for whoever shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    #[default]
    Idle,
    Connecting,
    Greeting,
    Live,
    Backoff,
    Stopped,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Greeting => "greeting",
            Self::Live => "live",
            Self::Backoff => "backoff",
            Self::Stopped => "stopped",
        })
    }
}

#[derive(Debug)]
pub struct Client {
    state: State,
    stream: StreamUuid,
    session: Session,
    /// What the control plane asked for last; dials keep to it too.
    timing: Timing,
    rng: Rng,
    /// Frames before the session has any: `hello`, `bye`.
    greeting: VecDeque<String>,
    outputs: VecDeque<Output>,
}

impl Client {
    /// `stream` has to be fresh for each life of the process; `seed` spreads the dials of many delegates.
    #[must_use]
    pub fn new(stream: StreamUuid, seed: u64) -> Self {
        Self {
            state: State::Idle,
            stream,
            session: Session::default(),
            timing: Timing::default(),
            rng: Rng::new(seed),
            greeting: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Start => match self.state {
                State::Idle | State::Stopped => self.dial(now, 0),
                State::Connecting { .. }
                | State::Greeting { .. }
                | State::Live { .. }
                | State::Backoff { .. } => {}
            },
            Input::Connected => {
                if let State::Connecting { attempt, .. } = self.state {
                    self.state = State::Greeting {
                        since: now,
                        attempt,
                        challenged: false,
                    };
                }
            }
            Input::DialFailed { code, reason } => {
                if matches!(self.state, State::Connecting { .. }) {
                    self.fall_back(now, Cause::Dial { code, reason });
                }
            }
            Input::Text(text) => self.on_text(now, text),
            Input::Binary => {
                if self.is_connected() {
                    self.on_violation(now, &Violation::Binary);
                }
            }
            Input::Oversized => {
                if self.is_connected() {
                    self.on_violation(now, &Violation::Oversized);
                }
            }
            Input::Greet { proof, hello } => self.greet(now, proof, hello),
            Input::CannotGreet { reason } => {
                if matches!(self.state, State::Greeting { .. }) {
                    self.cannot_greet(now, DisconnectCode::CannotGreet, reason);
                }
            }
            Input::Closed { code, reason } => {
                if self.is_connected() {
                    let code = code.unwrap_or(DisconnectCode::ConnectionLost);
                    self.fall_back(now, Cause::Cut { code, reason });
                }
            }
            Input::Tick => self.tick(now),
            Input::Reconnect => match self.state {
                State::Idle | State::Stopped => {}
                State::Backoff { .. } => self.dial(now, 0),
                State::Connecting { .. } | State::Greeting { .. } | State::Live { .. } => {
                    self.say_bye(DisconnectCode::GoingAway, "a reconnect was asked for");
                    self.session.end();
                    self.outputs.push_back(Output::HangUp {
                        cause: Cause::Asked,
                        retry_in: Some(Duration::ZERO),
                    });
                    self.state = State::Backoff {
                        until: now,
                        attempt: 0,
                        cause: Cause::Asked,
                    };
                }
            },
            Input::Stop => {
                if self.is_connected() {
                    self.say_bye(DisconnectCode::GoingAway, "the delegate stops");
                }
                self.session.end();
                if !matches!(self.state, State::Stopped) {
                    self.outputs.push_back(Output::HangUp {
                        cause: Cause::Stopping,
                        retry_in: None,
                    });
                }
                self.state = State::Stopped;
            }
        }
    }

    fn on_text(&mut self, now: Instant, text: &str) {
        if !self.is_connected() {
            return;
        }
        let frame = match codec::decode::<Down>(text, MAX_FRAME) {
            Ok(frame) => frame,
            Err(error) => return self.on_violation(now, &error.into()),
        };
        if let Frame::Bye { code, reason, hint } = frame {
            return self.fall_back(
                now,
                Cause::Bye {
                    code,
                    reason: codec::cut(&reason).to_owned(),
                    hint: hint.map(|hint| codec::cut(&hint).to_owned()),
                },
            );
        }
        match &mut self.state {
            State::Live { .. } => match self.session.take(now, frame) {
                Ok(Some(Arrived::Body(delivery))) => self.outputs.push_back(Output::Deliver {
                    seq: delivery.seq,
                    body: delivery.body,
                }),
                Ok(Some(Arrived::Probe { id, all })) => {
                    self.outputs.push_back(Output::Probe { id, all });
                }
                Ok(Some(Arrived::Probed { .. }) | None) => {}
                Err(violation) => self.on_violation(now, &violation),
            },
            State::Greeting {
                challenged,
                attempt,
                ..
            } => match frame {
                Frame::Challenge {
                    nonce,
                    now: server_now,
                } if !*challenged => {
                    *challenged = true;
                    self.outputs
                        .push_back(Output::Challenged { nonce, server_now });
                }
                Frame::Welcome {
                    epoch,
                    stream,
                    received,
                    welcome,
                } if *challenged => {
                    let attempt = *attempt;
                    let timing = Timing::clamped(welcome.heartbeat_ms, welcome.silence_limit_ms);
                    match self.session.begin(now, epoch, timing, stream, received) {
                        Ok(()) => {
                            self.timing = timing;
                            self.state = State::Live {
                                since: now,
                                attempt,
                                epoch,
                            };
                            self.outputs.push_back(Output::Live { epoch, welcome });
                        }
                        Err(beyond) => self.on_violation(now, &beyond.into()),
                    }
                }
                other => {
                    let violation = Violation::Unexpected {
                        frame: name(&other),
                        state: "greeting",
                    };
                    self.on_violation(now, &violation);
                }
            },
            State::Idle | State::Connecting { .. } | State::Backoff { .. } | State::Stopped => {}
        }
    }

    fn greet(&mut self, now: Instant, proof: String, hello: Box<Hello>) {
        let State::Greeting {
            challenged: true, ..
        } = self.state
        else {
            return;
        };
        match hello::frames(proof, (self.stream, self.session.outbox().acked()), hello) {
            Ok(frames) => self.greeting.extend(frames),
            Err(refused) => {
                let code = match &refused {
                    HelloRefused::TooMany { .. }
                    | HelloRefused::TooLarge { .. }
                    | HelloRefused::ItemTooLarge { .. } => DisconnectCode::TooLarge,
                    HelloRefused::Encoding { .. } => DisconnectCode::CannotGreet,
                };
                self.cannot_greet(now, code, chain(&refused));
            }
        }
    }

    /// The server is told, too: it waits for a hello.
    fn cannot_greet(&mut self, now: Instant, code: DisconnectCode, reason: String) {
        self.say_bye(code, &reason);
        self.fall_back(now, Cause::Greeting { code, reason });
    }

    fn tick(&mut self, now: Instant) {
        match &self.state {
            State::Connecting { since, .. } if elapsed(now, *since) >= self.timing.dial_limit() => {
                let limit = self.timing.dial_limit();
                self.fall_back(now, Cause::DialTooLong { limit });
            }
            State::Greeting { since, .. } if elapsed(now, *since) >= GREETING_LIMIT => {
                self.fall_back(now, Cause::GreetingTooLong);
            }
            State::Live { .. } => {
                if let Heard::Silence(limit) = self.session.tick(now) {
                    self.say_bye(DisconnectCode::Silence, "nothing was heard");
                    self.fall_back(now, Cause::Silence { limit });
                }
            }
            State::Backoff { until, attempt, .. } if now >= *until => {
                let attempt = *attempt;
                self.dial(now, attempt);
            }
            State::Idle
            | State::Connecting { .. }
            | State::Greeting { .. }
            | State::Backoff { .. }
            | State::Stopped => {}
        }
    }

    fn dial(&mut self, now: Instant, attempt: u32) {
        self.greeting.clear();
        self.state = State::Connecting {
            since: now,
            attempt,
        };
        self.outputs.push_back(Output::Dial);
    }

    fn on_violation(&mut self, now: Instant, violation: &Violation) {
        let (code, reason) = (violation.code(), chain(violation));
        self.say_bye(code, &reason);
        self.fall_back(now, Cause::Violation { code, reason });
    }

    fn say_bye(&mut self, code: DisconnectCode, reason: &str) {
        self.greeting.clear();
        self.greeting.extend(codec::bye(code, reason, None));
    }

    fn fall_back(&mut self, now: Instant, cause: Cause) {
        let failed = match self.state {
            State::Connecting { attempt, .. } | State::Greeting { attempt, .. } => attempt,
            State::Live { since, attempt, .. } => {
                if elapsed(now, since) >= QUIET {
                    0
                } else {
                    attempt
                }
            }
            State::Idle | State::Backoff { .. } | State::Stopped => return,
        };
        let attempt = failed.saturating_add(1);
        let soon = self.timing.backoff_cap();
        let delay = Retry::after(cause.code()).delay(attempt, soon, &mut self.rng);
        self.session.end();
        self.outputs.push_back(Output::HangUp {
            cause: cause.clone(),
            retry_in: Some(delay),
        });
        self.state = State::Backoff {
            until: now + delay,
            attempt,
            cause,
        };
    }

    const fn is_connected(&self) -> bool {
        matches!(self.state, State::Greeting { .. } | State::Live { .. })
    }

    /// Queues a body for the control plane, connected or not.
    ///
    /// # Errors
    /// Refuses what does not fit beside what waits: hold its source back until [`Client::has_room`].
    pub fn send(&mut self, body: &Up, class: Class) -> Result<(), SendRefused> {
        self.session.send(body, class)
    }

    /// What became of [`Output::Probe`].
    pub fn probed(&mut self, id: u64, report: ProbeReport) {
        self.session
            .say_aside(|epoch| codec::probed(epoch, id, report));
    }

    /// Asks the control plane for a sign of life, which [`Session::answered`] tells of. Nothing where no connection is live.
    pub fn ping(&mut self) -> Option<u64> {
        self.session.ping()
    }

    /// Whether a body of at most `largest` bytes would be taken.
    #[must_use]
    pub fn has_room(&self, class: Class, largest: usize) -> bool {
        self.session.outbox().has_room(class, largest)
    }

    /// The application has everything up to `seq`.
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
            State::Idle | State::Stopped => None,
            State::Connecting { since, .. } => Some(since + self.timing.dial_limit()),
            State::Greeting { since, .. } => Some(since + GREETING_LIMIT),
            State::Live { .. } => self.session.deadline(),
            State::Backoff { until, .. } => Some(until),
        }
    }

    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }
}

fn elapsed(now: Instant, since: Instant) -> Duration {
    now.saturating_duration_since(since)
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
