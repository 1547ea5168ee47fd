//! What is remembered of deleted gitspaces: the generation they ended with, so that a late task of an earlier one brings none back.

use super::{FORMAT, Ledger, LedgerError, remove, write};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wire::{gitspace::Generation, ids::GitspaceUuid};

/// Longer than any task is under way: its deadline is minutes after it was made.
const KEPT: Duration = Duration::from_hours(7 * 24);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Deleted {
    format: u32,
    pub(super) gitspace: GitspaceUuid,
    pub(super) generation: Generation,
    at: Timestamp,
}

impl Ledger {
    /// The highest generation of any task that was taken for this gitspace; also of one that was deleted not long ago.
    pub(crate) fn taken(&self, gitspace: GitspaceUuid) -> Generation {
        let entries = self.lock();
        let known = entries
            .records
            .get(&gitspace)
            .map(|record| record.taken.max(record.generation));
        let deleted = entries.deleted.get(&gitspace).map(|one| one.generation);
        known.max(deleted).unwrap_or_default()
    }

    /// Strikes a gitspace of which nothing is left, and remembers up to where it had come.
    pub(crate) fn remove(&self, gitspace: GitspaceUuid, now: Timestamp) -> Result<(), LedgerError> {
        let deleted = Deleted {
            format: FORMAT,
            gitspace,
            generation: self.taken(gitspace),
            at: now,
        };
        tokio::task::block_in_place(|| {
            let mut entries = self.lock();
            // First: killed between the two, its record still says the same.
            write(&self.deleted_dir, &gitspace.to_string(), &deleted)?;
            entries.deleted.insert(gitspace, deleted);
            remove(&self.records_dir, &gitspace.to_string())?;
            entries.records.remove(&gitspace);
            let old: Vec<GitspaceUuid> = entries
                .deleted
                .values()
                .filter(|one| now.duration_since(one.at).unsigned_abs() > KEPT)
                .map(|one| one.gitspace)
                .collect();
            for gitspace in old {
                remove(&self.deleted_dir, &gitspace.to_string())?;
                entries.deleted.remove(&gitspace);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::temp;
    use super::*;
    use daemon::IdsExt as _;

    #[test]
    fn the_generation_of_a_deleted_gitspace_outlives_it_and_a_restart() {
        let (_guard, dir) = temp();
        let ids = daemon::SequentialIds::default();
        let (first, second) = (ids.typed(), ids.typed());
        let ledger = Ledger::open(&dir).unwrap();
        ledger
            .update(first, |record| record.taken = Generation(4))
            .unwrap();
        ledger.remove(first, Timestamp::UNIX_EPOCH).unwrap();
        let again = Ledger::open(&dir).unwrap();
        assert!(again.get(first).is_none());
        assert_eq!(again.taken(first), Generation(4));
        assert_eq!(again.taken(second), Generation(0));

        // Not for ever.
        let later = Timestamp::UNIX_EPOCH + KEPT + Duration::from_secs(1);
        again.remove(second, later).unwrap();
        assert_eq!(again.taken(first), Generation(0));
        let left = std::fs::read_dir(dir.join("deleted")).unwrap().count();
        assert_eq!(left, 1, "the second one's alone");
    }

    #[test]
    fn a_gitspace_has_come_as_far_as_the_latest_task_that_was_taken() {
        let (_guard, dir) = temp();
        let id = daemon::SequentialIds::default().typed();
        let ledger = Ledger::open(&dir).unwrap();
        ledger
            .update(id, |record| record.generation = Generation(2))
            .unwrap();
        assert_eq!(ledger.taken(id), Generation(2), "of an older version");
        ledger
            .update(id, |record| record.taken = Generation(3))
            .unwrap();
        assert_eq!(ledger.taken(id), Generation(3), "taken and cancelled");
    }
}
