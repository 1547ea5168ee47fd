//! One life of the uplink: what the machine wants is done, and what comes is told to it.

use super::{
    Aside, LinkEvent, LiveLink, NotMeasured, Uplink, UplinkError,
    bodies::{self, LARGEST},
    hello::{Greeting, Told},
    socket::{DialError, Socket, Tungstenite, dial},
};
use crate::status::LastError;
use futures_util::{FutureExt as _, future::BoxFuture};
use link::{
    Class, SendRefused,
    client::{Cause, Input, Output, State},
    shell::{self, some},
};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use wire::{
    control::{DisconnectCode, Epoch, TaskVerdict, Up},
    ids::DelegateUuid,
};

/// For last words on a connection that is given up.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

type Connection = shell::Connection<Socket, Tungstenite>;

/// tokio's clock, so that what is waited for and what is compared are the same.
pub(super) fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[derive(PartialEq, Eq)]
pub(super) enum Outcome {
    Continue,
    Stopped,
}

pub(super) struct Run {
    pub(super) uplink: Uplink,
    delegate: DelegateUuid,
    dialling: Option<BoxFuture<'static, Result<Socket, DialError>>>,
    greeting: Option<BoxFuture<'static, Result<Greeting, String>>>,
    /// What the last hello said, until it is answered.
    told: Option<Told>,
    socket: Option<Connection>,
    /// A body that did not fit after all.
    held: Option<(Up, Class)>,
    /// For `tasks`. Bounded by the link's window: a cut clears it.
    pending: VecDeque<(Option<u64>, LinkEvent)>,
    /// Who wants to know how long the link is.
    measuring: Vec<Measuring>,
}

struct Measuring {
    ping: u64,
    since: Instant,
    answer: oneshot::Sender<Result<Duration, NotMeasured>>,
}

pub(super) enum Event {
    Dialled(Result<Socket, DialError>),
    Greeted(Result<Greeting, String>),
    Socket(shell::Event<Utf8Bytes>),
    Body(Up, Class),
    Aside(Aside),
    HandOver(mpsc::OwnedPermit<LinkEvent>),
    Deaf,
    Tick,
    Reconnect,
    Stop,
}

impl Run {
    pub(super) const fn new(uplink: Uplink, delegate: DelegateUuid) -> Self {
        Self {
            uplink,
            delegate,
            dialling: None,
            greeting: None,
            told: None,
            socket: None,
            held: None,
            pending: VecDeque::new(),
            measuring: Vec::new(),
        }
    }

    /// Does what the machine wants.
    pub(super) async fn act(&mut self) -> Outcome {
        while let Some(output) = self.uplink.client.poll_output() {
            match output {
                Output::Dial => {
                    self.dialling = Some(dial(self.uplink.transport.clone()).boxed());
                }
                Output::Challenged { nonce, server_now } => {
                    let now = self.uplink.clock.now();
                    let skew = server_now.duration_since(now).as_millis();
                    let compared = (now, self.uplink.clock.instant());
                    self.uplink.board.update_link(|status| {
                        status.clock_skew_ms = i64::try_from(skew).ok();
                        status.compared = Some(compared);
                    });
                    let source = Arc::clone(&self.uplink.hello);
                    let delegate = self.delegate;
                    self.greeting =
                        Some(async move { source.greet(delegate, nonce).await }.boxed());
                }
                Output::Live { epoch, welcome } => self.on_live(epoch, welcome.tasks),
                Output::Deliver { seq, body } => {
                    self.pending.push_back((Some(seq), LinkEvent::Down(body)));
                }
                Output::Probe { id, all } => self.on_probe(id, all),
                Output::HangUp { cause, retry_in } => {
                    self.on_hang_up(&cause, retry_in);
                    self.farewell(cause.code()).await;
                    if retry_in.is_none() {
                        return Outcome::Stopped;
                    }
                }
            }
        }
        self.send_held();
        if let Some(socket) = &mut self.socket {
            socket.fill(|| self.uplink.client.poll_transmit(instant()));
        }
        Outcome::Continue
    }

