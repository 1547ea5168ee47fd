//! The plan, over all states.

use super::support::{delegate, id, observed, record};
use crate::orchestrator::{
    DelegateView, OrchestratorConfig, actions,
    draft::Draft,
    plan::{Decision, Situation, later, plan},
    visible_state,
};
use jiff::Timestamp;
use proptest::prelude::*;
use std::time::Duration;
use store::{GitspaceRecord, TaskRecord, TaskState};
use wire::{
    api::GitspaceAction,
    failure::{Failure, FailureCode},
    gitspace::{DesiredState, Generation, GitspaceState, ObservedState},
    task::TaskKind,
};

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn decide(record: &GitspaceRecord, task: Option<&TaskRecord>) -> Decision {
    let delegate = delegate(0x10, "host");
    let situation = Situation {
        record,
        task,
        delegate: record.delegate.map(|_| &delegate),
        has_room: true,
    };
    plan(situation, &OrchestratorConfig::default(), NOW)
}

fn task(kind: TaskKind, generation: u64, state: TaskState) -> TaskRecord {
    TaskRecord {
        id: id(0x50),
        gitspace: id(0x100),
        delegate: id(0x10),
        kind,
        generation: Generation(generation),
        attempt: 1,
        deadline: later(NOW, Duration::from_mins(1)),
        trace: id(9),
        state,
        stored_seq: 0,
        created: NOW,
        finished: None,
    }
}

#[test]
fn without_a_task_the_step_leads_from_observed_to_desired() {
    use DesiredState as D;
    use ObservedState as O;
    let issue = |kind| Decision::Issue(kind);
    for (desired, state, decision, visible) in [
        (
            D::Running,
            O::Absent,
            issue(TaskKind::Start),
            GitspaceState::Starting,
        ),
        (
            D::Running,
            O::Provisioned,
            issue(TaskKind::Start),
            GitspaceState::Starting,
        ),
        (
            D::Running,
            O::Stopped,
            issue(TaskKind::Start),
            GitspaceState::Starting,
        ),
        (
            D::Running,
            O::Running,
            Decision::Rest,
            GitspaceState::Running,
        ),
        (
            D::Stopped,
            O::Absent,
            Decision::Rest,
            GitspaceState::Uninitialized,
        ),
        (
            D::Stopped,
            O::Provisioned,
            Decision::Rest,
            GitspaceState::Uninitialized,
        ),
        (
            D::Stopped,
            O::Stopped,
            Decision::Rest,
            GitspaceState::Stopped,
        ),
        (
            D::Stopped,
            O::Running,
            issue(TaskKind::Stop),
            GitspaceState::Stopping,
        ),
        (
            D::Uninitialized,
            O::Absent,
            Decision::Rest,
            GitspaceState::Uninitialized,
        ),
        (
            D::Uninitialized,
            O::Provisioned,
            Decision::Rest,
            GitspaceState::Uninitialized,
        ),
        (
            D::Uninitialized,
            O::Stopped,
            issue(TaskKind::Reset),
            GitspaceState::Resetting,
        ),
        (
            D::Uninitialized,
            O::Running,
            issue(TaskKind::Reset),
            GitspaceState::Resetting,
        ),
        (
            D::Deleted,
            O::Absent,
            Decision::Remove,
            GitspaceState::Deleting,
        ),
        (
            D::Deleted,
            O::Provisioned,
            issue(TaskKind::Delete),
            GitspaceState::Deleting,
        ),
        (
            D::Deleted,
            O::Stopped,
            issue(TaskKind::Delete),
            GitspaceState::Deleting,
        ),
        (
            D::Deleted,
            O::Running,
            issue(TaskKind::Delete),
            GitspaceState::Deleting,
        ),
    ] {
        let mut record = record(desired);
        record.observed = Some(observed(record.id, state, 3, 1));
        assert_eq!(decide(&record, None), decision, "{desired:?} {state:?}");
        assert_eq!(visible_state(&record), visible, "{desired:?} {state:?}");
    }
}

