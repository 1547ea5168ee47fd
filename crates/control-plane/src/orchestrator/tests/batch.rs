//! Many requests that are stored together: what is told, in which order, and what one that is refused does to the others.

use super::support::{World, id, new_gitspace};
use crate::orchestrator::{CreateDenied, OrchestratorError};
use store::GitspaceFilter;
use wire::{
    api::GitspaceAction,
    control::{Down, Up},
    gitspace::{GitspaceState, ObservedState},
    task::{LogStream, Phase, Task, TaskEvent, TaskEventKind, TaskKind, TaskOutcome},
};

fn event(world: &World, task: &Task, seq: u64, event: TaskEventKind) -> Up {
    Up::TaskEvent {
        task: task.id,
        gitspace: task.gitspace,
        event: TaskEvent {
            seq,
            at: daemon::Clock::now(&*world.clock),
            event,
        },
    }
}

fn log(world: &World, task: &Task, seq: u64) -> Up {
    let kind = TaskEventKind::Log {
        phase: Phase::Clone,
        stream: LogStream::Stdout,
        text: format!("line {seq}\n"),
    };
    event(world, task, seq, kind)
}

#[tokio::test]
async fn what_a_delegate_said_is_one_commit_in_its_order() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    let before = world.record(gitspace).await.version;
    let mut said: Vec<_> = (1..=50).map(|seq| log(&world, &task, seq)).collect();
    let observed = Box::new(world.observed(&task, ObservedState::Running));
    let outcome = TaskOutcome::Done {};
    let finished = TaskEventKind::Finished { outcome, observed };
    said.push(event(&world, &task, 51, finished));
    let heard = world.handle.said(world.delegate, said).await.unwrap();
    assert!(heard.refused.is_none(), "{heard:?}");
    assert_eq!(heard.answers.len(), 51);
    assert!(
        matches!(heard.answers.last(), Some(Some(Down::Stored { task: told, seq: 51 })) if *told == task.id),
        "{heard:?}"
    );
    assert_eq!(world.record(gitspace).await.version, before + 1);
    assert_eq!(world.state(gitspace).await, GitspaceState::Running);
    let lines = world.store.log(gitspace, 0, 100).await.unwrap();
    let wanted: Vec<_> = (1..=50).map(|seq| format!("line {seq}\n")).collect();
    assert!(
        lines.iter().map(|entry| &entry.text).eq(&wanted),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_comes_behind_a_body_that_is_not_taken_is_not_looked_at() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    let said = [1, 3, 2].map(|seq| log(&world, &task, seq)).into();
    let heard = world.handle.said(world.delegate, said).await.unwrap();
    assert_eq!(heard.answers.len(), 1);
    assert!(
        matches!(
            heard.refused,
            Some(OrchestratorError::Gap {
                seq: 3,
                stored: 1,
                ..
            })
        ),
        "{heard:?}"
    );
    assert_eq!(world.store.log(gitspace, 0, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_takes_no_other_request_with_it() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    // All three are in the queue before the first is looked at.
    let mut same_slug = new_gitspace(0x102, "third");
    same_slug.slug = "first-abc234".parse().unwrap();
    let (first, taken, slug, other) = tokio::join!(
        world.handle.create(new_gitspace(0x100, "first")),
        world.handle.create(new_gitspace(0x101, "first")),
        world.handle.create(same_slug),
        world.handle.create(new_gitspace(0x103, "other")),
    );
    first.unwrap();
    other.unwrap();
    for denied in [taken, slug] {
        assert!(
            matches!(denied, Err(CreateDenied::Conflict { .. })),
            "{denied:?}"
        );
    }
    let sent: Vec<_> = world
        .sink
        .assigned
        .lock()
        .unwrap()
        .iter()
        .map(|task| task.gitspace)
        .collect();
    assert_eq!(sent, [id(0x100), id(0x103)]);
    // The one that was not made is forgotten: its name can be used.
    world.create(0x104, "third").await;
    let again = world.handle.create(new_gitspace(0x100, "fourth")).await;
    assert!(
        matches!(
            again,
            Err(CreateDenied::Conflict {
                what: "gitspace id"
            })
        ),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_gitspace_deleted_and_one_made_of_its_name_are_stored_together() {
    let world = World::new().await;
    // No delegate has it: nothing is left to be removed.
    let old = world.create(0x100, "app").await;
    let mut new = new_gitspace(0x101, "app");
    new.slug = "app-new234".parse().unwrap();
    let (deleted, made) = tokio::join!(
        world.handle.act(old, GitspaceAction::Delete, "ann", id(8)),
        world.handle.create(new),
    );
    assert!(deleted.unwrap().deleted.is_some());
    made.unwrap();
    assert_eq!(world.state(old).await, GitspaceState::Deleted);
    let page = store::PageRequest::first(9);
    let live = world
        .store
        .gitspaces(GitspaceFilter::default(), page)
        .await
        .unwrap();
    assert_eq!(live.len(), 1);
}

#[tokio::test]
async fn nothing_is_told_or_handed_over_that_is_not_stored() {
    let mut world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    let mut changes = world.handle.changes();
    world.lose_store().await;
    let said = (1..=3).map(|seq| log(&world, &task, seq)).collect();
    // The last one rests on what was staged for the first.
    let (said, again, made, acted) = tokio::join!(
        world.handle.said(world.delegate, said),
        world
            .handle
            .said(world.delegate, vec![log(&world, &task, 3)]),
        world.handle.create(new_gitspace(0x101, "other")),
        world
            .handle
            .act(gitspace, GitspaceAction::Delete, "ann", id(8)),
    );
    for heard in [said, again] {
        assert!(
            matches!(heard, Err(OrchestratorError::Store { .. })),
            "{heard:?}"
        );
    }
    assert!(made.is_err() && acted.is_err(), "{made:?} {acted:?}");
    assert!(changes.try_recv().is_err(), "nothing is published");
    assert_eq!(world.count_assigned(), 1);
    assert!(world.sink.cancelled.lock().unwrap().is_empty());

    // It goes on from what is stored.
    world.restart_with_store().await;
    world
        .connect(vec![super::support::status(&task, false, 3)], Vec::new())
        .await;
    let said = (1..=3).map(|seq| log(&world, &task, seq)).collect();
    let heard = world.handle.said(world.delegate, said).await.unwrap();
    assert_eq!(heard.answers.len(), 3);
    assert_eq!(world.store.log(gitspace, 0, 9).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_copy_that_was_not_stored_is_put_back() {
    let world = World::new().await;
    world.connect(Vec::new(), Vec::new()).await;
    let gitspace = world.create(0x100, "app").await;
    let task = world.task(TaskKind::Start);
    // Another process changes it: what was read here is not what is stored.
    let mut record = world.record(gitspace).await;
    record.attempts = 1;
    let theirs = store::GitspaceCommit {
        made: false,
        gitspace: record,
        tasks: Vec::new(),
        timeline: Vec::new(),
        log: Vec::new(),
    };
    let [written] = world
        .store
        .commit(&[theirs])
        .await
        .unwrap()
        .try_into()
        .unwrap();
    written.unwrap();
    let (refused, other) = tokio::join!(
        world
            .handle
            .said(world.delegate, vec![log(&world, &task, 1)]),
        world.handle.create(new_gitspace(0x101, "other")),
    );
    assert!(
        matches!(refused, Err(OrchestratorError::Store { .. })),
        "{refused:?}"
    );
    other.unwrap();
    // It was read again, and the same is taken.
    world.say(log(&world, &task, 1)).await.unwrap();
    assert_eq!(world.record(gitspace).await.attempts, 1);
}
