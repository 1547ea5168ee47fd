//! One connection: the shell around `link::server`.
//!
//! One task. Each turn of its loop: act on what the machine wants, then wait for one of socket, clock, commands, the greeting, or the
//! orchestrator's answer to the bodies it has. What waits is handed over together when that answer is there, so order holds, and what one wait for the
//! disk stores grows with what a delegate sends.

use super::{
    HubDeps,
    greeting::{Admitted, Greeting, admit},
    proof::{self, Refusal},
    registry::{Command, Registry},
};
use crate::orchestrator::OrchestratorError;
use axum::extract::ws::{Message, WebSocket};
use daemon::ErrorChain;
use futures_util::{
    FutureExt as _, Sink as _, SinkExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{SplitSink, SplitStream},
};
use link::{
    Class, SendRefused, Server,
    server::{Input, Output},
};
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit;
use wire::{
    control::{ByeCode, Down, Up},
    ids::DelegateUuid,
};

/// A peer that does not take our last words is left.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn run(
    registry: Arc<Registry>,
    deps: Arc<HubDeps>,
    socket: WebSocket,
    host: Option<String>,
    permit: OwnedSemaphorePermit,
) {
    let nonce = match proof::nonce() {
        Ok(nonce) => nonce,
        Err(error) => {
            tracing::error!(%error, "Cannot make a nonce");
            return;
        }
    };
    let (sink, stream) = socket.split();
    let machine = Server::new(instant(), deps.timing, nonce.clone(), deps.clock.now());
    Connection {
        registry,
        machine,
        sink,
        stream,
        next: None,
        unflushed: false,
        host,
        nonce,
        greeting: None,
        admitted: None,
        waiting: VecDeque::new(),
        storing: None,
        permit: Some(permit),
        deps,
    }
    .run()
    .await;
}

/// tokio's clock, so that what is waited for and what is compared are the same.
fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What came of bodies that were handed over.
struct Stored {
    /// One for each that is stored, in order.
    answers: Vec<Option<Down>>,
    /// Why the rest is not.
    refused: Option<Refusal>,
}

/// Bodies that the orchestrator has.
struct Storing {
    /// Their numbers.
    seqs: Vec<u64>,
    work: BoxFuture<'static, Stored>,
}

struct Connection {
    registry: Arc<Registry>,
    deps: Arc<HubDeps>,
    machine: Server,
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    /// A frame that waits for the socket.
    next: Option<String>,
    unflushed: bool,
    host: Option<String>,
    nonce: String,
    greeting: Option<BoxFuture<'static, Result<Admitted, Refusal>>>,
    admitted: Option<Admitted>,
    /// Delivered and not handed over; the link bounds it by its window.
    waiting: VecDeque<(u64, Box<Up>)>,
    storing: Option<Storing>,
    /// Held until the delegate is in.
    permit: Option<OwnedSemaphorePermit>,
}

enum Event {
    Socket(Option<Result<Message, axum::Error>>),
    Written(Result<(), axum::Error>),
    Tick,
    Command(Command),
    Overrun,
    Greeted(Result<Box<Admitted>, Refusal>),
    Stored(Stored),
    Stop,
}

impl Connection {
    async fn run(mut self) {
        let mut stopping = false;
        let reason = loop {
            if let Some(reason) = self.act() {
                break reason;
            }
            self.hand_over();
            let event = self.wait(stopping).await;
            if matches!(event, Event::Stop) {
                stopping = true;
            }
            self.handle(event);
        };
        self.end(&reason).await;
    }

