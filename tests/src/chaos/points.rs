//! The fail points, and who is killed at them.

use super::seed::Seed;
use crate::deployment::Daemon;
use anyhow::{Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeSet;

/// Reached by what is done to gitspaces.
pub(super) const ALL: &[&str] = &[
    "control-plane.commit.after",
    "control-plane.commit.before",
    "control-plane.hand-over.after",
    "control-plane.hand-over.before",
    "delegate.forget.after",
    "delegate.forget.before",
    "delegate.put-task.after",
    "delegate.put-task.before",
    "runner.docker.create-container.after",
    "runner.docker.create-container.before",
    "runner.docker.create-network.after",
    "runner.docker.create-network.before",
    "runner.docker.create-volume.after",
    "runner.docker.create-volume.before",
    "runner.docker.remove-container.after",
    "runner.docker.remove-container.before",
    "runner.docker.remove-network.after",
    "runner.docker.remove-network.before",
    "runner.docker.remove-volume.after",
    "runner.docker.remove-volume.before",
    "runner.docker.start-container.after",
    "runner.docker.start-container.before",
    "runner.docker.stop-container.after",
    "runner.docker.stop-container.before",
    "runner.hook.after",
    "runner.hook.before",
    "runner.journal.append.after",
    "runner.journal.append.before",
    "runner.journal.create.after",
    "runner.journal.create.before",
    "runner.journal.finish.after",
    "runner.journal.finish.before",
    "runner.journal.remove.after",
    "runner.journal.remove.before",
    "runner.ledger.remove.after",
    "runner.ledger.remove.before",
    "runner.ledger.write.after",
    "runner.ledger.write.before",
];

/// As many of [`ALL`], chosen by the seed.
pub(super) fn some(seed: &mut Seed, wanted: usize) -> Vec<&'static str> {
    let mut some = ALL.to_vec();
    seed.shuffle(&mut some);
    some.truncate(wanted);
    some
}

/// Reached once in a delegate's life.
pub(super) const ENROLMENT: &[&str] = &["delegate.identity.before", "delegate.identity.after"];

/// Reached by a rotation of the delegate's key, as are those of [`ENROLMENT`].
pub(super) const ROTATION: &[&str] = &[
    "control-plane.propose-key.after",
    "control-plane.propose-key.before",
    "control-plane.use-key.after",
    "control-plane.use-key.before",
    "delegate.forget-next-key.after",
    "delegate.forget-next-key.before",
    "delegate.next-key.after",
    "delegate.next-key.before",
];

/// What is written down there, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Runner,
    ControlPlane,
    Delegate,
}

impl State {
    pub(super) const ALL: [Self; 3] = [Self::Runner, Self::ControlPlane, Self::Delegate];

    /// That the point is in the way to.
    pub(super) fn of(point: &str) -> Self {
        match point.split_once('.') {
            Some(("runner", _)) => Self::Runner,
            Some(("control-plane", _)) => Self::ControlPlane,
            _ => Self::Delegate,
        }
    }

    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::ControlPlane => "control-plane",
            Self::Delegate => "delegate",
        }
    }

    pub(super) const fn daemon(self) -> Daemon {
        match self {
            Self::Runner => Daemon::Runner,
            // The control plane is embedded in it.
            Self::ControlPlane | Self::Delegate => Daemon::Delegate,
        }
    }
}

pub(super) fn victim(point: &str) -> Daemon {
    State::of(point).daemon()
}

/// A point that nobody is killed at is not tested, and one that is not there never kills.
pub(super) fn check_against_sources() -> Result<()> {
    let root = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    for folder in ["runner-agent/src", "delegate-agent/src", "crates"] {
        read(&root.join(folder), &mut found)?;
    }
    let listed: BTreeSet<String> = ALL
        .iter()
        .chain(ENROLMENT)
        .chain(ROTATION)
        .map(|&point| point.to_owned())
        .collect();
    ensure!(
        found == listed,
        "in the sources alone: {:?}; in the list alone: {:?}",
        found.difference(&listed),
        listed.difference(&found)
    );
    Ok(())
}

fn read(folder: &Utf8Path, found: &mut BTreeSet<String>) -> Result<()> {
    let mut paths: Vec<Utf8PathBuf> = Vec::new();
    for entry in folder.read_dir_utf8()? {
        paths.push(entry?.into_path());
    }
    for path in paths {
        if path.is_dir() {
            read(&path, found)?;
        } else if path.extension() == Some("rs") {
            let text = std::fs::read_to_string(&path)?;
            let named = |text: &str| text.split_once('"').map(|(name, _)| name.to_owned());
            found.extend(text.split("fail_point(\"").skip(1).filter_map(named));
            for call in text.split("changing!(").skip(1) {
                let name = call.trim_start().strip_prefix('"').and_then(named);
                for side in ["before", "after"] {
                    found.extend(
                        name.iter()
                            .map(|name| format!("runner.docker.{name}.{side}")),
                    );
                }
            }
        }
    }
    Ok(())
}
