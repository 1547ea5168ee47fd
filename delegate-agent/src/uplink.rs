//! The shell around `link::client`: dials, greets, moves frames, hands over what comes.
//!
//! One task. Bodies come over two bounded channels and are taken only while the link's outbox has room, so that a slow link holds back the
//! runner's streams. What comes from the control plane goes to `tasks` in order; it is acknowledged when that has it.

mod bodies;
mod hello;
mod run;
mod socket;

pub use hello::{HelloSource, Told};

use crate::{status::Board, transport::Transport};
use daemon::{Clock, Pulse};
use link::{Class, Client, client::Input};
use run::{Outcome, Run, instant};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use wire::{
    control::{Down, Epoch, ProbeReport, TaskVerdict, Up},
    ids::{DelegateUuid, StreamUuid},
};

/// Bodies between a follower and the outbox. Few: what waits here is in no runner's journal position yet.
const CHANNEL: usize = 16;

/// Who waits for the link to be measured, and answers to probes. More are not taken at once.
const ASIDES: usize = 4;

/// To the uplink. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LinkHandle {
    control: mpsc::Sender<Up>,
    bulk: mpsc::Sender<Up>,
    aside: mpsc::Sender<Aside>,
    reconnect: Arc<Notify>,
}

/// What does not queue with bodies.
#[derive(Debug)]
pub(crate) enum Aside {
    /// The answer to a probe of the connection `epoch`.
    Probed {
        epoch: Epoch,
        id: u64,
        report: ProbeReport,
    },
    /// How long is the way to the control plane and back?
    Measure(oneshot::Sender<Result<Duration, NotMeasured>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMeasured {
    #[error("the link is not live")]
    NotLive,
    #[error("the link was lost meanwhile")]
    Lost,
}

/// The uplink is gone: the process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the uplink has ended")]
pub struct LinkEnded;

impl LinkHandle {
    /// Waits while too much waits already.
    ///
    /// # Errors
    /// The process stops.
    pub async fn send(&self, body: Up, class: Class) -> Result<(), LinkEnded> {
        let channel = match class {
            Class::Control => &self.control,
            Class::Bulk => &self.bulk,
        };
        channel.send(body).await.map_err(|_| LinkEnded)
    }

    /// Answers a probe. Where the connection it came on is over, nobody waits for that.
    ///
    /// # Errors
    /// The process stops.
    pub async fn probed(
        &self,
        epoch: Epoch,
        id: u64,
        report: ProbeReport,
    ) -> Result<(), LinkEnded> {
        let answer = Aside::Probed { epoch, id, report };
        self.aside.send(answer).await.map_err(|_| LinkEnded)
    }

    /// To the control plane and back. The caller bounds the wait.
    ///
    /// # Errors
    /// There is no link, or none any more.
    pub async fn measure(&self) -> Result<Duration, NotMeasured> {
        let (answer, measured) = oneshot::channel();
        if self.aside.send(Aside::Measure(answer)).await.is_err() {
            return Err(NotMeasured::NotLive);
        }
        measured.await.unwrap_or(Err(NotMeasured::Lost))
    }

    /// Hangs up and dials at once: the hello then says all that changed.
    pub fn reconnect(&self) {
        self.reconnect.notify_one();
    }
}

/// What a [`LinkHandle::loose`] one is heard by.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct LooseEnds {
    pub(crate) reconnect: Arc<Notify>,
    pub(crate) _control: mpsc::Receiver<Up>,
    pub(crate) _bulk: mpsc::Receiver<Up>,
    pub(crate) _aside: mpsc::Receiver<Aside>,
}

#[cfg(test)]
impl LinkHandle {
    /// To no uplink.
    pub(crate) fn loose() -> (Self, LooseEnds) {
        let (control, control_receiver) = mpsc::channel(CHANNEL);
        let (bulk, bulk_receiver) = mpsc::channel(CHANNEL);
        let (aside, aside_receiver) = mpsc::channel(ASIDES);
        let reconnect = Arc::new(Notify::new());
        let ends = LooseEnds {
            reconnect: Arc::clone(&reconnect),
            _control: control_receiver,
            _bulk: bulk_receiver,
            _aside: aside_receiver,
        };
        let handle = Self {
            control,
            bulk,
            aside,
            reconnect,
        };
        (handle, ends)
    }
}

/// To `tasks`, in order.
#[derive(Debug)]
pub enum LinkEvent {
    /// The control plane answered a hello. What an earlier link said is void.
    Live {
        verdicts: Vec<TaskVerdict>,
        told: Told,
    },
    Down(Down),
    /// The control plane asks how far the way goes.
    Probe {
        epoch: Epoch,
        id: u64,
        all: bool,
        /// When that came.
        asked: tokio::time::Instant,
    },
    Lost,
}

/// What the watch needs to know of the link: which connection it is, and what its hello said of the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveLink {
    pub epoch: Epoch,
    pub runner_ready: bool,
    /// What the hello said of the host.
    pub draining: bool,
    /// What of that was the runner's own.
    pub runner_draining: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    #[error("nobody takes what the control plane says")]
    Deaf,
}

