//! Simulated delegates: the real protocol on real sockets, and a runner that answers each task at once.

use crate::plane::Plane;
use futures_util::{SinkExt as _, StreamExt as _};
use jiff::Timestamp;
use link::{
    Class, Client,
    client::{Input, Output},
};
use newtype_uuid::{GenericUuid as _, TypedUuid};
use std::{
    collections::{HashMap, VecDeque},
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
        Capacity, DisconnectCode, Down, Hello, Inventory, PROOF_PURPOSE, ProofClaims, SUBPROTOCOL,
        Up,
    },
    gitspace::{DevContainer, Observed, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, StreamUuid, TaskUuid},
    task::{Task, TaskEvent, TaskEventKind, TaskKind, TaskOutcome},
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

fn inventory() -> Inventory {
    Inventory {
        hostname: "host".to_owned(),
        os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        kernel: "6.1.0-30-amd64".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 8,
        memory_bytes: 1 << 35,
        memory_available_bytes: 1 << 34,
        disk_bytes: 1 << 40,
        disk_available_bytes: 1 << 39,
        docker_version: Some("20.10.24".to_owned()),
        // So that each delegate gets one.
        capacity: Capacity {
            gitspaces: 1,
            cpu_millis: 8_000,
            memory_bytes: 1 << 35,
        },
    }
}

pub(crate) struct Delegate {
    pub(crate) number: usize,
    pub(crate) id: DelegateUuid,
    pub(crate) key: SigningKey,
    pub(crate) plane: Plane,
    pub(crate) board: Arc<Board>,
}

/// Between connections.
#[derive(Default)]
struct Runner {
    gitspaces: HashMap<GitspaceUuid, Observed>,
    said: VecDeque<Up>,
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
                inventory: inventory(),
                tags: Vec::new(),
                draining: false,
                runner_ready: true,
                tasks: Vec::new(),
                gitspaces: runner.gitspaces.values().cloned().collect(),
            }),
        }
    }

    fn carry_out(&self, task: &Task, runner: &mut Runner) {
        *self
            .board
            .assigned
            .lock()
            .expect("nobody panics with it")
            .entry(task.id)
            .or_default() += 1;
        let state = match task.verb.kind() {
            TaskKind::Start | TaskKind::Provision => ObservedState::Running,
            TaskKind::Stop => ObservedState::Stopped,
            TaskKind::Reset | TaskKind::Delete | TaskKind::Observe => ObservedState::Absent,
        };
        let observed = Observed {
            gitspace: task.gitspace,
            state,
            generation: task.generation,
            revision: self.board.revision.fetch_add(1, Ordering::Relaxed) + 1,
            at: Timestamp::now(),
            failure: None,
            task: None,
            dev_container: (state == ObservedState::Running).then(|| DevContainer {
                image: "debian".to_owned(),
                remote_user: "dev".to_owned(),
                workspace_folder: "/workspaces/app".to_owned(),
                forward_ports: Vec::new(),
                initialized: true,
            }),
        };
        runner.gitspaces.insert(task.gitspace, observed.clone());
        runner.said.push_back(Up::TaskEvent {
            task: task.id,
            gitspace: task.gitspace,
            event: TaskEvent {
                seq: 1,
                at: Timestamp::now(),
                event: TaskEventKind::Finished {
                    outcome: TaskOutcome::Done {},
                    observed: Box::new(observed),
                },
            },
        });
    }

    fn hear(&self, body: &Down, runner: &mut Runner) {
        match body {
            Down::Assign { task } => self.carry_out(task, runner),
            Down::Stored { .. } => {
                self.board.stored.fetch_add(1, Ordering::Relaxed);
            }
            Down::Cancel { .. } => {}
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
        let mut runner = Runner::default();
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
                        self.hear(&body, &mut runner);
                    }
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