#[test]
fn a_running_container_of_an_older_generation_is_started_once_more() {
    let mut record = record(DesiredState::Running);
    record.observed = Some(observed(record.id, ObservedState::Running, 2, 1));
    assert_eq!(decide(&record, None), Decision::Issue(TaskKind::Start));
}

#[test]
fn an_open_task_is_awaited_cancelled_or_dropped() {
    let record = record(DesiredState::Running);
    let soon = later(NOW, Duration::from_mins(1));
    for (generation, state, decision) in [
        (3, TaskState::Queued, Decision::Send),
        (2, TaskState::Queued, Decision::Drop),
        (
            3,
            TaskState::Assigned,
            Decision::WaitUntil(later(soon, Duration::from_secs(15))),
        ),
        (2, TaskState::Assigned, Decision::Cancel),
        (3, TaskState::Cancelling, Decision::WaitUntil(soon)),
        (2, TaskState::Cancelling, Decision::WaitUntil(soon)),
    ] {
        let task = task(TaskKind::Start, generation, state);
        assert_eq!(
            decide(&record, Some(&task)),
            decision,
            "{generation} {state:?}"
        );
    }
    for (state, decision) in [
        (TaskState::Queued, Decision::Drop),
        (TaskState::Assigned, Decision::Cancel),
        (TaskState::Cancelling, Decision::Drop),
    ] {
        let mut task = task(TaskKind::Start, 3, state);
        task.deadline = Timestamp::UNIX_EPOCH;
        assert_eq!(decide(&record, Some(&task)), decision, "{state:?}");
    }
}

#[test]
fn nothing_is_issued_to_a_delegate_that_takes_nothing() {
    let record = record(DesiredState::Running);
    let good = delegate(0x10, "host");
    let config = OrchestratorConfig::default();
    let decide = |delegate: &DelegateView, has_room: bool| {
        let situation = Situation {
            record: &record,
            task: None,
            delegate: Some(delegate),
            has_room,
        };
        plan(situation, &config, NOW)
    };
    let code = |decision: Decision| match decision {
        Decision::Wait { why, .. } | Decision::Fail(why) => Some(why.code),
        _ => None,
    };
    assert_eq!(decide(&good, true), Decision::Issue(TaskKind::Start));
    assert_eq!(code(decide(&good, false)), Some(FailureCode::NoCapacity));
    let mut away = good.clone();
    away.connected = false;
    assert_eq!(
        code(decide(&away, true)),
        Some(FailureCode::DelegateUnavailable)
    );
    away.since = NOW;
    assert_eq!(
        decide(&away, true),
        Decision::WaitUntil(later(NOW, config.away_grace))
    );
    let mut no_runner = good.clone();
    no_runner.runner_ready = false;
    assert_eq!(
        code(decide(&no_runner, true)),
        Some(FailureCode::RunnerUnavailable)
    );
    let mut draining = good.clone();
    draining.draining = true;
    assert_eq!(
        code(decide(&draining, true)),
        Some(FailureCode::DelegateUnavailable)
    );
    let mut revoked = good;
    revoked.revoked = true;
    assert!(matches!(decide(&revoked, true), Decision::Fail(_)));
}

#[test]
fn a_drained_host_still_stops_and_deletes_so_that_it_becomes_empty() {
    let mut draining = delegate(0x10, "host");
    draining.draining = true;
    for (desired, kind) in [
        (DesiredState::Stopped, TaskKind::Stop),
        (DesiredState::Uninitialized, TaskKind::Reset),
        (DesiredState::Deleted, TaskKind::Delete),
    ] {
        let mut record = record(desired);
        record.observed = Some(observed(record.id, ObservedState::Running, 1, 1));
        let situation = Situation {
            record: &record,
            task: None,
            delegate: Some(&draining),
            has_room: true,
        };
        assert_eq!(
            plan(situation, &OrchestratorConfig::default(), NOW),
            Decision::Issue(kind)
        );
    }
}