    fn on_live(&mut self, epoch: Epoch, verdicts: Vec<TaskVerdict>) {
        let told = self.told.take().unwrap_or_default();
        let live = LiveLink {
            epoch,
            runner_ready: told.runner_ready,
            draining: told.draining,
            runner_draining: told.runner_draining,
        };
        tracing::info!(epoch = epoch.0, control_plane = %self.uplink.transport.origin(), "Connected");
        let now = self.uplink.clock.now();
        self.uplink.board.update_link(|status| {
            status.epoch = Some(epoch.0);
            status.connected_since = Some(now);
            status.connections += 1;
            status.next_try = None;
        });
        self.pending
            .push_back((None, LinkEvent::Live { verdicts, told }));
        self.uplink.live.send_replace(Some(live));
    }

    fn on_probe(&mut self, id: u64, all: bool) {
        let State::Live { epoch, .. } = *self.uplink.client.state() else {
            return;
        };
        // Where `tasks` does not turn, the latest question waits for it, and the control plane sees that.
        self.pending
            .retain(|(_, event)| !matches!(event, LinkEvent::Probe { .. }));
        let probe = LinkEvent::Probe {
            epoch,
            id,
            all,
            asked: tokio::time::Instant::now(),
        };
        self.pending.push_back((None, probe));
    }

    fn on_aside(&mut self, aside: Aside) {
        let client = &mut self.uplink.client;
        match aside {
            Aside::Probed { epoch, id, report } => {
                if matches!(client.state(), State::Live { epoch: live, .. } if *live == epoch) {
                    client.probed(id, report);
                }
            }
            Aside::Measure(answer) => match client.ping() {
                Some(ping) => self.measuring.push(Measuring {
                    ping,
                    since: instant(),
                    answer,
                }),
                // Whoever asked may have given up.
                None => {
                    let _gone = answer.send(Err(NotMeasured::NotLive));
                }
            },
        }
    }

    /// Answers who waits for a ping that is answered.
    fn measure(&mut self) {
        let session = self.uplink.client.session();
        for one in std::mem::take(&mut self.measuring) {
            if session.answered(one.ping) {
                let took = instant().saturating_duration_since(one.since);
                let _gone = one.answer.send(Ok(took));
            } else if !one.answer.is_closed() {
                self.measuring.push(one);
            }
        }
    }

    fn on_hang_up(&mut self, cause: &Cause, retry_in: Option<Duration>) {
        self.dialling = None;
        self.greeting = None;
        self.told = None;
        self.pending.clear();
        for one in self.measuring.drain(..) {
            let _gone = one.answer.send(Err(NotMeasured::Lost));
        }
        if self.uplink.live.send_replace(None).is_some() {
            self.pending.push_back((None, LinkEvent::Lost));
        }
        let now = self.uplink.clock.now();
        let next_try = retry_in.and_then(|delay| now.checked_add(delay).ok());
        if !matches!(cause, Cause::Asked | Cause::Stopping) {
            tracing::warn!(code = %cause.code(), error = %cause, hint = cause.hint(), retry_in_ms = retry_in.map(|delay| delay.as_millis()), "Not connected");
        }
        self.uplink.board.update_link(|status| {
            status.epoch = None;
            status.connected_since = None;
            status.next_try = next_try;
            status.last_error = Some(LastError {
                code: Some(cause.code()),
                message: cause.to_string(),
                hint: cause.hint().map(str::to_owned),
                at: now,
            });
        });
    }

