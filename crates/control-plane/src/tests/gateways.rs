//! Grants, one-time codes, and the gateways' link.

use super::support::{Answer, TestPlane};
use http::Method;
use jiff::SignedDuration;
use serde_json::json;
use std::time::Duration;
use token::VerifyingKey;
use wire::{
    gateway::{GRANT_PURPOSE, GrantClaims, PortSet},
    secret::Secret,
};

async fn link(plane: &TestPlane, body: serde_json::Value) -> (String, String) {
    let made = plane
        .post(&plane.admin, "/gitspaces/demo/links", body)
        .await
        .expect(201)
        .json();
    let url = made["url"].as_str().unwrap().to_owned();
    let code = url.split("code=").nth(1).unwrap().to_owned();
    (url, code)
}

pub(super) async fn exchange(
    plane: &TestPlane,
    gateway: &Secret,
    code: &str,
    slug: &str,
    port: Option<u16>,
) -> Answer {
    let body = json!({"code": code, "slug": slug, "port": port});
    plane
        .post(gateway.expose(), "/gateways/exchange", body)
        .await
}

pub(super) fn claims(plane: &TestPlane, grant: &str) -> GrantClaims {
    let key: VerifyingKey = plane.plane.grant_keys()[0].parse().unwrap();
    token::verify(
        grant,
        [&key],
        GRANT_PURPOSE,
        daemon::Clock::now(&*plane.clock),
    )
    .unwrap()
}

#[tokio::test]
async fn a_code_becomes_a_grant_for_its_origin_once() {
    let plane = TestPlane::start().await;
    let slug = plane.gitspace(&plane.admin, "demo").await;
    let gateway = plane.gateway().await;
    let (url, code) = link(&plane, json!({"path": "/x?y"})).await;
    assert!(url.starts_with(&format!(
        "http://{slug}.localhost:7080/.gitspaces/open?code=gsc_"
    )));
    let answer = exchange(&plane, &gateway.token, &code, &slug, None)
        .await
        .expect(200)
        .json();
    assert_eq!(answer["return_to"], "/x?y");
    let found = claims(&plane, answer["grant"].as_str().unwrap());
    assert_eq!(
        (found.gateway, found.slug.as_str(), found.workspace),
        (gateway.id, slug.as_str(), true)
    );
    assert!(!found.ports.contains(80));
    let again = exchange(&plane, &gateway.token, &code, &slug, None).await;
    assert_eq!(
        (again.status.as_u16(), again.code().as_str()),
        (404, "code_refused")
    );

    let (_, code) = link(&plane, json!({"port": 3000})).await;
    let answer = exchange(&plane, &gateway.token, &code, &slug, Some(3000))
        .await
        .expect(200)
        .json();
    let found = claims(&plane, answer["grant"].as_str().unwrap());
    assert_eq!(
        (found.ports, found.workspace),
        (PortSet::Only { ports: vec![3000] }, false)
    );
}

#[tokio::test]
async fn of_two_exchanges_at_once_one_gets_the_grant() {
    let plane = TestPlane::start().await;
    let slug = plane.gitspace(&plane.admin, "demo").await;
    let gateway = plane.gateway().await;
    let (_, code) = link(&plane, json!({})).await;
    let tries = futures_util::future::join_all(
        (0..8).map(|_| exchange(&plane, &gateway.token, &code, &slug, None)),
    )
    .await;
    assert_eq!(
        tries.iter().filter(|answer| answer.status == 200).count(),
        1
    );
}

#[tokio::test]
async fn a_code_at_another_origin_too_late_or_of_a_user_that_is_gone_is_refused() {
    let plane = TestPlane::start().await;
    let slug = plane.gitspace(&plane.admin, "demo").await;
    let other = plane.gitspace(&plane.admin, "other").await;
    let gateway = plane.gateway().await;
    for (at, port) in [
        (other.as_str(), None),
        (slug.as_str(), Some(80)),
        ("none-abcdef", None),
    ] {
        let (_, code) = link(&plane, json!({})).await;
        exchange(&plane, &gateway.token, &code, at, port)
            .await
            .expect(404);
        if at != "none-abcdef" {
            exchange(&plane, &gateway.token, &code, &slug, None)
                .await
                .expect(404);
        }
    }
    let (_, code) = link(&plane, json!({})).await;
    plane.clock.advance(Duration::from_secs(601));
    exchange(&plane, &gateway.token, &code, &slug, None)
        .await
        .expect(404);

    let user = plane.user("ada").await;
    let slug = plane.gitspace(&user.token, "hers").await;
    let made = plane
        .post(&user.token, "/gitspaces/hers/links", json!({}))
        .await
        .expect(201)
        .json();
    let code = made["url"]
        .as_str()
        .unwrap()
        .split("code=")
        .nth(1)
        .unwrap()
        .to_owned();
    plane
        .call(
            &plane.admin,
            Method::PATCH,
            &format!("/users/{}", user.id),
            Some(json!({"disabled": true})),
        )
        .await
        .expect(200);
    exchange(&plane, &gateway.token, &code, &slug, None)
        .await
        .expect(404);
}

