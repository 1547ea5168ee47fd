//! What the orchestrator's task holds in memory: a copy of the live gitspaces and their open tasks, and how the delegates are.
//!
//! Invariant: a gitspace's copy is what was stored last, with what is staged in the batch; a copy whose commit is refused is put back.

use super::{
    placement::Candidate,
    plan::{Situation, later},
    seams::DelegateView,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use store::{GitspaceRecord, TaskRecord};
use wire::{
    control::Capacity,
    gitspace::{DesiredState, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
    task::Task,
};

/// One live gitspace.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: GitspaceRecord,
    /// Its unfinished task.
    pub(super) task: Option<TaskRecord>,
    /// When to look at it again, if nothing happens before.
    pub(super) due: Option<Timestamp>,
}

/// A task that removes what no live gitspace accounts for. Not stored: as long as it is there, every hello tells of it again.
#[derive(Clone, Debug)]
pub(super) struct Orphan {
    pub(super) delegate: DelegateUuid,
    pub(super) task: Task,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) entries: BTreeMap<GitspaceUuid, Entry>,
    /// Of unfinished tasks.
    pub(super) by_task: HashMap<TaskUuid, GitspaceUuid>,
    pub(super) delegates: BTreeMap<DelegateUuid, DelegateView>,
    /// Delegates of which the timelines said that they are away.
    pub(super) told_away: HashSet<DelegateUuid>,
    pub(super) orphans: HashMap<TaskUuid, Orphan>,
}

impl Book {
    pub(super) fn put(&mut self, record: GitspaceRecord, task: Option<TaskRecord>) {
        let id = record.id;
        if let Some(before) = self.entries.get(&id).and_then(|entry| entry.task.as_ref()) {
            self.by_task.remove(&before.id);
        }
        if record.deleted.is_some() {
            self.entries.remove(&id);
            return;
        }
        if let Some(task) = &task {
            self.by_task.insert(task.id, id);
        }
        let due = self.entries.get(&id).and_then(|entry| entry.due);
        self.entries.insert(id, Entry { record, task, due });
    }

    /// Takes a staged change back.
    pub(super) fn restore(&mut self, id: GitspaceUuid, before: Option<Entry>) {
        if let Some(entry) = self.entries.remove(&id)
            && let Some(task) = entry.task
        {
            self.by_task.remove(&task.id);
        }
        if let Some(entry) = before {
            if let Some(task) = &entry.task {
                self.by_task.insert(task.id, id);
            }
            self.entries.insert(id, entry);
        }
    }

    /// What a delegate's gitspaces use, without one of them.
    pub(super) fn used(&self, delegate: DelegateUuid, except: GitspaceUuid) -> Capacity {
        let mut used = Capacity {
            gitspaces: 0,
            cpu_millis: 0,
            memory_bytes: 0,
        };
        for entry in self.entries.values() {
            let record = &entry.record;
            if record.delegate == Some(delegate) && record.id != except && uses_capacity(record) {
                let resources = &record.machine.resources;
                used.gitspaces = used.gitspaces.saturating_add(1);
                used.cpu_millis = used.cpu_millis.saturating_add(resources.cpu_millis);
                used.memory_bytes = used.memory_bytes.saturating_add(resources.memory_bytes);
            }
        }
        used
    }

    pub(super) fn situation<'a>(&'a self, entry: &'a Entry) -> Situation<'a> {
        let record = &entry.record;
        let delegate = record.delegate.and_then(|id| self.delegates.get(&id));
        let has_room = delegate.is_some_and(|delegate| {
            delegate.capacity.is_some_and(|capacity| {
                capacity.fits(
                    &self.used(delegate.id, record.id),
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
        now: Timestamp,
    ) -> Vec<Candidate<'_>> {
        self.delegates
            .values()
            .map(|delegate| Candidate {
                delegate,
                used: self.used(delegate.id, for_gitspace),
                suspect: delegate.starts.is_suspect(now),
            })
            .collect()
    }

    pub(super) fn placed_on(&self, delegate: DelegateUuid) -> BTreeSet<GitspaceUuid> {
        self.entries
            .values()
            .filter(|entry| entry.record.delegate == Some(delegate))
            .map(|entry| entry.record.id)
            .collect()
    }

    /// Those that wait for something that others may have given free.
    pub(super) fn waiting(&self) -> BTreeSet<GitspaceUuid> {
        self.entries
            .values()
            .filter(|entry| entry.record.waiting.is_some())
            .map(|entry| entry.record.id)
            .collect()
    }

    pub(super) fn due(&self, now: Timestamp) -> BTreeSet<GitspaceUuid> {
        self.entries
            .values()
            .filter(|entry| entry.due.is_some_and(|due| due <= now))
            .map(|entry| entry.record.id)
            .collect()
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
        self.delegates.values().filter(|delegate| {
            !delegate.connected && !delegate.revoked && !self.told_away.contains(&delegate.id)
        })
    }

    /// When something is due next.
    pub(super) fn next_due(&self, away_grace: std::time::Duration) -> Option<Timestamp> {
        let gitspaces = self.entries.values().filter_map(|entry| entry.due);
        let delegates = self
            .silently_away()
            .map(|delegate| later(delegate.since, away_grace));
        gitspaces.chain(delegates).min()
    }
}

/// Whether it counts against its delegate's capacity: it runs, or is about to.
pub(super) fn uses_capacity(record: &GitspaceRecord) -> bool {
    let wanted = record.desired == DesiredState::Running && record.error.is_none();
    let runs = record
        .observed
        .as_ref()
        .is_some_and(|observed| observed.state == ObservedState::Running);
    record.deleted.is_none() && (wanted || runs)
}
