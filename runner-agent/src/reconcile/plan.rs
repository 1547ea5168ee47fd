//! What to do about what is in Docker and what the ledger says. Pure.
//!
//! Everything is written into the ledger before it is made, so what is in Docker with our label and not in the ledger is left over. There
//! are two exceptions, because the ledger itself may have been deleted, damaged or put back from an older copy: a volume may hold work, so
//! it is told and kept; and a dev container that has run is adopted by its labels, or, where they cannot be read, told and kept.

use crate::{
    ledger::{Record, Spare},
    names::Names,
};
use std::collections::{BTreeMap, BTreeSet};
use wire::{gitspace::Generation, ids::GitspaceUuid};

/// What Docker holds of this deployment.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    pub(super) containers: Vec<Listed>,
    pub(super) networks: Vec<String>,
    pub(super) volumes: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) sandbox: bool,
    /// Whether anything in it has ever run, and it is not being removed.
    pub(super) started: bool,
    pub(super) running: bool,
    pub(super) gitspace: Option<GitspaceUuid>,
    /// From its label, where that is whole.
    pub(super) record: Option<Box<Record>>,
}

/// What the ledger says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// No entry was unreadable. Without that a network may be of a gitspace whose record is put aside, and stays.
    pub(super) whole: bool,
    pub(super) records: &'a [Record],
    pub(super) spares: &'a [Spare],
    pub(super) deleted: &'a BTreeMap<GitspaceUuid, Generation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Take a dev container into the ledger, which lost it.
    Adopt {
        id: String,
    },
    /// A dev container that has run, of which neither the ledger nor its labels say enough.
    KeepContainer {
        id: String,
        name: String,
    },
    RemoveContainer {
        id: String,
        key: String,
        sandbox: bool,
    },
    /// A sandbox whose machine nobody knows either: a spare that the ledger lost, unless something lies in its workspace. Whoever keeps
    /// the spares looks.
    AdoptSpare {
        key: String,
    },
    RemoveNetwork {
        name: String,
    },
    KeepVolume {
        name: String,
    },
}

pub(super) fn plan(names: &Names, known: Known<'_>, listing: &Listing) -> Vec<Step> {
    let mut containers = BTreeSet::new();
    let mut machines = BTreeSet::new();
    for record in known.records {
        if let Some(machine) = &record.machine {
            machines.insert(names.machine(&machine.key));
            if machine.sandbox {
                containers.insert(names.sandbox(&machine.key));
            }
        }
        if let Some(container) = &record.container {
            containers.insert(container.name.clone());
        }
    }
    for spare in known.spares {
        machines.insert(names.machine(&spare.key));
        containers.insert(names.sandbox(&spare.key));
    }
    let mut steps = Vec::new();
    for container in &listing.containers {
        let removal = || Step::RemoveContainer {
            id: container.id.clone(),
            key: container.key.clone(),
            sandbox: container.sandbox,
        };
        let named = containers.contains(&container.name);
        if container.sandbox {
            continue;
        }
        match fate(known, container, listing) {
            Fate::Known => {}
            Fate::LeftOver if named => {}
            Fate::LeftOver => steps.push(removal()),
            Fate::Adopted => {
                machines.insert(names.machine(&container.key));
                steps.push(Step::Adopt {
                    id: container.id.clone(),
                });
            }
            Fate::Kept => {
                machines.insert(names.machine(&container.key));
                steps.push(Step::KeepContainer {
                    id: container.id.clone(),
                    name: container.name.clone(),
                });
            }
        }
    }
    for sandbox in listing.containers.iter().filter(|one| one.sandbox) {
        let (id, key) = (sandbox.id.clone(), sandbox.key.clone());
        if containers.contains(&sandbox.name) {
            continue;
        }
        steps.push(if machines.insert(names.machine(&key)) {
            Step::AdoptSpare { key }
        } else {
            Step::RemoveContainer {
                id,
                key,
                sandbox: true,
            }
        });
    }
    let networks = listing
        .networks
        .iter()
        .filter(|network| known.whole && !machines.contains(*network))
        .map(|name| Step::RemoveNetwork { name: name.clone() });
    let volumes = listing
        .volumes
        .iter()
        .filter(|volume| !machines.contains(*volume))
        .map(|name| Step::KeepVolume { name: name.clone() });
    // Containers first: a network in use cannot go.
    steps.into_iter().chain(networks).chain(volumes).collect()
}

