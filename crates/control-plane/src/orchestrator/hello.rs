//! What both sides believe after a (re)connect, and what is to become of it.

use super::{
    draft::{Draft, Source},
    handle::OrchestratorError,
    plan::later,
    task::{OrchestratorTask, stored, view},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use store::{DelegateNote, DelegateSeen, TaskState};
use wire::{
    control::{Hello, TaskStatus, TaskVerdict},
    gitspace::{Observed, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
};

impl OrchestratorTask {
    /// Takes a hello before the delegate is welcomed. Nothing is handed over before it counts as connected.
    pub(super) async fn hello(
        &mut self,
        delegate: DelegateUuid,
        hello: Hello,
    ) -> Result<Vec<TaskVerdict>, OrchestratorError> {
        let now = self.now();
        // Whoever revokes a delegate says so afterwards, and the hub looks once more before the welcome.
        if self
            .book
            .delegates
            .get(&delegate)
            .is_none_or(|view| view.revoked)
        {
            let record = self.store.delegate(delegate).await.map_err(stored)?;
            let Some(record) = record.filter(|record| !record.revoked) else {
                return Err(OrchestratorError::UnknownDelegate);
            };
            self.book
                .delegates
                .entry(delegate)
                .or_insert_with(|| Arc::new(view(&record, now)));
        }
        self.change_delegate(delegate, |view| {
            view.revoked = false;
            view.capacity = Some(hello.inventory.capacity);
            view.tags.clone_from(&hello.tags);
            view.draining = hello.draining;
            view.runner_ready = hello.runner_ready;
        });
        let seen = Box::new(DelegateSeen {
            version: hello.version,
            tags: hello.tags,
            inventory: hello.inventory,
            at: now,
        });
        self.batch.note(DelegateNote::Seen { id: delegate, seen });
        if !hello.runner_ready {
            // It knows nothing of what the runner holds. Should it tell of a task all the same, that one goes on.
            return Ok(hello.tasks.iter().map(|held| self.carry_on(held)).collect());
        }
        let mut verdicts = Vec::with_capacity(hello.tasks.len());
        for held in &hello.tasks {
            verdicts.push(self.verdict(delegate, held).await?);
        }
        let held: HashSet<_> = hello.tasks.iter().map(|held| held.task).collect();
        self.miss_tasks(delegate, &held).await?;
        self.compare_gitspaces(delegate, hello.gitspaces).await?;
        Ok(verdicts)
    }

    fn carry_on(&self, held: &TaskStatus) -> TaskVerdict {
        let after = self
            .book
            .of_task(held.task)
            .and_then(|id| self.book.get(id)?.task.as_ref())
            .map_or(0, |task| task.stored_seq);
        TaskVerdict::Continue {
            task: held.task,
            after,
        }
    }

    async fn verdict(
        &mut self,
        delegate: DelegateUuid,
        held: &TaskStatus,
    ) -> Result<TaskVerdict, OrchestratorError> {
        let task = held.task;
        if self.book.orphans.contains_key(&task) {
            return Ok(TaskVerdict::Continue { task, after: 0 });
        }
        let open = self.book.of_task(task);
        let draft = open
            .and_then(|id| self.draft(id))
            .filter(|draft| draft.task.as_ref().is_some_and(|t| t.delegate == delegate));
        let Some(mut draft) = draft else {
            return self.verdict_on_closed(held).await;
        };
        let Some(record) = draft.task.clone() else {
            return Ok(TaskVerdict::Forget { task });
        };
        let after = record.stored_seq;
        let wanted = record.generation == draft.record.generation;
        match record.state {
            TaskState::Cancelling => Ok(TaskVerdict::Cancel { task, after }),
            TaskState::Queued | TaskState::Assigned | TaskState::Finished if !wanted => {
                let until = later(self.now(), self.cancel_limit());
                draft.set_task_state(TaskState::Cancelling, Some(until));
                self.stage(draft);
                Ok(TaskVerdict::Cancel { task, after })
            }
            TaskState::Queued => {
                draft.set_task_state(TaskState::Assigned, None);
                self.stage(draft);
                Ok(TaskVerdict::Continue { task, after })
            }
            TaskState::Assigned | TaskState::Finished => Ok(TaskVerdict::Continue { task, after }),
        }
    }

    /// Of a task that is not open here: its result is stored, it was given up, or nobody knows it.
    async fn verdict_on_closed(&self, held: &TaskStatus) -> Result<TaskVerdict, OrchestratorError> {
        let task = held.task;
        let known = self
            .store
            .task(task)
            .await
            .map_err(|source| OrchestratorError::Store { source })?;
        Ok(match known {
            Some(known) if !held.finished => TaskVerdict::Cancel {
                task,
                after: known.stored_seq,
            },
            Some(_) | None => TaskVerdict::Forget { task },
        })
    }

    /// Tasks that the runner should hold and does not.
    async fn miss_tasks(
        &mut self,
        delegate: DelegateUuid,
        held: &HashSet<TaskUuid>,
    ) -> Result<(), OrchestratorError> {
        for id in self.book.placed_on(delegate) {
            let Some(mut draft) = self.draft(id) else {
                continue;
            };
            let Some(task) = draft.task.as_ref().filter(|task| !held.contains(&task.id)) else {
                continue;
            };
            match task.state {
                // It never arrived, or was lost with the runner's disk: the same again.
                TaskState::Assigned => draft.set_task_state(TaskState::Queued, None),
                TaskState::Cancelling => draft.task_lost(),
                TaskState::Queued | TaskState::Finished => continue,
            }
            self.stage(draft);
        }
        Ok(())
    }

    async fn compare_gitspaces(
        &mut self,
        delegate: DelegateUuid,
        seen: Vec<Observed>,
    ) -> Result<(), OrchestratorError> {
        let seen: HashMap<GitspaceUuid, Observed> = seen
            .into_iter()
            .map(|observed| (observed.gitspace, observed))
            .collect();
        for id in self.book.placed_on(delegate) {
            let observed = match seen.get(&id) {
                Some(observed) => Some(observed.clone()),
                None => self.draft(id).and_then(|draft| absent(&draft, self.now())),
            };
            let Some(observed) = observed else { continue };
            let Some(mut draft) = self.draft(id) else {
                continue;
            };
            let config = *self.task_config();
            if draft.take_observed(observed, Source::Hello, &config) {
                self.stage(draft);
            }
        }
        // The list is of what the host tells this time.
        self.change_delegate(delegate, |view| {
            view.unaccounted.retain(|id, _| seen.contains_key(id));
        });
        for observed in seen.into_values() {
            let placed = self
                .book
                .get(observed.gitspace)
                .and_then(|entry| entry.record.delegate);
            if placed != Some(delegate) {
                // A removal is handed over when the delegate counts as connected.
                self.account_for(delegate, observed).await?;
            }
        }
        Ok(())
    }
}

/// What stands for a gitspace that the runner does not know although it should.
fn absent(draft: &Draft, now: jiff::Timestamp) -> Option<Observed> {
    let known = draft.record.observed.as_ref()?;
    if known.state == ObservedState::Absent || draft.record.task.is_some() {
        return None;
    }
    Some(Observed {
        gitspace: draft.record.id,
        state: ObservedState::Absent,
        generation: known.generation,
        // Whatever the runner says of it next is later.
        revision: 0,
        at: now,
        failure: Some(super::words::runner_forgot()),
        task: None,
        dev_container: None,
    })
}
