//! Gitspaces, their timeline as a stream, enrolment, and the description of the API.

use super::support::{TestPlane, request};
use axum::body::Body;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use std::time::Duration;
use token::SigningKey;
use tower::ServiceExt as _;
use wire::control::{ENROL_PURPOSE, EnrolClaims};

#[tokio::test]
async fn the_description_is_the_one_checked_in() {
    let plane = TestPlane::start().await;
    let served = plane.get("", "/openapi.json").await.expect(200).text;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &served).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == served,
        "openapi.json differs; write it again with `UPDATE_OPENAPI=1 cargo test -p control-plane the_description`"
    );
}

#[tokio::test]
async fn a_gitspace_is_made_shown_listed_and_deleted() {
    let plane = TestPlane::start().await;
    let body = json!({"repo": {"url": "https://example.com/team/My.App.git", "reference": "main"}});
    let made = plane
        .post(&plane.admin, "/gitspaces", body)
        .await
        .expect(201)
        .json();
    assert_eq!(made["name"], "my-app");
    assert_eq!(made["machine"], "standard");
    let slug = made["slug"].as_str().unwrap();
    assert_eq!(made["url"], format!("http://{slug}.localhost:7080/"));
    let id = made["id"].as_str().unwrap();
    for name in ["my-app", slug, id] {
        let shown = plane
            .get(&plane.admin, &format!("/gitspaces/{name}"))
            .await
            .expect(200)
            .json();
        assert_eq!(shown["id"], id);
    }
    let taken = json!({"repo": {"url": "https://example.com/x"}, "name": "my-app"});
    let taken = plane.post(&plane.admin, "/gitspaces", taken).await;
    assert_eq!(
        (taken.status.as_u16(), taken.code().as_str()),
        (409, "taken")
    );
    let busy = plane
        .post(
            &plane.admin,
            "/gitspaces/my-app/actions",
            json!({"action": "stop"}),
        )
        .await;
    assert_eq!((busy.status.as_u16(), busy.code().as_str()), (409, "busy"));
    plane
        .delete(&plane.admin, "/gitspaces/my-app")
        .await
        .expect(202);
    plane
        .get(&plane.admin, "/gitspaces/my-app")
        .await
        .expect(404);
}