#[tokio::test]
async fn only_a_gateway_exchanges_codes() {
    let plane = TestPlane::start().await;
    let slug = plane.gitspace(&plane.admin, "demo").await;
    let old = plane.gateway().await;
    let gateway = plane.gateway().await;
    assert_eq!(old.id, gateway.id);
    let (_, code) = link(&plane, json!({})).await;
    for token in [
        "",
        "x",
        plane.admin.as_str(),
        old.token.expose(),
        code.as_str(),
    ] {
        exchange(&plane, &Secret::new(token), &code, &slug, None)
            .await
            .expect(401);
    }
    exchange(&plane, &gateway.token, &code, &slug, None)
        .await
        .expect(200);
}

#[tokio::test]
async fn links_lead_to_paths_only() {
    let plane = TestPlane::start().await;
    plane.gitspace(&plane.admin, "demo").await;
    for path in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "x",
        "",
        "/ x",
        &format!("/{}", "x".repeat(3000)),
    ] {
        let answer = plane
            .post(&plane.admin, "/gitspaces/demo/links", json!({"path": path}))
            .await;
        assert_eq!(answer.status, 400, "{path:?}");
    }
    plane
        .post(&plane.admin, "/gitspaces/demo/links", json!({"port": 0}))
        .await
        .expect(400);
}

#[tokio::test]
async fn a_grant_is_for_the_ports_asked_and_none_is_made_without_a_gateway() {
    let plane = TestPlane::start().await;
    let slug = plane.gitspace(&plane.admin, "demo").await;
    let path = "/gitspaces/demo/grants";
    assert_eq!(
        plane
            .post(&plane.admin, path, json!({}))
            .await
            .expect(503)
            .code(),
        "unavailable"
    );
    let gateway = plane.gateway().await;
    let all = plane
        .post(&plane.admin, path, json!({}))
        .await
        .expect(201)
        .json();
    assert_eq!(all["url"], format!("http://{slug}.localhost:7080"));
    let found = claims(&plane, all["grant"].as_str().unwrap());
    assert_eq!(
        (found.gateway, found.ports, found.workspace),
        (gateway.id, PortSet::All {}, true)
    );
    let some = plane
        .post(&plane.admin, path, json!({"ports": [80]}))
        .await
        .expect(201)
        .json();
    assert_eq!(some["ports"], json!({"set": "only", "ports": [80]}));
    plane
        .post(&plane.admin, path, json!({"ports": [0]}))
        .await
        .expect(400);
    plane
        .post(&plane.admin, path, json!({"ports": vec![1; 65]}))
        .await
        .expect(400);
}

