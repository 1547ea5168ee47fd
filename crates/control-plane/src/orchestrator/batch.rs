//! Group commit: what was decided for all requests that had queued up is stored in one transaction, and only then told to anybody.
//!
//! ```text
//! requests ─► decided on the book's copies ─► staged ─► one transaction ─► tasks handed over, changes published, requests answered
//!                                                          └─ refused ─► the copies are put back; who asked is told why
//! ```
//!
//! What a transaction costs is the wait for the disk. While it is waited for, the next requests queue up, so the batches are as large as the
//! load is high, and a lone request waits for nothing but itself.
//!
//! Invariants:
//! - Nothing leaves (an answer, a task, a change that is published) before what it rests on is stored.
//! - A gitspace's changes of one batch are one commit: all of them are stored, or none is.
//! - A gitspace whose commit is refused takes no other's with it; everybody whose request looked at it is told.

use super::{
    draft::Draft,
    gitspaces::{Entry, uses_capacity},
    handle::{ActionDenied, CreateDenied, OrchestratorError, RemovalDenied},
    plan::{later, left},
    request::Reply,
    seams::{AssignRefused, Change},
    task::OrchestratorTask,
    view::visible_state,
    words,
};
use daemon::ErrorChain;
use std::{
    collections::{BTreeSet, HashMap, hash_map},
    fmt, mem,
    time::Duration,
};
use store::{DelegateNote, GitspaceCommit, StoreError, TaskRecord, TaskState};
use wire::{
    failure::Failure,
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
    task::{Task, TaskKind, TaskVerb},
};

/// Before what could not be stored or handed over is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// What is done once its gitspace's commit is stored.
#[derive(Debug)]
enum Effect {
    Publish(Change),
    /// Hand over the gitspace's open task, if it is still this one.
    HandOver(TaskUuid),
    Cancel(DelegateUuid, TaskUuid),
}

/// Somebody who waits for an answer.
struct Asker {
    /// What the answer rests on.
    about: BTreeSet<GitspaceUuid>,
    /// On a note, too.
    noted: bool,
    tell: Box<dyn FnOnce(Option<StoreError>) + Send + Sync>,
}

/// What is decided and not stored.
#[derive(Default)]
pub(super) struct Batch {
    /// In the order in which their gitspaces were first changed.
    commits: Vec<GitspaceCommit>,
    place: HashMap<GitspaceUuid, usize>,
    /// The book's copies as they are stored.
    before: HashMap<GitspaceUuid, Option<Entry>>,
    effects: Vec<(GitspaceUuid, Effect)>,
    askers: Vec<Asker>,
    /// About delegates' connections.
    notes: Vec<DelegateNote>,
    /// Shown, changed or not, with what is stored.
    pub(super) changed_delegates: Vec<DelegateUuid>,
    /// Whether the request that is being carried out noted something.
    noted: bool,
    /// What the request that is being carried out looked at.
    about: BTreeSet<GitspaceUuid>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("commits", &self.commits.len())
            .field("askers", &self.askers.len())
            .finish_non_exhaustive()
    }
}

impl Batch {
    pub(super) fn look_at(&mut self, id: GitspaceUuid) {
        self.about.insert(id);
    }

    /// The gitspace's commit as far as it is staged.
    pub(super) fn staged(&self, id: GitspaceUuid) -> Option<&GitspaceCommit> {
        self.commits.get(*self.place.get(&id)?)
    }

    /// Another request begins.
    pub(super) fn begin(&mut self) {
        self.about.clear();
        self.noted = false;
    }

    /// Keeps something about a delegate's connections with the batch.
    pub(super) fn note(&mut self, note: DelegateNote) {
        self.notes.push(note);
        self.noted = true;
    }

    fn is_empty(&self) -> bool {
        self.commits.is_empty()
            && self.effects.is_empty()
            && self.askers.is_empty()
            && self.notes.is_empty()
            && self.changed_delegates.is_empty()
    }

    fn add(&mut self, commit: GitspaceCommit) {
        match self.place.entry(commit.gitspace.id) {
            hash_map::Entry::Vacant(place) => {
                place.insert(self.commits.len());
                self.commits.push(commit);
            }
            hash_map::Entry::Occupied(place) => {
                let Some(staged) = self.commits.get_mut(*place.get()) else {
                    return;
                };
                staged.gitspace = commit.gitspace;
                for task in commit.tasks {
                    match staged.tasks.iter_mut().find(|known| known.id == task.id) {
                        Some(known) => *known = task,
                        None => staged.tasks.push(task),
                    }
                }
                staged.timeline.extend(commit.timeline);
                staged.log.extend(commit.log);
            }
        }
    }
}

/// An answer of the orchestrator that can also be that it was not stored.
pub(super) trait Denial: Send + Sync + 'static {
    fn not_stored(source: StoreError) -> Self;
}

