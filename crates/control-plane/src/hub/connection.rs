//! One connection: the shell around `link::server`.
//!
//! One task. Each turn of its loop: act on what the machine wants, then wait for one of socket, clock, commands, the greeting, or the
//! orchestrator's answer to the bodies it has. What waits is handed over together when that answer is there, so order holds, and what one wait for the
//! disk stores grows with what a delegate sends.

use super::{
    HubDeps,
    dialect::Axum,
    greeting::{Admitted, Claim, Proved, admit, prove},
    probing::Probes,
    proof,
    registry::{Command, Registry},
    storing::{Stored, store},
    turns::Turn,
};
use crate::identity::delegate_keys::Refusal;
use axum::extract::ws::{Utf8Bytes, WebSocket};
use futures_util::{FutureExt as _, future::BoxFuture};
use link::{
    Class, SendRefused, Server,
    limits::MAX_SENT_BODY,
    server::{Cause, Input, Output},
    shell::{self, some},
};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use wire::{
    control::{Disconnect, DisconnectCode, Up},
    ids::{DelegateUuid, StreamUuid},
};

/// A peer that does not take our last words is left.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn run(
    registry: Arc<Registry>,
    deps: Arc<HubDeps>,
    socket: WebSocket,
    host: Option<String>,
    turn: Turn,
) {
    let nonce = match proof::nonce() {
        Ok(nonce) => nonce,
        Err(error) => {
            tracing::error!(%error, "Cannot make a nonce");
            return;
        }
    };
    let machine = Server::new(instant(), deps.timing, nonce.clone(), deps.clock.now());
    let mut connection = Connection {
        registry,
        machine,
        socket: Some(shell::Connection::new(socket)),
        host,
        nonce,
        greeting: None,
        claimed: None,
        proved: None,
        admitted: None,
        probes: None,
        waiting: VecDeque::new(),
        storing: None,
        turn: Some(turn),
        deps,
    };
    let cause = connection.run().await;
    // On the heap, and only then: what a link holds while it is idle counts thousands of times.
    Box::pin(connection.end(cause)).await;
}

/// tokio's clock, so that what is waited for and what is compared are the same.
fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Bodies that the orchestrator has.
struct Storing {
    /// Their numbers.
    seqs: Vec<u64>,
    work: BoxFuture<'static, Stored>,
}

/// What is done about a greeting.
enum Greeted {
    Proved(Result<Proved, Refusal>),
    Admitted(Box<Result<Admitted, Refusal>>),
}

struct Connection {
    registry: Arc<Registry>,
    deps: Arc<HubDeps>,
    machine: Server,
    /// Until the last words.
    socket: Option<shell::Connection<WebSocket, Axum>>,
    host: Option<String>,
    nonce: String,
    greeting: Option<BoxFuture<'static, Greeted>>,
    /// Whom the peer says to be.
    claimed: Option<DelegateUuid>,
    /// Until its hello is whole.
    proved: Option<Proved>,
    admitted: Option<Admitted>,
    /// Once it is in.
    probes: Option<Box<Probes>>,
    /// Delivered and not handed over; the link bounds it by its window.
    waiting: VecDeque<(u64, Box<Up>)>,
    storing: Option<Storing>,
    /// Held until the delegate is in.
    turn: Option<Turn>,
}

enum Event {
    Socket(shell::Event<Utf8Bytes>),
    Tick,
    Command(Command),
    Overrun,
    Greeted(Greeted),
    Stored(Stored),
    Stop,
}

impl Connection {
    /// Until it ends; the answer is why.
    async fn run(&mut self) -> Cause {
        let mut stopping = false;
        loop {
            if let Some(cause) = self.act() {
                return cause;
            }
            self.hand_over();
            let event = self.wait(stopping).await;
            if matches!(event, Event::Stop) {
                stopping = true;
            }
            self.handle(event);
        }
    }

