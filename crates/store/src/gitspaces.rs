//! Gitspaces with their tasks, timeline and logs.
//!
//! All that changes of one gitspace in one step is one [`GitspaceCommit`], written whole or not at all: the timeline never tells of a state that
//! is not stored, and an event acknowledged to a delegate is stored with all its consequences. Many are written in one transaction, because what a
//! transaction costs is the wait for the disk.

use crate::{Answer, PageRequest, StoreError};
use jiff::Timestamp;
use wire::{
    api::{LogEntry, TimelineEvent, TimelineKind},
    failure::Failure,
    gitspace::{DesiredState, Generation, GitspaceState, Observed, RepoSpec, Resources},
    ids::{DelegateUuid, GitspaceUuid, InfraProviderUuid, TaskUuid, TraceUuid, UserUuid},
    task::{LogStream, Phase, TaskKind},
    text::{GitspaceName, Slug},
};

/// Log entries kept per gitspace; the oldest are dropped.
pub const MAX_LOG_ENTRIES: u32 = 20_000;
/// Timeline events kept per gitspace; the oldest are dropped.
pub const MAX_TIMELINE_EVENTS: u32 = 5_000;

/// A machine as it was when the gitspace was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSnapshot {
    pub name: String,
    pub resources: Resources,
    pub infra_provider: InfraProviderUuid,
}

/// A gitspace: what is desired, what was observed, and what the orchestrator is at.
#[derive(Clone, Debug, PartialEq)]
pub struct GitspaceRecord {
    // Fixed at creation.
    pub id: GitspaceUuid,
    pub owner: UserUuid,
    /// Read only: it is the user's.
    pub owner_name: String,
    /// Unique among the owner's that are not deleted.
    pub name: GitspaceName,
    /// Unique for ever.
    pub slug: Slug,
    pub repo: RepoSpec,
    pub machine: MachineSnapshot,
    pub created: Timestamp,

    // Changed by commits.
    /// Counts commits; a commit of an older one is refused.
    pub version: u64,
    pub desired: DesiredState,
    pub generation: Generation,
    /// Of the user's last action.
    pub trace: TraceUuid,
    pub observed: Option<Observed>,
    /// The delegate whose host holds it, once chosen.
    pub delegate: Option<DelegateUuid>,
    /// The task that is not finished.
    pub task: Option<TaskUuid>,
    /// What that task is at.
    pub phase: Option<Phase>,
    /// Failed attempts of this generation.
    pub attempts: u32,
    /// Not before this is the next attempt made.
    pub retry_at: Option<Timestamp>,
    /// When its container ended by itself, the latest ones.
    pub exits: Vec<Timestamp>,
    /// Why it rests in state `error`.
    pub error: Option<Failure>,
    /// What it waits for without being in `error` (capacity, a delegate, the next attempt).
    pub waiting: Option<Failure>,
    pub updated: Timestamp,
    pub deleted: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Stored, and not handed to a connected delegate.
    Queued,
    /// Handed to the delegate's link at least once.
    Assigned,
    /// No longer wanted: its end is awaited.
    Cancelling,
    /// Its last event is stored, or nobody will ever tell.
    Finished,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    pub id: TaskUuid,
    pub gitspace: GitspaceUuid,
    pub delegate: DelegateUuid,
    pub kind: TaskKind,
    pub generation: Generation,
    pub attempt: u32,
    pub deadline: Timestamp,
    pub trace: TraceUuid,
    pub state: TaskState,
    /// All its events up to this are stored.
    pub stored_seq: u64,
    pub created: Timestamp,
    pub finished: Option<Timestamp>,
}

/// A timeline event before it has its id.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTimelineEvent {
    pub at: Timestamp,
    pub kind: TimelineKind,
    pub message: String,
    pub phase: Option<Phase>,
    pub duration_ms: Option<u64>,
    pub failure: Option<Failure>,
    pub generation: Generation,
    pub task: Option<TaskUuid>,
    pub trace: TraceUuid,
    pub state: GitspaceState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLogEntry {
    pub at: Timestamp,
    pub phase: Phase,
    pub stream: LogStream,
    pub text: String,
}

/// What is written together.
#[derive(Clone, Debug)]
pub struct GitspaceCommit {
    /// The gitspace is made by this; else it is one that was read.
    pub made: bool,
    /// The whole record; `version` is the one that was read, and one more from then on. Its fixed fields are not written again.
    pub gitspace: GitspaceRecord,
    /// Tasks made or changed.
    pub tasks: Vec<TaskRecord>,
    pub timeline: Vec<NewTimelineEvent>,
    pub log: Vec<NewLogEntry>,
}

/// An operator's order to remove what a delegate's host holds of a gitspace that has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovalRecord {
    pub gitspace: GitspaceUuid,
    pub delegate: DelegateUuid,
    /// Who ordered it.
    pub user: UserUuid,
    pub created: Timestamp,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct GitspaceFilter {
    /// `None`: everybody's.
    pub owner: Option<UserUuid>,
}

pub trait GitspaceStore {
    /// Writes all of them in one transaction, in their order, each whole or not at all. The answers are in the same order: `Conflict` where the record
    /// changed since it was read, or, of one that is made, where the owner has a live gitspace of that name or the slug is taken. Where the call
    /// itself fails, nothing is written.
    fn commit<'a>(
        &'a self,
        commits: &'a [GitspaceCommit],
    ) -> Answer<'a, Vec<Result<(), StoreError>>>;

    /// Deleted ones too: their rows are kept for good, because a host may tell of what was deleted at any later time.
    fn gitspace(&self, id: GitspaceUuid) -> Answer<'_, Option<GitspaceRecord>>;
    /// Live ones only.
    fn gitspace_by_slug<'a>(&'a self, slug: &'a Slug) -> Answer<'a, Option<GitspaceRecord>>;
    /// Live ones only.
    fn gitspace_by_name<'a>(
        &'a self,
        owner: UserUuid,
        name: &'a GitspaceName,
    ) -> Answer<'a, Option<GitspaceRecord>>;
    /// Live ones, oldest first.
    fn gitspaces(
        &self,
        filter: GitspaceFilter,
        page: PageRequest,
    ) -> Answer<'_, Vec<GitspaceRecord>>;
    /// All live ones.
    fn live_gitspaces(&self) -> Answer<'_, Vec<GitspaceRecord>>;

    /// Once ordered, it stays so: the first order is the one that is kept.
    fn order_removal<'a>(&'a self, order: &'a RemovalRecord) -> Answer<'a, ()>;
    fn removal(
        &self,
        delegate: DelegateUuid,
        gitspace: GitspaceUuid,
    ) -> Answer<'_, Option<RemovalRecord>>;

    fn task(&self, id: TaskUuid) -> Answer<'_, Option<TaskRecord>>;
    /// All that are not finished.
    fn open_tasks(&self) -> Answer<'_, Vec<TaskRecord>>;

    /// Those with an id above `after`, oldest first.
    fn timeline(
        &self,
        gitspace: GitspaceUuid,
        after: u64,
        limit: u32,
    ) -> Answer<'_, Vec<TimelineEvent>>;
    /// Those with an id above `after`, oldest first.
    fn log(&self, gitspace: GitspaceUuid, after: u64, limit: u32) -> Answer<'_, Vec<LogEntry>>;
}
