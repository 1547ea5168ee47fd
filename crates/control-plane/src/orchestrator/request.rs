//! What reaches the orchestrator's task. Each is answered when all that follows from it is stored.

use super::handle::{ActionDenied, CreateDenied, NewGitspace, OrchestratorError};
use store::GitspaceRecord;
use tokio::sync::oneshot;
use wire::{
    api::GitspaceAction,
    control::{Hello, Inventory, TaskVerdict},
    failure::Failure,
    gitspace::Observed,
    ids::{DelegateUuid, GitspaceUuid, TaskUuid, TraceUuid},
    task::TaskEvent,
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
        reason: String,
        reply: Reply<()>,
    },
    Event {
        delegate: DelegateUuid,
        task: TaskUuid,
        event: Box<TaskEvent>,
        reply: Reply<u64>,
    },
    Refused {
        delegate: DelegateUuid,
        task: TaskUuid,
        failure: Box<Failure>,
        reply: Reply<()>,
    },
    Observed {
        delegate: DelegateUuid,
        observed: Box<Observed>,
        reply: Reply<()>,
    },
    RunnerReady {
        delegate: DelegateUuid,
        ready: bool,
        reply: Reply<()>,
    },
    Inventory {
        delegate: DelegateUuid,
        inventory: Box<Inventory>,
        reply: Reply<()>,
    },
    Draining {
        delegate: DelegateUuid,
        draining: bool,
        reply: Reply<()>,
    },
    DelegateChanged {
        delegate: DelegateUuid,
        reply: Reply<()>,
    },
    Wake {
        reply: Reply<()>,
    },
}
