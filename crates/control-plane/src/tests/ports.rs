//! Ports that others than the owner may come to.

use super::{
    browser::{get, session},
    gateway_link::{dial, heard},
    gateways::{claims, exchange},
    support::{Answer, TestPlane, User},
};
use http::Method;
use serde_json::json;
use wire::{
    gateway::{PortSet, SUBPROTOCOL, ToGateway},
    gitspace::{PortVisibility, SharedPort},
};

async fn share(plane: &TestPlane, token: &str, port: u16, visibility: &str) -> Answer {
    let path = format!("/gitspaces/demo/ports/{port}");
    let body = json!({ "visibility": visibility });
    plane.call(token, Method::PUT, &path, Some(body)).await
}

/// Ann's gitspace, and Bob.
async fn two() -> (TestPlane, User, User, String) {
    let plane = TestPlane::start().await;
    let (ann, bob) = (plane.user("ann").await, plane.user("bob").await);
    let slug = plane.gitspace(&ann.token, "demo").await;
    (plane, ann, bob, slug)
}

#[tokio::test]
async fn a_port_is_shared_listed_and_made_private_again_by_its_owner_alone() {
    let (plane, ann, bob, slug) = two().await;
    let shared = share(&plane, &ann.token, 3000, "project").await.expect(200);
    let url = format!("http://3000--{slug}.localhost:7080/");
    let expected =
        json!({"port": 3000, "visibility": "project", "effective": "project", "url": url});
    assert_eq!(shared.json(), expected);
    let path = format!("/gitspaces/{slug}/ports");
    let listed = plane.get(&ann.token, &path).await.expect(200).json();
    assert_eq!(
        listed,
        json!({"items": [expected], "max_visibility": "project"})
    );
    plane.get(&bob.token, &path).await.expect(404);
    let body = json!({"visibility": "private"});
    let port = format!("{path}/3000");
    plane
        .call(&bob.token, Method::PUT, &port, Some(body))
        .await
        .expect(404);
    share(&plane, &ann.token, 3000, "private").await.expect(200);
    let listed = plane.get(&ann.token, &path).await.expect(200).json();
    assert_eq!(listed["items"], json!([]));
}

#[tokio::test]
async fn more_than_the_deployment_allows_too_many_and_no_ports_are_refused() {
    let (plane, ann, _, _) = two().await;
    let refused = share(&plane, &ann.token, 3000, "public").await.expect(409);
    assert_eq!(refused.code(), "visibility_not_allowed");
    assert!(refused.text.contains("max_port_visibility"), "{refused:?}");
    for (port, visibility, status) in [
        ("0", "project", 400),
        ("65536", "project", 404),
        ("x", "project", 404),
        ("1", "all", 400),
    ] {
        let path = format!("/gitspaces/demo/ports/{port}");
        let body = json!({ "visibility": visibility });
        plane
            .call(&ann.token, Method::PUT, &path, Some(body))
            .await
            .expect(status);
    }
    for port in 1..=64 {
        share(&plane, &ann.token, port, "project").await.expect(200);
    }
    let refused = share(&plane, &ann.token, 65, "project").await.expect(409);
    assert_eq!(refused.code(), "too_many_ports");
    share(&plane, &ann.token, 64, "project").await.expect(200);
}

#[tokio::test]
async fn whoever_can_log_in_gets_a_guest_s_grant_for_a_shared_port_and_for_nothing_else() {
    let (plane, ann, bob, slug) = two().await;
    let gateway = plane.gateway().await;
    let cookie = session(&plane, &bob.token).await;
    let at = |port: &str| format!("/authorize?gitspace={slug}{port}&return=%2Fa");
    for port in ["", "&port=3000"] {
        get(&plane, &at(port), &cookie).await.expect(404);
    }
    share(&plane, &ann.token, 3000, "project").await.expect(200);
    for port in ["", "&port=3001"] {
        get(&plane, &at(port), &cookie).await.expect(404);
    }
    let code = |answer: Answer| {
        let url = answer.expect(302).header("location").to_owned();
        url.split("code=").nth(1).unwrap().to_owned()
    };
    let first = code(get(&plane, &at("&port=3000"), &cookie).await);
    let second = code(get(&plane, &at("&port=3000"), &cookie).await);
    let answer = exchange(&plane, &gateway.token, &first, &slug, Some(3000))
        .await
        .expect(200)
        .json();
    let found = claims(&plane, answer["grant"].as_str().unwrap());
    assert_eq!(
        (found.ports, found.workspace, found.is_guest),
        (PortSet::Only { ports: vec![3000] }, false, true)
    );
    // It starts nothing.
    let wake = json!({"grant": answer["grant"], "is_asked_for": true});
    plane
        .post(gateway.token.expose(), "/gateways/wake", wake)
        .await
        .expect(404);
    // A code that was made before is worth nothing when the port is private again.
    share(&plane, &ann.token, 3000, "private").await.expect(200);
    exchange(&plane, &gateway.token, &second, &slug, Some(3000))
        .await
        .expect(404);
}

#[tokio::test]
async fn gateways_hear_what_is_shared_and_what_is_not_any_more() {
    let (plane, ann, _, slug) = two().await;
    share(&plane, &ann.token, 3000, "project").await.expect(200);
    let gateway = plane.gateway().await;
    let mut socket = dial(&plane, gateway.token.expose(), SUBPROTOCOL)
        .await
        .unwrap();
    let project = |port| SharedPort {
        port,
        visibility: PortVisibility::Project,
    };
    match heard(&mut socket).await {
        ToGateway::Snapshot { routes, .. } => {
            assert_eq!(routes[0].slug.as_str(), slug);
            assert_eq!(routes[0].owner, "ann");
            assert_eq!(routes[0].shared, [project(3000)]);
        }
        other => panic!("{other:?}"),
    }
    share(&plane, &ann.token, 80, "project").await.expect(200);
    let told = |message| match message {
        ToGateway::Route { route } => route.shared,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(heard(&mut socket).await), [project(80), project(3000)]);
    share(&plane, &ann.token, 3000, "private").await.expect(200);
    assert_eq!(told(heard(&mut socket).await), [project(80)]);
}