fn any_desired() -> impl Strategy<Value = DesiredState> {
    prop_oneof![
        Just(DesiredState::Running),
        Just(DesiredState::Stopped),
        Just(DesiredState::Uninitialized),
        Just(DesiredState::Deleted),
    ]
}

fn any_observed() -> impl Strategy<Value = Option<ObservedState>> {
    prop_oneof![
        Just(None),
        Just(Some(ObservedState::Absent)),
        Just(Some(ObservedState::Provisioned)),
        Just(Some(ObservedState::Stopped)),
        Just(Some(ObservedState::Running)),
    ]
}

fn any_task() -> impl Strategy<Value = Option<TaskRecord>> {
    let kind = prop_oneof![
        Just(TaskKind::Start),
        Just(TaskKind::Stop),
        Just(TaskKind::Reset),
        Just(TaskKind::Delete),
    ];
    let state = prop_oneof![
        Just(TaskState::Queued),
        Just(TaskState::Assigned),
        Just(TaskState::Cancelling),
    ];
    proptest::option::of((kind, state, 1_u64..=3, any::<bool>()).prop_map(
        |(kind, state, generation, late)| {
            let mut task = task(kind, generation, state);
            if late {
                task.deadline = Timestamp::UNIX_EPOCH;
            }
            task
        },
    ))
}

prop_compose! {
    fn any_record()(
        desired in any_desired(),
        state in any_observed(),
        generation in 1_u64..=3,
        task in any_task(),
        error in any::<bool>(),
        placed in any::<bool>(),
        retry in any::<bool>(),
    ) -> (GitspaceRecord, Option<TaskRecord>) {
        let mut record = record(desired);
        record.observed = state.map(|state| observed(record.id, state, generation, 1));
        record.task = task.as_ref().map(|task| task.id);
        record.error = error.then(|| Failure::new(FailureCode::Internal, "x"));
        record.retry_at = retry.then(|| later(NOW, Duration::from_secs(9)));
        if !placed && task.is_none() && state.is_none() {
            record.delegate = None;
        }
        (record, task)
    }
}

proptest! {
    #[test]
    fn a_deleted_gitspace_is_left_alone((mut record, task) in any_record()) {
        record.deleted = Some(NOW);
        prop_assert_eq!(decide(&record, task.as_ref()), Decision::Rest);
        prop_assert!(actions(&record).is_empty());
    }

    #[test]
    fn cancel_and_delete_are_always_taken((record, task) in any_record()) {
        for action in [GitspaceAction::Cancel, GitspaceAction::Delete] {
            let mut draft = Draft::new(&record, task.as_ref(), NOW);
            prop_assert!(draft.act(action, "ann", id(8)).is_ok());
        }
    }

    #[test]
    fn every_state_has_a_way_out_that_is_listed((record, task) in any_record()) {
        let listed = actions(&record);
        prop_assert!(listed.contains(&GitspaceAction::Delete));
        for action in listed {
            let mut draft = Draft::new(&record, task.as_ref(), NOW);
            prop_assert!(draft.act(action, "ann", id(8)).is_ok(), "{:?}", action);
        }
    }

    #[test]
    fn what_is_at_rest_is_not_busy((record, task) in any_record()) {
        if decide(&record, task.as_ref()) == Decision::Rest {
            let state = visible_state(&record);
            prop_assert!(!state.is_busy(), "{:?}", state);
        }
    }

    #[test]
    fn after_a_delete_only_deleting_is_done((record, task) in any_record()) {
        let mut draft = Draft::new(&record, task.as_ref(), NOW);
        draft.act(GitspaceAction::Delete, "ann", id(8)).unwrap();
        let decision = decide(&draft.record, task.as_ref());
        let wrong = matches!(decision, Decision::Place | Decision::Fail(_))
            || matches!(decision, Decision::Issue(kind) if kind != TaskKind::Delete);
        prop_assert!(!wrong, "{:?}", decision);
    }
}
