//! A runner that knows later than the control plane, and one that sees something wrong in what runs.

use super::support::{World, observed};
use std::time::Duration;
use wire::{
    api::GitspaceAction,
    control::Up,
    failure::{Failure, FailureCode},
    gitspace::{Generation, GitspaceState, ObservedState},
    task::TaskKind,
};

#[tokio::test]
async fn a_task_that_the_runner_calls_superseded_is_not_given_again_and_the_next_action_gets_past_it()
 {
    let world = World::new().await;
    let (gitspace, start) = world.running().await;
    // As after a control plane was put back to a backup: the runner has taken more than is known here.
    let mut seen = observed(gitspace, ObservedState::Running, 7, world.revision());
    seen.generation = Generation(start.generation.0 + 6);
    let observed = seen.clone();
    world.say(Up::Observed { observed }).await.unwrap();
    let behind = world.record(gitspace).await.generation;
    assert!(behind < seen.generation);

    world.act(gitspace, GitspaceAction::Stop).await;
    let stop = world.task(TaskKind::Stop);
    assert!(stop.generation > seen.generation, "{stop:?}");

    let assigned = world.count_assigned();
    let failure = Failure::new(FailureCode::Superseded, "a later one was taken").hint("repeat it");
    world
        .say(Up::TaskRefused {
            task: stop.id,
            gitspace,
            failure,
        })
        .await
        .unwrap();
    for _ in 0..10 {
        world.pass(Duration::from_mins(5)).await;
    }
    assert_eq!(world.count_assigned(), assigned, "it is not tried again");
    assert_eq!(world.state(gitspace).await, GitspaceState::Error);
    let error = world.record(gitspace).await.error.unwrap();
    assert_eq!(error.code, FailureCode::Superseded);
    assert!(error.hint.is_some());

    // A way out that the user has.
    world.act(gitspace, GitspaceAction::Stop).await;
    let again = world.task(TaskKind::Stop);
    assert!(again.generation > stop.generation);
    world.done(&again, ObservedState::Stopped).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Stopped);
}

#[tokio::test]
async fn what_is_wrong_in_a_gitspace_that_runs_on_is_told_once() {
    let world = World::new().await;
    let (gitspace, task) = world.running().await;
    for at in ["at one", "at two"] {
        let mut seen = world.observed(&task, ObservedState::Running);
        let failure = Failure::new(FailureCode::OutOfMemory, "a process was killed").detail(at);
        seen.failure = Some(failure);
        world.say(Up::Observed { observed: seen }).await.unwrap();
    }
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
    let told: Vec<_> = world
        .timeline(gitspace)
        .await
        .into_iter()
        .filter_map(|event| event.failure)
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].code, FailureCode::OutOfMemory);
}
