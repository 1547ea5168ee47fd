//! The task that owns it all.
//!
//! Channels: requests in (bounded; what has queued up is carried out one by one, stored together, and then answered, see [`batch`](super::batch)),
//! changes out (a broadcast, whose followers may lag), delegates out (a watch). It wakes for a request, for what is due next, and at least once a minute, because the wall clock may step.

use super::{
    batch::Batch,
    book::Book,
    draft::Draft,
    gitspaces::uses_capacity,
    handle::{
        MAX_CHANGES, MAX_REQUESTS, OrchestratorConfig, OrchestratorError, OrchestratorHandle,
    },
    request::Request,
    rotation::StartRecord,
    seams::{Change, DelegateView, SpecSource, TaskSink},
};
use daemon::{Clock, Ids, Pulse};
use jiff::Timestamp;
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use store::{DelegateRecord, GitspaceRecord, Store, StoreError, TaskRecord, TaskState};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::ids::{DelegateUuid, GitspaceUuid, TaskUuid};

/// Longest sleep, because the wall clock may step.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);
/// Requests and delegates' bodies that are stored together. The wait for the disk is shared by then, and the first of them should not wait for long.
const MAX_BATCH: usize = 1024;

/// Owns all gitspaces' records and tasks. See the module's documentation.
pub struct OrchestratorTask {
    pub(super) store: Arc<dyn Store>,
    pub(super) sink: Arc<dyn TaskSink>,
    pub(super) specs: Arc<dyn SpecSource>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn Ids>,
    pub(super) config: OrchestratorConfig,
    requests: mpsc::Receiver<Request>,
    changes: broadcast::Sender<Change>,
    delegates: watch::Sender<Arc<BTreeMap<DelegateUuid, Arc<DelegateView>>>>,
    pub(super) book: Book,
    pub(super) batch: Batch,
    /// Capacity may have become free: who waits is looked at.
    pub(super) recheck_waiting: bool,
}

impl fmt::Debug for OrchestratorTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrchestratorTask")
            .field("gitspaces", &self.book.ids().len())
            .field("delegates", &self.book.delegates.len())
            .finish_non_exhaustive()
    }
}

/// What the task works with.
#[expect(
    missing_debug_implementations,
    reason = "holds trait objects that print nothing of use"
)]
#[derive(Clone)]
pub struct OrchestratorParts {
    pub store: Arc<dyn Store>,
    pub sink: Arc<dyn TaskSink>,
    pub specs: Arc<dyn SpecSource>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub config: OrchestratorConfig,
}

pub(super) fn stored(source: StoreError) -> OrchestratorError {
    OrchestratorError::Store { source }
}

