//! Simulated delegates: the real protocol on real sockets.

use crate::{
    plane::Plane,
    runner::{Play, Runner},
};
use futures_util::{SinkExt as _, StreamExt as _};
use jiff::Timestamp;
use link::{
    Class, Client,
    client::{Input, Output},
};
use newtype_uuid::{GenericUuid as _, TypedUuid};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use token::SigningKey;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};
use wire::{
    control::{
        DisconnectCode, Down, Hello, Hop, HopReport, PROOF_PURPOSE, ProbeReport, ProofClaims,
        SUBPROTOCOL,
    },
    ids::{DelegateUuid, StreamUuid, TaskUuid},
};

/// Sockets of one loopback address: less than it has ports.
const PER_ADDRESS: usize = 5_000;

/// What all delegates share.
#[derive(Debug)]
pub(crate) struct Board {
    /// Welcomes.
    pub(crate) welcomes: AtomicU64,
    /// When the last welcome came, in microseconds from `began`.
    pub(crate) last_welcome: AtomicU64,
    pub(crate) began: Instant,
    /// Times that each task was handed over.
    pub(crate) assigned: Mutex<HashMap<TaskUuid, u32>>,
    pub(crate) stored: AtomicU64,
    /// Links that are up.
    pub(crate) live: AtomicU64,
    revision: AtomicU64,
    /// Dials at once; as many as there are in a storm.
    pub(crate) dials: Semaphore,
}

impl Board {
    pub(crate) fn new(dials: usize) -> Arc<Self> {
        Arc::new(Self {
            welcomes: AtomicU64::new(0),
            last_welcome: AtomicU64::new(0),
            began: Instant::now(),
            assigned: Mutex::new(HashMap::new()),
            stored: AtomicU64::new(0),
            live: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            dials: Semaphore::new(dials),
        })
    }
}

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(4096)
}

/// A connection from one of many loopback addresses.
pub(crate) async fn connect(number: usize, port: u16) -> std::io::Result<TcpStream> {
    let part = u8::try_from(2 + number / PER_ADDRESS).expect("few addresses");
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, part), 0)))?;
    let stream = socket
        .connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) struct Delegate {
    pub(crate) number: usize,
    pub(crate) id: DelegateUuid,
    pub(crate) key: SigningKey,
    pub(crate) plane: Plane,
    pub(crate) board: Arc<Board>,
    pub(crate) play: Arc<Play>,
}

