//! What a delegate's host holds of gitspaces that are not placed there.
//!
//! ```text
//! record says deleted, or placed on another delegate ─► removed (its copy is a leftover)
//! record says live, placed nowhere                   ─► placed there
//! no record, or one on a revoked delegate             ─► kept and shown, until an operator orders its removal
//! ```
//!
//! Invariant: what was never deleted here is not removed from a host without somebody's order. A control plane that was restored from an older
//! backup knows less than the hosts do, and what it does not know is somebody's work.

use super::{
    book::Orphan,
    draft::Source,
    handle::{OrchestratorError, RemovalDenied},
    plan::{later, left},
    seams::Unaccounted,
    task::{OrchestratorTask, stored},
};
use daemon::IdsExt as _;
use store::RemovalRecord;
use wire::{
    gitspace::{Generation, Observed, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid, UserUuid},
    task::{Task, TaskVerb},
};

/// What becomes of it.
enum Fate {
    Adopt,
    /// A leftover of what is deleted, or is elsewhere.
    Remove,
    /// Somebody ordered its removal.
    RemoveOrdered,
    Keep,
}

impl OrchestratorTask {
    /// Takes what the runner holds of a gitspace that is not placed on this delegate. The answer is a task that removes it, to be handed over.
    pub(super) async fn account_for(
        &mut self,
        delegate: DelegateUuid,
        observed: Observed,
    ) -> Result<Option<TaskUuid>, OrchestratorError> {
        let id = observed.gitspace;
        if observed.state == ObservedState::Absent {
            self.note_unaccounted(delegate, &observed);
            return Ok(None);
        }
        match self.fate(delegate, id).await? {
            Fate::Adopt => {
                if let Some(mut draft) = self.draft(id) {
                    draft.record.delegate = Some(delegate);
                    draft.take_observed(observed, Source::Hello, &self.config);
                    self.stage(draft);
                    self.replan([id]).await;
                }
                Ok(None)
            }
            Fate::Remove => Ok(self.orphan(delegate, id, observed.generation)),
            Fate::RemoveOrdered => {
                let task = self.orphan(delegate, id, observed.generation);
                self.note_unaccounted(delegate, &observed);
                Ok(task)
            }
            Fate::Keep => {
                self.note_unaccounted(delegate, &observed);
                Ok(None)
            }
        }
    }

    async fn fate(
        &self,
        delegate: DelegateUuid,
        id: GitspaceUuid,
    ) -> Result<Fate, OrchestratorError> {
        if let Some(entry) = self.book.get(id) {
            return Ok(match entry.record.delegate {
                // What is known here is older than what the host holds.
                None => Fate::Adopt,
                // Nobody else can bring it back: what this host holds may be all that is left.
                Some(place) if self.is_revoked(place) => Fate::Keep,
                Some(_) => Fate::Remove,
            });
        }
        let deleted = match self.batch.staged(id) {
            Some(staged) => staged.gitspace.deleted.is_some(),
            None => self
                .store
                .gitspace(id)
                .await
                .map_err(stored)?
                .is_some_and(|record| record.deleted.is_some()),
        };
        if deleted {
            return Ok(Fate::Remove);
        }
        let order = self.store.removal(delegate, id).await.map_err(stored)?;
        Ok(order.map_or(Fate::Keep, |_| Fate::RemoveOrdered))
    }

    fn is_revoked(&self, delegate: DelegateUuid) -> bool {
        self.book
            .delegates
            .get(&delegate)
            .is_none_or(|view| view.revoked)
    }

    /// Stages nothing: the order is stored at once, and the list is of what the host tells.
    pub(super) async fn remove(
        &mut self,
        delegate: DelegateUuid,
        gitspace: GitspaceUuid,
        user: UserUuid,
    ) -> Result<(), RemovalDenied> {
        let failed = |source| RemovalDenied::Orchestrator(stored(source));
        if self.book.get(gitspace).is_some() {
            return Err(RemovalDenied::Known);
        }
        let held = self
            .book
            .delegates
            .get(&delegate)
            .and_then(|view| view.unaccounted.get(&gitspace))
            .cloned();
        let Some(held) = held else {
            // Ordered before and done with: the same again is no error.
            let ordered = self
                .store
                .removal(delegate, gitspace)
                .await
                .map_err(failed)?;
            return ordered.map(drop).ok_or(RemovalDenied::NotFound);
        };
        self.store
            .order_removal(&RemovalRecord {
                gitspace,
                delegate,
                user,
                created: self.now(),
            })
            .await
            .map_err(failed)?;
        tracing::warn!(%delegate, %gitspace, by = %user, "The removal of a gitspace without a record was ordered");
        if let Some(task) = self.orphan(delegate, gitspace, held.generation) {
            self.assign_orphan(task);
        }
        self.change_delegate(delegate, |view| {
            if let Some(held) = view.unaccounted.get_mut(&gitspace) {
                held.removing = true;
            }
        });
        Ok(())
    }

    /// Nothing is under way any more: whoever ordered it sees that, and can order it again.
    pub(super) fn removal_ended(&mut self, delegate: DelegateUuid, gitspace: GitspaceUuid) {
        self.change_delegate(delegate, |view| {
            if let Some(held) = view.unaccounted.get_mut(&gitspace) {
                held.removing = false;
            }
        });
    }

    /// Keeps the list of what the delegate holds without a record that accounts for it.
    pub(super) fn note_unaccounted(&mut self, delegate: DelegateUuid, observed: &Observed) {
        let id = observed.gitspace;
        let known = self
            .book
            .delegates
            .get(&delegate)
            .and_then(|view| view.unaccounted.get(&id));
        if observed.state == ObservedState::Absent {
            if known.is_some() {
                tracing::info!(%delegate, gitspace = %id, "The host holds nothing of an unaccounted gitspace any more");
                self.change_delegate(delegate, |view| {
                    view.unaccounted.remove(&id);
                });
            }
            return;
        }
        let removing = self
            .book
            .orphans
            .values()
            .any(|orphan| orphan.delegate == delegate && orphan.task.gitspace == id);
        let held = Unaccounted {
            state: observed.state,
            since: observed.at,
            generation: observed.generation,
            removing,
        };
        if known == Some(&held) {
            return;
        }
        if known.is_none() {
            tracing::warn!(%delegate, gitspace = %id, state = ?observed.state, "The host holds a gitspace that no record here accounts for");
        }
        self.change_delegate(delegate, |view| {
            view.unaccounted.insert(id, held);
        });
    }

    /// A task that removes what this delegate holds. `None` where that is under way.
    fn orphan(
        &mut self,
        delegate: DelegateUuid,
        gitspace: GitspaceUuid,
        generation: Generation,
    ) -> Option<TaskUuid> {
        let under_way = self
            .book
            .orphans
            .values()
            .any(|orphan| orphan.task.gitspace == gitspace && orphan.delegate == delegate);
        if under_way {
            return None;
        }
        tracing::warn!(%delegate, %gitspace, "What a host holds of a gitspace that is deleted, or placed elsewhere, is removed");
        let task = Task {
            id: self.ids.typed(),
            gitspace,
            generation: generation.next(),
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
        let Some(orphan) = self.book.orphans.get(&task) else {
            return;
        };
        let limit = left(self.clock.now(), orphan.task.deadline);
        if self
            .sink
            .assign(orphan.delegate, orphan.task.clone(), limit)
            .is_err()
        {
            tracing::debug!(%task, "Removal of an orphan not handed over; the next hello tells of it again");
        }
    }
}
