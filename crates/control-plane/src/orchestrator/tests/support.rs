//! A control plane's worth of orchestrator, and a runner played by hand.

use crate::orchestrator::{
    AssignRefused, DelegateView, NewGitspace, OrchestratorConfig, OrchestratorError,
    OrchestratorHandle, OrchestratorParts, OrchestratorTask, Probed, SpecSource, TaskSink,
    visible_state,
};
use camino::Utf8PathBuf;
use daemon::{Clock as _, ManualClock, SequentialIds};
use jiff::Timestamp;
use newtype_uuid::{GenericUuid as _, TypedUuid, TypedUuidKind};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{
    DelegateRecord, Enrolment, GitspaceRecord, InfraProviderRecord, JoinTokenRecord,
    MachineSnapshot, Store, UserRecord,
};
use store_sql::SqlStore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{
    api::{GitspaceAction, InfraProviderKind, Role, TimelineEvent},
    control::{
        Capacity, Disconnect, DisconnectCode, Down, Epoch, Hello, Inventory, TaskStatus,
        TaskVerdict, Up,
    },
    failure::{Failure, FailureCode},
    gitspace::{
        DesiredState, DevContainer, Generation, GitspaceSpec, GitspaceState, Observed,
        ObservedState, RepoSpec, Resources,
    },
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
    task::{Task, TaskEvent, TaskEventKind, TaskKind, TaskOutcome},
};

pub(crate) const RESOURCES: Resources = Resources {
    cpu_millis: 1000,
    memory_bytes: 1 << 30,
    pids: 512,
};

pub(crate) fn id<K: TypedUuidKind>(number: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(number))
}

/// Connected, ready, with room for two.
pub(crate) fn delegate(number: u128, name: &str) -> DelegateView {
    DelegateView {
        id: id(number),
        name: name.to_owned(),
        tags: Vec::new(),
        revoked: false,
        connected: true,
        since: Timestamp::UNIX_EPOCH,
        draining: false,
        starts: crate::orchestrator::StartRecord::default(),
        runner_ready: true,
        unaccounted: BTreeMap::new(),
        capacity: Some(inventory().capacity),
    }
}

pub(crate) fn record(desired: DesiredState) -> GitspaceRecord {
    GitspaceRecord {
        id: id(0x100),
        owner: id(1),
        owner_name: "ann".to_owned(),
        name: "app".parse().unwrap(),
        slug: "app-abc234".parse().unwrap(),
        repo: RepoSpec {
            url: "https://example.com/app".parse().unwrap(),
            reference: None,
        },
        machine: MachineSnapshot {
            name: "small".to_owned(),
            resources: RESOURCES,
            infra_provider: id(2),
        },
        created: Timestamp::UNIX_EPOCH,
        version: 0,
        desired,
        generation: Generation(3),
        trace: id(9),
        observed: None,
        delegate: Some(id(0x10)),
        task: None,
        phase: None,
        attempts: 0,
        retry_at: None,
        exits: Vec::new(),
        error: None,
        waiting: None,
        updated: Timestamp::UNIX_EPOCH,
        deleted: None,
    }
}

pub(crate) fn observed(
    gitspace: GitspaceUuid,
    state: ObservedState,
    generation: u64,
    revision: u64,
) -> Observed {
    Observed {
        gitspace,
        state,
        generation: Generation(generation),
        revision,
        at: Timestamp::UNIX_EPOCH,
        failure: None,
        task: None,
        dev_container: (state == ObservedState::Running).then(|| DevContainer {
            image: "debian".to_owned(),
            remote_user: "dev".to_owned(),
            workspace_folder: "/workspaces/app".to_owned(),
            forward_ports: Vec::new(),
            initialized: true,
            ssh_host_key: None,
        }),
    }
}

fn inventory() -> Inventory {
    Inventory {
        hostname: "host".to_owned(),
        os: "Debian".to_owned(),
        kernel: "6".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 4,
        memory_bytes: 8 << 30,
        memory_available_bytes: 8 << 30,
        disk_bytes: 1 << 40,
        disk_available_bytes: 1 << 40,
        docker_version: Some("20.10".to_owned()),
        capacity: Capacity {
            gitspaces: 2,
            cpu_millis: 4000,
            memory_bytes: 8 << 30,
        },
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) connected: Mutex<HashSet<DelegateUuid>>,
    pub(crate) assigned: Mutex<Vec<Task>>,
    pub(crate) cancelled: Mutex<Vec<TaskUuid>>,
    /// Bytes of the largest task it takes, where there is a limit.
    pub(crate) limit: Mutex<Option<usize>>,
    /// What the last probes found.
    pub(crate) probed: Mutex<HashMap<DelegateUuid, Probed>>,
}

