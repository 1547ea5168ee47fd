//! Idempotency keys.

use super::support::{Answer, TestPlane, request};
use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

async fn keyed(plane: &TestPlane, token: &str, path: &str, key: &str, body: &Value) -> Answer {
    let request = request(token, Method::POST, path)
        .header("idempotency-key", key)
        .body(Body::from(body.to_string()))
        .unwrap();
    plane.send(request).await
}

#[tokio::test]
async fn a_repeated_post_gets_the_first_answer_and_has_one_effect() {
    let plane = TestPlane::start().await;
    let body = json!({"repo": {"url": "https://example.com/app"}, "start": false});
    let first = keyed(&plane, &plane.admin, "/gitspaces", "k1", &body)
        .await
        .expect(201);
    let again = keyed(&plane, &plane.admin, "/gitspaces", "k1", &body)
        .await
        .expect(201);
    assert_eq!(first.text, again.text);
    assert_eq!(again.header("idempotency-replayed"), "true");
    let list = plane.get(&plane.admin, "/gitspaces").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    // Without a key it is another one, under another name.
    let other = plane
        .post(&plane.admin, "/gitspaces", body)
        .await
        .expect(201)
        .json();
    assert_eq!(other["name"], "app-2");
}

#[tokio::test]
async fn a_token_is_answered_again_and_lies_sealed_in_the_store() {
    let plane = TestPlane::start().await;
    let body = json!({"name": "laptop"});
    let first = keyed(&plane, &plane.admin, "/tokens", "k", &body)
        .await
        .expect(201);
    let again = keyed(&plane, &plane.admin, "/tokens", "k", &body)
        .await
        .expect(201);
    assert_eq!(first.text, again.text);
    let token = first.json()["token"].as_str().unwrap().to_owned();
    plane.get(&token, "/me").await.expect(200);
    for entry in std::fs::read_dir(&plane.dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let held = bytes
            .windows(token.len())
            .any(|part| part == token.as_bytes());
        assert!(!held, "{} holds the token", path.display());
    }
}

#[tokio::test]
async fn a_secret_is_repeated_for_minutes_and_then_said_to_have_been_shown() {
    let plane = TestPlane::start().await;
    for (path, body) in [
        ("/tokens", json!({"name": "laptop"})),
        ("/join-tokens", json!({})),
        ("/gateways", json!({"name": "edge"})),
    ] {
        let key = path.trim_matches('/');
        let first = keyed(&plane, &plane.admin, path, key, &body)
            .await
            .expect(201);
        plane.clock.advance(Duration::from_secs(299));
        let soon = keyed(&plane, &plane.admin, path, key, &body)
            .await
            .expect(201);
        assert_eq!(first.text, soon.text);
        plane.clock.advance(Duration::from_secs(2));
        let late = keyed(&plane, &plane.admin, path, key, &body).await;
        assert_eq!(
            (late.status.as_u16(), late.code().as_str()),
            (409, "shown_once"),
            "{path}"
        );
        let listed = plane.get(&plane.admin, path).await.expect(200);
        let secret = first.json()["token"].as_str().unwrap().to_owned();
        assert!(!late.text.contains(&secret) && !listed.text.contains(&secret));
    }
    let made = plane.get(&plane.admin, "/join-tokens").await.json();
    assert_eq!(made["items"].as_array().unwrap().len(), 1, "one effect");
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_user() {
    let plane = TestPlane::start().await;
    let user = plane.user("ada").await;
    let body = json!({"name": "one"});
    let first = keyed(&plane, &plane.admin, "/tokens", "k", &body)
        .await
        .expect(201);
    let other = keyed(
        &plane,
        &plane.admin,
        "/tokens",
        "k",
        &json!({"name": "two"}),
    )
    .await;
    assert_eq!(
        (other.status.as_u16(), other.code().as_str()),
        (422, "idempotency_key_reused")
    );
    let path = keyed(&plane, &plane.admin, "/join-tokens", "k", &body).await;
    assert_eq!(path.status, 422);
    let of_user = keyed(&plane, &user.token, "/tokens", "k", &body)
        .await
        .expect(201);
    assert_ne!(first.json()["id"], of_user.json()["id"]);
    for key in ["", "a b", "é", &"x".repeat(129)] {
        let answer = keyed(&plane, &plane.admin, "/tokens", key, &body).await;
        assert_eq!(answer.status, 400, "{key:?}");
    }
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let plane = TestPlane::start().await;
    keyed(
        &plane,
        &plane.admin,
        "/users",
        "k",
        &json!({"name": "", "role": "admin"}),
    )
    .await
    .expect(400);
    keyed(
        &plane,
        &plane.admin,
        "/users",
        "k",
        &json!({"name": "ada", "role": "admin"}),
    )
    .await
    .expect(201);
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day() {
    let plane = TestPlane::start().await;
    let user = plane.user("ada").await;
    let body = json!({"name": "laptop"});
    let first = keyed(&plane, &user.token, "/tokens", "k", &body)
        .await
        .expect(201);
    plane.clock.advance(Duration::from_secs(24 * 3600 + 1));
    let later = keyed(&plane, &user.token, "/tokens", "k", &body)
        .await
        .expect(201);
    assert_ne!(first.json()["id"], later.json()["id"]);
}

#[tokio::test]
async fn of_ten_at_once_one_has_an_effect() {
    let plane = TestPlane::start().await;
    let body = json!({"repo": {"url": "https://example.com/app"}, "start": false});
    let answers = futures_util::future::join_all(
        (0..10).map(|_| keyed(&plane, &plane.admin, "/gitspaces", "k", &body)),
    )
    .await;
    for answer in &answers {
        assert!(matches!(answer.status.as_u16(), 201 | 409), "{answer:?}");
        if answer.status == 409 {
            assert_eq!(answer.code(), "idempotency_key_in_progress");
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 201));
    let list = plane.get(&plane.admin, "/gitspaces").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}
