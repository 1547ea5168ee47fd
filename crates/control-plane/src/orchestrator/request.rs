//! What reaches the orchestrator's task. Each is answered when all that follows from it is stored.

use super::handle::{
    ActionDenied, CreateDenied, Heard, NewGitspace, OrchestratorError, RemovalDenied,
};
use store::GitspaceRecord;
use tokio::sync::oneshot;
use wire::{
    api::GitspaceAction,
    control::{Disconnect, Hello, TaskVerdict, Up},
    ids::{DelegateUuid, GitspaceUuid, TraceUuid, UserUuid},
};

pub(super) type Reply<T, E = OrchestratorError> = oneshot::Sender<Result<T, E>>;

#[derive(Debug)]
pub(super) enum Request {
    Create {
        gitspace: Box<NewGitspace>,
        reply: Reply<GitspaceRecord, CreateDenied>,
    },
    Act {
        gitspace: GitspaceUuid,
        action: GitspaceAction,
        actor: String,
        trace: TraceUuid,
        reply: Reply<GitspaceRecord, ActionDenied>,
    },
    Hello {
        delegate: DelegateUuid,
        hello: Box<Hello>,
        reply: Reply<Vec<TaskVerdict>>,
    },
    Connected {
        delegate: DelegateUuid,
        reply: Reply<()>,
    },
    Gone {
        delegate: DelegateUuid,
        disconnect: Disconnect,
        reply: Reply<()>,
    },
    /// What a connected delegate said, in order.
    Said {
        delegate: DelegateUuid,
        said: Vec<Up>,
        reply: Reply<Heard>,
    },
    Remove {
        delegate: DelegateUuid,
        gitspace: GitspaceUuid,
        user: UserUuid,
        reply: Reply<(), RemovalDenied>,
    },
    DelegateChanged {
        delegate: DelegateUuid,
        reply: Reply<()>,
    },
    Wake {
        reply: Reply<()>,
    },
}

impl Request {
    /// How much it adds to a batch.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Said { said, .. } => said.len(),
            Self::Create { .. }
            | Self::Act { .. }
            | Self::Hello { .. }
            | Self::Connected { .. }
            | Self::Gone { .. }
            | Self::Remove { .. }
            | Self::DelegateChanged { .. }
            | Self::Wake { .. } => 1,
        }
    }
}