#[tokio::test]
async fn the_grant_key_and_the_gateways_id_survive_a_restart() {
    let guard = tempfile::tempdir().unwrap();
    let dir = camino::Utf8PathBuf::from_path_buf(guard.path().join("state")).unwrap();
    let clock = std::sync::Arc::new(daemon::ManualClock::default());
    let first = TestPlane::start_in(dir.clone(), clock.clone()).await;
    let (keys, admin, gateway) = (
        first.plane.grant_keys(),
        first.admin.clone(),
        first.gateway().await.id,
    );
    drop(first);
    let second = TestPlane::start_in(dir, clock).await;
    assert_eq!(second.plane.grant_keys(), keys);
    assert_eq!(second.admin, admin);
    assert_eq!(second.gateway().await.id, gateway);
    second.get(&admin, "/me").await.expect(200);
    let machines = second.get(&admin, "/machines").await.json();
    assert_eq!(machines["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn whoever_comes_with_a_grant_starts_the_gitspace_and_nobody_else_does() {
    let plane = TestPlane::start().await;
    plane.gitspace(&plane.admin, "demo").await;
    let gateway = plane.gateway().await;
    let grant = plane
        .post(&plane.admin, "/gitspaces/demo/grants", json!({}))
        .await
        .expect(201)
        .json()["grant"]
        .clone();
    let wake = async |token: &str, grant: &serde_json::Value| {
        plane
            .post(token, "/gateways/wake", json!({"grant": grant}))
            .await
    };
    for bad in [json!("nonsense"), json!("v4.public.AAAA")] {
        let refused = wake(gateway.token.expose(), &bad).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (404, "grant_refused")
        );
    }
    wake(&plane.admin, &grant).await.expect(401);
    let woken = wake(gateway.token.expose(), &grant).await.expect(200);
    assert_eq!(woken.json()["state"], "starting");
    let again = wake(gateway.token.expose(), &grant).await.expect(200);
    assert_eq!(again.json()["state"], "starting");
    let shown = plane
        .get(&plane.admin, "/gitspaces/demo")
        .await
        .expect(200)
        .json();
    assert_eq!(shown["desired"], "running");

    let id = claims(&plane, grant.as_str().unwrap()).id;
    let other = plane
        .post(&plane.admin, "/gitspaces/demo/grants", json!({}))
        .await
        .expect(201)
        .json()["grant"]
        .clone();
    plane
        .delete(&plane.admin, &format!("/grants/{id}"))
        .await
        .expect(204);
    let refused = wake(gateway.token.expose(), &grant).await;
    assert_eq!(refused.code(), "grant_refused", "it was revoked");
    let grant = other;
    wake(gateway.token.expose(), &grant).await.expect(200);

    plane
        .delete(&plane.admin, "/gitspaces/demo")
        .await
        .expect(202);
    let refused = wake(gateway.token.expose(), &grant).await;
    assert!(
        [404, 409].contains(&refused.status.as_u16()),
        "one that is being deleted stays so: {}",
        refused.status
    );
}

#[tokio::test]
async fn a_grant_of_what_is_still_open_is_renewed_while_its_holder_may_enter() {
    let plane = TestPlane::start().await;
    let ann = plane.user("ann").await;
    plane.gitspace(&ann.token, "demo").await;
    let gateway = plane.gateway().await;
    let grant = async || {
        let made = plane
            .post(&ann.token, "/gitspaces/demo/grants", json!({"ports": [80]}))
            .await
            .expect(201);
        made.json()["grant"].as_str().unwrap().to_owned()
    };
    let renew = async |token: &str, grant: &str| {
        plane
            .post(token, "/gateways/renew", json!({"grant": grant}))
            .await
    };
    let first = grant().await;
    renew(&ann.token, &first).await.expect(401);
    plane.clock.advance(Duration::from_secs(50 * 60));
    let answer = renew(gateway.token.expose(), &first).await.expect(200);
    let next = answer.json()["grant"].as_str().unwrap().to_owned();
    let (old, new) = (claims(&plane, &first), claims(&plane, &next));
    assert_eq!(
        (new.id, new.user, new.workspace),
        (old.id, old.user, old.workspace)
    );
    assert_eq!(new.ports, old.ports);
    assert!(new.exp > old.exp);
    // Its own end is its end.
    plane.clock.advance(Duration::from_secs(20 * 60));
    renew(gateway.token.expose(), &first).await.expect(404);
    let second = grant().await;
    plane
        .delete(&ann.token, &format!("/grants/{}", new.id))
        .await
        .expect(204);
    renew(gateway.token.expose(), &next).await.expect(404);
    renew(gateway.token.expose(), &second).await.expect(200);
    plane
        .call(
            &plane.admin,
            Method::PATCH,
            &format!("/users/{}", ann.id),
            Some(json!({"disabled": true})),
        )
        .await
        .expect(200);
    let refused = renew(gateway.token.expose(), &second).await;
    assert_eq!(refused.code(), "grant_refused");
}

#[tokio::test]
async fn a_grant_is_renewed_for_a_working_day_and_then_its_holder_comes_again() {
    let plane = TestPlane::start().await;
    plane.gitspace(&plane.admin, "demo").await;
    let gateway = plane.gateway().await;
    let made = plane
        .post(&plane.admin, "/gitspaces/demo/grants", json!({}))
        .await
        .expect(201)
        .json();
    let mut last = made["grant"].as_str().unwrap().to_owned();
    let begun = claims(&plane, &last).iat;
    let mut renewed = 0;
    loop {
        let before = claims(&plane, &last).exp;
        plane.clock.advance(Duration::from_secs(50 * 60));
        let body = json!({ "grant": last });
        let answer = plane
            .post(gateway.token.expose(), "/gateways/renew", body)
            .await;
        if answer.status.as_u16() != 200 {
            assert_eq!(answer.code(), "grant_refused");
            break;
        }
        let next = answer.json()["grant"].as_str().unwrap().to_owned();
        let exp = claims(&plane, &next).exp;
        assert!(exp >= before);
        assert!(exp.duration_since(begun) <= SignedDuration::from_hours(12));
        last = next;
        renewed += 1;
    }
    assert!((13..=15).contains(&renewed), "{renewed}");
}
