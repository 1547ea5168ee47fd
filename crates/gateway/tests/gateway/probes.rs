//! What a gateway tells of its own probes.

use crate::harness::{World, route, snapshot, within};
use std::sync::atomic::Ordering;
use wire::{
    gateway::{FromGateway, ToGateway},
    gitspace::GitspaceState,
};

fn said(world: &World) -> Vec<FromGateway> {
    let said = world.seen.said.lock().unwrap();
    said.iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

#[tokio::test]
async fn a_control_plane_that_does_not_say_that_it_takes_probes_is_told_of_none() {
    let world = World::start_unconnected("http://localhost:7080").await;
    let old = match snapshot(&world.key) {
        ToGateway::Snapshot {
            gateway,
            keys,
            authorize_url,
            routes,
            revocations,
            probes: _,
            wakes,
            starts,
        } => ToGateway::Snapshot {
            gateway,
            keys,
            authorize_url,
            routes,
            revocations,
            probes: false,
            wakes,
            starts,
        },
        other => panic!("{other:?}"),
    };
    world.tell.send(Some(old)).await.unwrap();
    world.until_connected().await;
    within("a probe", async {
        while world.seen.probes.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The link turns a few times with what was found.
    let head = format!("gitspaces-grant: {}\r\n", world.grant());
    for (state, wanted) in [
        (GitspaceState::Stopped, "HTTP/1.1 503"),
        (GitspaceState::Error, "HTTP/1.1 502"),
        (GitspaceState::Deleted, "HTTP/1.1 404"),
    ] {
        let route = route(state, false);
        let told = ToGateway::Route { route };
        world.tell_until(told, &head, wanted).await;
    }
    assert!(said(&world).is_empty(), "{:?}", said(&world));

    // The next one takes them, and hears what was found before.
    world.tell.send(None).await.unwrap();
    world.tell.send(Some(snapshot(&world.key))).await.unwrap();
    within("what the probe found", async {
        while said(&world).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        matches!(said(&world)[..], [FromGateway::Probed { .. }]),
        "{:?}",
        said(&world)
    );
}