#[tokio::test]
async fn a_list_comes_in_pages_that_hold_each_once() {
    let plane = TestPlane::start().await;
    for number in 0..7 {
        plane.gitspace(&plane.admin, &format!("g{number}")).await;
        plane.clock.advance(Duration::from_millis(1));
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = plane
            .get(&plane.admin, &format!("/gitspaces?limit=3{cursor}"))
            .await
            .expect(200)
            .json();
        for item in page["items"].as_array().unwrap() {
            seen.push(item["name"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["g0", "g1", "g2", "g3", "g4", "g5", "g6"]);
    let machines = plane.get(&plane.admin, "/machines?limit=2").await.json();
    let next = machines["next"].as_str().unwrap();
    let rest = plane
        .get(&plane.admin, &format!("/machines?limit=2&cursor={next}"))
        .await
        .json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert!(rest["next"].is_null());
}

#[tokio::test]
async fn a_timeline_is_followed_from_where_the_client_was_and_ends_with_the_gitspace() {
    let plane = TestPlane::start().await;
    plane.gitspace(&plane.admin, "demo").await;
    let listed = plane
        .get(&plane.admin, "/gitspaces/demo/events")
        .await
        .expect(200)
        .json();
    let first = listed["items"][0]["id"].as_u64().unwrap();
    let follow = request(&plane.admin, Method::GET, "/gitspaces/demo/events")
        .header("accept", "text/event-stream")
        .header("last-event-id", "0")
        .body(Body::empty())
        .unwrap();
    let mut body = plane
        .plane
        .router()
        .oneshot(follow)
        .await
        .unwrap()
        .into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let text = String::from_utf8(frame.to_vec()).unwrap();
    assert!(text.contains("event: timeline\n"), "{text}");
    assert!(text.contains(&format!("id: {first}\n")), "{text}");
    plane
        .delete(&plane.admin, "/gitspaces/demo")
        .await
        .expect(202);
    // What came meanwhile, and then the end.
    let rest = body.collect().await.unwrap().to_bytes();
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    assert!(rest.contains("\"deleted\""), "{rest}");
    assert!(!rest.contains(&format!("id: {first}\n")), "{rest}");
    let bad = request(&plane.admin, Method::GET, "/gitspaces").header("last-event-id", "x");
    plane
        .send(bad.body(Body::empty()).unwrap())
        .await
        .expect(200);
}

#[tokio::test]
async fn a_delegate_enrols_once_with_a_token_and_its_own_key() {
    let plane = TestPlane::start().await;
    let made = plane
        .post(&plane.admin, "/join-tokens", json!({}))
        .await
        .expect(201)
        .json();
    let join = made["token"].as_str().unwrap().to_owned();
    let now = daemon::Clock::now(&*plane.clock);
    let key = SigningKey::generate().unwrap();
    let other = SigningKey::generate().unwrap();
    let proof = |key: &SigningKey, audience: &str, name: &str| {
        let claims = EnrolClaims {
            audience: audience.to_owned(),
            name: name.to_owned(),
            iat: now,
            exp: now.checked_add(Duration::from_secs(60)).unwrap(),
        };
        token::sign(&claims, key, ENROL_PURPOSE).unwrap()
    };
    let own = "http://localhost:7070";
    let enrol = |join: &str, name: &str, public: &SigningKey, proof: String| {
        let body = json!({"join_token": join, "name": name, "tags": ["x=y"], "public_key": public.public().to_string(), "proof": proof});
        async { plane.post("", "/delegates/enroll", body).await }
    };
    let unknown = format!("gsj_{}", "a".repeat(52));
    for (answer, code) in [
        (
            enrol(&join, "host-1", &key, proof(&other, own, "host-1")).await,
            "bad_proof",
        ),
        (
            enrol(
                &join,
                "host-1",
                &key,
                proof(&key, "http://evil.example", "host-1"),
            )
            .await,
            "bad_proof",
        ),
        (
            enrol(&join, "host-1", &key, proof(&key, own, "host-2")).await,
            "bad_proof",
        ),
        (
            enrol(&join, "host-1", &key, "x".to_owned()).await,
            "bad_proof",
        ),
        (
            enrol(&unknown, "host-1", &key, proof(&key, own, "host-1")).await,
            "join_token_unknown",
        ),
        (
            enrol("x", "host-1", &key, proof(&key, own, "host-1")).await,
            "join_token_unknown",
        ),
    ] {
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (403, code),
            "{answer:?}"
        );
    }
    for name in ["", "-x", "a b", "a/b", "\u{7}", &"x".repeat(64)] {
        let answer = enrol(&join, name, &key, proof(&key, own, name)).await;
        assert_eq!(answer.status, 400, "{name:?}");
    }
    let first = enrol(&join, "host-1", &key, proof(&key, own, "host-1"))
        .await
        .expect(201)
        .json();
    let again = enrol(&join, "host-1", &key, proof(&key, own, "host-1"))
        .await
        .expect(201)
        .json();
    assert_eq!(first["delegate"], again["delegate"]);
    let used = enrol(&join, "host-2", &other, proof(&other, own, "host-2")).await;
    assert_eq!(
        (used.status.as_u16(), used.code().as_str()),
        (403, "join_token_used_up")
    );

    let shown = plane
        .get(&plane.admin, "/delegates/host-1")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (shown["connected"].as_bool(), shown["revoked"].as_bool()),
        (Some(false), Some(false))
    );
    plane
        .delete(&plane.admin, "/delegates/host-1")
        .await
        .expect(204);
    let list = plane.get(&plane.admin, "/delegates").await.json();
    assert_eq!(list["items"][0]["revoked"], true);
}

#[tokio::test]
async fn the_first_administrators_token_lies_in_a_file_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let plane = TestPlane::start().await;
    for (file, mode) in [("admin-token", 0o600), ("seal.key", 0o600), (".", 0o700)] {
        let found = std::fs::metadata(plane.dir.join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(found & 0o777, mode, "{file}");
    }
    let me = plane.get(&plane.admin, "/me").await.expect(200).json();
    assert_eq!(
        (me["name"].as_str(), me["role"].as_str()),
        (Some("admin"), Some("admin"))
    );
}

#[tokio::test]
async fn it_answers_on_its_socket() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let plane = TestPlane::start().await;
    let mut stream = tokio::net::TcpStream::connect(plane.address).await.unwrap();
    stream
        .write_all(b"GET /api/v1/version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(text.ends_with("{\"version\":\"0.1.0\"}"), "{text}");
}
