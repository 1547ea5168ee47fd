//! What probes and silent agents mean for gitspaces, and what a host hands back.

use super::support::{World, id};
use crate::orchestrator::{OrchestratorConfig, Probed};
use daemon::Clock as _;
use std::time::Duration;
use wire::{
    control::{Hop, Up},
    failure::{Failure, FailureCode},
    gitspace::{GitspaceState, ObservedState},
    task::{TaskKind, TaskOutcome},
};

#[tokio::test]
async fn a_silent_agent_is_told_once_and_so_is_that_it_answers_again_and_nothing_is_done() {
    let world = World::new().await;
    let (gitspace, task) = world.running().await;
    let before = (world.timeline(gitspace).await.len(), world.count_assigned());
    for _ in 0..2 {
        let mut observed = world.observed(&task, ObservedState::Running);
        observed.failure = Some(Failure::new(
            FailureCode::AgentSilent,
            "its agent does not answer",
        ));
        world.say(Up::Observed { observed }).await.unwrap();
    }
    let timeline = world.timeline(gitspace).await;
    assert_eq!(timeline.len(), before.0 + 1, "{timeline:#?}");
    let told = timeline.last().unwrap();
    assert_eq!(
        told.failure.as_ref().map(|failure| failure.code),
        Some(FailureCode::AgentSilent)
    );

    for _ in 0..2 {
        let observed = world.observed(&task, ObservedState::Running);
        world.say(Up::Observed { observed }).await.unwrap();
    }
    let timeline = world.timeline(gitspace).await;
    assert_eq!(timeline.len(), before.0 + 2, "{timeline:#?}");
    assert!(timeline.last().unwrap().message.contains("answers again"));
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
    assert_eq!(world.count_assigned(), before.1, "no task for it");
}

#[tokio::test]
async fn a_start_goes_to_a_host_whose_way_is_whole_and_to_the_broken_one_where_there_is_no_other() {
    for (broken, wanted) in [
        (vec![0x10_u128], 0x11),
        (vec![0x11], 0x10),
        // Both are out: the first by name.
        (vec![0x10, 0x11], 0x10),
    ] {
        let world = World::new().await;
        let other = world.enrol(0x11, "host-2").await;
        world.handle.delegate_changed(other).await.unwrap();
        world.connect(Vec::new(), Vec::new()).await;
        world.connect_other(other).await;
        for host in [0x10, 0x11] {
            let probed = Probed {
                at: world.clock.now(),
                broken_at: broken.contains(&host).then_some(Hop::Docker),
            };
            world.sink.probed.lock().unwrap().insert(id(host), probed);
        }
        let gitspace = world.create(0x100, "app").await;
        let placed = world.record(gitspace).await.delegate;
        assert_eq!(placed, Some(id(wanted)), "broken: {broken:?}");
    }
}

#[tokio::test]
async fn a_start_that_its_host_hands_back_is_given_again_and_is_no_failed_attempt() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    // As often as a drain and its end may come.
    for _ in 0..10 {
        let start = world.task(TaskKind::Start);
        assert_eq!(start.attempt, 1);
        world.say(Up::Draining { draining: true }).await.unwrap();
        world
            .finish(
                &start,
                1,
                TaskOutcome::Cancelled {},
                ObservedState::Provisioned,
            )
            .await;
        let count = world.count_assigned();
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.count_assigned(), count, "its host is drained");
        world.say(Up::Draining { draining: false }).await.unwrap();
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.count_assigned(), count + 1);
    }
    assert_eq!(world.state(gitspace).await, GitspaceState::Starting);
}

#[tokio::test]
async fn a_start_that_a_host_gives_back_for_no_reason_is_a_failed_attempt() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let attempts = OrchestratorConfig::default().max_attempts;
    for attempt in 1..=attempts {
        let start = world.task(TaskKind::Start);
        assert_eq!(start.attempt, attempt);
        world
            .finish(
                &start,
                1,
                TaskOutcome::Cancelled {},
                ObservedState::Provisioned,
            )
            .await;
        world.pass(Duration::from_secs(600)).await;
    }
    assert_eq!(world.state(gitspace).await, GitspaceState::Error);
}