impl Delegate {
    fn greet(&self, nonce: String, runner: &Runner) -> Input<'static> {
        let now = Timestamp::now();
        let claims = ProofClaims {
            delegate: self.id,
            audience: self.plane.url(),
            nonce,
            iat: now,
            exp: now + Duration::from_secs(60),
        };
        Input::Greet {
            proof: token::sign(&claims, &self.key, PROOF_PURPOSE).expect("signs"),
            hello: Box::new(Hello {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                inventory: self.play.inventory(),
                tags: Vec::new(),
                draining: false,
                probes: true,
                tunnels: false,
                runner_ready: true,
                tasks: Vec::new(),
                gitspaces: runner.gitspaces.values().cloned().collect(),
            }),
        }
    }

    fn hear(&self, body: Down, runner: &mut Runner) {
        match body {
            Down::Assign { task, .. } => {
                let mut assigned = self.board.assigned.lock().expect("nobody panics with it");
                *assigned.entry(task.id).or_default() += 1;
                drop(assigned);
                runner.given.push(*task);
            }
            Down::Stored { task, .. } => {
                self.board.stored.fetch_add(1, Ordering::Relaxed);
                if let Some(gitspace) = runner.ended.remove(&task)
                    && let Some(stored) = &self.play.stored
                {
                    stored.send(gitspace).expect("somebody listens");
                }
            }
            Down::Cancel { .. } | Down::Tunnels { .. } => {}
        }
    }

    async fn dial(&self) -> Result<WebSocketStream<TcpStream>, String> {
        let _permit = self.board.dials.acquire().await.expect("never closed");
        let stream = connect(self.number, self.plane.port)
            .await
            .map_err(|error| error.to_string())?;
        let mut request = format!("{}/api/v1/delegates/connect", self.plane.url())
            .replacen("http", "ws", 1)
            .into_client_request()
            .map_err(|error| error.to_string())?;
        request.headers_mut().insert(
            http::header::SEC_WEBSOCKET_PROTOCOL,
            SUBPROTOCOL.parse().expect("a header"),
        );
        client_async_with_config(request, stream, Some(config()))
            .await
            .map(|(socket, _)| socket)
            .map_err(|error| error.to_string())
    }

    pub(crate) async fn run(self) {
        let stream: StreamUuid = TypedUuid::from_untyped_uuid(*self.id.as_untyped_uuid());
        let seed = u64::try_from(self.number).expect("small");
        let mut machine = Client::new(stream, seed);
        let mut runner = Runner::new(&self.play, self.number);
        let mut socket: Option<WebSocketStream<TcpStream>> = None;
        let mut is_live = false;
        machine.handle(Instant::now(), Input::Start);
        loop {
            let mut dial = false;
            while let Some(output) = machine.poll_output() {
                match output {
                    Output::Dial => dial = true,
                    Output::Challenged { nonce, .. } => {
                        let greet = self.greet(nonce, &runner);
                        machine.handle(Instant::now(), greet);
                    }
                    Output::Live { .. } => {
                        let at = u64::try_from(self.board.began.elapsed().as_micros())
                            .expect("not that long");
                        self.board.last_welcome.fetch_max(at, Ordering::SeqCst);
                        is_live = true;
                        self.board.live.fetch_add(1, Ordering::SeqCst);
                        self.board.welcomes.fetch_add(1, Ordering::SeqCst);
                    }
                    Output::Deliver { seq, body } => {
                        machine.consumed(Instant::now(), seq);
                        self.hear(body, &mut runner);
                    }
                    Output::Probe { id, .. } => machine.probed(id, whole_way()),
                    Output::HangUp { .. } => {
                        if std::mem::take(&mut is_live) {
                            self.board.live.fetch_sub(1, Ordering::SeqCst);
                        }
                        socket = None;
                    }
                }
            }
            if dial {
                let limit = machine.deadline().expect("a dial is limited");
                match tokio::time::timeout_at(limit.into(), self.dial()).await {
                    Ok(Ok(made)) => {
                        socket = Some(made);
                        machine.handle(Instant::now(), Input::Connected);
                    }
                    Ok(Err(reason)) => {
                        let code = DisconnectCode::CannotConnect;
                        machine.handle(Instant::now(), Input::DialFailed { code, reason });
                    }
                    Err(_) => machine.handle(Instant::now(), Input::Tick),
                }
                continue;
            }
            self.step(&mut machine, &mut socket, &mut runner).await;
        }
    }
    /// One turn of a connection, or of the pause before the next.
    async fn step(
        &self,
        machine: &mut Client,
        socket: &mut Option<WebSocketStream<TcpStream>>,
        runner: &mut Runner,
    ) {
        runner.take(&self.play, &self.board.revision).await;
        while machine.has_room(Class::Control, link::limits::MAX_SENT_BODY)
            && let Some(body) = runner.said.pop_front()
        {
            machine.send(&body, Class::Control).expect("has room");
        }
        let deadline = machine.deadline().expect("never stopped");
        let Some(socket) = socket else {
            tokio::time::sleep_until(deadline.into()).await;
            return machine.handle(Instant::now(), Input::Tick);
        };
        let mut is_cut = false;
        while let Some(frame) = machine.poll_transmit(Instant::now()) {
            is_cut |= socket.feed(Message::text(frame)).await.is_err();
        }
        is_cut |= socket.flush().await.is_err();
        if !is_cut {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        return machine.handle(Instant::now(), Input::Text(text.as_str()));
                    }
                    Some(Ok(_)) => return,
                    Some(Err(_)) | None => {}
                },
                () = tokio::time::sleep_until(deadline.into()) => {
                    return machine.handle(Instant::now(), Input::Tick);
                }
            }
        }
        let reason = "cut".to_owned();
        machine.handle(Instant::now(), Input::Closed { code: None, reason });
    }
}

/// What a delegate answers whose host is well.
fn whole_way() -> ProbeReport {
    ProbeReport {
        took_us: 3_456,
        hops: vec![
            HopReport::good(Hop::Delegate, Duration::from_micros(45)),
            HopReport::good(Hop::Runner, Duration::from_micros(456)),
            HopReport::good(Hop::Docker, Duration::from_micros(1_234)),
        ],
        agents: 12,
        ..ProbeReport::default()
    }
}
