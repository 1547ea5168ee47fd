//! The first administrator's way in, and back in.

use super::support::TestPlane;
use http::Method;
use serde_json::json;
use std::{sync::Arc, time::Duration};

impl TestPlane {
    /// The token in the file, if there is one.
    fn on_disk(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join("admin-token")).ok()?;
        Some(text.trim().to_owned())
    }

    /// One of the administrator's own, made with `token`.
    async fn own_token(&self, token: &str) -> String {
        let made = self
            .post(token, "/tokens", json!({"name": "laptop"}))
            .await
            .expect(201)
            .json();
        made["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn it_ends_with_the_first_use_of_another_token_of_an_administrator() {
    let plane = TestPlane::start().await;
    assert!(plane.admin.starts_with(wire::api::BOOTSTRAP_PREFIX));
    let developer = plane.user("ann").await;
    plane.get(&developer.token, "/me").await.expect(200);
    let own = plane.own_token(&plane.admin).await;
    // The answer with the other token may be lost: until that is used, this one is still the way in.
    plane.get(&plane.admin, "/me").await.expect(200);
    assert!(plane.on_disk().is_some());
    plane.get(&own, "/me").await.expect(200);
    plane.get(&plane.admin, "/me").await.expect(401);
    assert_eq!(plane.on_disk(), None);
    plane.get(&own, "/users").await.expect(200);
}

#[tokio::test]
async fn it_holds_for_a_day_and_its_file_goes_with_it() {
    let guard = tempfile::tempdir().unwrap();
    let dir = camino::Utf8PathBuf::from_path_buf(guard.path().join("state")).unwrap();
    let clock = Arc::new(daemon::ManualClock::default());
    let plane = TestPlane::start_in(dir, Arc::clone(&clock)).await;
    clock.advance(Duration::from_hours(24) - Duration::from_secs(1));
    plane.plane.bootstrap().tidy().await.unwrap();
    plane.get(&plane.admin, "/me").await.expect(200);
    clock.advance(Duration::from_secs(1));
    let refused = plane.get(&plane.admin, "/me").await.expect(401);
    for daemon in ["gitspaces-control-plane", "delegate-agent"] {
        let command = format!("{daemon} admin-token");
        assert!(refused.text.contains(&command), "{}", refused.text);
    }
    plane.plane.bootstrap().tidy().await.unwrap();
    assert_eq!(plane.on_disk(), None);
}

#[tokio::test]
async fn who_owns_the_host_gets_back_in() {
    let plane = TestPlane::start().await;
    let own = plane.own_token(&plane.admin).await;
    let me = plane.get(&own, "/me").await.expect(200).json();
    let helper = plane
        .post(&own, "/users", json!({"name": "bob", "role": "admin"}))
        .await
        .expect(201)
        .json();
    let path = format!("/users/{}/tokens", helper["id"].as_str().unwrap());
    let helper = plane
        .post(&own, &path, json!({"name": "x"}))
        .await
        .expect(201)
        .json();
    let helper = helper["token"].as_str().unwrap();
    let path = format!("/users/{}", me["id"].as_str().unwrap());
    plane
        .call(
            helper,
            Method::PATCH,
            &path,
            Some(json!({"disabled": true, "role": "developer"})),
        )
        .await
        .expect(200);
    plane.get(&own, "/me").await.expect(401);

    let bootstrap = plane.plane.bootstrap();
    let file = bootstrap.mint().await.unwrap();
    assert_eq!(file, plane.dir.join("admin-token"));
    let first = plane.on_disk().unwrap();
    plane.get(&first, "/users").await.expect(200);
    // One at a time.
    bootstrap.mint().await.unwrap();
    plane.get(&first, "/me").await.expect(401);
    plane
        .get(&plane.on_disk().unwrap(), "/me")
        .await
        .expect(200);
}
