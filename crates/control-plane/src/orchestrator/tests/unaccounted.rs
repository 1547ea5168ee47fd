//! What hosts hold of gitspaces that are not placed there.

use super::support::{World, id, observed, record};
use crate::orchestrator::{RemovalDenied, Unaccounted};
use wire::{
    api::GitspaceAction,
    control::Up,
    failure::{Failure, FailureCode},
    gitspace::{DesiredState, Generation, GitspaceState, ObservedState},
    ids::GitspaceUuid,
    task::{TaskKind, TaskOutcome},
};

fn stray() -> GitspaceUuid {
    id(0x999)
}

fn listed(world: &World) -> Vec<(GitspaceUuid, Unaccounted)> {
    let view = world.handle.delegate(world.delegate).unwrap();
    view.unaccounted.clone().into_iter().collect()
}

#[tokio::test]
async fn what_no_record_accounts_for_is_kept_and_shown() {
    let mut world = World::new().await;
    let held = observed(stray(), ObservedState::Stopped, 7, 1);
    world.connect(Vec::new(), vec![held.clone()]).await;
    let wanted = Unaccounted {
        state: ObservedState::Stopped,
        since: held.at,
        generation: Generation(7),
        removing: false,
    };
    assert_eq!(listed(&world), [(stray(), wanted)]);
    // Also when it is told of again, and by a control plane that knows still less.
    let running = observed(stray(), ObservedState::Running, 7, 2);
    world.say(Up::Observed { observed: running }).await.unwrap();
    assert_eq!(listed(&world)[0].1.state, ObservedState::Running);
    world.restart().await;
    world.connect(Vec::new(), vec![held]).await;
    assert_eq!(listed(&world).len(), 1);
    assert_eq!(world.count_assigned(), 0, "nothing is removed");
    // The list is of what the host tells.
    world.disconnect().await;
    world.connect(Vec::new(), Vec::new()).await;
    assert_eq!(listed(&world), []);
}

#[tokio::test]
async fn an_operator_orders_its_removal_once_and_for_all() {
    let mut world = World::new().await;
    let held = observed(stray(), ObservedState::Stopped, 7, 1);
    world.connect(Vec::new(), vec![held.clone()]).await;
    let order = async |world: &World| world.handle.remove(world.delegate, stray(), id(1)).await;
    order(&world).await.unwrap();
    let task = world.task(TaskKind::Delete);
    assert_eq!((task.gitspace, task.generation.0), (stray(), 8));
    assert!(listed(&world)[0].1.removing);
    order(&world).await.unwrap();
    assert_eq!(world.count_assigned(), 1, "once");
    // The order outlives the process and the connection.
    world.restart().await;
    world.connect(Vec::new(), vec![held]).await;
    let task = world.task(TaskKind::Delete);
    assert_eq!(world.count_assigned(), 2);
    // Its events have no timeline to go to; they are acknowledged, so that the runner forgets it.
    let seq = world
        .finish(&task, 1, TaskOutcome::Done {}, ObservedState::Absent)
        .await;
    assert_eq!(seq, 1);
    assert_eq!(listed(&world), []);
    order(&world).await.unwrap();
    assert_eq!(world.count_assigned(), 2);
}

#[tokio::test]
async fn a_removal_that_is_refused_is_over_and_can_be_ordered_again() {
    let world = World::new().await;
    let held = observed(stray(), ObservedState::Stopped, 7, 1);
    world.connect(Vec::new(), vec![held]).await;
    let order = async || world.handle.remove(world.delegate, stray(), id(1)).await;
    order().await.unwrap();
    let task = world.task(TaskKind::Delete);
    assert!(listed(&world)[0].1.removing);
    world
        .say(Up::TaskRefused {
            task: task.id,
            gitspace: stray(),
            failure: Failure::new(FailureCode::Superseded, "a newer task was taken"),
        })
        .await
        .unwrap();
    assert!(!listed(&world)[0].1.removing);
    order().await.unwrap();
    assert_ne!(world.task(TaskKind::Delete).id, task.id);
    assert!(listed(&world)[0].1.removing);
}

#[tokio::test]
async fn only_what_is_unaccounted_for_is_removed_by_order() {
    let world = World::new().await;
    let (gitspace, _) = world.running().await;
    let known = world.handle.remove(world.delegate, gitspace, id(1)).await;
    assert!(matches!(known, Err(RemovalDenied::Known)), "{known:?}");
    let unheard = world.handle.remove(world.delegate, stray(), id(1)).await;
    assert!(
        matches!(unheard, Err(RemovalDenied::NotFound)),
        "{unheard:?}"
    );
}

#[tokio::test]
async fn a_leftover_of_a_deleted_gitspace_is_removed() {
    let world = World::new().await;
    let (gitspace, start) = world.running().await;
    world.act(gitspace, GitspaceAction::Delete).await;
    let delete = world.task(TaskKind::Delete);
    world.done(&delete, ObservedState::Absent).await;
    assert_eq!(world.state(gitspace).await, GitspaceState::Deleted);
    world.disconnect().await;
    // The runner's disk was restored.
    let held = observed(gitspace, ObservedState::Stopped, start.generation.0, 1);
    world.connect(Vec::new(), vec![held]).await;
    let again = world.task(TaskKind::Delete);
    assert_eq!(again.gitspace, gitspace);
    assert_ne!(again.id, delete.id);
    assert_eq!(listed(&world), []);
}

#[tokio::test]
async fn what_is_placed_nowhere_is_placed_where_it_is_held() {
    let world = World::new().await;
    let gitspace = world.create(0x100, "app").await;
    assert_eq!(world.record(gitspace).await.delegate, None);
    // The runner was not ready at the hello: the host tells of it later.
    let held = observed(gitspace, ObservedState::Stopped, 1, 1);
    world.say(Up::Observed { observed: held }).await.unwrap();
    let record = world.record(gitspace).await;
    assert_eq!(record.delegate, Some(world.delegate));
    assert_eq!(record.observed.unwrap().state, ObservedState::Stopped);
}

#[tokio::test]
async fn a_copy_of_what_is_placed_elsewhere_is_removed_unless_its_delegate_is_revoked() {
    for revoked in [false, true] {
        let mut world = World::new().await;
        let other = world.enrol(0x11, "host-2").await;
        let mut elsewhere = record(DesiredState::Stopped);
        elsewhere.delegate = Some(other);
        let made = store::GitspaceCommit {
            made: true,
            gitspace: elsewhere.clone(),
            tasks: Vec::new(),
            timeline: Vec::new(),
            log: Vec::new(),
        };
        let [written] = world
            .store
            .commit(&[made])
            .await
            .unwrap()
            .try_into()
            .unwrap();
        written.unwrap();
        if revoked {
            assert!(world.store.revoke_delegate(other).await.unwrap());
        }
        world.restart().await;
        let held = observed(elsewhere.id, ObservedState::Stopped, 1, 1);
        world.connect(Vec::new(), vec![held]).await;
        assert_eq!(listed(&world).len(), usize::from(revoked));
        assert_eq!(world.count_assigned(), usize::from(!revoked));
    }
}