impl OrchestratorTask {
    /// Reads what is stored. Every delegate counts as away until it says hello.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(
        parts: OrchestratorParts,
    ) -> Result<(Self, OrchestratorHandle), OrchestratorError> {
        let now = parts.clock.now();
        let mut book = Book::default();
        for delegate in parts.store.delegates().await.map_err(stored)? {
            book.delegates
                .insert(delegate.id, Arc::new(view(&delegate, now)));
        }
        let mut tasks: BTreeMap<GitspaceUuid, TaskRecord> = parts
            .store
            .open_tasks()
            .await
            .map_err(stored)?
            .into_iter()
            .map(|task| (task.gitspace, task))
            .collect();
        for record in parts.store.live_gitspaces().await.map_err(stored)? {
            let task = tasks.remove(&record.id);
            book.put(record, task);
        }
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        let (changes, _) = broadcast::channel(MAX_CHANGES);
        let (delegates, followed) = watch::channel(Arc::new(book.delegates.clone()));
        let handle = OrchestratorHandle {
            requests: sender,
            changes: changes.clone(),
            delegates: followed,
        };
        let task = Self {
            store: parts.store,
            sink: parts.sink,
            specs: parts.specs,
            clock: parts.clock,
            ids: parts.ids,
            config: parts.config,
            requests,
            changes,
            delegates,
            book,
            batch: Batch::default(),
            recheck_waiting: false,
        };
        Ok((task, handle))
    }

    /// Until `stop`, or until every handle is gone. What is under way when it stops is stored, and goes on at the next start.
    ///
    /// # Errors
    /// None; the type is that of a vital task.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        mut pulse: Pulse,
    ) -> Result<(), OrchestratorError> {
        let all: Vec<_> = self.book.ids().collect();
        self.replan(all).await;
        self.flush().await;
        loop {
            let sleep = self.sleep();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                request = self.requests.recv() => match request {
                    Some(request) => self.take(request).await,
                    None => return Ok(()),
                },
                () = tokio::time::sleep(sleep) => self.wake().await,
                never = pulse.beat() => match never {},
            }
            self.flush().await;
        }
    }

    /// The request, and what has queued up behind it.
    async fn take(&mut self, first: Request) {
        let mut taken = first.weight();
        self.handle(first).await;
        while taken < MAX_BATCH
            && let Ok(next) = self.requests.try_recv()
        {
            taken += next.weight();
            self.handle(next).await;
        }
    }

    fn sleep(&self) -> Duration {
        let now = self.clock.now();
        self.book
            .next_due(self.config.away_grace)
            .map_or(LONGEST_SLEEP, |due| {
                Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO)
            })
            .min(LONGEST_SLEEP)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn cancel_limit(&self) -> Duration {
        self.config.cancel_limit
    }

    pub(super) fn task_config(&self) -> &OrchestratorConfig {
        &self.config
    }

    pub(super) fn draft(&mut self, id: GitspaceUuid) -> Option<Draft> {
        self.batch.look_at(id);
        let entry = self.book.get(id)?;
        Some(Draft::new(
            &entry.record,
            entry.task.as_ref(),
            self.clock.now(),
        ))
    }

    pub(super) fn draft_of_task(
        &mut self,
        delegate: DelegateUuid,
        task: TaskUuid,
    ) -> Option<Draft> {
        let draft = self.draft(self.book.of_task(task)?)?;
        let ours = draft
            .task
            .as_ref()
            .is_some_and(|open| open.id == task && open.delegate == delegate);
        ours.then_some(draft)
    }

    pub(super) fn current(&self, id: GitspaceUuid) -> Option<GitspaceRecord> {
        self.book.get(id).map(|entry| entry.record.clone())
    }

    pub(super) fn set_due(&mut self, id: GitspaceUuid, due: Option<Timestamp>) {
        self.book.set_due(id, due);
    }

    /// Whether this change of a record gives capacity free.
    pub(super) fn note_capacity(&mut self, record: &GitspaceRecord) {
        let used_before = self
            .book
            .get(record.id)
            .is_some_and(|entry| uses_capacity(&entry.record));
        self.recheck_waiting |= used_before && !uses_capacity(record);
    }

    /// Reads again what is stored of it.
    pub(super) async fn reload(&mut self, id: GitspaceUuid) -> Result<(), OrchestratorError> {
        let Some(record) = self.store.gitspace(id).await.map_err(stored)? else {
            return Ok(());
        };
        let task = match record.task {
            Some(task) => self.store.task(task).await.map_err(stored)?,
            None => None,
        };
        self.book.put(
            record,
            task.filter(|task| task.state != TaskState::Finished),
        );
        Ok(())
    }

    pub(super) fn change_delegate(
        &mut self,
        id: DelegateUuid,
        change: impl FnOnce(&mut DelegateView),
    ) {
        if let Some(view) = self.book.delegates.get_mut(&id) {
            change(Arc::make_mut(view));
            self.batch.changed_delegates.push(id);
        }
    }

    /// Shows how the delegates are. Once a batch: the map is copied, although what it points to is not.
    pub(super) fn publish_delegates(&self, changed: Vec<DelegateUuid>) {
        if changed.is_empty() {
            return;
        }
        self.delegates
            .send_replace(Arc::new(self.book.delegates.clone()));
        for id in changed {
            self.publish(Change::Delegate(id));
        }
    }

    pub(super) fn publish(&self, change: Change) {
        // An error says that nobody follows.
        drop(self.changes.send(change));
    }
}

pub(super) fn view(record: &DelegateRecord, now: Timestamp) -> DelegateView {
    DelegateView {
        id: record.id,
        name: record.name.clone(),
        tags: record.tags.clone(),
        revoked: record.revoked,
        connected: false,
        since: now,
        draining: false,
        runner_ready: false,
        starts: StartRecord::default(),
        unaccounted: BTreeMap::new(),
        capacity: record
            .inventory
            .as_ref()
            .map(|inventory| inventory.capacity),
    }
}