impl TaskSink for Sink {
    fn assign(&self, delegate: DelegateUuid, task: Task, _: Duration) -> Result<(), AssignRefused> {
        if !self.is_connected(delegate) {
            return Err(AssignRefused::NotConnected);
        }
        let length = serde_json::to_vec(&task).unwrap().len();
        if let Some(limit) = *self.limit.lock().unwrap()
            && length > limit
        {
            return Err(AssignRefused::TooLarge { length, limit });
        }
        self.assigned.lock().unwrap().push(task);
        Ok(())
    }

    fn cancel(&self, _: DelegateUuid, task: TaskUuid) {
        self.cancelled.lock().unwrap().push(task);
    }

    fn probed(&self, delegate: DelegateUuid) -> Option<Probed> {
        self.probed.lock().unwrap().get(&delegate).copied()
    }

    fn is_connected(&self, delegate: DelegateUuid) -> bool {
        self.connected.lock().unwrap().contains(&delegate)
    }
}

#[derive(Debug)]
struct Specs;

impl SpecSource for Specs {
    fn spec<'a>(
        &'a self,
        gitspace: &'a GitspaceRecord,
    ) -> Pin<Box<dyn Future<Output = Result<GitspaceSpec, Failure>> + Send + 'a>> {
        Box::pin(async move {
            Ok(GitspaceSpec {
                name: gitspace.name.clone(),
                slug: gitspace.slug.clone(),
                repo: gitspace.repo.clone(),
                resources: gitspace.machine.resources,
                git_credentials: Vec::new(),
                git_identity: None,
            })
        })
    }
}

pub(crate) struct World {
    pub(crate) handle: OrchestratorHandle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sink: Arc<Sink>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) delegate: DelegateUuid,
    ids: Arc<SequentialIds>,
    running: JoinSet<Result<(), OrchestratorError>>,
    stop: CancellationToken,
    revision: Mutex<u64>,
    sql: SqlStore,
    directory: tempfile::TempDir,
}

