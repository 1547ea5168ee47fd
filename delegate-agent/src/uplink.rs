//! The shell around `link::client`: dials, greets, moves frames, hands over what comes.
//!
//! One task. Bodies come over two bounded channels and are taken only while the link's outbox has room, so that a slow link holds back the
//! runner's streams. What comes from the control plane goes to `tasks` in order; it is acknowledged when that has it.

mod hello;
mod socket;

pub use hello::{HelloSource, Told};

use crate::{
    status::{Board, LastError},
    transport::Transport,
};
use daemon::Clock;
use futures_util::{
    FutureExt as _, Sink as _, SinkExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{SplitSink, SplitStream},
};
use hello::Greeting;
use link::{
    Class, Client, SendRefused,
    client::{Cause, Input, Output, State},
};
use socket::{Socket, dial};
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;
use wire::{
    control::{Down, Epoch, TaskVerdict, Up},
    ids::StreamUuid,
};

/// Bodies between a follower and the outbox. Few: what waits here is in no runner's journal position yet.
const CHANNEL: usize = 16;
/// The largest body a follower or the watch makes: a line of the runner's stream, with its escapes.
const LARGEST: usize = 512 * 1024;
/// For last words on a connection that is given up.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// To the uplink. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LinkHandle {
    control: mpsc::Sender<Up>,
    bulk: mpsc::Sender<Up>,
    reconnect: Arc<Notify>,
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
}

#[cfg(test)]
impl LinkHandle {
    /// To no uplink.
    pub(crate) fn loose() -> (Self, LooseEnds) {
        let (control, control_receiver) = mpsc::channel(CHANNEL);
        let (bulk, bulk_receiver) = mpsc::channel(CHANNEL);
        let reconnect = Arc::new(Notify::new());
        let ends = LooseEnds {
            reconnect: Arc::clone(&reconnect),
            _control: control_receiver,
            _bulk: bulk_receiver,
        };
        let handle = Self {
            control,
            bulk,
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
    Lost,
}

/// What the watch needs to know of the link: which connection it is, and what its hello said of the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveLink {
    pub epoch: Epoch,
    pub runner_ready: bool,
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
    reconnect: Arc<Notify>,
    events: mpsc::Sender<LinkEvent>,
    live: watch::Sender<Option<LiveLink>>,
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
    ) -> (Self, UplinkEnds) {
        let (control_sender, control) = mpsc::channel(CHANNEL);
        let (bulk_sender, bulk) = mpsc::channel(CHANNEL);
        let (events, event_receiver) = mpsc::channel(CHANNEL);
        let (live, live_receiver) = watch::channel(None);
        let reconnect = Arc::new(Notify::new());
        board.update_link(|status| {
            status.control_plane = transport.origin().ascii();
            status.delegate = Some(hello.delegate);
        });
        let uplink = Self {
            transport,
            hello: Arc::new(hello),
            clock,
            board,
            client: Client::new(stream, seed),
            control,
            bulk,
            reconnect: Arc::clone(&reconnect),
            events,
            live,
        };
        let ends = UplinkEnds {
            handle: LinkHandle {
                control: control_sender,
                bulk: bulk_sender,
                reconnect,
            },
            events: event_receiver,
            live: live_receiver,
        };
        (uplink, ends)
    }

