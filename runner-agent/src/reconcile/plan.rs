//! What to do about what is in Docker and what the ledger says. Pure.
//!
//! Everything is written into the ledger before it is made, so what is in Docker with our label and not in the ledger is left over. A
//! volume is the exception: it may hold work whose ledger entry was damaged, so it is told and kept.

use crate::{
    ledger::{Record, Spare},
    names::Names,
};
use std::collections::BTreeSet;
use wire::ids::GitspaceUuid;

/// What Docker holds of this deployment.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    pub(super) containers: Vec<Listed>,
    pub(super) networks: Vec<String>,
    pub(super) volumes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) sandbox: bool,
    pub(super) gitspace: Option<GitspaceUuid>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    RemoveContainer {
        id: String,
        key: String,
        sandbox: bool,
    },
    RemoveNetwork {
        name: String,
    },
    KeepVolume {
        name: String,
    },
}

/// `ledger_whole`: no entry of the ledger was unreadable. Without that an unknown dev container may be a user's, and stays.
pub(super) fn plan(
    names: &Names,
    ledger_whole: bool,
    records: &[Record],
    spares: &[Spare],
    listing: &Listing,
) -> Vec<Step> {
    // A state folder that is empty or mounted wrongly reads like a ledger in which nothing is wanted.
    let lost = records.is_empty()
        && listing
            .containers
            .iter()
            .any(|container| !container.sandbox);
    let sure = ledger_whole && !lost;
    let mut containers = BTreeSet::new();
    let mut machines = BTreeSet::new();
    for record in records {
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
    for spare in spares {
        machines.insert(names.machine(&spare.key));
        containers.insert(names.sandbox(&spare.key));
    }
    let unwanted = listing
        .containers
        .iter()
        .filter(|container| !containers.contains(&container.name))
        .filter(|container| sure || container.sandbox)
        .map(|container| Step::RemoveContainer {
            id: container.id.clone(),
            key: container.key.clone(),
            sandbox: container.sandbox,
        });
    let networks = listing
        .networks
        .iter()
        .filter(|network| sure && !machines.contains(*network))
        .map(|name| Step::RemoveNetwork { name: name.clone() });
    let volumes = listing
        .volumes
        .iter()
        .filter(|volume| !machines.contains(*volume))
        .map(|name| Step::KeepVolume { name: name.clone() });
    // Containers first: a network in use cannot go.
    unwanted.chain(networks).chain(volumes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::MachineRecord;
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
                    gitspace: None,
                })
                .collect(),
            networks: keys.iter().map(|key| names.machine(key)).collect(),
            volumes: keys.iter().map(|key| names.machine(key)).collect(),
        }
    }

    #[test]
    fn what_is_wanted_stays() {
        let spare = Spare::new("b".to_owned(), String::new(), String::new());
        let steps = plan(
            &names(),
            true,
            &[record("a", true)],
            &[spare],
            &listing(&["a", "b"]),
        );
        assert_eq!(steps, []);
    }

    #[test]
    fn what_nobody_wants_goes_but_a_volume_is_kept_and_told() {
        let steps = plan(&names(), true, &[], &[], &listing(&["a"]));
        assert_eq!(
            steps,
            [
                Step::RemoveContainer {
                    id: "id-a".to_owned(),
                    key: "a".to_owned(),
                    sandbox: true
                },
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
    fn a_dev_container_stays_where_the_ledger_cannot_be_trusted() {
        let mut unknown = listing(&["a", "b"]);
        unknown.containers.retain(|container| container.key == "a");
        for container in &mut unknown.containers {
            container.sandbox = false;
        }
        let removals = |whole, records: &[Record]| {
            plan(&names(), whole, records, &[], &unknown)
                .into_iter()
                .filter(|step| !matches!(step, Step::KeepVolume { .. }))
                .count()
        };
        assert_eq!(
            removals(false, &[record("b", false)]),
            0,
            "an entry was unreadable"
        );
        assert_eq!(removals(true, &[]), 0, "the ledger is empty");
        assert_eq!(
            removals(true, &[record("b", false)]),
            2,
            "container and network"
        );
    }

    #[test]
    fn a_sandbox_that_has_done_its_work_goes_alone() {
        let steps = plan(&names(), true, &[record("a", false)], &[], &listing(&["a"]));
        assert!(
            matches!(&steps[..], [Step::RemoveContainer { id, .. }] if id == "id-a"),
            "{steps:?}"
        );
    }

    #[test]
    fn a_plan_that_was_carried_out_is_empty() {
        let wanted = [record("a", true)];
        let mut listing = listing(&["a", "b"]);
        for step in plan(&names(), true, &wanted, &[], &listing) {
            match step {
                Step::RemoveContainer { id, .. } => listing.containers.retain(|c| c.id != id),
                Step::RemoveNetwork { name } => listing.networks.retain(|n| *n != name),
                Step::KeepVolume { .. } => {}
            }
        }
        let again = plan(&names(), true, &wanted, &[], &listing);
        assert!(
            again
                .iter()
                .all(|step| matches!(step, Step::KeepVolume { .. })),
            "{again:?}"
        );
    }
}