impl World {
    /// One user, one machine, one delegate, not connected.
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sql = open(&directory).await;
        let store: Arc<dyn Store> = Arc::new(sql.clone());
        let clock = Arc::new(ManualClock::default());
        let now = clock.now();
        store
            .create_user(&UserRecord {
                id: id(1),
                name: "ann".to_owned(),
                email: None,
                role: Role::Developer,
                disabled: false,
                created: now,
            })
            .await
            .unwrap();
        store
            .create_infra_provider(&InfraProviderRecord {
                id: id(2),
                name: "host".to_owned(),
                kind: InfraProviderKind::Host,
                selectors: Vec::new(),
                created: now,
            })
            .await
            .unwrap();
        store
            .create_join_token(&JoinTokenRecord {
                id: id(3),
                comment: None,
                delegate: None,
                hash: [3; 32],
                uses_left: 9,
                exp: now + Duration::from_hours(1),
                revoked: false,
                created: now,
            })
            .await
            .unwrap();
        enrol(&*store, 0x10, "host-1", now).await;
        let (sink, ids) = (
            Arc::new(Sink::default()),
            Arc::new(SequentialIds::default()),
        );
        let mut running = JoinSet::new();
        let stop = CancellationToken::new();
        let handle = start(&store, &sink, &clock, &ids, &mut running, &stop).await;
        Self {
            handle,
            store,
            sink,
            clock,
            delegate: id(0x10),
            ids,
            running,
            stop,
            revision: Mutex::new(0),
            sql,
            directory,
        }
    }

    /// The process dies and starts again: what was not stored is lost.
    pub(crate) async fn restart(&mut self) {
        self.running.shutdown().await;
        self.sink.connected.lock().unwrap().clear();
        self.handle = start(
            &self.store,
            &self.sink,
            &self.clock,
            &self.ids,
            &mut self.running,
            &self.stop,
        )
        .await;
    }

    /// One more delegate.
    pub(crate) async fn enrol(&self, number: u8, name: &str) -> DelegateUuid {
        enrol(&*self.store, number, name, self.clock.now()).await
    }

    /// The database answers no more, until the process starts again.
    pub(crate) async fn lose_store(&self) {
        self.sql.close().await;
    }

    /// [`restart`](Self::restart), with the database as it is on the disk.
    pub(crate) async fn restart_with_store(&mut self) {
        self.sql = open(&self.directory).await;
        self.store = Arc::new(self.sql.clone());
        self.restart().await;
    }

    pub(crate) async fn hello(
        &self,
        tasks: Vec<TaskStatus>,
        gitspaces: Vec<Observed>,
    ) -> Vec<TaskVerdict> {
        self.hello_of(self.delegate, tasks, gitspaces).await
    }

    /// Hello and welcome of another delegate.
    pub(crate) async fn connect_other(&self, delegate: DelegateUuid) {
        self.hello_of(delegate, Vec::new(), Vec::new()).await;
        self.sink.connected.lock().unwrap().insert(delegate);
        self.handle.delegate_connected(delegate).await.unwrap();
    }

    async fn hello_of(
        &self,
        delegate: DelegateUuid,
        tasks: Vec<TaskStatus>,
        gitspaces: Vec<Observed>,
    ) -> Vec<TaskVerdict> {
        self.handle
            .hello(
                delegate,
                Hello {
                    version: "1".to_owned(),
                    inventory: inventory(),
                    tags: Vec::new(),
                    draining: false,
                    probes: true,
                    tunnels: false,
                    runner_ready: true,
                    tasks,
                    gitspaces,
                },
            )
            .await
            .unwrap()
    }

    /// Hello and welcome.
    pub(crate) async fn connect(
        &self,
        tasks: Vec<TaskStatus>,
        gitspaces: Vec<Observed>,
    ) -> Vec<TaskVerdict> {
        let verdicts = self.hello(tasks, gitspaces).await;
        self.sink.connected.lock().unwrap().insert(self.delegate);
        self.handle.delegate_connected(self.delegate).await.unwrap();
        verdicts
    }

    pub(crate) async fn disconnect(&self) {
        self.sink.connected.lock().unwrap().clear();
        self.handle
            .delegate_gone(
                self.delegate,
                Disconnect {
                    code: DisconnectCode::ConnectionLost,
                    reason: "the line was cut".to_owned(),
                },
            )
            .await
            .unwrap();
    }

    pub(crate) async fn create(&self, number: u128, name: &str) -> GitspaceUuid {
        self.handle
            .create(new_gitspace(number, name))
            .await
            .unwrap()
            .id
    }

    pub(crate) async fn act(
        &self,
        gitspace: GitspaceUuid,
        action: GitspaceAction,
    ) -> GitspaceRecord {
        self.handle
            .act(gitspace, action, "ann", id(8))
            .await
            .unwrap_or_else(|error| panic!("{action:?}: {error}"))
    }

    pub(crate) async fn record(&self, gitspace: GitspaceUuid) -> GitspaceRecord {
        self.store.gitspace(gitspace).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self, gitspace: GitspaceUuid) -> GitspaceState {
        visible_state(&self.record(gitspace).await)
    }

    pub(crate) async fn timeline(&self, gitspace: GitspaceUuid) -> Vec<TimelineEvent> {
        self.store.timeline(gitspace, 0, 1000).await.unwrap()
    }

    /// The task handed over last.
    #[track_caller]
    pub(crate) fn task(&self, kind: TaskKind) -> Task {
        let assigned = self.sink.assigned.lock().unwrap();
        let task = assigned.last().cloned().expect("a task was handed over");
        assert_eq!(task.verb.kind(), kind, "{assigned:#?}");
        task
    }

    pub(crate) fn count_assigned(&self) -> usize {
        self.sink.assigned.lock().unwrap().len()
    }

    pub(crate) fn revision(&self) -> u64 {
        let mut revision = self.revision.lock().unwrap();
        *revision += 1;
        *revision
    }

    pub(crate) fn observed(&self, task: &Task, state: ObservedState) -> Observed {
        observed(task.gitspace, state, task.generation.0, self.revision())
    }

    pub(crate) async fn event(&self, task: &Task, seq: u64, event: TaskEventKind) -> u64 {
        self.try_event(task, seq, event).await.unwrap()
    }

    pub(crate) async fn try_event(
        &self,
        task: &Task,
        seq: u64,
        event: TaskEventKind,
    ) -> Result<u64, OrchestratorError> {
        let at = self.clock.now();
        self.say(Up::TaskEvent {
            task: task.id,
            gitspace: task.gitspace,
            event: TaskEvent { seq, at, event },
        })
        .await
        .map(|answer| match answer {
            Some(Down::Stored { seq, .. }) => seq,
            _ => seq,
        })
    }

    /// One body of the delegate's.
    pub(crate) async fn say(&self, body: Up) -> Result<Option<Down>, OrchestratorError> {
        let mut heard = self.handle.said(self.delegate, vec![body]).await?;
        match heard.refused {
            Some(error) => Err(error),
            None => Ok(heard.answers.remove(0)),
        }
    }

    pub(crate) async fn finish(
        &self,
        task: &Task,
        seq: u64,
        outcome: TaskOutcome,
        state: ObservedState,
    ) -> u64 {
        let observed = Box::new(self.observed(task, state));
        self.event(task, seq, TaskEventKind::Finished { outcome, observed })
            .await
    }

    pub(crate) async fn done(&self, task: &Task, state: ObservedState) {
        self.finish(task, 1, TaskOutcome::Done {}, state).await;
    }

    pub(crate) async fn failed(&self, task: &Task, code: FailureCode, state: ObservedState) {
        let failure = Failure::new(code, "it does not work").hint("mend it");
        self.finish(task, 1, TaskOutcome::Failed { failure }, state)
            .await;
    }

    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.handle.wake().await.unwrap();
    }

    /// A gitspace that runs, and the task that started it.
    pub(crate) async fn running(&self) -> (GitspaceUuid, Task) {
        self.connect(Vec::new(), Vec::new()).await;
        let gitspace = self.create(0x100, "app").await;
        let task = self.task(TaskKind::Start);
        self.done(&task, ObservedState::Running).await;
        assert_eq!(self.state(gitspace).await, GitspaceState::Running);
        (gitspace, task)
    }
}

