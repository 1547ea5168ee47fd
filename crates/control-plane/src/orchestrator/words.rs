//! What users read in a timeline.

use wire::{
    api::GitspaceAction,
    failure::{Failure, FailureCode},
    gitspace::{GitspaceState, ObservedState},
    task::{Phase, TaskKind},
};

pub(super) fn delegate_away(name: &str) -> Failure {
    Failure::new(
        FailureCode::DelegateUnavailable,
        format!("the delegate {name} that holds the gitspace is not connected"),
    )
    .hint("it goes on by itself when the delegate is back; see `gitspace delegate list`")
}

pub(super) fn delegate_revoked(name: &str) -> Failure {
    Failure::new(
        FailureCode::DelegateUnavailable,
        format!("the delegate {name} that holds the gitspace was revoked"),
    )
    .hint(
        "enrol a delegate of the same name on that host again and start the gitspace, or delete it",
    )
}

pub(super) fn delegate_draining(name: &str) -> Failure {
    Failure::new(
        FailureCode::DelegateUnavailable,
        format!("the delegate {name} that holds the gitspace is draining and takes no task"),
    )
    .hint("it goes on by itself when the delegate is back")
}

pub(super) fn runner_away(name: &str) -> Failure {
    Failure::new(
        FailureCode::RunnerUnavailable,
        format!("the runner of the delegate {name} does not answer"),
    )
    .hint("it goes on by itself when runner-agent runs again on that host")
}

pub(super) fn delegate_full(name: &str) -> Failure {
    Failure::new(
        FailureCode::NoCapacity,
        format!("the delegate {name} that holds the gitspace has no room for it"),
    )
    .hint("stop another gitspace there; it starts by itself when there is room")
}

pub(super) fn deadline_exceeded(kind: TaskKind) -> Failure {
    Failure::new(
        FailureCode::DeadlineExceeded,
        format!("the {} did not end in its time", kind.as_str()),
    )
    .hint("the log shows what took so long")
}

pub(super) fn task_too_large(kind: TaskKind, length: usize, limit: usize) -> Failure {
    Failure::new(
        FailureCode::PreconditionFailed,
        format!(
            "the {} needs {length} bytes with its Git credentials, and a runner takes {limit}",
            kind.as_str()
        ),
    )
    .hint("delete the owner's Git credentials that are not used")
}

pub(super) fn given_up(kind: TaskKind) -> Failure {
    Failure::new(
        FailureCode::RunnerUnavailable,
        format!("the runner gave the {} up", kind.as_str()),
    )
}

pub(super) fn not_there_yet(kind: TaskKind, state: ObservedState) -> Failure {
    Failure::new(
        FailureCode::Internal,
        format!(
            "the {} ended well, but the runner sees the gitspace as {}",
            kind.as_str(),
            observed(state)
        ),
    )
}

pub(super) fn container_exited() -> Failure {
    Failure::new(
        FailureCode::ContainerExited,
        "the dev container ended by itself",
    )
}

pub(super) const fn observed(state: ObservedState) -> &'static str {
    match state {
        ObservedState::Absent => "absent",
        ObservedState::Provisioned => "provisioned",
        ObservedState::Stopped => "stopped",
        ObservedState::Running => "running",
    }
}

pub(super) const fn verb(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Provision => "Provision",
        TaskKind::Start => "Start",
        TaskKind::Stop => "Stop",
        TaskKind::Reset => "Reset",
        TaskKind::Delete => "Delete",
        TaskKind::Observe => "Observation",
    }
}

pub(super) const fn action(action: GitspaceAction) -> &'static str {
    match action {
        GitspaceAction::Start => "Start",
        GitspaceAction::Stop => "Stop",
        GitspaceAction::Reset => "Reset",
        GitspaceAction::Cancel => "Cancel",
        GitspaceAction::Delete => "Delete",
    }
}

pub(super) const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Machine => "Machine",
        Phase::Clone => "Clone",
        Phase::Devcontainer => "devcontainer.json",
        Phase::Image => "Image",
        Phase::Container => "Dev container",
        Phase::OnCreateCommand => "onCreateCommand",
        Phase::PostCreateCommand => "postCreateCommand",
        Phase::PostStartCommand => "postStartCommand",
        Phase::Stop => "Stop",
        Phase::Reset => "Reset",
        Phase::Delete => "Delete",
        Phase::Observe => "Observation",
        Phase::Other => "Another phase",
    }
}

pub(super) fn reached(state: GitspaceState) -> String {
    match state {
        GitspaceState::Error => "The gitspace is in error".to_owned(),
        other => format!("The gitspace is {other}"),
    }
}

pub(super) fn runner_forgot() -> Failure {
    Failure::new(
        FailureCode::PreconditionFailed,
        "the runner does not know the gitspace any more: its container and its files are gone",
    )
    .hint("starting it clones the repository again")
}
