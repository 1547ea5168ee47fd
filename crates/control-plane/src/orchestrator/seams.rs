//! What the orchestrator needs of others, and what others follow of it.

use super::rotation::StartRecord;
use jiff::Timestamp;
use std::{collections::BTreeMap, pin::Pin, time::Duration};
use store::GitspaceRecord;
use wire::{
    control::{Capacity, Hop},
    failure::Failure,
    gitspace::{Generation, GitspaceSpec, ObservedState},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid},
    task::Task,
};

/// Why a task was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignRefused {
    /// It has no accepted connection, or takes nothing because too much is waiting for it: it is handed over later.
    #[error("the delegate is not connected")]
    NotConnected,
    /// No runner would take it.
    #[error("the task has {length} bytes, more than {limit}")]
    TooLarge { length: usize, limit: usize },
}

/// The way to the delegates. The hub implements it over the links; it acknowledges events by itself, with what
/// [`said`](super::OrchestratorHandle::said) answers. No method waits: what cannot be sent is sorted out at the next hello.
pub trait TaskSink: Send + Sync + 'static {
    /// Hands the task over; `limit` is what is left until its deadline. Handing the same over again is harmless.
    ///
    /// # Errors
    /// See [`AssignRefused`].
    fn assign(
        &self,
        delegate: DelegateUuid,
        task: Task,
        limit: Duration,
    ) -> Result<(), AssignRefused>;
    fn cancel(&self, delegate: DelegateUuid, task: TaskUuid);
    fn is_connected(&self, delegate: DelegateUuid) -> bool;
    /// What the last probe of its connection found. Nothing before the first, and of a delegate that cannot be probed.
    fn probed(&self, delegate: DelegateUuid) -> Option<Probed>;
}

/// What a probe says of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    pub at: Timestamp,
    /// The part at which the way ends, where it does.
    pub broken_at: Option<Hop>,
}

/// Makes a task's specification of a record, with the owner's unsealed Git credentials.
pub trait SpecSource: Send + Sync + 'static {
    fn spec<'a>(
        &'a self,
        gitspace: &'a GitspaceRecord,
    ) -> Pin<Box<dyn Future<Output = Result<GitspaceSpec, Failure>> + Send + 'a>>;
}

/// Something changed: read it again. A follower that lagged reads everything again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The gitspace's record (deleted, too).
    Gitspace(GitspaceUuid),
    /// It has more timeline events.
    Timeline(GitspaceUuid),
    /// It has more log entries.
    Log(GitspaceUuid),
    Delegate(DelegateUuid),
}

/// What is known of a delegate while the process runs.
#[derive(Clone, Debug, PartialEq)]
pub struct DelegateView {
    pub id: DelegateUuid,
    pub name: String,
    pub tags: Vec<String>,
    pub revoked: bool,
    pub connected: bool,
    /// Since when it is (not) connected.
    pub since: Timestamp,
    pub draining: bool,
    pub runner_ready: bool,
    /// How its last starts went.
    pub starts: StartRecord,
    /// What its operator gives to gitspaces; `None` before its first hello.
    pub capacity: Option<Capacity>,
    /// What its host holds of gitspaces that no record accounts for, as it told last.
    pub unaccounted: BTreeMap<GitspaceUuid, Unaccounted>,
}

/// What a host holds of a gitspace that no record accounts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unaccounted {
    pub state: ObservedState,
    /// Since when the runner sees it so.
    pub since: Timestamp,
    pub generation: Generation,
    /// Its removal is under way.
    pub removing: bool,
}

impl DelegateView {
    /// Whether it takes any task.
    #[must_use]
    pub const fn takes_tasks(&self) -> bool {
        self.connected && self.runner_ready && !self.revoked
    }

    /// Whether all selectors are its name or one of its tags.
    #[must_use]
    pub fn matches(&self, selectors: &[String]) -> bool {
        selectors
            .iter()
            .all(|wanted| *wanted == self.name || self.tags.contains(wanted))
    }
}
