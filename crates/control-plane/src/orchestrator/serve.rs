//! What each request does.

use super::{
    handle::{ActionDenied, CreateDenied, NewGitspace, OrchestratorError},
    plan::{later, longest_wait},
    request::Request,
    task::{OrchestratorTask, stored, view},
    view::visible_state,
};
use std::sync::Arc;
use store::{DelegateNote, GitspaceCommit, GitspaceRecord, NewTimelineEvent};
use wire::{
    api::{GitspaceAction, TimelineKind},
    control::Disconnect,
    gitspace::{DesiredState, Generation, GitspaceState},
    ids::{DelegateUuid, GitspaceUuid, TraceUuid},
};

impl OrchestratorTask {
    /// Decides on the request and stages what follows from it; it is answered by the next flush.
    pub(super) async fn handle(&mut self, request: Request) {
        self.batch.begin();
        match request {
            Request::Create { gitspace, reply } => {
                let made = self.create(*gitspace).await;
                self.answer(reply, made);
            }
            Request::Act {
                gitspace,
                action,
                actor,
                trace,
                reply,
            } => {
                let acted = self.act(gitspace, action, &actor, trace).await;
                self.answer(reply, acted);
            }
            Request::Hello {
                delegate,
                hello,
                reply,
            } => {
                let verdicts = self.hello(delegate, *hello).await;
                self.answer(reply, verdicts);
            }
            Request::Connected { delegate, reply } => {
                self.connected(delegate).await;
                self.answer(reply, Ok(()));
            }
            Request::Gone {
                delegate,
                disconnect,
                reply,
            } => {
                self.gone(delegate, disconnect).await;
                self.answer(reply, Ok(()));
            }
            Request::Said {
                delegate,
                said,
                reply,
            } => {
                let heard = self.said(delegate, said).await;
                self.answer(reply, Ok(heard));
            }
            Request::Remove {
                delegate,
                gitspace,
                user,
                reply,
            } => {
                let ordered = self.remove(delegate, gitspace, user).await;
                self.answer(reply, ordered);
            }
            Request::DelegateChanged { delegate, reply } => {
                let changed = self.delegate_changed(delegate).await;
                self.answer(reply, changed);
            }
            Request::Wake { reply } => {
                self.wake().await;
                self.answer(reply, Ok(()));
            }
        }
    }

    pub(super) async fn wake(&mut self) {
        let now = self.clock.now();
        for delegate in self.book.long_away(self.config.away_grace, now) {
            self.book.told_away.insert(delegate);
            self.tell_presence(delegate, false);
        }
        let latest = later(now, longest_wait(&self.config));
        let due = self.book.due(now, latest);
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
        let id = record.id;
        if self.book.get(id).is_some() {
            return Err(CreateDenied::Conflict {
                what: "gitspace id",
            });
        }
        self.batch.look_at(id);
        let commit = GitspaceCommit {
            made: true,
            gitspace: record.clone(),
            tasks: Vec::new(),
            timeline: vec![event],
            log: Vec::new(),
        };
        self.stage_commit(commit, None);
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
        self.stage(draft);
        self.replan([id]).await;
        // Where it is deleted at once, what is staged is the last word.
        self.current(id)
            .or_else(|| Some(self.batch.staged(id)?.gitspace.clone()))
            .ok_or(ActionDenied::NotFound)
    }

    pub(super) async fn connected(&mut self, delegate: DelegateUuid) {
        let now = self.clock.now();
        self.change_delegate(delegate, |view| {
            view.connected = true;
            view.since = now;
        });
        if self.book.told_away.remove(&delegate) {
            self.tell_presence(delegate, true);
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

    pub(super) async fn gone(&mut self, delegate: DelegateUuid, disconnect: Disconnect) {
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
        self.batch.note(DelegateNote::Disconnected {
            id: delegate,
            disconnect,
            at: now,
        });
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
                let view = Arc::make_mut(view);
                view.revoked = record.revoked;
                view.tags.clone_from(&record.tags);
            })
            .or_insert_with(|| Arc::new(view(&record, now)));
        self.change_delegate(id, |_| {});
        self.replan_of(id).await;
        Ok(())
    }

    /// Says in its gitspaces' timelines that a delegate is away or back, where that matters.
    pub(super) fn tell_presence(&mut self, delegate: DelegateUuid, back: bool) {
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
            self.stage(draft);
        }
    }
}
