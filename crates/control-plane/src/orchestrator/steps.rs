//! Deciding for one gitspace after the other, and carrying decisions out.

use super::{
    book::Orphan,
    draft::Draft,
    handle::OrchestratorError,
    placement,
    plan::{Decision, later, plan},
    task::{OrchestratorTask, stored},
};
use daemon::{ErrorChain, IdsExt as _};
use std::{collections::BTreeSet, time::Duration};
use store::{GitspaceRecord, TaskRecord, TaskState};
use wire::{
    failure::{Failure, FailureCode},
    gitspace::{Observed, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
    task::{Task, TaskKind, TaskVerb},
};

/// Steps for one gitspace in a row. More would be a defect; the rest is done a little later.
const MAX_STEPS: usize = 8;
/// Before what could not be stored or handed over is tried again.
const RETRY: Duration = Duration::from_secs(5);

impl OrchestratorTask {
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

    pub(super) async fn settle(&mut self, id: GitspaceUuid) {
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

    pub(super) async fn replan_of(&mut self, delegate: DelegateUuid) {
        let mut affected = self.book.placed_on(delegate);
        affected.extend(self.book.waiting());
        self.replan(affected).await;
    }

    pub(super) async fn replan_waiting(&mut self) {
        let waiting = self.book.waiting();
        self.replan(waiting).await;
    }

    /// One decision, carried out. `false` where there is nothing more to do for the time being.
    pub(super) async fn step(&mut self, id: GitspaceUuid) -> Result<bool, OrchestratorError> {
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

    pub(super) async fn choose(
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

    pub(super) async fn issue(
        &mut self,
        mut draft: Draft,
        kind: TaskKind,
    ) -> Result<(), OrchestratorError> {
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
    pub(super) async fn send(&mut self, id: GitspaceUuid) -> bool {
        let Some(entry) = self.book.entries.get(&id) else {
            return false;
        };
        let Some(task) = entry.task.clone() else {
            return false;
        };
        // Credentials are not unsealed for nobody.
        if !self.sink.is_connected(task.delegate) {
            return false;
        }
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

    pub(super) fn assign_orphan(&self, task: TaskUuid) {
        if let Some(orphan) = self.book.orphans.get(&task)
            && self
                .sink
                .assign(orphan.delegate, orphan.task.clone())
                .is_err()
        {
            tracing::debug!(%task, "Removal of an orphan not handed over; the next hello tells of it again");
        }
    }
}