    /// Last words, then the end of the connection.
    async fn farewell(&mut self, code: DisconnectCode) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        let client = &mut self.uplink.client;
        let words = socket.farewell(code, || client.poll_transmit(instant()));
        match tokio::time::timeout(FAREWELL_LIMIT, words).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::trace!(%error, "The control plane left first"),
            Err(_) => tracing::debug!("The control plane does not take our last words"),
        }
    }

    fn send_held(&mut self) {
        if let Some((body, class)) = self.held.take() {
            self.send(body, class);
        }
    }

    fn send(&mut self, body: Up, class: Class) {
        match self.uplink.client.send(&body, class) {
            Ok(()) => {}
            Err(SendRefused::Full { .. }) => self.held = Some((body, class)),
            Err(
                refused @ (SendRefused::TooLarge { .. }
                | SendRefused::Encoding { .. }
                | SendRefused::Closed),
            ) => self.send_instead(&body, class, &refused),
        }
    }

    /// The control plane hears why it does not get the body.
    fn send_instead(&mut self, body: &Up, class: Class, refused: &SendRefused) {
        tracing::error!(body = bodies::name(body), error = %refused, "A message does not fit into the link; the control plane is told that instead");
        let instead = bodies::instead(body, refused);
        match self.uplink.client.send(&instead, class) {
            Ok(()) => {}
            Err(SendRefused::Full { .. }) => self.held = Some((instead, class)),
            Err(error) => tracing::error!(%error, "Nor does that"),
        }
    }

    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> Event {
        let deadline = self.uplink.client.deadline();
        let free = self.held.is_none();
        let control_room = free && self.uplink.client.has_room(Class::Control, LARGEST);
        let bulk_room = free && self.uplink.client.has_room(Class::Bulk, LARGEST);
        let Self {
            uplink,
            dialling,
            greeting,
            socket,
            pending,
            ..
        } = self;
        let Uplink {
            control,
            bulk,
            aside,
            reconnect,
            events,
            pulse,
            ..
        } = uplink;
        let socket = async {
            match socket {
                Some(socket) => Event::Socket(socket.event(true).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            event = socket => event,
            dialled = some(dialling.as_mut()) => Event::Dialled(dialled),
            greeted = some(greeting.as_mut()) => Event::Greeted(greeted),
            permit = events.clone().reserve_owned(), if !pending.is_empty() => match permit {
                Ok(permit) => Event::HandOver(permit),
                Err(_) => Event::Deaf,
            },
            Some(body) = control.recv(), if control_room => Event::Body(body, Class::Control),
            Some(body) = bulk.recv(), if bulk_room => Event::Body(body, Class::Bulk),
            Some(aside) = aside.recv() => Event::Aside(aside),
            () = reconnect.notified() => Event::Reconnect,
            () = sleep_until(deadline) => Event::Tick,
            never = pulse.beat() => match never {},
        }
    }

    pub(super) fn handle(&mut self, event: Event) -> Result<(), UplinkError> {
        let now = instant();
        let client = &mut self.uplink.client;
        match event {
            Event::Dialled(Ok(socket)) => {
                self.dialling = None;
                self.socket = Some(shell::Connection::new(socket));
                client.handle(now, Input::Connected);
            }
            Event::Dialled(Err(DialError { code, reason })) => {
                self.dialling = None;
                client.handle(now, Input::DialFailed { code, reason });
            }
            Event::Greeted(Ok(Greeting { proof, hello, told })) => {
                self.greeting = None;
                self.told = Some(told);
                client.handle(now, Input::Greet { proof, hello });
            }
            Event::Greeted(Err(reason)) => {
                self.greeting = None;
                client.handle(now, Input::CannotGreet { reason });
            }
            Event::Socket(shell::Event::Text(text)) => {
                client.handle(now, Input::Text(text.as_str()));
                self.measure();
            }
            Event::Socket(shell::Event::Binary) => client.handle(now, Input::Binary),
            Event::Socket(shell::Event::Oversized) => client.handle(now, Input::Oversized),
            Event::Socket(shell::Event::Closed { code, reason }) => {
                client.handle(now, Input::Closed { code, reason });
            }
            Event::Socket(shell::Event::Progress) => {}
            Event::Body(body, class) => self.send(body, class),
            Event::Aside(aside) => self.on_aside(aside),
            Event::HandOver(permit) => {
                if let Some((seq, event)) = self.pending.pop_front() {
                    drop(permit.send(event));
                    if let Some(seq) = seq {
                        client.consumed(now, seq);
                    }
                }
            }
            Event::Deaf => return Err(UplinkError::Deaf),
            Event::Tick => client.handle(now, Input::Tick),
            Event::Reconnect => client.handle(now, Input::Reconnect),
            Event::Stop => client.handle(now, Input::Stop),
        }
        Ok(())
    }

    pub(super) fn publish(&self) {
        let client = &self.uplink.client;
        let (control, bulk, in_flight) = client.session().outbox().depth();
        let attempt = match client.state() {
            State::Connecting { attempt, .. }
            | State::Greeting { attempt, .. }
            | State::Live { attempt, .. }
            | State::Backoff { attempt, .. } => *attempt,
            State::Idle | State::Stopped => 0,
        };
        self.uplink.board.update_link(|status| {
            status.state = client.state().stage();
            status.attempt = attempt;
            status.waiting_control = control;
            status.waiting_bulk = bulk;
            status.in_flight = in_flight;
        });
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
