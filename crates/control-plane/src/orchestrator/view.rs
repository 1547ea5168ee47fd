//! The state a user sees, derived from what is desired and what was observed.
//!
//! ```text
//! uninitialized -> starting -> running -> stopping -> stopped -> starting ..
//! any          -> resetting -> uninitialized      any -> deleting -> deleted
//! starting, stopping, resetting, deleting -> error -> what the user chooses
//! ```

use store::GitspaceRecord;
use wire::{
    api::GitspaceAction,
    gitspace::{DesiredState, GitspaceState, ObservedState},
};

/// Whether the gitspace is where it is desired to be, as far as was observed.
#[must_use]
pub(super) fn is_settled(record: &GitspaceRecord) -> bool {
    let observed = record.observed.as_ref();
    let state = observed.map_or(ObservedState::Absent, |observed| observed.state);
    match record.desired {
        // A running container of an older generation has to be looked at: the start before may have failed half-way.
        DesiredState::Running => {
            state == ObservedState::Running
                && observed.is_some_and(|observed| observed.generation >= record.generation)
        }
        DesiredState::Stopped => state != ObservedState::Running,
        DesiredState::Uninitialized => {
            matches!(state, ObservedState::Absent | ObservedState::Provisioned)
        }
        DesiredState::Deleted => record.deleted.is_some(),
    }
}

#[must_use]
pub fn visible_state(record: &GitspaceRecord) -> GitspaceState {
    if record.deleted.is_some() {
        return GitspaceState::Deleted;
    }
    if record.error.is_some() && record.task.is_none() {
        return GitspaceState::Error;
    }
    let settled = is_settled(record) && record.task.is_none();
    let observed = record
        .observed
        .as_ref()
        .map_or(ObservedState::Absent, |observed| observed.state);
    match (record.desired, settled) {
        (DesiredState::Running, true) => GitspaceState::Running,
        (DesiredState::Running, false) => GitspaceState::Starting,
        (DesiredState::Stopped, true) => match observed {
            ObservedState::Stopped | ObservedState::Running => GitspaceState::Stopped,
            ObservedState::Absent | ObservedState::Provisioned => GitspaceState::Uninitialized,
        },
        (DesiredState::Stopped, false) => GitspaceState::Stopping,
        (DesiredState::Uninitialized, true) => GitspaceState::Uninitialized,
        (DesiredState::Uninitialized, false) => GitspaceState::Resetting,
        (DesiredState::Deleted, _) => GitspaceState::Deleting,
    }
}

/// What a user may do from here. Cancel and delete are taken in every state but `deleted`; cancel is listed where it does something.
#[must_use]
pub fn actions(record: &GitspaceRecord) -> Vec<GitspaceAction> {
    use GitspaceAction::{Cancel, Delete, Reset, Start, Stop};
    match visible_state(record) {
        GitspaceState::Uninitialized => vec![Start, Delete],
        GitspaceState::Starting | GitspaceState::Stopping | GitspaceState::Resetting => {
            vec![Cancel, Delete]
        }
        GitspaceState::Running => vec![Stop, Reset, Delete],
        GitspaceState::Stopped => vec![Start, Reset, Delete],
        GitspaceState::Deleting => vec![Delete],
        GitspaceState::Deleted => Vec::new(),
        // A delete that failed half-way can only be finished.
        GitspaceState::Error if record.desired == DesiredState::Deleted => vec![Delete],
        GitspaceState::Error => vec![Start, Stop, Reset, Delete],
    }
}

/// Whether its dev container can be entered, also in state `error`, to mend it.
#[must_use]
pub fn is_reachable(record: &GitspaceRecord, delegate_connected: bool) -> bool {
    delegate_connected
        && record.deleted.is_none()
        && record
            .observed
            .as_ref()
            .is_some_and(|observed| observed.state == ObservedState::Running)
}
