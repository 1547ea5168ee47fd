//! How everybody else speaks to the orchestrator.

use super::{
    request::{Reply, Request},
    seams::{Change, DelegateView},
};
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{GitspaceRecord, MachineSnapshot, StoreError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use wire::{
    api::GitspaceAction,
    control::{Disconnect, Down, Hello, TaskVerdict, Up},
    gitspace::{GitspaceState, RepoSpec},
    ids::{DelegateUuid, GitspaceUuid, TaskUuid, TraceUuid, UserUuid},
    task::Phase,
    text::{GitspaceName, Slug},
};

/// Requests that wait while one is carried out. When it is full, senders wait: delegates then read more slowly.
pub(super) const MAX_REQUESTS: usize = 256;
/// Changes a follower may lag behind before it has to read everything again.
pub(super) const MAX_CHANGES: usize = 4096;

/// Limits and delays. The defaults are those of production.
#[derive(Clone, Copy, Debug)]
pub struct OrchestratorConfig {
    pub start_limit: Duration,
    pub stop_limit: Duration,
    pub delete_limit: Duration,
    /// How long after its deadline a task's own end is awaited before it is cancelled from here.
    pub deadline_grace: Duration,
    /// How long the end of a cancelled task is awaited.
    pub cancel_limit: Duration,
    /// Failed attempts of one action before it is an error.
    pub max_attempts: u32,
    /// Before the second attempt; four times as long before each further one.
    pub first_retry: Duration,
    pub longest_retry: Duration,
    /// Restarts of a container that ends by itself, within `exit_window`.
    pub max_restarts: u32,
    pub exit_window: Duration,
    /// How long a delegate may be away before its gitspaces' timelines say so.
    pub away_grace: Duration,
}

impl Default for OrchestratorConfig {
    fn default() -> Self {
        Self {
            start_limit: Duration::from_mins(30),
            stop_limit: Duration::from_mins(2),
            delete_limit: Duration::from_mins(10),
            deadline_grace: Duration::from_secs(15),
            cancel_limit: Duration::from_mins(1),
            max_attempts: 5,
            first_retry: Duration::from_secs(2),
            longest_retry: Duration::from_mins(1),
            max_restarts: 3,
            exit_window: Duration::from_mins(10),
            away_grace: Duration::from_secs(15),
        }
    }
}

/// The orchestrator could not do it.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    #[error("the control plane is stopping")]
    Stopping,
    #[error("the control plane cannot store it")]
    Store {
        #[source]
        source: StoreError,
    },
    /// An event came before one that is not stored: it has to be sent again, in order.
    #[error("event {seq} of task {task} came when {stored} was the last one stored")]
    Gap {
        task: TaskUuid,
        seq: u64,
        stored: u64,
    },
    #[error("no such delegate")]
    UnknownDelegate,
}

/// Why an action was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ActionDenied {
    #[error("no such gitspace")]
    NotFound,
    #[error("the gitspace is {state} since {since}")]
    Busy {
        state: GitspaceState,
        phase: Option<Phase>,
        since: Timestamp,
    },
    #[error("the gitspace is being deleted; only delete is taken")]
    Deleting,
    #[error(transparent)]
    Orchestrator(#[from] OrchestratorError),
}