enum Fate {
    /// The ledger has it.
    Known,
    /// Made for nobody: nothing in it has run, or its gitspace was deleted.
    LeftOver,
    Adopted,
    Kept,
}

/// Of a dev container.
fn fate(known: Known<'_>, container: &Listed, listing: &Listing) -> Fate {
    let of_gitspace = |record: &&Record| Some(record.gitspace) == container.gitspace;
    let record = known.records.iter().find(of_gitspace);
    let in_ledger = record.and_then(|record| record.container.as_ref()?.id.as_ref());
    if in_ledger == Some(&container.id) {
        return Fate::Known;
    }
    // Removal is written down last, so a container that is not known and has run was lost from the ledger. One that has not run was
    // asked for by a runner that was killed then.
    if !container.started {
        return Fate::LeftOver;
    }
    if record.is_none()
        && container
            .gitspace
            .is_some_and(|gitspace| known.deleted.contains_key(&gitspace))
    {
        return Fate::LeftOver;
    }
    let both = in_ledger.is_some_and(|id| listing.containers.iter().any(|other| other.id == *id));
    if container.record.is_some() && !both {
        Fate::Adopted
    } else {
        Fate::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{ContainerRecord, MachineRecord};
    use camino::Utf8Path;
    use daemon::IdsExt as _;

    fn names() -> Names {
        Names::new("d", Utf8Path::new("/run"))
    }

    fn record(key: &str, sandbox: bool) -> Record {
        let mut record = Record::new(daemon::SequentialIds::default().typed());
        record.machine = Some(MachineRecord {
            key: key.to_owned(),
            sandbox,
        });
        record
    }

    /// With a dev container of this id.
    fn running(key: &str, id: Option<&str>) -> Record {
        let mut record = record(key, false);
        record.container = Some(ContainerRecord {
            name: format!("gitspaces-{key}-app"),
            id: id.map(str::to_owned),
            agent: String::new(),
            image: String::new(),
            remote_user: String::new(),
            workspace_folder: String::new(),
            remote_env: BTreeMap::new(),
            forward_ports: Vec::new(),
            on_create: None,
            post_create: None,
            post_start: None,
            done: BTreeSet::new(),
            post_started: None,
            wanted_running: true,
        });
        record
    }

    fn listing(keys: &[&str]) -> Listing {
        let names = names();
        Listing {
            containers: keys
                .iter()
                .map(|key| Listed {
                    id: format!("id-{key}"),
                    name: names.sandbox(key),
                    key: (*key).to_owned(),
                    sandbox: true,
                    started: true,
                    running: true,
                    gitspace: None,
                    record: None,
                })
                .collect(),
            networks: keys.iter().map(|key| names.machine(key)).collect(),
            volumes: keys.iter().map(|key| names.machine(key)).collect(),
        }
    }

    /// One dev container that runs, on the machine `a`.
    fn dev_container() -> Listing {
        let label = running("a", None);
        let mut listing = listing(&["a"]);
        for container in &mut listing.containers {
            container.name = "gitspaces-a-app".to_owned();
            container.sandbox = false;
            container.gitspace = Some(label.gitspace);
            container.record = Some(Box::new(label.clone()));
        }
        listing
    }

    fn planned(whole: bool, records: &[Record], spares: &[Spare], listing: &Listing) -> Vec<Step> {
        let known = Known {
            whole,
            records,
            spares,
            deleted: &BTreeMap::new(),
        };
        plan(&names(), known, listing)
    }

    fn adopt() -> Step {
        Step::Adopt {
            id: "id-a".to_owned(),
        }
    }

    #[test]
    fn what_is_wanted_stays() {
        let spare = Spare::new("b".to_owned(), String::new(), String::new());
        let steps = planned(true, &[record("a", true)], &[spare], &listing(&["a", "b"]));
        assert_eq!(steps, []);
        let steps = planned(true, &[running("a", Some("id-a"))], &[], &dev_container());
        assert_eq!(steps, []);
    }

    #[test]
    fn what_nobody_wants_goes_but_a_volume_is_kept_and_told() {
        let mut listing = listing(&["a"]);
        listing.containers.clear();
        let steps = planned(true, &[], &[], &listing);
        assert_eq!(
            steps,
            [
                Step::RemoveNetwork {
                    name: "gitspaces-a".to_owned()
                },
                Step::KeepVolume {
                    name: "gitspaces-a".to_owned()
                },
            ]
        );
    }

    #[test]
    fn a_sandbox_that_the_ledger_lost_is_a_spare_with_all_that_belongs_to_it() {
        let steps = planned(true, &[], &[], &listing(&["a"]));
        let key = "a".to_owned();
        assert_eq!(steps, [Step::AdoptSpare { key }]);
    }

    #[test]
    fn a_dev_container_that_the_ledger_lost_is_adopted_whole() {
        let listing = dev_container();
        for (records, what) in [
            (vec![], "the ledger is empty"),
            (vec![record("a", true)], "of before it was made"),
            (vec![running("a", None)], "of while it was made"),
            (vec![running("a", Some("old"))], "of before a reset"),
            (vec![running("b", Some("old"))], "of another machine"),
        ] {
            for whole in [true, false] {
                let steps = planned(whole, &records, &[], &listing);
                assert_eq!(steps, [adopt()], "{what}");
            }
        }
    }

    #[test]
    fn a_dev_container_that_cannot_be_adopted_stays_and_is_told() {
        let kept = Step::KeepContainer {
            id: "id-a".to_owned(),
            name: "gitspaces-a-app".to_owned(),
        };
        let mut unlabelled = dev_container();
        for container in &mut unlabelled.containers {
            container.record = None;
        }
        assert_eq!(
            planned(true, &[], &[], &unlabelled),
            std::slice::from_ref(&kept)
        );

        // Two of one gitspace: the ledger's is the one.
        let mut two = dev_container();
        let mut other = two.containers[0].clone();
        other.id = "old".to_owned();
        two.containers.push(other);
        let steps = planned(true, &[running("a", Some("old"))], &[], &two);
        assert_eq!(steps, [kept]);
    }

    #[test]
    fn a_dev_container_in_which_nothing_ran_or_that_was_deleted_is_left_over() {
        let removed = |steps: &[Step]| matches!(steps, [Step::RemoveContainer { id, sandbox: false, .. }, ..] if id == "id-a");
        let mut created = dev_container();
        for container in &mut created.containers {
            container.started = false;
        }
        let steps = planned(true, &[], &[], &created);
        assert!(removed(&steps), "{steps:?}");
        // Its task goes on with it.
        assert_eq!(planned(true, &[running("a", None)], &[], &created), []);

        let listing = dev_container();
        let deleted = [(running("a", None).gitspace, Generation(4))].into();
        let known = Known {
            whole: true,
            records: &[],
            spares: &[],
            deleted: &deleted,
        };
        let steps = plan(&names(), known, &listing);
        assert!(removed(&steps), "{steps:?}");
    }

    #[test]
    fn a_network_stays_while_an_entry_is_unreadable() {
        let steps = planned(false, &[], &[], &listing(&["a"]));
        assert!(
            !steps
                .iter()
                .any(|step| matches!(step, Step::RemoveNetwork { .. })),
            "{steps:?}"
        );
    }

    #[test]
    fn a_sandbox_that_has_done_its_work_goes_alone() {
        let steps = planned(true, &[record("a", false)], &[], &listing(&["a"]));
        assert!(
            matches!(&steps[..], [Step::RemoveContainer { id, .. }] if id == "id-a"),
            "{steps:?}"
        );
    }

    #[test]
    fn a_plan_that_was_carried_out_is_empty() {
        let wanted = [record("a", true)];
        let mut listing = listing(&["a", "b"]);
        let mut spares = Vec::new();
        for step in planned(true, &wanted, &[], &listing) {
            match step {
                Step::RemoveContainer { id, .. } => listing.containers.retain(|c| c.id != id),
                Step::RemoveNetwork { name } => listing.networks.retain(|n| *n != name),
                Step::AdoptSpare { key } => {
                    spares.push(Spare::new(key, String::new(), String::new()));
                }
                Step::KeepVolume { .. } | Step::KeepContainer { .. } | Step::Adopt { .. } => {}
            }
        }
        let again = planned(true, &wanted, &spares, &listing);
        assert!(
            again
                .iter()
                .all(|step| matches!(step, Step::KeepVolume { .. })),
            "{again:?}"
        );
    }
}
