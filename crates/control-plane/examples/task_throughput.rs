//! How many tasks, and events of tasks, a control plane takes a second, each stored and acknowledged: `bench/run tasks`.
//!
//! A whole control plane on a real database; delegates on real links, whose runner is played here: it answers each task with its events at
//! once. Users start and stop their gitspaces all the time. Prints one JSON object a line. The baseline is what the same disk does:
//! appends of one page, each waited for (`fdatasync`), which is the least that one transaction for each task would cost.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints figures, and says what went wrong by stopping"
)]

use axum::body::Body;
use camino::{Utf8Path, Utf8PathBuf};
use control_plane::{ControlPlane, ControlPlaneConfig, Deps};
use daemon::{Lifecycle, RandomIds, SystemClock};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use link::{
    Class, Client,
    client::{Input, Output},
};
use newtype_uuid::{GenericUuid as _, TypedUuid};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use token::SigningKey;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use tower::ServiceExt as _;
use wire::{
    control::{
        Capacity, Down, ENROL_PURPOSE, EnrolClaims, Hello, Inventory, PROOF_PURPOSE, ProofClaims,
        SUBPROTOCOL, Up,
    },
    gitspace::{DevContainer, Observed, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, StreamUuid, TaskUuid},
    task::{LogStream, Phase, Task, TaskEvent, TaskEventKind, TaskKind, TaskOutcome},
};

const DELEGATES: usize = 8;
const GITSPACES: usize = 256;
/// Before counting begins.
const WARM_UP: Duration = Duration::from_secs(2);
const COUNTED: Duration = Duration::from_secs(10);

/// What delegates and users share.
#[derive(Debug, Default)]
struct Board {
    tasks: AtomicU64,
    events: AtomicU64,
    revision: AtomicU64,
    /// Each gitspace's user waits for its task's end.
    users: Mutex<HashMap<GitspaceUuid, mpsc::UnboundedSender<()>>>,
}

async fn call(router: &axum::Router, token: &str, path: &str, body: Value) -> Value {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("/api/v1{path}"))
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json");
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}

fn inventory() -> Inventory {
    Inventory {
        hostname: "host".to_owned(),
        os: "Debian".to_owned(),
        kernel: "6".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 1024,
        memory_bytes: 1 << 50,
        memory_available_bytes: 1 << 50,
        disk_bytes: 1 << 50,
        disk_available_bytes: 1 << 50,
        docker_version: None,
        capacity: Capacity {
            gitspaces: 1_000_000,
            cpu_millis: u32::MAX,
            memory_bytes: 1 << 50,
        },
    }
}

/// What a runner tells of a task: a phase, its output, its end.
fn play(task: &Task, log_lines: u64, board: &Board) -> Vec<Up> {
    let phase = Phase::Clone;
    let state = match task.verb.kind() {
        TaskKind::Start | TaskKind::Provision => ObservedState::Running,
        TaskKind::Stop => ObservedState::Stopped,
        TaskKind::Reset | TaskKind::Delete | TaskKind::Observe => ObservedState::Absent,
    };
    let observed = Box::new(Observed {
        gitspace: task.gitspace,
        state,
        generation: task.generation,
        revision: board.revision.fetch_add(1, Ordering::Relaxed) + 1,
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
    });
    let mut kinds = vec![TaskEventKind::PhaseStarted { phase }];
    kinds.extend((0..log_lines).map(|line| TaskEventKind::Log {
        phase,
        stream: LogStream::Stdout,
        text: format!("line {line} of what a build says while it goes on\n"),
    }));
    kinds.push(TaskEventKind::PhaseCompleted {
        phase,
        duration_ms: 1,
        detail: None,
    });
    let outcome = TaskOutcome::Done {};
    kinds.push(TaskEventKind::Finished { outcome, observed });
    (1..)
        .zip(kinds)
        .map(|(seq, event)| Up::TaskEvent {
            task: task.id,
            gitspace: task.gitspace,
            event: TaskEvent {
                seq,
                at: Timestamp::now(),
                event,
            },
        })
        .collect()
}

