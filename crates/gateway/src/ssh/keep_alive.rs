//! Asks a client that says nothing whether it is there, and gives it up.

use ssh_transport::{Writer, number};
use std::{
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

const PERIOD: Duration = Duration::from_secs(30);
const MAX_UNANSWERED: u32 = 3;

#[derive(Debug, thiserror::Error)]
#[error("the client did not answer for {} s", PERIOD.as_secs() * u64::from(MAX_UNANSWERED))]
pub(super) struct Silent;

#[derive(Debug)]
pub(super) struct KeepAlive {
    ticks: Interval,
    heard: bool,
    unanswered: u32,
}

impl KeepAlive {
    pub(super) fn new() -> Self {
        let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            heard: false,
            unanswered: 0,
        }
    }

    /// The client has said something.
    pub(super) fn heard(&mut self) {
        self.heard = true;
    }

    /// Ready after a period: whether to ask the client now.
    ///
    /// # Errors
    ///
    /// The client was asked several times and said nothing.
    pub(super) fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Silent>> {
        ready!(self.ticks.poll_tick(cx));
        Poll::Ready(if std::mem::take(&mut self.heard) {
            self.unanswered = 0;
            Ok(false)
        } else if self.unanswered >= MAX_UNANSWERED {
            Err(Silent)
        } else {
            self.unanswered += 1;
            Ok(true)
        })
    }
}

/// A request that nobody knows, and that everybody answers.
pub(super) fn question() -> Vec<u8> {
    Writer::message(number::GLOBAL_REQUEST)
        .string("keepalive@openssh.com")
        .boolean(true)
        .finish()
}
