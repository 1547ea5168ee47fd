//! The task that owns it all.
//!
//! Channels: requests in (bounded; answered one by one, each after all that follows from it is stored), changes out (a broadcast, whose followers may
//! lag), delegates out (a watch). It wakes for a request, for what is due next, and at least once a minute, because the wall clock may step.

use super::{
    book::{Book, Orphan, uses_capacity},
    draft::{Draft, Source},
    handle::{
        ActionDenied, CreateDenied, MAX_CHANGES, MAX_REQUESTS, NewGitspace, OrchestratorConfig,
        OrchestratorError, OrchestratorHandle,
    },
    placement,
    plan::{Decision, later, plan},
    request::Request,
    seams::{Change, DelegateView, SpecSource, TaskSink},
    view::visible_state,
};
use daemon::{Clock, ErrorChain, Ids, IdsExt as _};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};
use store::{
    DelegateRecord, GitspaceRecord, NewTimelineEvent, Store, StoreError, TaskRecord, TaskState,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use wire::{
    api::{GitspaceAction, TimelineKind},
    failure::{Failure, FailureCode},
    gitspace::{DesiredState, Generation, GitspaceState, Observed, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid, TraceUuid},
    task::{Task, TaskEvent, TaskEventKind, TaskKind, TaskVerb},
};

/// Steps for one gitspace in a row. More would be a defect; the rest is done a little later.
const MAX_STEPS: usize = 8;
/// Before what could not be stored or handed over is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Longest sleep, because the wall clock may step.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// Owns all gitspaces' records and tasks. See the module's documentation.
pub struct OrchestratorTask {
    pub(super) store: Arc<dyn Store>,
    pub(super) sink: Arc<dyn TaskSink>,
    specs: Arc<dyn SpecSource>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    config: OrchestratorConfig,
    requests: mpsc::Receiver<Request>,
    changes: broadcast::Sender<Change>,
    delegates: watch::Sender<Arc<BTreeMap<DelegateUuid, DelegateView>>>,
    pub(super) book: Book,
    /// Capacity may have become free: who waits is looked at.
    recheck_waiting: bool,
}

impl fmt::Debug for OrchestratorTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrchestratorTask")
            .field("gitspaces", &self.book.entries.len())
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

fn stored(source: StoreError) -> OrchestratorError {
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
            book.delegates.insert(delegate.id, view(&delegate, now));
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
            recheck_waiting: false,
        };
        Ok((task, handle))
    }

    /// Until `stop`, or until every handle is gone. What is under way when it stops is stored, and goes on at the next start.
    ///
    /// # Errors
    /// None; the type is that of a vital task.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), OrchestratorError> {
        let all: BTreeSet<_> = self.book.entries.keys().copied().collect();
        self.replan(all).await;
        loop {
            let sleep = self.sleep();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                request = self.requests.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => return Ok(()),
                },
                () = tokio::time::sleep(sleep) => self.wake().await,
            }
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

    async fn handle(&mut self, request: Request) {
        match request {
            Request::Create { gitspace, reply } => answer(reply, self.create(*gitspace).await),
            Request::Act {
                gitspace,
                action,
                actor,
                trace,
                reply,
            } => answer(reply, self.act(gitspace, action, &actor, trace).await),
            Request::Hello {
                delegate,
                hello,
                reply,
            } => answer(reply, self.hello(delegate, *hello).await),
            Request::Connected { delegate, reply } => {
                self.connected(delegate).await;
                answer(reply, Ok(()));
            }
            Request::Gone {
                delegate,
                reason,
                reply,
            } => answer(reply, self.gone(delegate, &reason).await),
            Request::Event {
                delegate,
                task,
                event,
                reply,
            } => answer(reply, self.event(delegate, task, *event).await),
            Request::Refused {
                delegate,
                task,
                failure,
                reply,
            } => answer(reply, self.refused(delegate, task, *failure).await),
            Request::Observed {
                delegate,
                observed,
                reply,
            } => answer(reply, self.observed(delegate, *observed).await),
            Request::RunnerReady {
                delegate,
                ready,
                reply,
            } => {
                self.runner_ready(delegate, ready).await;
                answer(reply, Ok(()));
            }
            Request::Inventory {
                delegate,
                inventory,
                reply,
            } => {
                let now = self.clock.now();
                let result = self
                    .store
                    .delegate_inventory(delegate, &inventory, now)
                    .await
                    .map_err(stored);
                let capacity = Some(inventory.capacity);
                let before = self.book.delegates.get(&delegate).map(|view| view.capacity);
                self.change_delegate(delegate, |view| view.capacity = capacity);
                if before != Some(capacity) {
                    self.replan_waiting().await;
                }
                answer(reply, result);
            }
            Request::Draining {
                delegate,
                draining,
                reply,
            } => {
                self.change_delegate(delegate, |view| view.draining = draining);
                self.replan_of(delegate).await;
                answer(reply, Ok(()));
            }
            Request::DelegateChanged { delegate, reply } => {
                answer(reply, self.delegate_changed(delegate).await);
            }
            Request::Wake { reply } => {
                self.wake().await;
                answer(reply, Ok(()));
            }
        }
    }

    async fn wake(&mut self) {
        let now = self.clock.now();
        for delegate in self.book.long_away(self.config.away_grace, now) {
            self.book.told_away.insert(delegate);
            self.tell_presence(delegate, false).await;
        }
        let due = self.book.due(now);
        self.replan(due).await;
    }

    async fn create(&mut self, asked: NewGitspace) -> Result<GitspaceRecord, CreateDenied> {
        let now = self.clock.now();
        let record = GitspaceRecord {
            id: asked.id,
            owner: asked.owner,
            owner_name: asked.owner_name,
            name: asked.name,
            slug: asked.slug,
            repo: asked.repo,
            machine: asked.machine,
            created: now,
            version: 0,
            desired: if asked.start {
                DesiredState::Running
            } else {
                DesiredState::Uninitialized
            },
            generation: Generation(1),
            trace: asked.trace,
            observed: None,
            delegate: None,
            task: None,
            phase: None,
            attempts: 0,
            retry_at: None,
            exits: Vec::new(),
            error: None,
            waiting: None,
            updated: now,
            deleted: None,
        };
        let event = NewTimelineEvent {
            at: now,
            kind: TimelineKind::Action,
            message: format!("Created by {}", record.owner_name),
            phase: None,
            duration_ms: None,
            failure: None,
            generation: record.generation,
            task: None,
            trace: record.trace,
            state: visible_state(&record),
        };
        self.store
            .create_gitspace(&record, &[event])
            .await
            .map_err(|error| match error {
                StoreError::Conflict { what } => CreateDenied::Conflict { what },
                other => stored(other).into(),
            })?;
        let id = record.id;
        self.book.put(record.clone(), None);
        self.publish(Change::Gitspace(id));
        self.publish(Change::Timeline(id));
        self.replan([id]).await;
        Ok(self.current(id).unwrap_or(record))
    }

    async fn act(
        &mut self,
        id: GitspaceUuid,
        action: GitspaceAction,
        actor: &str,
        trace: TraceUuid,
    ) -> Result<GitspaceRecord, ActionDenied> {
        let mut draft = self.draft(id).ok_or(ActionDenied::NotFound)?;
        if !draft.act(action, actor, trace)? {
            return Ok(draft.record);
        }
        let acted = draft.record.clone();
        self.commit(draft).await?;
        self.replan([id]).await;
        match self.current(id) {
            Some(record) => Ok(record),
            // Deleted at once: what is stored is the last word.
            None => Ok(self
                .store
                .gitspace(id)
                .await
                .map_err(stored)?
                .unwrap_or(acted)),
        }
    }

    async fn event(
        &mut self,
        delegate: DelegateUuid,
        task: TaskUuid,
        event: TaskEvent,
    ) -> Result<u64, OrchestratorError> {
        let finished = matches!(event.event, TaskEventKind::Finished { .. });
        if self.book.orphans.contains_key(&task) {
            if finished {
                self.book.orphans.remove(&task);
            }
            return Ok(event.seq);
        }
        let Some(mut draft) = self.draft_of_task(delegate, task) else {
            // It was given up, or was never ours: its events decide nothing, and the runner may forget it.
            tracing::debug!(%delegate, %task, "Event of a task that is not open");
            return Ok(event.seq);
        };
        let stored = draft.task.as_ref().map_or(0, |task| task.stored_seq);
        if event.seq <= stored {
            return Ok(stored);
        }
        if event.seq != stored.saturating_add(1) {
            return Err(OrchestratorError::Gap {
                task,
                seq: event.seq,
                stored,
            });
        }
        let seq = event.seq;
        let id = draft.record.id;
        let decides = !matches!(event.event, TaskEventKind::Log { .. });
        draft.take_event(event, &self.config);
        self.commit(draft).await?;
        if decides {
            self.replan([id]).await;
        }
        Ok(seq)
    }

    async fn refused(
        &mut self,
        delegate: DelegateUuid,
        task: TaskUuid,
        failure: Failure,
    ) -> Result<(), OrchestratorError> {
        if self.book.orphans.remove(&task).is_some() {
            tracing::warn!(%delegate, %task, error = %ErrorChain(&failure), "An orphan could not be removed");
            return Ok(());
        }
        let Some(mut draft) = self.draft_of_task(delegate, task) else {
            return Ok(());
        };
        let id = draft.record.id;
        draft.task_failed(failure, &self.config);
        self.commit(draft).await?;
        self.replan([id]).await;
        Ok(())
    }

    pub(super) async fn observed(
        &mut self,
        delegate: DelegateUuid,
        observed: Observed,
    ) -> Result<(), OrchestratorError> {
        let id = observed.gitspace;
        let Some(mut draft) = self
            .draft(id)
            .filter(|draft| draft.record.delegate == Some(delegate))
        else {
            if let Some(task) = self.orphan(delegate, &observed) {
                self.assign_orphan(task);
            }
            return Ok(());
        };
        if draft.take_observed(observed, Source::Watch, &self.config) {
            self.commit(draft).await?;
            self.replan([id]).await;
        }
        Ok(())
    }

    async fn connected(&mut self, delegate: DelegateUuid) {
        let now = self.clock.now();
        self.change_delegate(delegate, |view| {
            view.connected = true;
            view.since = now;
        });
        if self.book.told_away.remove(&delegate) {
            self.tell_presence(delegate, true).await;
        }
        let orphans: Vec<_> = self
            .book
            .orphans
            .iter()
            .filter(|(_, orphan)| orphan.delegate == delegate)
            .map(|(task, _)| *task)
            .collect();
        for task in orphans {
            self.assign_orphan(task);
        }
        self.replan_of(delegate).await;
    }

    async fn gone(
        &mut self,
        delegate: DelegateUuid,
        reason: &str,
    ) -> Result<(), OrchestratorError> {
        let now = self.clock.now();
        self.change_delegate(delegate, |view| {
            if view.connected {
                view.since = now;
            }
            view.connected = false;
        });
        // Its next hello tells of them again.
        self.book
            .orphans
            .retain(|_, orphan| orphan.delegate != delegate);
        let result = self
            .store
            .delegate_disconnected(delegate, reason, now)
            .await
            .map_err(stored);
        self.replan_of(delegate).await;
        result
    }

    async fn runner_ready(&mut self, delegate: DelegateUuid, ready: bool) {
        let now = self.clock.now();
        let mut came = false;
        self.change_delegate(delegate, |view| {
            came = ready && !view.runner_ready;
            if view.runner_ready != ready {
                view.since = now;
            }
            view.runner_ready = ready;
        });
        if came {
            // What was handed over while it was away may not have reached it. Once more does no harm.
            for id in self.book.placed_on(delegate) {
                let Some(task) = self.book.entries.get(&id).and_then(|e| e.task.clone()) else {
                    continue;
                };
                match task.state {
                    TaskState::Assigned => {
                        self.send(id).await;
                    }
                    TaskState::Cancelling => self.sink.cancel(delegate, task.id),
                    TaskState::Queued | TaskState::Finished => {}
                }
            }
        }
        self.replan_of(delegate).await;
    }

    async fn delegate_changed(&mut self, id: DelegateUuid) -> Result<(), OrchestratorError> {
        let now = self.clock.now();
        let Some(record) = self.store.delegate(id).await.map_err(stored)? else {
            return Err(OrchestratorError::UnknownDelegate);
        };
        self.book
            .delegates
            .entry(id)
            .and_modify(|view| {
                view.revoked = record.revoked;
                view.tags.clone_from(&record.tags);
            })
            .or_insert_with(|| view(&record, now));
        self.change_delegate(id, |_| {});
        self.replan_of(id).await;
        Ok(())
    }

    /// Says in its gitspaces' timelines that a delegate is away or back, where that matters.
    async fn tell_presence(&mut self, delegate: DelegateUuid, back: bool) {
        let Some(name) = self.book.delegates.get(&delegate).map(|v| v.name.clone()) else {
            return;
        };
        for id in self.book.placed_on(delegate) {
            let Some(mut draft) = self.draft(id) else {
                continue;
            };
            let idle = matches!(
                visible_state(&draft.record),
                GitspaceState::Stopped | GitspaceState::Uninitialized
            );
            if idle {
                continue;
            }
            let message = if back {
                format!("Delegate {name} is connected again")
            } else {
                format!("Delegate {name} is not connected; the state is the last one known")
            };
            draft.say(TimelineKind::StateChanged, message);
            if let Err(error) = self.commit(draft).await {
                tracing::warn!(gitspace = %id, error = %ErrorChain(&error), "Timeline event not stored");
            }
        }
    }

    // Deciding and carrying out.

    /// Also those that wait for the capacity that this gave free.
    pub(super) async fn replan(&mut self, gitspaces: impl IntoIterator<Item = GitspaceUuid>) {
        let mut next: BTreeSet<_> = gitspaces.into_iter().collect();
        loop {
            for id in next {
                self.settle(id).await;
            }
            // Ends, because each round needs one that gave its capacity free.
            if !std::mem::take(&mut self.recheck_waiting) {
                return;
            }
            next = self.book.waiting();
        }
    }

    async fn settle(&mut self, id: GitspaceUuid) {
        for _ in 0..MAX_STEPS {
            match self.step(id).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(gitspace = %id, error = %ErrorChain(&error), "Step not done; it is tried again");
                    break;
                }
            }
        }
        self.set_due(id, Some(later(self.clock.now(), RETRY)));
    }

    async fn replan_of(&mut self, delegate: DelegateUuid) {
        let mut affected = self.book.placed_on(delegate);
        affected.extend(self.book.waiting());
        self.replan(affected).await;
    }

    async fn replan_waiting(&mut self) {
        let waiting = self.book.waiting();
        self.replan(waiting).await;
    }

    /// One decision, carried out. `false` where there is nothing more to do for the time being.
    async fn step(&mut self, id: GitspaceUuid) -> Result<bool, OrchestratorError> {
        let now = self.clock.now();
        let Some(entry) = self.book.entries.get(&id) else {
            return Ok(false);
        };
        let decision = plan(self.book.situation(entry), &self.config, now);
        let mut draft = Draft::new(&entry.record, entry.task.as_ref(), now);
        tracing::trace!(gitspace = %id, ?decision, "Planned");
        self.set_due(id, None);
        match decision {
            Decision::Rest => return Ok(false),
            Decision::WaitUntil(at) => {
                self.set_due(id, Some(at));
                return Ok(false);
            }
            Decision::Wait { why, until } => {
                self.set_due(id, until);
                if draft.wait(why) {
                    self.commit(draft).await?;
                }
                return Ok(false);
            }
            Decision::Place => {
                match self.choose(&draft.record).await? {
                    Ok(delegate) => draft.record.delegate = Some(delegate),
                    Err(why) => {
                        if draft.wait(why) {
                            self.commit(draft).await?;
                        }
                        return Ok(false);
                    }
                }
                self.issue(draft, TaskKind::Start).await?;
            }
            Decision::Issue(kind) => self.issue(draft, kind).await?,
            Decision::Send => {
                if !self.send(id).await {
                    self.set_due(id, Some(later(now, RETRY)));
                    return Ok(false);
                }
                if let Some(mut draft) = self.draft(id).filter(|draft| draft.task.is_some()) {
                    draft.set_task_state(TaskState::Assigned, None);
                    self.commit(draft).await?;
                }
            }
            Decision::Cancel => {
                let task = draft.task.as_ref().map(|task| (task.delegate, task.id));
                let until = later(now, self.config.cancel_limit);
                draft.set_task_state(TaskState::Cancelling, Some(until));
                self.commit(draft).await?;
                if let Some((delegate, task)) = task {
                    self.sink.cancel(delegate, task);
                }
            }
            Decision::Drop => {
                draft.task_cancelled(&self.config);
                self.commit(draft).await?;
            }
            Decision::Fail(failure) => {
                draft.fail(failure);
                self.commit(draft).await?;
            }
            Decision::Remove => {
                draft.remove();
                self.commit(draft).await?;
            }
        }
        Ok(true)
    }

    async fn choose(
        &self,
        record: &GitspaceRecord,
    ) -> Result<Result<DelegateUuid, Failure>, OrchestratorError> {
        let provider = self
            .store
            .infra_provider(record.machine.infra_provider)
            .await
            .map_err(stored)?;
        let Some(provider) = provider else {
            return Ok(Err(Failure::new(
                FailureCode::NoCapacity,
                format!(
                    "the infra provider of machine {} does not exist any more",
                    record.machine.name
                ),
            )));
        };
        Ok(placement::place(
            &record.machine.resources,
            &provider.selectors,
            &self.book.candidates(record.id),
        ))
    }

    async fn issue(&mut self, mut draft: Draft, kind: TaskKind) -> Result<(), OrchestratorError> {
        let now = self.clock.now();
        let id = draft.record.id;
        let Some(delegate) = draft
            .record
            .delegate
            .and_then(|delegate| self.book.delegates.get(&delegate))
        else {
            return Err(OrchestratorError::UnknownDelegate);
        };
        let limit = match kind {
            TaskKind::Provision | TaskKind::Start => self.config.start_limit,
            TaskKind::Stop | TaskKind::Observe => self.config.stop_limit,
            TaskKind::Reset | TaskKind::Delete => self.config.delete_limit,
        };
        let task = TaskRecord {
            id: self.ids.typed(),
            gitspace: id,
            delegate: delegate.id,
            kind,
            generation: draft.record.generation,
            attempt: draft.record.attempts.saturating_add(1),
            deadline: later(now, limit),
            trace: draft.record.trace,
            // Stored before it is handed over: what was sent is never unknown here.
            state: TaskState::Assigned,
            stored_seq: 0,
            created: now,
            finished: None,
        };
        draft.issue(task, &delegate.name);
        self.commit(draft).await?;
        if !self.send(id).await
            && let Some(mut draft) = self.draft(id).filter(|draft| draft.task.is_some())
        {
            draft.set_task_state(TaskState::Queued, None);
            self.commit(draft).await?;
        }
        Ok(())
    }

    /// Hands the open task over. `false` where the delegate does not take it.
    async fn send(&mut self, id: GitspaceUuid) -> bool {
        let Some(entry) = self.book.entries.get(&id) else {
            return false;
        };
        let Some(task) = entry.task.clone() else {
            return false;
        };
        let verb = match task.kind {
            TaskKind::Provision | TaskKind::Start => match self.specs.spec(&entry.record).await {
                Ok(spec) if task.kind == TaskKind::Start => TaskVerb::Start { spec },
                Ok(spec) => TaskVerb::Provision { spec },
                Err(failure) => {
                    let now = self.clock.now();
                    let mut draft = Draft::new(&entry.record, Some(&task), now);
                    draft.task_failed(failure, &self.config);
                    if let Err(error) = self.commit(draft).await {
                        tracing::warn!(gitspace = %id, error = %ErrorChain(&error), "Failure not stored");
                        return false;
                    }
                    return true;
                }
            },
            TaskKind::Stop => TaskVerb::Stop {},
            TaskKind::Reset => TaskVerb::Reset {},
            TaskKind::Delete => TaskVerb::Delete {},
            TaskKind::Observe => TaskVerb::Observe {},
        };
        let sent = Task {
            id: task.id,
            gitspace: task.gitspace,
            generation: task.generation,
            attempt: task.attempt,
            deadline: task.deadline,
            trace: task.trace,
            verb,
        };
        tracing::info!(gitspace = %id, task = %task.id, kind = task.kind.as_str(), trace = %task.trace, delegate = %task.delegate, "Task assigned");
        self.sink.assign(task.delegate, sent).is_ok()
    }

    /// A task that removes what this delegate holds of no live gitspace. `None` where there is nothing to remove, or it is under way.
    pub(super) fn orphan(
        &mut self,
        delegate: DelegateUuid,
        observed: &Observed,
    ) -> Option<TaskUuid> {
        let known =
            self.book.orphans.values().any(|orphan| {
                orphan.task.gitspace == observed.gitspace && orphan.delegate == delegate
            });
        if observed.state == ObservedState::Absent || known {
            return None;
        }
        tracing::warn!(%delegate, gitspace = %observed.gitspace, "The runner holds what no live gitspace accounts for; it is removed");
        let task = Task {
            id: self.ids.typed(),
            gitspace: observed.gitspace,
            generation: observed.generation.next(),
            attempt: 1,
            deadline: later(self.clock.now(), self.config.delete_limit),
            trace: self.ids.typed(),
            verb: TaskVerb::Delete {},
        };
        let id = task.id;
        self.book.orphans.insert(id, Orphan { delegate, task });
        Some(id)
    }

    fn assign_orphan(&self, task: TaskUuid) {
        if let Some(orphan) = self.book.orphans.get(&task)
            && self
                .sink
                .assign(orphan.delegate, orphan.task.clone())
                .is_err()
        {
            tracing::debug!(%task, "Removal of an orphan not handed over; the next hello tells of it again");
        }
    }

    // The book.

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn cancel_limit(&self) -> Duration {
        self.config.cancel_limit
    }

    pub(super) fn task_config(&self) -> &OrchestratorConfig {
        &self.config
    }

    pub(super) fn draft(&self, id: GitspaceUuid) -> Option<Draft> {
        let entry = self.book.entries.get(&id)?;
        Some(Draft::new(
            &entry.record,
            entry.task.as_ref(),
            self.clock.now(),
        ))
    }

    fn draft_of_task(&self, delegate: DelegateUuid, task: TaskUuid) -> Option<Draft> {
        let draft = self.draft(*self.book.by_task.get(&task)?)?;
        let ours = draft
            .task
            .as_ref()
            .is_some_and(|open| open.id == task && open.delegate == delegate);
        ours.then_some(draft)
    }

    fn current(&self, id: GitspaceUuid) -> Option<GitspaceRecord> {
        self.book.entries.get(&id).map(|entry| entry.record.clone())
    }

    fn set_due(&mut self, id: GitspaceUuid, due: Option<Timestamp>) {
        if let Some(entry) = self.book.entries.get_mut(&id) {
            entry.due = due;
        }
    }

    /// Stores a draft and tells of it.
    pub(super) async fn commit(&mut self, draft: Draft) -> Result<(), OrchestratorError> {
        let (mut commit, open) = draft.into_commit();
        let id = commit.gitspace.id;
        match self.store.commit(&commit).await {
            Ok(version) => commit.gitspace.version = version,
            Err(error) => {
                if matches!(error, StoreError::Conflict { .. }) {
                    self.reload(id).await?;
                }
                return Err(stored(error));
            }
        }
        let used_before = self
            .book
            .entries
            .get(&id)
            .is_some_and(|entry| uses_capacity(&entry.record));
        self.recheck_waiting |= used_before && !uses_capacity(&commit.gitspace);
        let (timeline, log) = (!commit.timeline.is_empty(), !commit.log.is_empty());
        if timeline {
            let state = visible_state(&commit.gitspace);
            tracing::debug!(gitspace = %id, trace = %commit.gitspace.trace, %state, "Gitspace changed");
        }
        self.book.put(commit.gitspace, open);
        self.publish(Change::Gitspace(id));
        if timeline {
            self.publish(Change::Timeline(id));
        }
        if log {
            self.publish(Change::Log(id));
        }
        Ok(())
    }

    /// Somebody else changed it: what is stored holds.
    async fn reload(&mut self, id: GitspaceUuid) -> Result<(), OrchestratorError> {
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
            change(view);
            self.delegates
                .send_replace(Arc::new(self.book.delegates.clone()));
            self.publish(Change::Delegate(id));
        }
    }

    fn publish(&self, change: Change) {
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
        capacity: record
            .inventory
            .as_ref()
            .map(|inventory| inventory.capacity),
    }
}

fn answer<T, E>(reply: oneshot::Sender<Result<T, E>>, result: Result<T, E>) {
    if reply.send(result).is_err() {
        tracing::debug!("Who asked has gone");
    }
}