/// Everything an uplink is made of.
#[derive(Debug)]
pub struct Uplink {
    transport: Transport,
    hello: Arc<HelloSource>,
    clock: Arc<dyn Clock>,
    board: Board,
    client: Client,
    control: mpsc::Receiver<Up>,
    bulk: mpsc::Receiver<Up>,
    aside: mpsc::Receiver<Aside>,
    reconnect: Arc<Notify>,
    events: mpsc::Sender<LinkEvent>,
    live: watch::Sender<Option<LiveLink>>,
    pulse: Pulse,
}

/// The other ends of an uplink.
#[derive(Debug)]
pub struct UplinkEnds {
    pub handle: LinkHandle,
    pub events: mpsc::Receiver<LinkEvent>,
    pub live: watch::Receiver<Option<LiveLink>>,
}

impl Uplink {
    /// `stream` and `seed` have to be fresh for each life of the process.
    #[must_use]
    pub fn new(
        transport: Transport,
        hello: HelloSource,
        clock: Arc<dyn Clock>,
        board: Board,
        (stream, seed): (StreamUuid, u64),
        pulse: Pulse,
    ) -> (Self, UplinkEnds) {
        let (control_sender, control) = mpsc::channel(CHANNEL);
        let (bulk_sender, bulk) = mpsc::channel(CHANNEL);
        let (aside_sender, aside) = mpsc::channel(ASIDES);
        let (events, event_receiver) = mpsc::channel(CHANNEL);
        let (live, live_receiver) = watch::channel(None);
        let reconnect = Arc::new(Notify::new());
        board.update_link(|status| status.control_plane = transport.origin().ascii());
        let uplink = Self {
            transport,
            hello: Arc::new(hello),
            clock,
            board,
            client: Client::new(stream, seed),
            control,
            bulk,
            aside,
            reconnect: Arc::clone(&reconnect),
            events,
            live,
            pulse,
        };
        let ends = UplinkEnds {
            handle: LinkHandle {
                control: control_sender,
                bulk: bulk_sender,
                aside: aside_sender,
                reconnect,
            },
            events: event_receiver,
            live: live_receiver,
        };
        (uplink, ends)
    }

    /// Waits for what has to be there before the first dial; the loop answers meanwhile. `None` at the stop.
    pub async fn wait_for<T>(
        &mut self,
        what: impl Future<Output = T>,
        stop: &CancellationToken,
    ) -> Option<T> {
        tokio::select! {
            () = stop.cancelled() => None,
            found = what => Some(found),
            never = self.pulse.beat() => match never {},
        }
    }

    /// Dials as `delegate` and serves until `stop`; says good-bye then.
    ///
    /// # Errors
    /// Ends where nobody takes what comes.
    pub async fn run(
        self,
        delegate: DelegateUuid,
        stop: CancellationToken,
    ) -> Result<(), UplinkError> {
        self.board
            .update_link(|status| status.delegate = Some(delegate));
        let mut run = Run::new(self, delegate);
        run.uplink.client.handle(instant(), Input::Start);
        loop {
            if run.act().await == Outcome::Stopped {
                return Ok(());
            }
            run.publish();
            let event = run.wait(&stop).await;
            run.handle(event)?;
        }
    }
}

/// Whether two clocks are close enough for signed tokens.
#[must_use]
pub fn clock_is_right(skew_ms: Option<i64>) -> bool {
    skew_ms.is_none_or(|skew| {
        i128::from(skew).unsigned_abs() < token::LEEWAY.as_millis().unsigned_abs()
    })
}
