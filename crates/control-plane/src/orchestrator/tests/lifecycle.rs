//! Actions, tasks and their ends.

use super::support::{World, id};
use crate::orchestrator::{ActionDenied, Change, actions};
use daemon::Clock as _;
use std::time::Duration;
use wire::{
    api::{GitspaceAction, TimelineKind},
    control::Up,
    failure::{Failure, FailureCode},
    gitspace::{DesiredState, GitspaceState, ObservedState},
    task::{LogStream, Phase, TaskEventKind, TaskKind, TaskOutcome},
};

#[tokio::test]
async fn a_gitspace_is_created_started_and_told_of() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let mut changes = world.handle.changes();
    let gitspace = world.create(0x100, "app").await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Starting);
    let task = world.task(TaskKind::Start);
    assert_eq!(task.attempt, 1);

    let phase = Phase::Clone;
    world
        .event(&task, 1, TaskEventKind::PhaseStarted { phase })
        .await;
    assert_eq!(world.record(gitspace).await.phase, Some(phase));
    let log = TaskEventKind::Log {
        phase,
        stream: LogStream::Stderr,
        text: "Cloning\n".to_owned(),
    };
    world.event(&task, 2, log).await;
    let completed = TaskEventKind::PhaseCompleted {
        phase,
        duration_ms: 12,
        detail: None,
    };
    world.event(&task, 3, completed).await;
    world
        .finish(&task, 4, TaskOutcome::Done {}, ObservedState::Running)
        .await;

    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
    let timeline = world.timeline(gitspace).await;
    let kinds: Vec<_> = timeline
        .iter()
        .map(|event| (event.id, event.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            (1, TimelineKind::Action),
            (2, TimelineKind::TaskAssigned),
            (3, TimelineKind::PhaseStarted),
            (4, TimelineKind::PhaseCompleted),
            (5, TimelineKind::StateChanged),
        ],
        "{timeline:#?}"
    );
    assert!(timeline.iter().all(|event| event.trace == id(9)));
    assert_eq!(timeline[3].duration_ms, Some(12));
    assert_eq!(timeline[4].state, GitspaceState::Running);
    let log = world.store.log(gitspace, 0, 10).await.unwrap();
    assert_eq!(log[0].text, "Cloning\n");
    let mut told = Vec::new();
    while let Ok(change) = changes.try_recv() {
        told.push(change);
    }
    for change in [
        Change::Gitspace(gitspace),
        Change::Timeline(gitspace),
        Change::Log(gitspace),
    ] {
        assert!(told.contains(&change), "{change:?} in {told:?}");
    }
}

#[tokio::test]
async fn a_permanent_failure_is_an_error_with_its_cause_from_which_start_works() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    world
        .failed(&task, FailureCode::GitRefNotFound, ObservedState::Absent)
        .await;
    let record = world.record(gitspace).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Error);
    let error = record.error.clone().unwrap();
    assert_eq!(
        (error.code, error.hint.as_deref()),
        (FailureCode::GitRefNotFound, Some("mend it"))
    );
    assert!(actions(&record).contains(&GitspaceAction::Start));
    assert!(
        world
            .timeline(gitspace)
            .await
            .last()
            .unwrap()
            .failure
            .is_some()
    );
    // Nothing is tried by itself.
    world.pass(Duration::from_hours(1)).await;
    assert_eq!(world.count_assigned(), 1);

    world.act(gitspace, GitspaceAction::Start).await;
    let again = world.task(TaskKind::Start);
    assert!(again.generation > task.generation && again.trace == id(8));
    world.done(&again, ObservedState::Running).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
}

#[tokio::test]
async fn a_failed_command_leaves_a_container_that_start_mends() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    world
        .failed(
            &task,
            FailureCode::LifecycleCommandFailed,
            ObservedState::Running,
        )
        .await;
    let record = world.record(gitspace).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Error);
    assert!(crate::orchestrator::is_reachable(&record, true));
    world.act(gitspace, GitspaceAction::Start).await;
    let again = world.task(TaskKind::Start);
    world.done(&again, ObservedState::Running).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
}

