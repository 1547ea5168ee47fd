//! Deciding for one gitspace after the other, and staging what is decided.

use super::{
    batch::RETRY,
    draft::Draft,
    handle::OrchestratorError,
    placement,
    plan::{Decision, later, plan},
    task::{OrchestratorTask, stored},
};
use daemon::{ErrorChain, IdsExt as _};
use std::collections::BTreeSet;
use store::{GitspaceRecord, TaskRecord, TaskState};
use wire::{
    failure::{Failure, FailureCode},
    ids::{DelegateUuid, GitspaceUuid},
    task::TaskKind,
};

/// Steps for one gitspace in a row. More would be a defect; the rest is done a little later.
const MAX_STEPS: usize = 8;

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

    /// One decision, staged. `false` where there is nothing more to do for the time being.
    pub(super) async fn step(&mut self, id: GitspaceUuid) -> Result<bool, OrchestratorError> {
        let now = self.clock.now();
        let Some(entry) = self.book.get(id) else {
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
                    self.stage(draft);
                }
                return Ok(false);
            }
            Decision::Place => {
                match self.choose(&draft.record).await? {
                    Ok(delegate) => draft.record.delegate = Some(delegate),
                    Err(why) => {
                        if draft.wait(why) {
                            self.stage(draft);
                        }
                        return Ok(false);
                    }
                }
                self.issue(draft, TaskKind::Start)?;
            }
            Decision::Issue(kind) => self.issue(draft, kind)?,
            Decision::Send => {
                draft.set_task_state(TaskState::Assigned, None);
                self.stage(draft);
                self.stage_hand_over(id);
            }
            Decision::Cancel => {
                let task = draft.task.as_ref().map(|task| (task.delegate, task.id));
                let until = later(now, self.config.cancel_limit);
                draft.set_task_state(TaskState::Cancelling, Some(until));
                self.stage(draft);
                if let Some((delegate, task)) = task {
                    self.stage_cancel(id, delegate, task);
                }
            }
            Decision::Drop => {
                draft.task_cancelled(&self.config);
                self.stage(draft);
            }
            Decision::Fail(failure) => {
                draft.fail(failure);
                self.stage(draft);
            }
            Decision::Remove => {
                draft.remove();
                self.stage(draft);
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
            &self.book.candidates(record.id, &*self.sink, self.now()),
        ))
    }

    pub(super) fn issue(
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
        self.stage(draft);
        self.stage_hand_over(id);
        Ok(())
    }
}
