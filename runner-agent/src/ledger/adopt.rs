//! A ledger that was deleted, put back from an older copy or damaged, made whole from the labels of what Docker holds.
//!
//! Every dev container carries the record it was made from. What came to be known after it was made is found out again: once-only
//! commands by the marks that the agent keeps in the container, the generation by the next task.

use super::{
    FORMAT, Ledger, LedgerError, Record,
    files::{MAX_FILE, parse},
};
use jiff::Timestamp;
use serde::Serialize;
use std::{collections::BTreeMap, sync::PoisonError};
use wire::{gitspace::Generation, ids::GitspaceUuid};

/// Why the ledger had to be made whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lack {
    NoRecord,
    /// Its record is of before the container was made.
    OlderRecord,
}

/// A dev container that was taken into the ledger again.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Adopted {
    pub(crate) gitspace: GitspaceUuid,
    pub(crate) container: String,
    pub(crate) lack: Lack,
    pub(crate) at: Timestamp,
}

/// A record that cannot be read from a label.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LabelError {
    #[error("it is {length} bytes long, more than {MAX_FILE}")]
    TooLong { length: usize },
    #[error("it cannot be read: {cause}")]
    Damaged { cause: String },
    #[error("it is of another gitspace or machine")]
    Other,
    #[error("it has no clone or no dev container")]
    NotWhole,
}

impl Record {
    /// What the label of its dev container holds.
    pub(crate) fn to_label(&self) -> Result<String, LedgerError> {
        serde_json::to_string(self).map_err(|source| LedgerError::Json { source })
    }

    /// Reads a label of a dev container of `gitspace` on the machine `key`.
    pub(crate) fn from_label(
        text: &str,
        gitspace: GitspaceUuid,
        key: &str,
    ) -> Result<Self, LabelError> {
        let length = text.len();
        if u64::try_from(length).is_ok_and(|length| length > MAX_FILE) {
            return Err(LabelError::TooLong { length });
        }
        let record: Self = parse(text.as_bytes()).map_err(|cause| LabelError::Damaged { cause })?;
        let same = record.gitspace == gitspace
            && record
                .machine
                .as_ref()
                .is_some_and(|machine| machine.key == key);
        if !same {
            return Err(LabelError::Other);
        }
        if record.clone.is_none() || record.container.is_none() {
            return Err(LabelError::NotWhole);
        }
        Ok(record)
    }
}