struct Delegate {
    id: DelegateUuid,
    key: SigningKey,
    url: String,
    log_lines: u64,
    board: Arc<Board>,
    open: HashMap<TaskUuid, GitspaceUuid>,
    /// Waits for room on the link.
    said: VecDeque<Up>,
}

impl Delegate {
    fn greet(&self, nonce: String) -> Input<'static> {
        let now = Timestamp::now();
        let claims = ProofClaims {
            delegate: self.id,
            audience: self.url.clone(),
            nonce,
            iat: now,
            exp: now + Duration::from_secs(60),
        };
        Input::Greet {
            proof: token::sign(&claims, &self.key, PROOF_PURPOSE).unwrap(),
            hello: Box::new(Hello {
                version: "1".to_owned(),
                inventory: inventory(),
                tags: Vec::new(),
                draining: false,
                runner_ready: true,
                tasks: Vec::new(),
                gitspaces: Vec::new(),
            }),
        }
    }

    fn hear(&mut self, body: Down) {
        match body {
            Down::Assign { task } => {
                self.open.insert(task.id, task.gitspace);
                self.said.extend(play(&task, self.log_lines, &self.board));
            }
            Down::Stored { task, seq } => {
                self.board.tasks.fetch_add(1, Ordering::Relaxed);
                self.board.events.fetch_add(seq, Ordering::Relaxed);
                let gitspace = self.open.remove(&task).expect("a task of ours");
                let users = self.board.users.lock().unwrap();
                users[&gitspace].send(()).unwrap();
            }
            Down::Cancel { .. } => {}
        }
    }

    async fn run(mut self) {
        let url = self.url.replacen("http", "ws", 1);
        let mut request = format!("{url}/api/v1/delegates/connect")
            .into_client_request()
            .unwrap();
        let protocol = SUBPROTOCOL.parse().unwrap();
        request
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let stream: StreamUuid = TypedUuid::from_untyped_uuid(*self.id.as_untyped_uuid());
        let mut machine = Client::new(stream, 1);
        machine.handle(Instant::now(), Input::Start);
        machine.handle(Instant::now(), Input::Connected);
        loop {
            while let Some(output) = machine.poll_output() {
                match output {
                    Output::Challenged { nonce, .. } => {
                        machine.handle(Instant::now(), self.greet(nonce));
                    }
                    Output::Deliver { seq, body } => {
                        machine.consumed(Instant::now(), seq);
                        self.hear(body);
                    }
                    Output::HangUp { cause, .. } => panic!("the link ended: {cause}"),
                    Output::Dial | Output::Live { .. } => {}
                }
            }
            while machine.has_room(Class::Control, link::limits::MAX_SENT_BODY)
                && let Some(body) = self.said.pop_front()
            {
                machine.send(&body, Class::Control).unwrap();
            }
            while let Some(frame) = machine.poll_transmit(Instant::now()) {
                socket.feed(Message::text(frame)).await.unwrap();
            }
            socket.flush().await.unwrap();
            let deadline = machine.deadline().expect("a link has a deadline");
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        machine.handle(Instant::now(), Input::Text(text.as_str()));
                    }
                    Some(Ok(_)) => {}
                    other => panic!("the connection ended: {other:?}"),
                },
                () = tokio::time::sleep_until(deadline.into()) => {
                    machine.handle(Instant::now(), Input::Tick);
                }
            }
        }
    }
}

async fn enrol(
    router: &axum::Router,
    join: &str,
    url: &str,
    number: usize,
) -> (DelegateUuid, SigningKey) {
    let key = SigningKey::generate().unwrap();
    let name = format!("host-{number}");
    let now = Timestamp::now();
    let claims = EnrolClaims {
        audience: url.to_owned(),
        name: name.clone(),
        iat: now,
        exp: now + Duration::from_secs(60),
    };
    let proof = token::sign(&claims, &key, ENROL_PURPOSE).unwrap();
    let public = key.public().to_string();
    let body =
        json!({"join_token": join, "name": name, "tags": [], "public_key": public, "proof": proof});
    let made = call(router, "", "/delegates/enroll", body).await;
    (made["delegate"].as_str().unwrap().parse().unwrap(), key)
}

