//! The book's gitspaces, found by what the orchestrator asks for.
//!
//! Invariant: every index holds what a walk over all entries would find. They are what keeps a decision's cost from growing with the number
//! of gitspaces.

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{GitspaceRecord, TaskRecord};
use wire::{
    control::Capacity,
    gitspace::{DesiredState, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
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

/// Sums over gitspaces. Wide enough never to overflow, so that what was added can be taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    gitspaces: u64,
    cpu_millis: u64,
    memory_bytes: u128,
}

impl Sums {
    fn of(record: &GitspaceRecord) -> Self {
        if !uses_capacity(record) {
            return Self::default();
        }
        let resources = &record.machine.resources;
        Self {
            gitspaces: 1,
            cpu_millis: resources.cpu_millis.into(),
            memory_bytes: resources.memory_bytes.into(),
        }
    }

    const fn with(self, more: Self) -> Self {
        Self {
            gitspaces: self.gitspaces + more.gitspaces,
            cpu_millis: self.cpu_millis + more.cpu_millis,
            memory_bytes: self.memory_bytes + more.memory_bytes,
        }
    }

    const fn without(self, less: Self) -> Self {
        Self {
            gitspaces: self.gitspaces - less.gitspaces,
            cpu_millis: self.cpu_millis - less.cpu_millis,
            memory_bytes: self.memory_bytes - less.memory_bytes,
        }
    }

    fn capacity(self) -> Capacity {
        Capacity {
            gitspaces: self.gitspaces.try_into().unwrap_or(u32::MAX),
            cpu_millis: self.cpu_millis.try_into().unwrap_or(u32::MAX),
            memory_bytes: self.memory_bytes.try_into().unwrap_or(u64::MAX),
        }
    }
}

/// What is on one delegate.
#[derive(Debug, Default, PartialEq, Eq)]
struct Placed {
    gitspaces: BTreeSet<GitspaceUuid>,
    used: Sums,
}

#[derive(Debug, Default)]
pub(super) struct Gitspaces {
    entries: BTreeMap<GitspaceUuid, Entry>,
    /// Of unfinished tasks.
    by_task: HashMap<TaskUuid, GitspaceUuid>,
    by_delegate: HashMap<DelegateUuid, Placed>,
    waiting: BTreeSet<GitspaceUuid>,
    by_due: BTreeSet<(Timestamp, GitspaceUuid)>,
}

impl Gitspaces {
    pub(super) fn get(&self, id: GitspaceUuid) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn ids(&self) -> impl ExactSizeIterator<Item = GitspaceUuid> {
        self.entries.keys().copied()
    }

    pub(super) fn of_task(&self, task: TaskUuid) -> Option<GitspaceUuid> {
        self.by_task.get(&task).copied()
    }

    pub(super) fn placed_on(&self, delegate: DelegateUuid) -> BTreeSet<GitspaceUuid> {
        self.by_delegate
            .get(&delegate)
            .map(|placed| placed.gitspaces.clone())
            .unwrap_or_default()
    }

    pub(super) const fn waiting(&self) -> &BTreeSet<GitspaceUuid> {
        &self.waiting
    }

    /// Also what is due later than `latest`: it was put down by a clock that has stepped back since, and is decided anew.
    pub(super) fn due(&self, now: Timestamp, latest: Timestamp) -> BTreeSet<GitspaceUuid> {
        let reached = self.by_due.iter().take_while(|(due, _)| *due <= now);
        let out_of_reach = self.by_due.iter().rev();
        reached
            .chain(out_of_reach.take_while(|(due, _)| *due > latest))
            .map(|(_, id)| *id)
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// What a delegate's gitspaces use, without one of them.
    pub(super) fn used(&self, delegate: DelegateUuid, except: GitspaceUuid) -> Capacity {
        let Some(placed) = self.by_delegate.get(&delegate) else {
            return Sums::default().capacity();
        };
        let excepted = self
            .get(except)
            .filter(|entry| entry.record.delegate == Some(delegate))
            .map_or_else(Sums::default, |entry| Sums::of(&entry.record));
        placed.used.without(excepted).capacity()
    }

    pub(super) fn replace(&mut self, id: GitspaceUuid, entry: Option<Entry>) {
        if let Some(before) = self.entries.remove(&id) {
            self.leave(&before);
        }
        if let Some(entry) = entry {
            self.enter(&entry);
            self.entries.insert(id, entry);
        }
    }

    pub(super) fn set_due(&mut self, id: GitspaceUuid, due: Option<Timestamp>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some(before) = entry.due {
            self.by_due.remove(&(before, id));
        }
        self.by_due.extend(due.map(|due| (due, id)));
        entry.due = due;
    }

    pub(super) fn set_version(&mut self, id: GitspaceUuid, version: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.record.version = version;
        }
    }

    fn enter(&mut self, entry: &Entry) {
        let record = &entry.record;
        if let Some(task) = &entry.task {
            self.by_task.insert(task.id, record.id);
        }
        if let Some(delegate) = record.delegate {
            let placed = self.by_delegate.entry(delegate).or_default();
            placed.gitspaces.insert(record.id);
            placed.used = placed.used.with(Sums::of(record));
        }
        if record.waiting.is_some() {
            self.waiting.insert(record.id);
        }
        self.by_due.extend(entry.due.map(|due| (due, record.id)));
    }

    fn leave(&mut self, entry: &Entry) {
        let record = &entry.record;
        if let Some(task) = &entry.task {
            self.by_task.remove(&task.id);
        }
        if let Some(delegate) = record.delegate
            && let Some(placed) = self.by_delegate.get_mut(&delegate)
        {
            placed.gitspaces.remove(&record.id);
            placed.used = placed.used.without(Sums::of(record));
            if placed.gitspaces.is_empty() {
                self.by_delegate.remove(&delegate);
            }
        }
        self.waiting.remove(&record.id);
        if let Some(due) = entry.due {
            self.by_due.remove(&(due, record.id));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestrator::tests::support;
    use proptest::prelude::*;
    use wire::failure::{Failure, FailureCode};

    /// What a test does to one of few gitspaces.
    #[derive(Clone, Copy, Debug)]
    struct Change {
        gitspace: u128,
        delegate: Option<u128>,
        wanted: bool,
        waits: bool,
        task: Option<u128>,
        due: Option<i64>,
        gone: bool,
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = (
            0..5_u128,
            prop::option::of(0..2_u128),
            any::<bool>(),
            any::<bool>(),
            prop::option::of(0..2_u128),
            prop::option::of(0..4_i64),
            prop::bool::weighted(0.2),
        );
        let change =
            change.prop_map(
                |(gitspace, delegate, wanted, waits, task, due, gone)| Change {
                    gitspace,
                    delegate,
                    wanted,
                    waits,
                    task: task.map(|number| gitspace * 2 + number),
                    due,
                    gone,
                },
            );
        prop::collection::vec(change, 0..60)
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    impl Change {
        fn entry(&self) -> Entry {
            let mut record = support::record(if self.wanted {
                DesiredState::Running
            } else {
                DesiredState::Stopped
            });
            record.id = support::id(self.gitspace);
            record.delegate = self.delegate.map(support::id);
            record.waiting = self
                .waits
                .then(|| Failure::new(FailureCode::NoCapacity, "no room"));
            let task = self.task.map(|number| TaskRecord {
                id: support::id(number),
                gitspace: record.id,
                delegate: support::id(0),
                kind: wire::task::TaskKind::Start,
                generation: record.generation,
                attempt: 1,
                deadline: time(9),
                trace: record.trace,
                state: store::TaskState::Queued,
                stored_seq: 0,
                created: time(0),
                finished: None,
            });
            let due = self.due.map(time);
            Entry { record, task, due }
        }
    }

    proptest! {
        #[test]
        fn the_indexes_hold_what_a_walk_finds(changes in changes()) {
            let mut gitspaces = Gitspaces::default();
            for change in &changes {
                let entry = change.entry();
                let id = entry.record.id;
                gitspaces.replace(id, (!change.gone).then_some(entry));
                gitspaces.set_due(support::id(change.gitspace / 2), change.due.map(time));
            }
            let mut walked = Gitspaces::default();
            for (id, entry) in &gitspaces.entries {
                walked.replace(*id, Some(entry.clone()));
            }
            prop_assert_eq!(&gitspaces.by_task, &walked.by_task);
            prop_assert_eq!(&gitspaces.by_delegate, &walked.by_delegate);
            prop_assert_eq!(&gitspaces.waiting, &walked.waiting);
            prop_assert_eq!(&gitspaces.by_due, &walked.by_due);
            for number in 0..2 {
                let delegate = support::id(number);
                let others = |except: GitspaceUuid| {
                    let on_it = |entry: &&Entry| {
                        entry.record.delegate == Some(delegate) && entry.record.id != except
                    };
                    let used = gitspaces.entries.values().filter(on_it);
                    used.filter(|entry| uses_capacity(&entry.record)).count()
                };
                for except in (0..5).map(support::id) {
                    let used = gitspaces.used(delegate, except).gitspaces;
                    prop_assert_eq!(usize::try_from(used).unwrap(), others(except));
                }
            }
        }
    }
}