/// Why a gitspace was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateDenied {
    /// The name or the slug is taken.
    #[error("the {what} is taken")]
    Conflict { what: &'static str },
    #[error(transparent)]
    Orchestrator(#[from] OrchestratorError),
}

/// Why a removal was not ordered.
#[derive(Debug, thiserror::Error)]
pub enum RemovalDenied {
    #[error("the delegate is not known to hold such a gitspace")]
    NotFound,
    /// It is removed by deleting it.
    #[error("the gitspace has a record")]
    Known,
    #[error(transparent)]
    Orchestrator(#[from] OrchestratorError),
}

/// What became of what a delegate said.
#[derive(Debug)]
pub struct Heard {
    /// For each body that was taken, in order: what the delegate is told of it.
    pub answers: Vec<Option<Down>>,
    /// Why the one after these was not taken. What came behind it was not looked at.
    pub refused: Option<OrchestratorError>,
}

/// A gitspace to be made.
#[derive(Clone, Debug)]
pub struct NewGitspace {
    pub id: GitspaceUuid,
    pub owner: UserUuid,
    pub owner_name: String,
    pub name: GitspaceName,
    pub slug: Slug,
    pub repo: RepoSpec,
    pub machine: MachineSnapshot,
    pub start: bool,
    pub trace: TraceUuid,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct OrchestratorHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) changes: broadcast::Sender<Change>,
    pub(super) delegates: watch::Receiver<Arc<BTreeMap<DelegateUuid, Arc<DelegateView>>>>,
}

impl OrchestratorHandle {
    async fn ask<T, E: From<OrchestratorError>>(
        &self,
        request: impl FnOnce(Reply<T, E>) -> Request,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(request(reply)).await.is_err() {
            return Err(OrchestratorError::Stopping.into());
        }
        answer
            .await
            .unwrap_or_else(|_| Err(OrchestratorError::Stopping.into()))
    }

    /// Makes a gitspace, and starts it where it says so.
    ///
    /// # Errors
    /// Its name is taken, or it cannot be stored.
    pub async fn create(&self, gitspace: NewGitspace) -> Result<GitspaceRecord, CreateDenied> {
        self.ask(|reply| Request::Create {
            gitspace: Box::new(gitspace),
            reply,
        })
        .await
    }

    /// Takes a user's action. `actor` is the user's name, for the timeline.
    ///
    /// # Errors
    /// Something is under way (and the action is neither cancel nor delete), or the gitspace does not exist.
    pub async fn act(
        &self,
        gitspace: GitspaceUuid,
        action: GitspaceAction,
        actor: &str,
        trace: TraceUuid,
    ) -> Result<GitspaceRecord, ActionDenied> {
        let actor = actor.to_owned();
        self.ask(|reply| Request::Act {
            gitspace,
            action,
            actor,
            trace,
            reply,
        })
        .await
    }

    /// What the delegate is and believes, before it is welcomed. Answers with one verdict per task of the hello.
    ///
    /// # Errors
    /// The delegate is not known, or something cannot be stored: the connection must not be accepted.
    pub async fn hello(
        &self,
        delegate: DelegateUuid,
        hello: Hello,
    ) -> Result<Vec<TaskVerdict>, OrchestratorError> {
        self.ask(|reply| Request::Hello {
            delegate,
            hello: Box::new(hello),
            reply,
        })
        .await
    }

    /// The delegate was welcomed: tasks can be handed over from here on.
    ///
    /// # Errors
    /// The control plane is stopping.
    pub async fn delegate_connected(
        &self,
        delegate: DelegateUuid,
    ) -> Result<(), OrchestratorError> {
        self.ask(|reply| Request::Connected { delegate, reply })
            .await
    }

    /// The delegate's connection ended. Not called for a connection that a later one of the same delegate replaced.
    ///
    /// # Errors
    /// The control plane is stopping.
    pub async fn delegate_gone(
        &self,
        delegate: DelegateUuid,
        disconnect: Disconnect,
    ) -> Result<(), OrchestratorError> {
        self.ask(|reply| Request::Gone {
            delegate,
            disconnect,
            reply,
        })
        .await
    }

    /// Takes what a connected delegate said, in order. Answers when all that was taken is stored with all that follows from it.
    ///
    /// # Errors
    /// The control plane is stopping, or it cannot be stored: nothing of it must be acknowledged.
    pub async fn said(
        &self,
        delegate: DelegateUuid,
        said: Vec<Up>,
    ) -> Result<Heard, OrchestratorError> {
        self.ask(|reply| Request::Said {
            delegate,
            said,
            reply,
        })
        .await
    }

    /// Orders the removal of what a delegate's host holds of a gitspace that is not accounted for. Ordered once, it holds for ever.
    ///
    /// # Errors
    /// The delegate is not known to hold such a gitspace, there is a record of it, or the order cannot be stored.
    pub async fn remove(
        &self,
        delegate: DelegateUuid,
        gitspace: GitspaceUuid,
        user: UserUuid,
    ) -> Result<(), RemovalDenied> {
        self.ask(|reply| Request::Remove {
            delegate,
            gitspace,
            user,
            reply,
        })
        .await
    }

    /// The delegate was enrolled or revoked: its record is read again.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn delegate_changed(&self, delegate: DelegateUuid) -> Result<(), OrchestratorError> {
        self.ask(|reply| Request::DelegateChanged { delegate, reply })
            .await
    }

    /// Everything that is due at this time is done before the answer.
    ///
    /// # Errors
    /// The control plane is stopping.
    pub async fn wake(&self) -> Result<(), OrchestratorError> {
        self.ask(|reply| Request::Wake { reply }).await
    }

    /// Tells followers of the gitspace's record that something changed which belongs to it and which the orchestrator does not keep.
    pub fn announce(&self, gitspace: GitspaceUuid) {
        // Nobody may follow.
        drop(self.changes.send(Change::Gitspace(gitspace)));
    }

    /// Follows changes from here on. A receiver that lags has to read everything again.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// All delegates, as they are while this process runs.
    #[must_use]
    pub fn delegates(&self) -> Arc<BTreeMap<DelegateUuid, Arc<DelegateView>>> {
        self.delegates.borrow().clone()
    }

    #[must_use]
    pub fn delegate(&self, id: DelegateUuid) -> Option<Arc<DelegateView>> {
        self.delegates.borrow().get(&id).cloned()
    }

    #[must_use]
    pub fn is_connected(&self, id: DelegateUuid) -> bool {
        self.delegates
            .borrow()
            .get(&id)
            .is_some_and(|delegate| delegate.connected)
    }
}
