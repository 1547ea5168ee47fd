//! What the orchestrator's task holds in memory: a copy of the live gitspaces and their open tasks, and how the delegates are.
//!
//! Invariant: a gitspace's copy is what was stored last, with what is staged in the batch; a copy whose commit is refused is put
//! back.

use super::{
    gitspaces::{Entry, Gitspaces},
    placement::Candidate,
    plan::{Situation, later},
    seams::{DelegateView, TaskSink},
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use store::{GitspaceRecord, TaskRecord};
use wire::{
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
    task::Task,
};

/// A task that removes what no live gitspace accounts for. Not stored: as long as it is there, every hello tells of it again.
#[derive(Clone, Debug)]
pub(super) struct Orphan {
    pub(super) delegate: DelegateUuid,
    pub(super) task: Task,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    gitspaces: Gitspaces,
    /// Shared with what is shown of them: a delegate that does not change is not copied.
    pub(super) delegates: BTreeMap<DelegateUuid, Arc<DelegateView>>,
    /// Delegates of which the timelines said that they are away.
    pub(super) told_away: HashSet<DelegateUuid>,
    pub(super) orphans: HashMap<TaskUuid, Orphan>,
}

impl Book {
    pub(super) fn get(&self, id: GitspaceUuid) -> Option<&Entry> {
        self.gitspaces.get(id)
    }

    pub(super) fn ids(&self) -> impl ExactSizeIterator<Item = GitspaceUuid> {
        self.gitspaces.ids()
    }

    /// Whose unfinished task it is.
    pub(super) fn of_task(&self, task: TaskUuid) -> Option<GitspaceUuid> {
        self.gitspaces.of_task(task)
    }

    pub(super) fn put(&mut self, record: GitspaceRecord, task: Option<TaskRecord>) {
        let id = record.id;
        let due = self.get(id).and_then(|entry| entry.due);
        let live = record.deleted.is_none();
        self.gitspaces
            .replace(id, live.then_some(Entry { record, task, due }));
    }

    /// Takes a staged change back.
    pub(super) fn restore(&mut self, id: GitspaceUuid, before: Option<Entry>) {
        self.gitspaces.replace(id, before);
    }

    pub(super) fn set_due(&mut self, id: GitspaceUuid, due: Option<Timestamp>) {
        self.gitspaces.set_due(id, due);
    }

    pub(super) fn set_version(&mut self, id: GitspaceUuid, version: u64) {
        self.gitspaces.set_version(id, version);
    }

    pub(super) fn situation<'a>(&'a self, entry: &'a Entry) -> Situation<'a> {
        let record = &entry.record;
        let delegate = record
            .delegate
            .and_then(|id| self.delegates.get(&id))
            .map(Arc::as_ref);
        let has_room = delegate.is_some_and(|delegate| {
            delegate.capacity.is_some_and(|capacity| {
                capacity.fits(
                    &self.gitspaces.used(delegate.id, record.id),
                    &record.machine.resources,
                )
            })
        });
        Situation {
            record,
            task: entry.task.as_ref(),
            delegate,
            has_room,
        }
    }

    pub(super) fn candidates(
        &self,
        for_gitspace: GitspaceUuid,
        sink: &dyn TaskSink,
        now: Timestamp,
    ) -> Vec<Candidate<'_>> {
        self.delegates
            .values()
            .map(|delegate| Candidate {
                delegate,
                used: self.gitspaces.used(delegate.id, for_gitspace),
                out: delegate
                    .starts
                    .out_because(sink.probed(delegate.id), now)
                    .is_some(),
            })
            .collect()
    }

    pub(super) fn placed_on(&self, delegate: DelegateUuid) -> BTreeSet<GitspaceUuid> {
        self.gitspaces.placed_on(delegate)
    }

    /// Those that wait for something that others may have given free.
    pub(super) fn waiting(&self) -> BTreeSet<GitspaceUuid> {
        self.gitspaces.waiting().clone()
    }

    pub(super) fn due(&self, now: Timestamp, latest: Timestamp) -> BTreeSet<GitspaceUuid> {
        self.gitspaces.due(now, latest)
    }

    /// Delegates that are away for longer than `grace`, of which nothing was said.
    pub(super) fn long_away(
        &self,
        grace: std::time::Duration,
        now: Timestamp,
    ) -> BTreeSet<DelegateUuid> {
        self.silently_away()
            .filter(|delegate| later(delegate.since, grace) <= now)
            .map(|delegate| delegate.id)
            .collect()
    }

    fn silently_away(&self) -> impl Iterator<Item = &DelegateView> {
        self.delegates.values().map(Arc::as_ref).filter(|delegate| {
            !delegate.connected && !delegate.revoked && !self.told_away.contains(&delegate.id)
        })
    }

    /// When something is due next.
    pub(super) fn next_due(&self, away_grace: std::time::Duration) -> Option<Timestamp> {
        let delegates = self
            .silently_away()
            .map(|delegate| later(delegate.since, away_grace));
        self.gitspaces.next_due().into_iter().chain(delegates).min()
    }
}