    /// Dials and serves until `stop`; says good-bye then.
    ///
    /// # Errors
    /// Ends where nobody takes what comes.
    pub async fn run(self, stop: CancellationToken) -> Result<(), UplinkError> {
        let mut run = Run {
            uplink: self,
            dialling: None,
            greeting: None,
            told: None,
            socket: None,
            next: None,
            unflushed: false,
            held: None,
            pending: VecDeque::new(),
        };
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

fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Continue,
    Stopped,
}

type Halves = (SplitSink<Socket, Message>, SplitStream<Socket>);

struct Run {
    uplink: Uplink,
    dialling: Option<BoxFuture<'static, Result<Socket, String>>>,
    greeting: Option<BoxFuture<'static, Result<Greeting, String>>>,
    /// What the last hello said, until it is answered.
    told: Option<Told>,
    socket: Option<Halves>,
    /// A frame that waits for the socket.
    next: Option<String>,
    unflushed: bool,
    /// A body that did not fit after all.
    held: Option<(Up, Class)>,
    /// For `tasks`. Bounded by the link's window: a cut clears it.
    pending: VecDeque<(Option<u64>, LinkEvent)>,
}

enum Event {
    Dialled(Result<Socket, String>),
    Greeted(Result<Greeting, String>),
    Socket(Option<Result<Message, tungstenite::Error>>),
    Written(Result<(), tungstenite::Error>),
    Body(Up, Class),
    HandOver(mpsc::OwnedPermit<LinkEvent>),
    Deaf,
    Tick,
    Reconnect,
    Stop,
}

impl Run {
    /// Does what the machine wants.
    async fn act(&mut self) -> Outcome {
        while let Some(output) = self.uplink.client.poll_output() {
            match output {
                Output::Dial => {
                    self.dialling = Some(dial(self.uplink.transport.clone()).boxed());
                }
                Output::Challenged { nonce, server_now } => {
                    let now = self.uplink.clock.now();
                    let skew = server_now.duration_since(now).as_millis();
                    self.uplink.board.update_link(|status| {
                        status.clock_skew_ms = i64::try_from(skew).ok();
                    });
                    let source = Arc::clone(&self.uplink.hello);
                    self.greeting = Some(async move { source.greet(nonce).await }.boxed());
                }
                Output::Live { epoch, welcome } => self.on_live(epoch, welcome.tasks),
                Output::Deliver { seq, body } => {
                    self.pending.push_back((Some(seq), LinkEvent::Down(body)));
                }
                Output::HangUp { cause, retry_in } => {
                    self.on_hang_up(&cause, retry_in);
                    self.farewell().await;
                    if retry_in.is_none() {
                        return Outcome::Stopped;
                    }
                }
            }
        }
        self.send_held();
        if self.next.is_none() && self.socket.is_some() {
            self.next = self.uplink.client.poll_transmit(instant());
        }
        Outcome::Continue
    }

    fn on_live(&mut self, epoch: Epoch, verdicts: Vec<TaskVerdict>) {
        let told = self.told.take().unwrap_or_default();
        let live = LiveLink {
            epoch,
            runner_ready: told.runner_ready,
        };
        tracing::info!(epoch = epoch.0, control_plane = %self.uplink.transport.origin(), "Connected");
        let now = self.uplink.clock.now();
        self.uplink.board.update_link(|status| {
            status.epoch = Some(epoch.0);
            status.connected_since = Some(now);
            status.next_try = None;
        });
        self.pending
            .push_back((None, LinkEvent::Live { verdicts, told }));
        self.uplink.live.send_replace(Some(live));
    }

    fn on_hang_up(&mut self, cause: &Cause, retry_in: Option<Duration>) {
        self.dialling = None;
        self.greeting = None;
        self.told = None;
        self.pending.clear();
        if self.uplink.live.send_replace(None).is_some() {
            self.pending.push_back((None, LinkEvent::Lost));
        }
        let now = self.uplink.clock.now();
        let next_try = retry_in.and_then(|delay| now.checked_add(delay).ok());
        if !matches!(cause, Cause::Asked | Cause::Stopping) {
            tracing::warn!(error = %cause, hint = cause.hint(), retry_in_ms = retry_in.map(|delay| delay.as_millis()), "Not connected");
        }
        self.uplink.board.update_link(|status| {
            status.epoch = None;
            status.connected_since = None;
            status.next_try = next_try;
            status.last_error = Some(LastError {
                message: cause.to_string(),
                hint: cause.hint().map(str::to_owned),
                at: now,
            });
        });
    }