    /// Does what the machine wants. The answer is why the connection ends.
    fn act(&mut self) -> Option<Cause> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Proof { proof, stream } => self.prove(proof, stream),
                Output::Hello { hello } => {
                    if let Some(proved) = self.proved.take() {
                        let (registry, deps) = (Arc::clone(&self.registry), Arc::clone(&self.deps));
                        let admitted = admit(registry, deps, proved, hello);
                        self.greeting = Some(
                            admitted
                                .map(|done| Greeted::Admitted(Box::new(done)))
                                .boxed(),
                        );
                    }
                }
                Output::Deliver { seq, body } => self.waiting.push_back((seq, body)),
                Output::Probed { id, report } => {
                    if let Some(probes) = &mut self.probes {
                        probes.answered(instant(), id, *report);
                    }
                }
                Output::Ended { cause } => return Some(cause),
            }
        }
        if let Some(socket) = &mut self.socket {
            socket.fill(|| self.machine.poll_transmit(instant()));
        }
        None
    }

    fn prove(&mut self, proof: String, stream: StreamUuid) {
        self.claimed = proof::claimed_delegate(&proof);
        let claim = Claim {
            proof,
            stream,
            nonce: std::mem::take(&mut self.nonce),
            host: self.host.take(),
        };
        let proved = prove(Arc::clone(&self.deps), claim);
        self.greeting = Some(proved.map(Greeted::Proved).boxed());
    }

    /// All bodies that wait go to the orchestrator, where none are there already: while those are stored, the next ones gather.
    fn hand_over(&mut self) {
        if self.storing.is_some() || self.waiting.is_empty() {
            return;
        }
        let Some(admitted) = &self.admitted else {
            return;
        };
        let (seqs, said) = self
            .waiting
            .drain(..)
            .map(|(seq, body)| (seq, *body))
            .unzip();
        let work = store(Arc::clone(&self.deps), admitted.delegate, said).boxed();
        self.storing = Some(Storing { seqs, work });
    }

    /// Cancelled when it takes more than its share: of what waits to be sent, or, until it has said who it is, of greetings.
    fn enough(&self) -> CancellationToken {
        match (&self.admitted, &self.turn) {
            (Some(admitted), _) => admitted.published.overrun.clone(),
            (None, Some(turn)) if self.greeting.is_none() && self.proved.is_none() => {
                turn.given_away()
            }
            (None, _) => CancellationToken::new(),
        }
    }

    async fn wait(&mut self, stopping: bool) -> Event {
        let probe = self.probes.as_ref().and_then(|probes| probes.deadline());
        let deadline = self.machine.deadline().into_iter().chain(probe).min();
        let enough = self.enough();
        let has_room = self
            .machine
            .session()
            .outbox()
            .has_room(Class::Control, MAX_SENT_BODY);
        let is_reading = self.machine.is_reading();
        let Self {
            socket,
            greeting,
            admitted,
            storing,
            deps,
            ..
        } = self;
        tokio::select! {
            () = deps.stop.cancelled(), if !stopping => Event::Stop,
            event = async {
                match socket {
                    Some(socket) => socket.event(is_reading).await,
                    None => std::future::pending().await,
                }
            } => Event::Socket(event),
            () = sleep_until(deadline) => Event::Tick,
            greeted = some(greeting.as_mut()) => Event::Greeted(greeted),
            stored = some(storing.as_mut().map(|storing| &mut storing.work)) => Event::Stored(stored),
            command = async {
                match admitted {
                    Some(admitted) if has_room => admitted.published.commands.recv().await,
                    Some(_) | None => None,
                }
            }, if admitted.is_some() && has_room => match command {
                Some(command) => Event::Command(*command),
                None => Event::Overrun,
            },
            () = enough.cancelled() => Event::Overrun,
        }
    }

    fn handle(&mut self, event: Event) {
        let now = instant();
        match event {
            Event::Socket(shell::Event::Text(text)) => {
                self.machine.handle(now, Input::Text(text.as_str()));
                if let Some(probes) = &mut self.probes {
                    probes.heard(now, &self.machine);
                }
            }
            Event::Socket(shell::Event::Binary) => self.machine.handle(now, Input::Binary),
            Event::Socket(shell::Event::Oversized) => self.machine.handle(now, Input::Oversized),
            Event::Socket(shell::Event::Closed { code, reason }) => {
                self.machine.handle(now, Input::Closed { code, reason });
            }
            Event::Socket(shell::Event::Progress) => {}
            Event::Tick => {
                self.machine.handle(now, Input::Tick);
                if let Some(probes) = &mut self.probes {
                    probes.tick(now, &mut self.machine);
                }
            }
            Event::Command(Command::Probe { waiter }) => {
                if let Some(probes) = &mut self.probes {
                    probes.ask(now, waiter, &mut self.machine);
                }
            }
            Event::Command(Command::Send(body)) => match self.machine.send(&body, Class::Control) {
                Ok(()) | Err(SendRefused::Closed) => {}
                Err(refused) => self.close(DisconnectCode::Overloaded, refused.to_string(), None),
            },
            Event::Command(Command::Close { code, reason, hint }) => self.close(code, reason, hint),
            Event::Overrun => {
                let reason = if self.admitted.is_some() {
                    "the delegate takes less than it is sent"
                } else {
                    "the delegate said nothing while others waited for their turn"
                };
                self.turn = None;
                self.close(DisconnectCode::Overloaded, reason.to_owned(), None);
            }
            Event::Greeted(Greeted::Proved(Ok(proved))) => {
                self.greeting = None;
                self.proved = Some(proved);
                self.machine.handle(now, Input::Proved);
            }
            Event::Greeted(Greeted::Admitted(admitted)) => match *admitted {
                Ok(admitted) => self.admitted(now, admitted),
                Err(refusal) => self.refused(now, refusal),
            },
            Event::Greeted(Greeted::Proved(Err(refusal))) => self.refused(now, refusal),
            Event::Stored(stored) => self.stored(now, stored),
            Event::Stop => self.close(
                DisconnectCode::GoingAway,
                "the control plane is stopping".to_owned(),
                None,
            ),
        }
    }

    fn admitted(&mut self, now: Instant, mut admitted: Admitted) {
        self.greeting = None;
        self.registry.refusals.let_in(admitted.delegate);
        if let Some(acceptance) = admitted.acceptance.take() {
            self.machine.handle(now, Input::Accept(acceptance));
        }
        tracing::info!(delegate = %admitted.delegate, name = admitted.name, epoch = admitted.epoch.0, "Delegate connected");
        let clock = Arc::clone(&self.deps.clock);
        let probes = Probes::new(&admitted, clock, now, &self.deps.pace);
        self.probes = Some(Box::new(probes));
        self.registry
            .tunnels
            .came(admitted.delegate, admitted.tunnels);
        self.admitted = Some(admitted);
        self.turn = None;
    }

    fn refused(&mut self, now: Instant, refusal: Refusal) {
        let Refusal { code, reason, hint } = refusal;
        self.greeting = None;
        let delegate = self.claimed.map(tracing::field::display);
        tracing::info!(delegate, %code, reason, "Delegate refused");
        let refusals = &self.registry.refusals;
        refusals.note(self.claimed, code, &reason, self.deps.clock.now());
        self.machine
            .handle(now, Input::Refuse { code, reason, hint });
    }

    /// What was handed over is done with.
    fn stored(&mut self, now: Instant, stored: Stored) {
        let seqs = self.storing.take().map(|storing| storing.seqs);
        for (seq, answer) in seqs.into_iter().flatten().zip(stored.answers) {
            self.machine.consumed(now, seq);
            if let Some(body) = answer
                && let Err(refused) = self.machine.send(&body, Class::Control)
                && refused != SendRefused::Closed
            {
                self.close(DisconnectCode::Overloaded, refused.to_string(), None);
            }
        }
        // It is sent again on the next connection, and so is what came after it.
        if let Some(Refusal { code, reason, hint }) = stored.refused {
            self.waiting.clear();
            self.close(code, reason, hint);
        }
    }

    fn close(&mut self, code: DisconnectCode, reason: String, hint: Option<String>) {
        self.machine
            .handle(instant(), Input::Close { code, reason, hint });
    }

    async fn end(&mut self, cause: Cause) {
        if let Some(probes) = &mut self.probes {
            probes.lost(instant());
        }
        // Nothing is told through this connection any more, and whoever waits for its turn does not wait for the socket.
        if let Some(greeting) = self.greeting.take()
            && let Greeted::Admitted(admitted) = greeting.await
        {
            self.admitted = admitted.ok();
        }
        self.store_rest().await;
        let disconnect = Disconnect {
            code: cause.code(),
            reason: cause.to_string(),
        };
        let Disconnect { code, reason } = &disconnect;
        let consumed = self.machine.session().inbox().consumed();
        if let Some(admitted) = self.admitted.take() {
            tracing::info!(delegate = %admitted.delegate, name = admitted.name, epoch = admitted.epoch.0, %code, reason, "Delegate disconnected");
            let stored = link::inbox::Inbox::resumed(admitted.stream, consumed);
            let (code, deps) = (*code, Arc::clone(&self.deps));
            tokio::join!(
                admitted.leave(&deps, stored, disconnect),
                self.farewell(code)
            );
        } else {
            // A peer that gives up has a reason that an operator looks for.
            if matches!(cause, Cause::Bye { .. }) {
                tracing::info!(%code, reason, "A peer gave up before it was a delegate");
            } else {
                tracing::debug!(%code, reason, "Connection ended before it was a delegate's");
            }
            self.farewell(*code).await;
        }
    }

    /// What was delivered is stored, as far as it can be: the next connection need not bring it again.
    async fn store_rest(&mut self) {
        loop {
            self.hand_over();
            let Some(storing) = &mut self.storing else {
                return;
            };
            let stored = (&mut storing.work).await;
            self.stored(instant(), stored);
        }
    }

    async fn farewell(&mut self, code: DisconnectCode) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        let words = socket.farewell(code, || self.machine.poll_transmit(instant()));
        match tokio::time::timeout(FAREWELL_LIMIT, words).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::trace!(%error, "The peer left first"),
            Err(_) => tracing::debug!("The peer does not take our last words"),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