    /// Does what the machine wants. The answer is why the connection ends.
    fn act(&mut self) -> Option<String> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Hello {
                    proof,
                    stream,
                    hello,
                } => {
                    let greeting = Greeting {
                        proof,
                        stream,
                        hello,
                        nonce: std::mem::take(&mut self.nonce),
                        host: self.host.take(),
                    };
                    self.greeting = Some(
                        admit(Arc::clone(&self.registry), Arc::clone(&self.deps), greeting).boxed(),
                    );
                }
                Output::Deliver { seq, body } => self.waiting.push_back((seq, body)),
                Output::Ended { cause } => return Some(cause.to_string()),
            }
        }
        if self.next.is_none() {
            self.next = self.machine.poll_transmit(instant());
        }
        None
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

    async fn wait(&mut self, stopping: bool) -> Event {
        let deadline = self.machine.deadline();
        // Never cancelled where nothing is published.
        let overrun = self
            .admitted
            .as_ref()
            .map(|admitted| admitted.published.overrun.clone())
            .unwrap_or_default();
        let has_room = self
            .machine
            .session()
            .outbox()
            .has_room(Class::Control, link::session::MAX_SENT_BODY);
        let Self {
            sink,
            stream,
            next,
            unflushed,
            greeting,
            admitted,
            storing,
            deps,
            ..
        } = self;
        tokio::select! {
            () = deps.stop.cancelled(), if !stopping => Event::Stop,
            written = write(sink, next, unflushed) => Event::Written(written),
            message = stream.next() => Event::Socket(message),
            () = sleep_until(deadline) => Event::Tick,
            greeted = some(greeting.as_mut()) => Event::Greeted(greeted.map(Box::new)),
            stored = some(storing.as_mut().map(|storing| &mut storing.work)) => Event::Stored(stored),
            command = async {
                match admitted {
                    Some(admitted) if has_room => admitted.published.commands.recv().await,
                    Some(_) | None => None,
                }
            }, if admitted.is_some() && has_room => match command {
                Some(command) => Event::Command(command),
                None => Event::Overrun,
            },
            () = overrun.cancelled() => Event::Overrun,
        }
    }

    fn handle(&mut self, event: Event) {
        let now = instant();
        match event {
            Event::Socket(Some(Ok(Message::Text(text)))) => {
                self.machine.handle(now, Input::Text(text.as_str()));
            }
            Event::Socket(Some(Ok(Message::Binary(_)))) => self.machine.handle(now, Input::Binary),
            // axum answers pings.
            Event::Socket(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Event::Socket(Some(Ok(Message::Close(_))) | None) => {
                let reason = "the delegate closed it".to_owned();
                self.machine.handle(now, Input::Closed { reason });
            }
            Event::Socket(Some(Err(error))) | Event::Written(Err(error)) => {
                let reason = ErrorChain(&error).to_string();
                self.machine.handle(now, Input::Closed { reason });
            }
            Event::Written(Ok(())) => {}
            Event::Tick => self.machine.handle(now, Input::Tick),
            Event::Command(Command::Send(body)) => match self.machine.send(&body, Class::Control) {
                Ok(()) | Err(SendRefused::Closed) => {}
                Err(refused) => self.close(ByeCode::Overloaded, refused.to_string(), None),
            },
            Event::Command(Command::Close { code, reason, hint }) => self.close(code, reason, hint),
            Event::Overrun => self.close(
                ByeCode::Overloaded,
                "the delegate takes less than it is sent".to_owned(),
                None,
            ),
            Event::Greeted(Ok(mut admitted)) => {
                self.greeting = None;
                if let Some(acceptance) = admitted.acceptance.take() {
                    self.machine.handle(now, Input::Accept(acceptance));
                }
                tracing::info!(delegate = %admitted.delegate, name = admitted.name, epoch = admitted.epoch.0, "Delegate connected");
                self.admitted = Some(*admitted);
                self.permit = None;
            }
            Event::Greeted(Err(Refusal { code, reason, hint })) => {
                self.greeting = None;
                tracing::info!(?code, reason, "Delegate refused");
                self.machine
                    .handle(now, Input::Refuse { code, reason, hint });
            }
            Event::Stored(stored) => self.stored(now, stored),
            Event::Stop => self.close(
                ByeCode::GoingAway,
                "the control plane is stopping".to_owned(),
                None,
            ),
        }
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
                self.close(ByeCode::Overloaded, refused.to_string(), None);
            }
        }
        // It is sent again on the next connection, and so is what came after it.
        if let Some(Refusal { code, reason, hint }) = stored.refused {
            self.waiting.clear();
            self.close(code, reason, hint);
        }
    }

    fn close(&mut self, code: ByeCode, reason: String, hint: Option<String>) {
        self.machine
            .handle(instant(), Input::Close { code, reason, hint });
    }

    async fn end(mut self, reason: &str) {
        // Nothing is told through this connection any more, and whoever waits for its turn does not wait for the socket.
        if let Some(greeting) = self.greeting.take() {
            self.admitted = greeting.await.ok();
        }
        self.store_rest().await;
        let inbox = self.machine.session().inbox();
        if let Some(admitted) = self.admitted.take() {
            tracing::info!(delegate = %admitted.delegate, name = admitted.name, epoch = admitted.epoch.0, reason, "Delegate disconnected");
            let stored = link::inbox::Inbox::resumed(admitted.stream, inbox.consumed());
            let deps = Arc::clone(&self.deps);
            tokio::join!(admitted.leave(&deps, stored, reason), self.farewell());
        } else {
            tracing::debug!(reason, "Connection ended before it was a delegate's");
            self.farewell().await;
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

    async fn farewell(&mut self) {
        let words = async {
            if let Some(frame) = self.next.take() {
                self.sink.send(Message::text(frame)).await?;
            }
            while let Some(frame) = self.machine.poll_transmit(instant()) {
                self.sink.send(Message::text(frame)).await?;
            }
            self.sink.close().await
        };
        match tokio::time::timeout(FAREWELL_LIMIT, words).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::trace!(%error, "The peer left first"),
            Err(_) => tracing::debug!("The peer does not take our last words"),
        }
    }
}

/// Brings one frame to the socket, or flushes it. Waits for ever where there is nothing to write.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    next: &mut Option<String>,
    unflushed: &mut bool,
) -> Result<(), axum::Error> {
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

/// Bodies to the orchestrator, in order.
async fn store(deps: Arc<HubDeps>, delegate: DelegateUuid, said: Vec<Up>) -> Stored {
    let (answers, refused) = match deps.orchestrator.said(delegate, said).await {
        Ok(heard) => (heard.answers, heard.refused),
        Err(error) => (Vec::new(), Some(error)),
    };
    let refused = refused.map(|error| {
        let code = match &error {
            OrchestratorError::Stopping => ByeCode::GoingAway,
            OrchestratorError::Store { .. } => ByeCode::Overloaded,
            OrchestratorError::Gap { .. } => ByeCode::Other,
            OrchestratorError::UnknownDelegate => ByeCode::UnknownDelegate,
        };
        tracing::warn!(%delegate, error = %ErrorChain(&error), "Cannot store what a delegate said");
        Refusal::new(code, ErrorChain(&error).to_string(), None)
    });
    Stored { answers, refused }
}