    /// Last words, then the end of the connection.
    async fn farewell(&mut self) {
        self.unflushed = false;
        let next = self.next.take();
        let Some((mut sink, _)) = self.socket.take() else {
            return;
        };
        let client = &mut self.uplink.client;
        let words = async {
            if let Some(frame) = next {
                sink.send(Message::text(frame)).await?;
            }
            while let Some(frame) = client.poll_transmit(instant()) {
                sink.send(Message::text(frame)).await?;
            }
            sink.close().await
        };
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
            // The runner's own limits are far below ours.
            Err(error) => tracing::error!(%error, "A message to the control plane is dropped"),
        }
    }

    async fn wait(&mut self, stop: &CancellationToken) -> Event {
        let deadline = self.uplink.client.deadline();
        let free = self.held.is_none();
        let control_room = free && self.uplink.client.has_room(Class::Control, LARGEST);
        let bulk_room = free && self.uplink.client.has_room(Class::Bulk, LARGEST);
        let Self {
            uplink,
            dialling,
            greeting,
            socket,
            next,
            unflushed,
            pending,
            ..
        } = self;
        let Uplink {
            control,
            bulk,
            reconnect,
            events,
            ..
        } = uplink;
        let socket = async {
            match socket {
                Some((sink, stream)) => tokio::select! {
                    written = write(sink, next, unflushed) => Event::Written(written),
                    message = stream.next() => Event::Socket(message),
                },
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
            () = reconnect.notified() => Event::Reconnect,
            () = sleep_until(deadline) => Event::Tick,
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), UplinkError> {
        let now = instant();
        let client = &mut self.uplink.client;
        match event {
            Event::Dialled(Ok(socket)) => {
                self.dialling = None;
                self.socket = Some(socket.split());
                client.handle(now, Input::Connected);
            }
            Event::Dialled(Err(reason)) => {
                self.dialling = None;
                client.handle(now, Input::DialFailed { reason });
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
            Event::Socket(Some(Ok(Message::Text(text)))) => {
                client.handle(now, Input::Text(text.as_str()));
            }
            Event::Socket(Some(Ok(Message::Binary(_)))) => client.handle(now, Input::Binary),
            Event::Socket(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
            Event::Socket(Some(Ok(Message::Close(_))) | None) => {
                let reason = "the control plane closed it".to_owned();
                client.handle(now, Input::Closed { reason });
            }
            Event::Socket(Some(Err(error))) | Event::Written(Err(error)) => {
                let reason = daemon::ErrorChain(&error).to_string();
                client.handle(now, Input::Closed { reason });
            }
            Event::Written(Ok(())) => {}
            Event::Body(body, class) => self.send(body, class),
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

    fn publish(&self) {
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
            status.state = client.state().name();
            status.attempt = attempt;
            status.waiting_control = control;
            status.waiting_bulk = bulk;
            status.in_flight = in_flight;
        });
    }
}

/// Brings one frame to the socket, or flushes it. Waits for ever where there is nothing to write.
async fn write(
    sink: &mut SplitSink<Socket, Message>,
    next: &mut Option<String>,
    unflushed: &mut bool,
) -> Result<(), tungstenite::Error> {
    if next.is_some() {
        poll_fn(|cx| Pin::new(&mut *sink).poll_ready(cx)).await?;
        if let Some(frame) = next.take() {
            Pin::new(&mut *sink).start_send(Message::text(frame))?;
            *unflushed = true;
        }
        Ok(())
    } else if *unflushed {
        poll_fn(|cx| Pin::new(&mut *sink).poll_flush(cx)).await?;
        *unflushed = false;
        Ok(())
    } else {
        std::future::pending().await
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

async fn some<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Whether two clocks are close enough for signed tokens.
#[must_use]
pub fn clock_is_right(skew_ms: Option<i64>) -> bool {
    skew_ms.is_none_or(|skew| {
        i128::from(skew).unsigned_abs() < token::LEEWAY.as_millis().unsigned_abs()
    })
}
