//! Delegates that come, go and repeat themselves; processes that die.

use super::support::{World, observed, status};
use crate::orchestrator::OrchestratorError;
use std::time::Duration;
use wire::{
    api::{GitspaceAction, TimelineKind},
    control::{TaskVerdict, Up},
    failure::FailureCode,
    gitspace::{GitspaceState, ObservedState},
    task::{Phase, TaskEventKind, TaskKind, TaskOutcome},
};

#[tokio::test]
async fn a_repeated_event_is_acknowledged_and_stored_once() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    let started = TaskEventKind::PhaseStarted {
        phase: Phase::Clone,
    };
    for _ in 0..3 {
        assert_eq!(world.event(&task, 1, started.clone()).await, 1);
    }
    let timeline = world.timeline(gitspace).await;
    let told = timeline
        .iter()
        .filter(|event| event.kind == TimelineKind::PhaseStarted)
        .count();
    assert_eq!(told, 1);
    world
        .finish(&task, 2, TaskOutcome::Done {}, ObservedState::Running)
        .await;
    let length = world.timeline(gitspace).await.len();
    // The whole of it once more, as after a lost acknowledgement.
    world.event(&task, 1, started).await;
    world
        .finish(&task, 2, TaskOutcome::Done {}, ObservedState::Running)
        .await;
    assert_eq!(world.timeline(gitspace).await.len(), length);
}

#[tokio::test]
async fn an_event_after_a_missing_one_is_not_acknowledged() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    let started = TaskEventKind::PhaseStarted {
        phase: Phase::Clone,
    };
    let result = world.try_event(&task, 2, started).await;
    assert!(
        matches!(
            result,
            Err(OrchestratorError::Gap {
                seq: 2,
                stored: 0,
                ..
            })
        ),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_gitspace_keeps_its_state_while_its_delegate_is_away_and_says_so() {
    let world = World::new().await;
    let (gitspace, task) = world.running().await;
    world.disconnect().await;
    let quiet = world.timeline(gitspace).await.len();
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(
        world.timeline(gitspace).await.len(),
        quiet,
        "a short cut is not told of"
    );
    world.pass(Duration::from_secs(15)).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
    assert!(!world.handle.is_connected(world.delegate));
    let away = world.timeline(gitspace).await.pop().unwrap();
    assert!(away.message.contains("not connected"), "{away:?}");

    // An action is taken and waits.
    world.act(gitspace, GitspaceAction::Stop).await;
    let record = world.record(gitspace).await;
    assert_eq!(
        record.waiting.unwrap().code,
        FailureCode::DelegateUnavailable
    );
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopping);
    world
        .connect(
            Vec::new(),
            vec![observed(
                gitspace,
                ObservedState::Running,
                task.generation.0,
                world.revision(),
            )],
        )
        .await;
    let stop = world.task(TaskKind::Stop);
    world.done(&stop, ObservedState::Stopped).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopped);
}

#[tokio::test]
async fn a_gitspace_made_while_no_delegate_is_connected_starts_when_one_is() {
    let world = World::new().await;
    let gitspace = world.create(0x100, "app").await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Starting);
    assert_eq!(
        world.record(gitspace).await.waiting.unwrap().code,
        FailureCode::NoCapacity
    );
    world.connect(Vec::new(), Vec::new()).await;
    world.task(TaskKind::Start);
}

#[tokio::test]
async fn a_restart_in_mid_task_goes_on_with_the_same_task() {
    let mut world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    let started = TaskEventKind::PhaseStarted {
        phase: Phase::Clone,
    };
    world.event(&task, 1, started).await;
    world.restart().await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Starting);
    let verdicts = world
        .connect(vec![status(&task, true, 3)], Vec::new())
        .await;
    assert_eq!(
        verdicts,
        [TaskVerdict::Continue {
            task: task.id,
            after: 1
        }]
    );
    assert_eq!(world.count_assigned(), 1, "nothing is made twice");
    let completed = TaskEventKind::PhaseCompleted {
        phase: Phase::Clone,
        duration_ms: 1,
        detail: None,
    };
    world.event(&task, 2, completed).await;
    world
        .finish(&task, 3, TaskOutcome::Done {}, ObservedState::Running)
        .await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
    // Its acknowledgement got lost: the next hello tells of it again.
    let verdicts = world.hello(vec![status(&task, true, 3)], Vec::new()).await;
    assert_eq!(verdicts, [TaskVerdict::Forget { task: task.id }]);
}

#[tokio::test]
async fn a_task_that_never_arrived_is_handed_over_again_with_the_same_id() {
    let mut world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    world.restart().await;
    world.connect(Vec::new(), Vec::new()).await;
    assert_eq!(world.count_assigned(), 2);
    assert_eq!(world.task(TaskKind::Start).id, task.id);
}

#[tokio::test]
async fn a_task_cancelled_while_its_delegate_was_away_is_cancelled_by_the_hello() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    world.disconnect().await;
    world.act(gitspace, GitspaceAction::Delete).await;
    let verdicts = world
        .connect(vec![status(&task, false, 0)], Vec::new())
        .await;
    assert_eq!(
        verdicts,
        [TaskVerdict::Cancel {
            task: task.id,
            after: 0
        }]
    );
    world
        .finish(&task, 1, TaskOutcome::Cancelled {}, ObservedState::Stopped)
        .await;
    let delete = world.task(TaskKind::Delete);
    world.done(&delete, ObservedState::Absent).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Deleted);
}

#[tokio::test]
async fn a_running_gitspace_that_the_runner_forgot_is_made_again() {
    let world = World::new().await;
    let (gitspace, _) = world.running().await;
    world.disconnect().await;
    world.connect(Vec::new(), Vec::new()).await;
    let start = world.task(TaskKind::Start);
    assert_eq!(start.gitspace, gitspace);
    // The runner lost its ledger and counts from the beginning.
    let mut seen = observed(gitspace, ObservedState::Running, start.generation.0, 1);
    seen.generation = start.generation;
    let outcome = TaskOutcome::Done {};
    let finished = TaskEventKind::Finished {
        outcome,
        observed: Box::new(seen),
    };
    world.event(&start, 1, finished).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
}

#[tokio::test]
async fn a_revoked_delegates_gitspace_can_be_deleted() {
    let world = World::new().await;
    let (gitspace, _) = world.running().await;
    assert!(world.store.revoke_delegate(world.delegate).await.unwrap());
    world.disconnect().await;
    world.handle.delegate_changed(world.delegate).await.unwrap();
    world.act(gitspace, GitspaceAction::Delete).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Deleted);
}

#[tokio::test]
async fn an_older_observation_changes_nothing() {
    let world = World::new().await;
    let (gitspace, task) = world.running().await;
    let old = observed(gitspace, ObservedState::Stopped, task.generation.0, 0);
    world.say(Up::Observed { observed: old }).await.unwrap();
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
}

#[tokio::test]
async fn a_runner_that_comes_back_is_given_its_task_again() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    for ready in [false, true] {
        world.say(Up::RunnerReady { ready }).await.unwrap();
    }
    assert_eq!(world.count_assigned(), 2);
    assert_eq!(world.task(TaskKind::Start).id, task.id);
}
