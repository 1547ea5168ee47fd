//! A runner that journals tasks as the real one does and carries nothing out.

use crate::control_plane::LIMIT;
use camino::Utf8Path;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use local_rpc::{
    BindOptions, Listener, PeerPolicy, ServerConfig,
    server::{self, Body, RequestBody},
};
use newtype_uuid::GenericUuid as _;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::{
    control::{Capacity, TaskStatus},
    gitspace::{DevContainer, Generation, Observed, ObservedState},
    ids::{GitspaceUuid, TaskUuid},
    runner::HostReport,
    task::{LogStream, Phase, Task, TaskEvent, TaskEventKind, TaskOutcome},
};

/// More than the link's window, so that it has to be acknowledged on the way.
const LINES: u64 = 400;

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) tasks: BTreeMap<TaskUuid, Task>,
    pub(crate) put: usize,
    pub(crate) forgotten: usize,
    observed: Vec<Observed>,
    held: bool,
    /// Lines that each task says.
    lines: u64,
}

pub(crate) struct TestRunner {
    state: Arc<watch::Sender<State>>,
    _tasks: JoinSet<()>,
}

impl TestRunner {
    pub(crate) fn start(socket: &Utf8Path) -> Self {
        Self::that_says(socket, LINES)
    }

    pub(crate) fn that_says(socket: &Utf8Path, lines: u64) -> Self {
        let listener = Listener::bind(socket, BindOptions::default()).unwrap();
        let state = Arc::new(watch::Sender::new(State {
            lines,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let service = move |request, _| answer(Arc::clone(&shared), request);
            let config = ServerConfig::new(PeerPolicy::owner());
            server::serve(listener, config, service, CancellationToken::new())
                .await
                .unwrap();
        });
        Self {
            state,
            _tasks: tasks,
        }
    }

    /// As after thousands of gitspaces that are gone from the host.
    pub(crate) fn remembers_gone(&self, count: u128) {
        self.state.send_modify(|state| {
            state.observed = (0..count)
                .map(|n| Observed {
                    gitspace: GitspaceUuid::from_untyped_uuid(Uuid::from_u128(n)),
                    state: ObservedState::Absent,
                    generation: Generation(1),
                    revision: 1,
                    at: Timestamp::now(),
                    failure: None,
                    task: None,
                    dev_container: None,
                })
                .collect();
        });
    }

    /// Tasks do not finish until [`TestRunner::let_ends_go`].
    pub(crate) fn hold_ends(&self) {
        self.state.send_modify(|state| state.held = true);
    }

    pub(crate) fn let_ends_go(&self) {
        self.state.send_modify(|state| state.held = false);
    }

    pub(crate) async fn until(&self, so: impl Fn(&State) -> bool) {
        let mut state = self.state.subscribe();
        let found = tokio::time::timeout(LIMIT, state.wait_for(|state| so(state))).await;
        assert!(found.is_ok(), "last seen: {:?}", self.state.borrow());
    }
}

fn observed(task: &Task) -> Observed {
    Observed {
        gitspace: task.gitspace,
        state: ObservedState::Running,
        generation: task.generation,
        revision: 1,
        at: Timestamp::now(),
        failure: None,
        task: None,
        dev_container: Some(DevContainer {
            image: "image".to_owned(),
            remote_user: "user".to_owned(),
            workspace_folder: "/workspaces/demo".to_owned(),
            forward_ports: Vec::new(),
            initialized: true,
            ssh_host_key: None,
        }),
    }
}

fn events(task: &Task, lines: u64, after: u64, finished: bool) -> Vec<TaskEvent> {
    let log = (1..=lines).map(|seq| TaskEvent {
        seq,
        at: Timestamp::now(),
        event: TaskEventKind::Log {
            phase: Phase::Clone,
            stream: LogStream::Stdout,
            text: format!("line {seq}\n"),
        },
    });
    let end = TaskEvent {
        seq: lines + 1,
        at: Timestamp::now(),
        event: TaskEventKind::Finished {
            outcome: TaskOutcome::Done {},
            observed: Box::new(observed(task)),
        },
    };
    log.chain(finished.then_some(end))
        .filter(|event| event.seq > after)
        .collect()
}

fn status(task: &Task, lines: u64, held: bool) -> TaskStatus {
    TaskStatus {
        task: task.id,
        gitspace: task.gitspace,
        generation: task.generation,
        kind: task.verb.kind(),
        finished: !held,
        last_seq: if held { lines } else { lines + 1 },
    }
}

async fn answer(state: Arc<watch::Sender<State>>, request: Request<RequestBody>) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let now = state.borrow().clone();
    match (&method, server::segments(&uri).as_slice()) {
        (&Method::GET, ["v1", "host"]) => server::json(
            StatusCode::OK,
            &HostReport {
                version: "test".to_owned(),
                docker_version: Some("test".to_owned()),
                docker_failure: None,
                disk_bytes: 1,
                disk_available_bytes: 1,
                capacity: Capacity {
                    gitspaces: 10,
                    cpu_millis: 100_000,
                    memory_bytes: 1 << 40,
                },
                draining: false,
            },
        ),
        (&Method::GET, ["v1", "tasks"]) => {
            let tasks: Vec<_> = now
                .tasks
                .values()
                .map(|task| status(task, now.lines, now.held))
                .collect();
            server::json(StatusCode::OK, &tasks)
        }
        (&Method::GET, ["v1", "gitspaces"]) => server::json(StatusCode::OK, &now.observed),
        (&Method::GET, ["v1", "watch"]) => {
            server::ndjson(stream::iter(now.observed).chain(stream::pending()))
        }
        (&Method::PUT, ["v1", "tasks", _]) => {
            let task: Task = server::read_json(request, 1 << 20).await.unwrap();
            let answer = status(&task, now.lines, now.held);
            state.send_modify(|state| {
                state.put += 1;
                state.observed.push(observed(&task));
                state.tasks.insert(task.id, task);
            });
            server::json(StatusCode::ACCEPTED, &answer)
        }
        (&Method::GET, ["v1", "tasks", id, "events"]) => {
            let after: u64 = server::query_value(&uri, "after").unwrap().unwrap();
            let Some(task) = now.tasks.get(&id.parse().unwrap()).cloned() else {
                return server::empty(StatusCode::NOT_FOUND);
            };
            let first = events(&task, now.lines, after, false);
            let mut follow = state.subscribe();
            let end = stream::once(async move {
                follow.wait_for(|state| !state.held).await.unwrap();
                stream::iter(events(&task, now.lines, now.lines.max(after), true))
            })
            .flatten();
            server::ndjson(stream::iter(first).chain(end))
        }
        (&Method::DELETE, ["v1", "tasks", id]) => {
            let id: TaskUuid = id.parse().unwrap();
            if now.held {
                return server::empty(StatusCode::CONFLICT);
            }
            state.send_modify(|state| {
                if state.tasks.remove(&id).is_some() {
                    state.forgotten += 1;
                }
            });
            server::empty(StatusCode::NO_CONTENT)
        }
        (&Method::POST, ["v1", "tasks", _, "cancel"]) => server::empty(StatusCode::ACCEPTED),
        _ => server::empty(StatusCode::NOT_FOUND),
    }
}
