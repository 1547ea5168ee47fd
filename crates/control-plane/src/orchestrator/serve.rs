//! What each request does.

use super::{
    draft::Source,
    handle::{ActionDenied, CreateDenied, NewGitspace, OrchestratorError},
    request::Request,
    seams::Change,
    task::{OrchestratorTask, stored, view},
    view::visible_state,
};
use daemon::ErrorChain;
use store::{GitspaceRecord, NewTimelineEvent, StoreError, TaskState};
use tokio::sync::oneshot;
use wire::{
    api::{GitspaceAction, TimelineKind},
    failure::Failure,
    gitspace::{DesiredState, Generation, GitspaceState, Observed},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid, TraceUuid},
    task::{TaskEvent, TaskEventKind},
};

impl OrchestratorTask {
    pub(super) async fn handle(&mut self, request: Request) {
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

    pub(super) async fn wake(&mut self) {
        let now = self.clock.now();
        for delegate in self.book.long_away(self.config.away_grace, now) {
            self.book.told_away.insert(delegate);
            self.tell_presence(delegate, false).await;
        }
        let due = self.book.due(now);
        self.replan(due).await;
    }

    pub(super) async fn create(
        &mut self,
        asked: NewGitspace,
    ) -> Result<GitspaceRecord, CreateDenied> {
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

    pub(super) async fn act(
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

    pub(super) async fn event(
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

    pub(super) async fn refused(
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

    pub(super) async fn connected(&mut self, delegate: DelegateUuid) {
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

    pub(super) async fn gone(
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

    pub(super) async fn runner_ready(&mut self, delegate: DelegateUuid, ready: bool) {
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

    pub(super) async fn delegate_changed(
        &mut self,
        id: DelegateUuid,
    ) -> Result<(), OrchestratorError> {
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
    pub(super) async fn tell_presence(&mut self, delegate: DelegateUuid, back: bool) {
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
}

fn answer<T, E>(reply: oneshot::Sender<Result<T, E>>, result: Result<T, E>) {
    if reply.send(result).is_err() {
        tracing::debug!("Who asked has gone");
    }
}