async fn enrol(store: &dyn Store, number: u8, name: &str, now: Timestamp) -> DelegateUuid {
    let delegate = DelegateRecord {
        id: id(number.into()),
        name: name.to_owned(),
        tags: Vec::new(),
        public_key: [number; 32],
        key_since: now,
        next_key: None,
        revoked: false,
        version: None,
        inventory: None,
        last_seen: None,
        last_disconnect: None,
        epoch: Epoch(0),
        created: now,
    };
    let enrolled = store
        .enrol_delegate(&[3; 32], &delegate, now)
        .await
        .unwrap();
    assert_eq!(enrolled, Enrolment::Enrolled(delegate.id));
    delegate.id
}

pub(crate) fn new_gitspace(number: u128, name: &str) -> NewGitspace {
    let made = record(DesiredState::Running);
    NewGitspace {
        id: id(number),
        owner: id(1),
        owner_name: "ann".to_owned(),
        name: name.parse().unwrap(),
        slug: format!("{name}-abc234").parse().unwrap(),
        repo: made.repo,
        machine: made.machine,
        start: true,
        trace: id(9),
    }
}

async fn open(directory: &tempfile::TempDir) -> SqlStore {
    let path = Utf8PathBuf::from_path_buf(directory.path().join("control-plane.db")).unwrap();
    SqlStore::open_sqlite(&path).await.unwrap()
}

async fn start(
    store: &Arc<dyn Store>,
    sink: &Arc<Sink>,
    clock: &Arc<ManualClock>,
    ids: &Arc<SequentialIds>,
    running: &mut JoinSet<Result<(), OrchestratorError>>,
    stop: &CancellationToken,
) -> OrchestratorHandle {
    let (task, handle) = OrchestratorTask::load(OrchestratorParts {
        store: store.clone(),
        sink: sink.clone(),
        specs: Arc::new(Specs),
        clock: clock.clone(),
        ids: ids.clone(),
        config: OrchestratorConfig::default(),
    })
    .await
    .unwrap();
    let pulse = daemon::Pulses::default().register("orchestrator");
    running.spawn(task.run(stop.clone(), pulse));
    handle
}

pub(crate) fn status(task: &Task, finished: bool, last_seq: u64) -> TaskStatus {
    TaskStatus {
        task: task.id,
        gitspace: task.gitspace,
        generation: task.generation,
        kind: task.verb.kind(),
        finished,
        last_seq,
    }
}