#[tokio::test]
async fn a_task_that_no_runner_takes_is_an_error_with_its_cause_and_not_sent_for_ever() {
    let world = World::new().await;
    *world.sink.limit.lock().unwrap() = Some(10);
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Error);
    let error = world.record(gitspace).await.error.unwrap();
    assert_eq!(error.code, FailureCode::PreconditionFailed);
    assert!(error.message.contains("a runner takes 10"), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("credentials")));
    assert!(world.sink.assigned.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_transient_failure_is_tried_again_with_growing_delays_and_then_an_error() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    for attempt in 1..=5 {
        let task = world.task(TaskKind::Start);
        assert_eq!(task.attempt, attempt);
        world
            .failed(&task, FailureCode::DockerUnavailable, ObservedState::Absent)
            .await;
        if attempt < 5 {
            assert_eq!(world.state(gitspace).await, GitspaceState::Starting);
            let before = world.count_assigned();
            world.pass(Duration::from_secs(1)).await;
            assert_eq!(world.count_assigned(), before, "too early");
            world.pass(Duration::from_mins(2)).await;
        }
    }
    assert_eq!(world.state(gitspace).await, GitspaceState::Error);
}

#[tokio::test]
async fn what_is_to_be_tried_again_does_not_wait_for_a_time_that_the_clock_has_stepped_back_from() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let right = world.clock.now();
    world.clock.step_to(right + Duration::from_hours(24));
    let task = world.task(TaskKind::Start);
    world
        .failed(&task, FailureCode::DockerUnavailable, ObservedState::Absent)
        .await;
    world.clock.step_to(right);
    let before = world.count_assigned();
    // As often as it looks where nothing is due.
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(world.count_assigned(), before + 1);
    let again = world.task(TaskKind::Start);
    world.done(&again, ObservedState::Running).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
}

#[tokio::test]
async fn a_busy_gitspace_refuses_with_what_is_under_way_and_takes_cancel_and_delete() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    let phase = Phase::Image;
    world
        .event(&task, 1, TaskEventKind::PhaseStarted { phase })
        .await;
    world.act(gitspace, GitspaceAction::Start).await;
    assert_eq!(world.count_assigned(), 1, "the same action is under way");
    for action in [GitspaceAction::Stop, GitspaceAction::Reset] {
        let denied = world.handle.act(gitspace, action, "ann", id(8)).await;
        let Err(ActionDenied::Busy { state, phase, .. }) = denied else {
            panic!("{action:?} was taken: {denied:?}");
        };
        assert_eq!(
            (state, phase),
            (GitspaceState::Starting, Some(Phase::Image))
        );
    }

    world.act(gitspace, GitspaceAction::Cancel).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopping);
    assert_eq!(*world.sink.cancelled.lock().unwrap(), [task.id]);
    world
        .finish(
            &task,
            2,
            TaskOutcome::Cancelled {},
            ObservedState::Provisioned,
        )
        .await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Uninitialized);
    assert_eq!(world.count_assigned(), 1);
}

#[tokio::test]
async fn a_start_that_ended_before_its_cancel_is_stopped() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    world.act(gitspace, GitspaceAction::Cancel).await;
    world.done(&task, ObservedState::Running).await;
    let stop = world.task(TaskKind::Stop);
    world.done(&stop, ObservedState::Stopped).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopped);
}

#[tokio::test]
async fn delete_while_starting_cancels_deletes_and_ends_in_nothing() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let start = world.task(TaskKind::Start);
    world.act(gitspace, GitspaceAction::Delete).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Deleting);
    assert_eq!(*world.sink.cancelled.lock().unwrap(), [start.id]);
    world
        .finish(&start, 1, TaskOutcome::Cancelled {}, ObservedState::Stopped)
        .await;
    let delete = world.task(TaskKind::Delete);
    world.done(&delete, ObservedState::Absent).await;
    let record = world.record(gitspace).await;
    assert!(record.deleted.is_some() && record.desired == DesiredState::Deleted);
    assert_eq!(
        world.timeline(gitspace).await.last().unwrap().state,
        GitspaceState::Deleted
    );
    let gone = world
        .handle
        .act(gitspace, GitspaceAction::Start, "ann", id(8))
        .await;
    assert!(matches!(gone, Err(ActionDenied::NotFound)), "{gone:?}");
    // Its name is free again.
    world.create(0x101, "app2").await;
}

#[tokio::test]
async fn stop_start_and_reset_go_where_they_say_and_repeating_them_does_nothing() {
    let world = World::new().await;
    let (gitspace, _) = world.running().await;
    let before = world.count_assigned();
    world.act(gitspace, GitspaceAction::Start).await;
    world.act(gitspace, GitspaceAction::Cancel).await;
    assert_eq!(world.count_assigned(), before);

    world.act(gitspace, GitspaceAction::Stop).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopping);
    let stop = world.task(TaskKind::Stop);
    world.done(&stop, ObservedState::Stopped).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopped);
    world.act(gitspace, GitspaceAction::Stop).await;

    world.act(gitspace, GitspaceAction::Reset).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Resetting);
    let reset = world.task(TaskKind::Reset);
    world.done(&reset, ObservedState::Provisioned).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Uninitialized);

    world.act(gitspace, GitspaceAction::Start).await;
    let start = world.task(TaskKind::Start);
    world.done(&start, ObservedState::Running).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
}