impl Ledger {
    /// Takes a dev container, as its label describes it, for the one of its gitspace. What the ledger knows better stays.
    pub(crate) fn adopt(
        &self,
        label: Record,
        (id, name): (&str, &str),
        running: bool,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let gitspace = label.gitspace;
        let lack = match self.get(gitspace) {
            None => Lack::NoRecord,
            Some(_) => Lack::OlderRecord,
        };
        let key = label.machine.as_ref().map(|machine| machine.key.clone());
        self.update(gitspace, |record| {
            let newer = label.taken >= record.taken;
            record.format = FORMAT;
            record.generation = record.generation.max(label.generation);
            record.taken = record.taken.max(label.taken);
            if newer || record.spec.is_none() {
                record.spec = label.spec;
            }
            let owner = record.clone.take().and_then(|clone| clone.owner);
            record.clone = label.clone.map(|mut clone| {
                clone.owner = clone.owner.or(owner);
                clone
            });
            record.machine = label.machine.map(|mut machine| {
                machine.sandbox = false;
                machine
            });
            record.container = label.container.map(|mut container| {
                id.clone_into(container.id.get_or_insert_default());
                name.clone_into(&mut container.name);
                container.wanted_running = running;
                container
            });
        })?;
        // Rolled back to when it was ready for anybody: it is somebody's.
        if let Some(key) = key
            && self.spares().iter().any(|spare| spare.key == key)
        {
            self.remove_spare(&key)?;
        }
        tracing::error!(%gitspace, container = name, ?lack, "The ledger lacked a dev container, which is adopted by its labels");
        self.adopted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Adopted {
                gitspace,
                container: name.to_owned(),
                lack,
                at: now,
            });
        Ok(())
    }

    /// Since the start.
    pub(crate) fn adopted(&self) -> Vec<Adopted> {
        self.adopted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Gitspaces that were deleted not long ago, with the generation they ended with.
    pub(crate) fn deleted(&self) -> BTreeMap<GitspaceUuid, Generation> {
        self.lock()
            .deleted
            .values()
            .map(|one| (one.gitspace, one.generation))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        CloneRecord, ContainerRecord, Hook, MachineRecord, Spare,
        tests::{ready, temp},
    };
    use super::*;
    use daemon::IdsExt as _;
    use std::collections::{BTreeMap, BTreeSet};

    fn whole(gitspace: GitspaceUuid) -> Record {
        let mut record = Record::new(gitspace);
        record.taken = Generation(3);
        record.machine = Some(MachineRecord {
            key: "k1".to_owned(),
            sandbox: true,
        });
        record.clone = Some(CloneRecord {
            folder: "/workspaces/app".to_owned(),
            owner: None,
        });
        record.container = Some(ContainerRecord {
            name: "gitspaces-k1-app".to_owned(),
            id: None,
            agent: "hash".to_owned(),
            image: "image".to_owned(),
            remote_user: "developer".to_owned(),
            workspace_folder: "/workspaces/app".to_owned(),
            remote_env: BTreeMap::new(),
            forward_ports: vec![8000],
            on_create: None,
            post_create: None,
            post_start: None,
            done: BTreeSet::new(),
            post_started: None,
            wanted_running: true,
        });
        record
    }

    #[test]
    fn a_record_is_whole_again_from_its_label() {
        let (_guard, dir) = temp();
        let id = daemon::SequentialIds::default().typed();
        let label = whole(id).to_label().unwrap();
        let ledger = Ledger::open(&dir).unwrap();
        let record = Record::from_label(&label, id, "k1").unwrap();
        ledger
            .adopt(
                record,
                ("c1", "gitspaces-k1-app"),
                true,
                Timestamp::UNIX_EPOCH,
            )
            .unwrap();
        let adopted = Ledger::open(&dir).unwrap().get(id).unwrap();
        let container = adopted.container.unwrap();
        assert_eq!(container.id.as_deref(), Some("c1"));
        assert_eq!(container.forward_ports, [8000]);
        assert!(container.wanted_running);
        assert!(!adopted.machine.unwrap().sandbox);
        assert_eq!(adopted.taken, Generation(3));
        assert_eq!(ledger.adopted()[0].lack, Lack::NoRecord);
    }

    #[test]
    fn what_an_older_record_knows_better_stays_and_its_spare_is_struck() {
        let (_guard, dir) = temp();
        let id = daemon::SequentialIds::default().typed();
        let ledger = Ledger::open(&dir).unwrap();
        ledger.put_spare(&ready("k1")).unwrap();
        ledger.put_spare(&ready("k2")).unwrap();
        ledger
            .update(id, |record| record.taken = Generation(9))
            .unwrap();
        ledger
            .adopt(whole(id), ("c1", "n"), false, Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(ledger.taken(id), Generation(9));
        let spares: Vec<String> = ledger.spares().into_iter().map(|s: Spare| s.key).collect();
        assert_eq!(spares, ["k2"]);
        assert_eq!(ledger.adopted()[0].lack, Lack::OlderRecord);
    }

    #[test]
    fn a_label_cut_at_any_byte_or_of_another_gitspace_is_refused() {
        let ids = daemon::SequentialIds::default();
        let (id, other) = (ids.typed(), ids.typed());
        let mut record = whole(id);
        if let Some(container) = &mut record.container {
            container.done.insert(Hook::OnCreate);
        }
        let label = record.to_label().unwrap();
        for end in 0..label.len() {
            assert!(
                Record::from_label(label.get(..end).unwrap(), id, "k1").is_err(),
                "cut at {end}"
            );
        }
        assert!(Record::from_label(&label, other, "k1").is_err());
        assert!(Record::from_label(&label, id, "k2").is_err());
        assert!(Record::from_label(&label, id, "k1").is_ok());
    }
}