impl Denial for OrchestratorError {
    fn not_stored(source: StoreError) -> Self {
        Self::Store { source }
    }
}

impl Denial for ActionDenied {
    fn not_stored(source: StoreError) -> Self {
        OrchestratorError::Store { source }.into()
    }
}

impl Denial for RemovalDenied {
    fn not_stored(source: StoreError) -> Self {
        OrchestratorError::Store { source }.into()
    }
}

impl Denial for CreateDenied {
    fn not_stored(source: StoreError) -> Self {
        match source {
            StoreError::Conflict { what } => Self::Conflict { what },
            source => OrchestratorError::Store { source }.into(),
        }
    }
}

/// What became of a batch's commits.
enum Stored {
    /// All but these.
    Except(HashMap<GitspaceUuid, StoreError>),
    Nothing(StoreError),
}

impl Stored {
    fn refusal(&self, id: GitspaceUuid) -> Option<&StoreError> {
        match self {
            Self::Except(refused) => refused.get(&id),
            Self::Nothing(error) => Some(error),
        }
    }

    fn refusal_of_any(&self, about: &BTreeSet<GitspaceUuid>) -> Option<StoreError> {
        match self {
            Self::Except(refused) => about.iter().find_map(|id| refused.get(id)).cloned(),
            Self::Nothing(error) => Some(error.clone()),
        }
    }
}

impl OrchestratorTask {
    /// Makes the draft the book's copy, and stores it with the batch.
    pub(super) fn stage(&mut self, draft: Draft) {
        let (commit, open) = draft.into_commit();
        self.stage_commit(commit, open);
    }

    pub(super) fn stage_commit(&mut self, commit: GitspaceCommit, open: Option<TaskRecord>) {
        let record = &commit.gitspace;
        let id = record.id;
        self.batch
            .before
            .entry(id)
            .or_insert_with(|| self.book.get(id).cloned());
        self.note_capacity(record);
        let mut changes = vec![Change::Gitspace(id)];
        if !commit.timeline.is_empty() {
            changes.push(Change::Timeline(id));
        }
        if !commit.log.is_empty() {
            changes.push(Change::Log(id));
        }
        self.book.put(record.clone(), open);
        self.batch.add(commit);
        let effects = changes.into_iter().map(Effect::Publish);
        self.batch
            .effects
            .extend(effects.map(|effect| (id, effect)));
    }

    /// Hands the gitspace's open task over when it is stored.
    pub(super) fn stage_hand_over(&mut self, id: GitspaceUuid) {
        if let Some(task) = self.book.get(id).and_then(|e| e.task.as_ref()) {
            let effect = Effect::HandOver(task.id);
            self.batch.effects.push((id, effect));
        }
    }

    pub(super) fn stage_cancel(
        &mut self,
        id: GitspaceUuid,
        delegate: DelegateUuid,
        task: TaskUuid,
    ) {
        let effect = Effect::Cancel(delegate, task);
        self.batch.effects.push((id, effect));
    }

    /// Answers the request when all that it looked at and changed is stored.
    pub(super) fn answer<T, E>(&mut self, reply: Reply<T, E>, result: Result<T, E>)
    where
        T: Send + Sync + 'static,
        E: Denial,
    {
        let tell = move |refusal: Option<StoreError>| {
            let answer = match refusal {
                Some(source) => Err(E::not_stored(source)),
                None => result,
            };
            if reply.send(answer).is_err() {
                tracing::debug!("Who asked has gone");
            }
        };
        self.batch.askers.push(Asker {
            about: mem::take(&mut self.batch.about),
            noted: mem::take(&mut self.batch.noted),
            tell: Box::new(tell),
        });
    }

    /// Stores what is staged, then does what rests on it.
    pub(super) async fn flush(&mut self) {
        let mut told: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        loop {
            let batch = mem::take(&mut self.batch);
            if batch.is_empty() {
                break;
            }
            let not_noted = self.keep_notes(&batch.notes).await.err();
            let stored = self.store_batch(&batch.commits).await;
            self.publish_delegates(batch.changed_delegates);
            self.settle_book(&batch.commits, batch.before, &stored)
                .await;
            for (id, effect) in batch.effects {
                if stored.refusal(id).is_none() {
                    self.carry_out(id, effect).await;
                }
            }
            if self.recheck_waiting {
                self.replan_waiting().await;
            }
            for asker in batch.askers {
                let refusal = stored
                    .refusal_of_any(&asker.about)
                    .or_else(|| not_noted.clone().filter(|_| asker.noted));
                told.push(Box::new(move || (asker.tell)(refusal)));
            }
            // What could not be handed over is noted by one more round.
        }
        for tell in told {
            tell();
        }
    }