#[tokio::test]
async fn a_task_past_its_deadline_is_cancelled_and_a_stop_is_tried_again() {
    let world = World::new().await;
    let (gitspace, _) = world.running().await;
    world.act(gitspace, GitspaceAction::Stop).await;
    let stop = world.task(TaskKind::Stop);
    world.pass(Duration::from_secs(121)).await;
    assert!(world.sink.cancelled.lock().unwrap().is_empty(), "too early");
    world.pass(Duration::from_secs(15)).await;
    assert_eq!(*world.sink.cancelled.lock().unwrap(), [stop.id]);
    // Its end never comes either.
    world.pass(Duration::from_secs(61)).await;
    world.pass(Duration::from_mins(1)).await;
    let again = world.task(TaskKind::Stop);
    assert!(again.id != stop.id && again.attempt == 2);
    world.done(&again, ObservedState::Stopped).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopped);
    // What comes late of the first one is acknowledged and changes nothing.
    let late = world
        .finish(&stop, 1, TaskOutcome::Done {}, ObservedState::Running)
        .await;
    assert_eq!(late, 1);
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopped);
}

#[tokio::test]
async fn a_container_that_dies_is_started_again_three_times_and_then_an_error() {
    let world = World::new().await;
    let (gitspace, mut task) = world.running().await;
    for exit in 1..=4 {
        let mut observed = world.observed(&task, ObservedState::Stopped);
        observed.failure = Some(Failure::new(FailureCode::OutOfMemory, "out of memory"));
        world.say(Up::Observed { observed }).await.unwrap();
        let event = world.timeline(gitspace).await;
        assert!(
            event.iter().rev().any(|event| event
                .failure
                .as_ref()
                .is_some_and(|f| f.code == FailureCode::OutOfMemory)),
            "{event:#?}"
        );
        if exit == 4 {
            break;
        }
        world.pass(Duration::from_secs(20)).await;
        let again = world.task(TaskKind::Start);
        assert_ne!(again.id, task.id, "exit {exit}");
        task = again;
        world.done(&task, ObservedState::Running).await;
        assert_eq!(world.state(gitspace).await, GitspaceState::Running);
    }
    assert_eq!(world.state(gitspace).await, GitspaceState::Error);
    world.act(gitspace, GitspaceAction::Start).await;
    let start = world.task(TaskKind::Start);
    world.done(&start, ObservedState::Running).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
}

#[tokio::test]
async fn a_gitspace_without_room_waits_says_so_once_and_starts_when_there_is_room() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let mut tasks = Vec::new();
    for (number, name) in [(0x100, "one"), (0x101, "two")] {
        world.create(number, name).await;
        let task = world.task(TaskKind::Start);
        world.done(&task, ObservedState::Running).await;
        tasks.push(task);
    }
    let third = world.create(0x102, "three").await;
    assert_eq!(world.count_assigned(), 2);
    assert_eq!(world.state(third).await, GitspaceState::Starting);
    world.pass(Duration::from_mins(5)).await;
    let said = world
        .timeline(third)
        .await
        .iter()
        .filter(|event| {
            event
                .failure
                .as_ref()
                .is_some_and(|f| f.code == FailureCode::NoCapacity)
        })
        .count();
    assert_eq!(said, 1);

    world.act(tasks[0].gitspace, GitspaceAction::Stop).await;
    let stop = world.task(TaskKind::Stop);
    world.done(&stop, ObservedState::Stopped).await;
    let start = world.task(TaskKind::Start);
    assert_eq!(start.gitspace, third);
    world.done(&start, ObservedState::Running).await;
    assert_eq!(world.state(third).await, GitspaceState::Running);
}

#[tokio::test]
async fn a_refused_task_fails_with_the_runners_reason() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    let failure = Failure::new(FailureCode::DiskFull, "no space left");
    world
        .say(Up::TaskRefused {
            task: task.id,
            gitspace,
            failure,
        })
        .await
        .unwrap();
    let record = world.record(gitspace).await;
    assert_eq!(record.error.unwrap().code, FailureCode::DiskFull);
}
