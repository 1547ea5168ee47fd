//! The board: what was last observed of each gitspace, for everybody who wants to know.
//!
//! Invariants: a revision is given once and only grows, also across restarts (a block of numbers is reserved on the disk before the
//! first of them is used, and the clock stands in where that file is lost); a watcher sees the latest of each gitspace, and may miss what was replaced before it looked.

use camino::{Utf8Path, Utf8PathBuf};
use daemon::Clock;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use wire::{
    failure::Failure,
    gitspace::{DevContainer, Generation, Observed, ObservedState},
    ids::{GitspaceUuid, TaskUuid},
};

/// Revisions reserved at a time.
const BLOCK: u64 = 1 << 20;
/// Deleted gitspaces that are still told as absent.
const MAX_ABSENT: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BoardError {
    #[error("cannot read the revision counter `{path}`: {cause}")]
    Read { path: Utf8PathBuf, cause: String },
    #[error("cannot write the revision counter")]
    Write {
        #[source]
        source: daemon::WriteError,
    },
}

/// What was seen, before it has a revision.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) gitspace: GitspaceUuid,
    pub(crate) state: ObservedState,
    pub(crate) generation: Generation,
    pub(crate) failure: Option<Failure>,
    pub(crate) task: Option<TaskUuid>,
    pub(crate) dev_container: Option<DevContainer>,
}

#[derive(Debug)]
struct State {
    observed: BTreeMap<GitspaceUuid, Observed>,
    absent: VecDeque<GitspaceUuid>,
    next: u64,
    reserved: u64,
}

#[derive(Debug)]
pub(crate) struct Board {
    path: Utf8PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Board {
    pub(crate) fn open(state_dir: &Utf8Path, clock: Arc<dyn Clock>) -> Result<Self, BoardError> {
        let path = state_dir.join("revision");
        let read = |cause: String| BoardError::Read {
            path: path.clone(),
            cause,
        };
        let counted: u64 = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().unwrap_or_else(|_| {
                tracing::error!(file = %path, text, "The revision counter is damaged; the clock is taken instead");
                0
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(read(error.to_string())),
        };
        // A counter that was lost, or put back from an older copy, is behind the clock: nobody makes a million of them in a second.
        let clock_floor = u64::try_from(clock.now().as_microsecond()).unwrap_or(0);
        let used = counted.max(clock_floor);
        // Not on a full disk: the next start has the clock as its floor, and what is published meanwhile tries again.
        let reserved = reserve(&path, used).unwrap_or_else(|error| {
            tracing::error!(error = %daemon::ErrorChain(&error), "Cannot reserve revisions");
            used
        });
        Ok(Self {
            path,
            clock,
            state: Mutex::new(State {
                observed: BTreeMap::new(),
                absent: VecDeque::new(),
                next: used + 1,
                reserved,
            }),
            changed: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what was seen; the same again is not a change.
    pub(crate) fn publish(&self, sighting: Sighting) -> Observed {
        let mut state = self.lock();
        if let Some(last) = state.observed.get(&sighting.gitspace)
            && last.state == sighting.state
            && last.generation == sighting.generation
            && last.failure == sighting.failure
            && last.task == sighting.task
            && last.dev_container == sighting.dev_container
        {
            return last.clone();
        }
        if state.next > state.reserved {
            match reserve(&self.path, state.reserved) {
                Ok(reserved) => state.reserved = reserved,
                Err(error) => {
                    tracing::error!(error = %daemon::ErrorChain(&error), "Cannot reserve revisions");
                }
            }
        }
        let observed = Observed {
            gitspace: sighting.gitspace,
            state: sighting.state,
            generation: sighting.generation,
            revision: state.next,
            at: self.clock.now(),
            failure: sighting.failure,
            task: sighting.task,
            dev_container: sighting.dev_container,
        };
        state.next += 1;
        state.observed.insert(sighting.gitspace, observed.clone());
        drop(state);
        self.changed.send_replace(observed.revision);
        observed
    }

    /// A deleted gitspace is told as absent for a while, and then forgotten.
    pub(crate) fn retire(&self, gitspace: GitspaceUuid) {
        let mut state = self.lock();
        state.absent.push_back(gitspace);
        if state.absent.len() > MAX_ABSENT
            && let Some(oldest) = state.absent.pop_front()
            && state
                .observed
                .get(&oldest)
                .is_some_and(|observed| observed.state == ObservedState::Absent)
        {
            state.observed.remove(&oldest);
        }
    }

    pub(crate) fn get(&self, gitspace: GitspaceUuid) -> Option<Observed> {
        self.lock().observed.get(&gitspace).cloned()
    }

    /// Everything, oldest change first.
    pub(crate) fn after(&self, revision: u64) -> Vec<Observed> {
        let mut found: Vec<Observed> = self
            .lock()
            .observed
            .values()
            .filter(|observed| observed.revision > revision)
            .cloned()
            .collect();
        found.sort_by_key(|observed| observed.revision);
        found
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn reserve(path: &Utf8Path, used: u64) -> Result<u64, BoardError> {
    let reserved = used.saturating_add(BLOCK);
    daemon::write_atomic(path, format!("{reserved}\n").as_bytes(), 0o600)
        .map_err(|source| BoardError::Write { source })?;
    Ok(reserved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::{IdsExt as _, ManualClock, SequentialIds};

    fn sighting(gitspace: GitspaceUuid, state: ObservedState) -> Sighting {
        Sighting {
            gitspace,
            state,
            generation: Generation(1),
            failure: None,
            task: None,
            dev_container: None,
        }
    }

    #[test]
    fn a_revision_is_higher_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let id = SequentialIds::default().typed();
        let open = || Board::open(path, Arc::new(ManualClock::default())).unwrap();
        let first = open().publish(sighting(id, ObservedState::Running));
        let second = open().publish(sighting(id, ObservedState::Stopped));
        assert!(second.revision > first.revision);
    }

    #[test]
    fn a_revision_is_higher_after_its_counter_was_lost_rolled_back_or_cut_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let id = SequentialIds::default().typed();
        let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let open = |seconds| {
            let at = start + std::time::Duration::from_secs(seconds);
            Board::open(path, Arc::new(ManualClock::new(at))).unwrap()
        };
        let file = path.join("revision");
        let mut last = open(0)
            .publish(sighting(id, ObservedState::Running))
            .revision;
        let old = std::fs::read(&file).unwrap();
        let cuts: Vec<Option<&[u8]>> = (0..=old.len()).map(|end| old.get(..end)).collect();
        for (second, damage) in (2..).step_by(2).zip([None].into_iter().chain(cuts)) {
            match damage {
                None => std::fs::remove_file(&file).unwrap(),
                Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            }
            let next = open(second)
                .publish(sighting(id, ObservedState::Running))
                .revision;
            assert!(next > last, "{damage:?}: {next} after {last}");
            last = next;
        }
    }

    #[test]
    fn the_same_sighting_twice_is_one_revision() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let board = Board::open(path, Arc::new(ManualClock::default())).unwrap();
        let id = SequentialIds::default().typed();
        let first = board.publish(sighting(id, ObservedState::Running));
        let again = board.publish(sighting(id, ObservedState::Running));
        assert_eq!(first, again);
        assert_eq!(board.after(0).len(), 1);
        assert!(board.after(first.revision).is_empty());
    }
}
