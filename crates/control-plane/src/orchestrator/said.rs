//! What a connected delegate says: events of tasks, observations, how it is.

use super::{
    draft::Source,
    handle::{Heard, OrchestratorError},
    task::{OrchestratorTask, stored},
};
use daemon::ErrorChain;
use store::TaskState;
use wire::{
    control::{Down, Inventory, Up},
    failure::{Failure, FailureCode},
    gitspace::Observed,
    ids::{DelegateUuid, TaskUuid},
    task::{TaskEvent, TaskEventKind, TaskKind, TaskOutcome},
};

const fn outcome_of(outcome: &TaskOutcome) -> Option<Result<(), FailureCode>> {
    match outcome {
        TaskOutcome::Done {} => Some(Ok(())),
        TaskOutcome::Failed { failure } => Some(Err(failure.code)),
        // Somebody did not want it any more.
        TaskOutcome::Cancelled {} => None,
    }
}

impl OrchestratorTask {
    /// In order, up to the first that cannot be taken.
    pub(super) async fn said(&mut self, delegate: DelegateUuid, said: Vec<Up>) -> Heard {
        let mut heard = Heard {
            answers: Vec::with_capacity(said.len()),
            refused: None,
        };
        for body in said {
            match self.hear(delegate, body).await {
                Ok(answer) => heard.answers.push(answer),
                Err(error) => {
                    heard.refused = Some(error);
                    break;
                }
            }
        }
        heard
    }

    async fn hear(
        &mut self,
        delegate: DelegateUuid,
        body: Up,
    ) -> Result<Option<Down>, OrchestratorError> {
        match body {
            Up::TaskEvent { task, event, .. } => {
                let last = matches!(event.event, TaskEventKind::Finished { .. });
                let seq = self.event(delegate, task, event).await?;
                return Ok(last.then_some(Down::Stored { task, seq }));
            }
            Up::TaskRefused { task, failure, .. } => self.refused(delegate, task, failure).await,
            Up::Observed { observed } => self.observed(delegate, observed).await?,
            Up::Inventory { inventory } => self.inventory(delegate, &inventory).await?,
            Up::RunnerReady { ready } => self.runner_ready(delegate, ready).await,
            Up::Draining { draining } => {
                self.change_delegate(delegate, |view| view.draining = draining);
                self.replan_of(delegate).await;
            }
        }
        Ok(None)
    }

    /// Stages the event with all that follows from it, once. Answers with the number up to which all are then stored.
    async fn event(
        &mut self,
        delegate: DelegateUuid,
        task: TaskUuid,
        event: TaskEvent,
    ) -> Result<u64, OrchestratorError> {
        if self.book.orphans.contains_key(&task) {
            let seq = event.seq;
            if let TaskEventKind::Finished { observed, .. } = event.event {
                self.book.orphans.remove(&task);
                self.note_unaccounted(delegate, &observed);
            }
            return Ok(seq);
        }
        let Some(mut draft) = self.draft_of_task(delegate, task) else {
            // It was given up, or was never ours: its events decide nothing, and the runner may forget it.
            tracing::debug!(%delegate, %task, "Event of a task that is not open");
            return Ok(event.seq);
        };
        let known = draft.task.as_ref().map_or(0, |task| task.stored_seq);
        if event.seq <= known {
            return Ok(known);
        }
        if event.seq != known.saturating_add(1) {
            return Err(OrchestratorError::Gap {
                task,
                seq: event.seq,
                stored: known,
            });
        }
        let seq = event.seq;
        let id = draft.record.id;
        let decides = !matches!(event.event, TaskEventKind::Log { .. });
        let kind = draft.task.as_ref().map(|task| task.kind);
        let ended = match &event.event {
            TaskEventKind::Finished { outcome, .. } => outcome_of(outcome),
            TaskEventKind::PhaseStarted { .. }
            | TaskEventKind::PhaseCompleted { .. }
            | TaskEventKind::PhaseFailed { .. }
            | TaskEventKind::Log { .. } => None,
        };
        let draining = self
            .book
            .delegates
            .get(&delegate)
            .is_some_and(|view| view.draining);
        draft.take_event(event, draining, &self.config);
        self.stage(draft);
        self.note_start(delegate, kind, ended);
        if decides {
            self.replan([id]).await;
        }
        Ok(seq)
    }

    async fn refused(&mut self, delegate: DelegateUuid, task: TaskUuid, failure: Failure) {
        if let Some(orphan) = self.book.orphans.remove(&task) {
            tracing::warn!(%delegate, %task, error = %ErrorChain(&failure), "An orphan could not be removed");
            self.removal_ended(delegate, orphan.task.gitspace);
            return;
        }
        let Some(mut draft) = self.draft_of_task(delegate, task) else {
            return;
        };
        let id = draft.record.id;
        let kind = draft.task.as_ref().map(|task| task.kind);
        let code = failure.code;
        draft.task_failed(failure, &self.config);
        self.stage(draft);
        self.note_start(delegate, kind, Some(Err(code)));
        self.replan([id]).await;
    }

    /// What the end of a start says of its host.
    fn note_start(
        &mut self,
        delegate: DelegateUuid,
        kind: Option<TaskKind>,
        ended: Option<Result<(), FailureCode>>,
    ) {
        let (Some(TaskKind::Start | TaskKind::Provision), Some(outcome)) = (kind, ended) else {
            return;
        };
        let now = self.now();
        let Some(mut starts) = self.book.delegates.get(&delegate).map(|view| view.starts) else {
            return;
        };
        let before = starts;
        if starts.note(outcome, now) {
            match starts.suspect_until() {
                Some(until) => {
                    tracing::warn!(%delegate, failed = starts.failed_in_a_row(), %until, "A host fails its starts; others are preferred");
                }
                None => tracing::info!(%delegate, "A host that failed its starts works again"),
            }
        }
        if starts != before {
            self.change_delegate(delegate, |view| view.starts = starts);
        }
    }

    async fn observed(
        &mut self,
        delegate: DelegateUuid,
        observed: Observed,
    ) -> Result<(), OrchestratorError> {
        let id = observed.gitspace;
        let ours = self
            .draft(id)
            .filter(|draft| draft.record.delegate == Some(delegate));
        let Some(mut draft) = ours else {
            if let Some(task) = self.account_for(delegate, observed).await? {
                self.assign_orphan(task);
            }
            return Ok(());
        };
        if draft.take_observed(observed, Source::Watch, &self.config) {
            self.stage(draft);
            self.replan([id]).await;
        }
        Ok(())
    }

    async fn inventory(
        &mut self,
        delegate: DelegateUuid,
        inventory: &Inventory,
    ) -> Result<(), OrchestratorError> {
        let now = self.now();
        self.store
            .delegate_inventory(delegate, inventory, now)
            .await
            .map_err(stored)?;
        let capacity = Some(inventory.capacity);
        let before = self.book.delegates.get(&delegate).map(|view| view.capacity);
        self.change_delegate(delegate, |view| view.capacity = capacity);
        if before != Some(capacity) {
            self.replan_waiting().await;
        }
        Ok(())
    }

    async fn runner_ready(&mut self, delegate: DelegateUuid, ready: bool) {
        let now = self.now();
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
                let Some(task) = self.book.get(id).and_then(|e| e.task.as_ref()) else {
                    continue;
                };
                match task.state {
                    TaskState::Assigned => self.stage_hand_over(id),
                    TaskState::Cancelling => {
                        let task = task.id;
                        self.stage_cancel(id, delegate, task);
                    }
                    TaskState::Queued | TaskState::Finished => {}
                }
            }
        }
        self.replan_of(delegate).await;
    }
}