    async fn keep_notes(&self, notes: &[DelegateNote]) -> Result<(), StoreError> {
        if notes.is_empty() {
            return Ok(());
        }
        self.store.note_delegates(notes).await.inspect_err(|error| {
            tracing::warn!(notes = notes.len(), error = %ErrorChain(error), "Nothing is kept of what delegates said of themselves");
        })
    }

    async fn store_batch(&self, commits: &[GitspaceCommit]) -> Stored {
        if commits.is_empty() {
            return Stored::Except(HashMap::new());
        }
        daemon::fail_point("control-plane.commit.before");
        let stored = self.store.commit(commits).await;
        daemon::fail_point("control-plane.commit.after");
        match stored {
            Ok(results) => Stored::Except(
                commits
                    .iter()
                    .zip(results)
                    .filter_map(|(commit, result)| Some((commit.gitspace.id, result.err()?)))
                    .collect(),
            ),
            Err(error) => {
                tracing::warn!(gitspaces = commits.len(), error = %ErrorChain(&error), "Nothing of a batch is stored");
                Stored::Nothing(error)
            }
        }
    }

    /// Brings the book's copies to what is stored.
    async fn settle_book(
        &mut self,
        commits: &[GitspaceCommit],
        mut before: HashMap<GitspaceUuid, Option<Entry>>,
        stored: &Stored,
    ) {
        for commit in commits {
            let id = commit.gitspace.id;
            let Some(refusal) = stored.refusal(id) else {
                if !commit.made {
                    let version = commit.gitspace.version.saturating_add(1);
                    self.book.set_version(id, version);
                }
                if !commit.timeline.is_empty() {
                    let state = visible_state(&commit.gitspace);
                    tracing::debug!(gitspace = %id, trace = %commit.gitspace.trace, %state, "Gitspace changed");
                }
                continue;
            };
            let before = before.remove(&id).flatten();
            // It was in the way of others that wait for room.
            let uses = |entry: &Entry| uses_capacity(&entry.record);
            self.recheck_waiting |=
                self.book.get(id).is_some_and(uses) && !before.as_ref().is_some_and(uses);
            self.book.restore(id, before);
            // Somebody else changed it: what is stored holds.
            if matches!(refusal, StoreError::Conflict { .. })
                && let Err(error) = self.reload(id).await
            {
                tracing::warn!(gitspace = %id, error = %ErrorChain(&error), "Cannot read again what was changed meanwhile");
            }
            self.set_due(id, Some(later(self.now(), RETRY)));
        }
    }

    async fn carry_out(&mut self, id: GitspaceUuid, effect: Effect) {
        match effect {
            Effect::Publish(change) => self.publish(change),
            Effect::Cancel(delegate, task) => self.sink.cancel(delegate, task),
            Effect::HandOver(task) => self.hand_over(id, task).await,
        }
    }

    async fn hand_over(&mut self, id: GitspaceUuid, task: TaskUuid) {
        let Some(entry) = self.book.get(id) else {
            return;
        };
        let Some(task) = entry.task.clone().filter(|open| open.id == task) else {
            return;
        };
        // Credentials are not unsealed for nobody.
        if self.sink.is_connected(task.delegate) {
            let verb = match task.kind {
                TaskKind::Provision | TaskKind::Start => {
                    match self.specs.spec(&entry.record).await {
                        Ok(spec) if task.kind == TaskKind::Start => TaskVerb::Start { spec },
                        Ok(spec) => TaskVerb::Provision { spec },
                        Err(failure) => return self.fail_unsent(id, failure).await,
                    }
                }
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
            let limit = left(self.now(), task.deadline);
            daemon::fail_point("control-plane.hand-over.before");
            match self.sink.assign(task.delegate, sent, limit) {
                Ok(()) => {
                    daemon::fail_point("control-plane.hand-over.after");
                    tracing::info!(gitspace = %id, task = %task.id, kind = task.kind.as_str(), trace = %task.trace, delegate = %task.delegate, "Task assigned");
                    return;
                }
                Err(AssignRefused::NotConnected) => {}
                Err(AssignRefused::TooLarge { length, limit }) => {
                    let failure = words::task_too_large(task.kind, length, limit);
                    return self.fail_unsent(id, failure).await;
                }
            }
        }
        if task.state == TaskState::Assigned
            && let Some(mut draft) = self.draft(id)
        {
            draft.set_task_state(TaskState::Queued, None);
            self.stage(draft);
            self.set_due(id, Some(later(self.now(), RETRY)));
        }
    }

    /// The open task cannot be handed to anybody: it fails, and what follows from that is staged with it.
    async fn fail_unsent(&mut self, id: GitspaceUuid, failure: Failure) {
        let Some(mut draft) = self.draft(id) else {
            return;
        };
        draft.task_failed(failure, &self.config);
        self.stage(draft);
        self.settle(id).await;
    }
}