/// Starts and stops one gitspace for ever: the next action as soon as the one before is done and stored.
async fn use_gitspace(
    router: axum::Router,
    token: String,
    id: GitspaceUuid,
    mut done: mpsc::UnboundedReceiver<()>,
) {
    let path = format!("/gitspaces/{id}/actions");
    for action in ["start", "stop"].into_iter().cycle() {
        call(&router, &token, &path, json!({"action": action})).await;
        done.recv().await.unwrap();
    }
}

/// Appends that are waited for, a second.
fn syncs_per_second(dir: &Utf8Path) -> f64 {
    let mut file = std::fs::File::create(dir.join("probe")).unwrap();
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// Tasks and events a second.
async fn measure(dir: &Utf8Path, log_lines: u64) -> (f64, f64) {
    let dir = dir.join(format!("state-{log_lines}"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let mut config = ControlPlaneConfig::new(&dir);
    config.public_url.clone_from(&url);
    let deps = Deps {
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        listener: Some(listener),
        seal_key: None,
    };
    let mut plane = Box::pin(ControlPlane::build(config, deps)).await.unwrap();
    let lifecycle = Lifecycle::new(Duration::from_secs(1));
    plane.start(&lifecycle).unwrap();
    let router = plane.router();
    let admin = std::fs::read_to_string(dir.join("admin-token")).unwrap();
    let admin = admin.trim();
    let made = call(&router, admin, "/join-tokens", json!({"uses": DELEGATES})).await;
    let join = made["token"].as_str().unwrap();
    let board = Arc::new(Board::default());
    let mut parts = JoinSet::new();
    for number in 0..DELEGATES {
        let (id, key) = enrol(&router, join, &url, number).await;
        let delegate = Delegate {
            id,
            key,
            url: url.clone(),
            log_lines,
            board: Arc::clone(&board),
            open: HashMap::new(),
            said: VecDeque::new(),
        };
        parts.spawn(delegate.run());
    }
    for number in 0..GITSPACES {
        let body = json!({"repo": {"url": "https://example.com/app"}, "name": format!("g{number}"), "start": false});
        let made = call(&router, admin, "/gitspaces", body).await;
        let id = made["id"].as_str().unwrap().parse().unwrap();
        let (sender, done) = mpsc::unbounded_channel();
        board.users.lock().unwrap().insert(id, sender);
        parts.spawn(use_gitspace(router.clone(), admin.to_owned(), id, done));
    }
    let read = || {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (Instant::now(), count(&board.tasks), count(&board.events))
    };
    let counted = async {
        tokio::time::sleep(WARM_UP).await;
        let before = read();
        tokio::time::sleep(COUNTED).await;
        (before, read())
    };
    let (before, after) = tokio::select! {
        counted = counted => counted,
        ended = parts.join_next() => panic!("a part ended: {ended:?}"),
    };
    let seconds = (after.0 - before.0).as_secs_f64();
    let rate = |count: u64| f64::from(u32::try_from(count).unwrap()) / seconds;
    (rate(after.1 - before.1), rate(after.2 - before.2))
}

fn print(figure: &str, value: f64, syncs: f64) {
    let line = json!({
        "figure": figure,
        "value": value.round(),
        "unit": "1/s",
        "baseline": syncs.round(),
        "ratio": (value / syncs * 100.0).round() / 100.0,
        "against": "fdatasync of a 4 KiB append on the same disk",
    });
    println!("{line}");
}

#[tokio::main]
async fn main() {
    let folder = std::env::args().nth(1).expect("a folder on the disk");
    let guard = tempfile::tempdir_in(folder).unwrap();
    let dir = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
    for (name, log_lines) in [("tasks", 0), ("tasks_with_100_log_lines", 100)] {
        let syncs = syncs_per_second(&dir);
        let (tasks, events) = Box::pin(measure(&dir, log_lines)).await;
        print(&format!("control.{name}"), tasks, syncs);
        print(&format!("control.{name}.events"), events, syncs);
    }
}
