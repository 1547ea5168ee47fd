//! Input that means harm.

use super::support::{TestPlane, request};
use axum::body::Body;
use http::{Method, Request, header};
use serde_json::json;
use wire::api::MAX_BODY;

async fn post_raw(plane: &TestPlane, path: &str, body: impl Into<Body>) -> super::support::Answer {
    let request = request(&plane.admin, Method::POST, path)
        .body(body.into())
        .unwrap();
    plane.send(request).await
}

#[tokio::test]
async fn clone_urls_refs_and_names_that_are_options_or_programs_are_refused() {
    let plane = TestPlane::start().await;
    for url in [
        "ext::sh -c 'touch /tmp/x'",
        "EXT::sh",
        "file:///etc/passwd",
        "/etc/passwd",
        "../x",
        "--upload-pack=touch /tmp/x",
        "-u",
        "ssh://-oProxyCommand=x/y",
        "git://example.com/x",
        "fd::3",
        "https://user:secret@example.com/x",
        "https://example.com/x\n--config=x",
        "https://example.com/x\u{0}",
        "https://example.com/\u{202e}x",
        "",
    ] {
        let answer = plane
            .post(&plane.admin, "/gitspaces", json!({"repo": {"url": url}}))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "invalid"),
            "{url:?}"
        );
        assert!(!answer.text.contains("secret"), "{url:?}");
    }
    let url = "https://example.com/x";
    for reference in [
        "-x",
        "--upload-pack=x",
        "a..b",
        "a b",
        "a\nb",
        "",
        "@{u}",
        "x.lock",
    ] {
        let body = json!({"repo": {"url": url, "reference": reference}});
        let answer = plane.post(&plane.admin, "/gitspaces", body).await;
        assert_eq!(answer.status, 400, "{reference:?}");
    }
    for name in [
        "",
        "-a",
        "A",
        "a.b",
        "../x",
        "a/b",
        "a--b",
        "é",
        "a\0",
        "x y",
        &"x".repeat(33),
    ] {
        let body = json!({"repo": {"url": url}, "name": name});
        let answer = plane.post(&plane.admin, "/gitspaces", body).await;
        assert_eq!(answer.status, 400, "{name:?}");
        let answer = plane
            .post(
                &plane.admin,
                "/users",
                json!({"name": format!("{name}\u{7}"), "role": "admin"}),
            )
            .await;
        assert_eq!(answer.status, 400, "{name:?}");
    }
    for machine in ["", "none", "../x", &"x".repeat(10_000)] {
        let body = json!({"repo": {"url": url}, "machine": machine});
        let answer = plane.post(&plane.admin, "/gitspaces", body).await;
        assert_eq!(answer.status, 400, "{machine:?}");
    }
    let list = plane.get(&plane.admin, "/gitspaces").await.json();
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn large_deep_and_broken_bodies_are_refused() {
    let plane = TestPlane::start().await;
    let large = "x".repeat(10 * 1024 * 1024);
    let answer = post_raw(&plane, "/tokens", large.clone()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (413, "body_too_large")
    );
    // Without a declared length, and with a key.
    let pieces = futures_util::stream::iter(
        (0..64).map(|_| Ok::<_, std::convert::Infallible>(bytes::Bytes::from("x".repeat(65536)))),
    );
    post_raw(&plane, "/tokens", Body::from_stream(pieces))
        .await
        .expect(413);
    let keyed = request(&plane.admin, Method::POST, "/tokens")
        .header("idempotency-key", "k")
        .body(Body::from(large))
        .unwrap();
    plane.send(keyed).await.expect(413);
    let just = format!("{{\"name\":\"{}\"}}", "x".repeat(MAX_BODY - 11));
    assert_eq!(just.len(), MAX_BODY);
    post_raw(&plane, "/tokens", just).await.expect(400);

    let deep = "[".repeat(33) + &"]".repeat(33);
    let answer = post_raw(&plane, "/tokens", deep).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (400, "json_too_deep")
    );
    post_raw(&plane, "/tokens", "[".repeat(200_000))
        .await
        .expect(400);
    for body in [
        "{",
        "null",
        "[]",
        "7",
        "\"x\"",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"name\":\"a\",\"is_admin\":true}",
        "{\"name\":\"a\"} {}",
        "{\"name\":\"a\\u0000\"}",
        "{\"name\":\"\\u001b]52;c;x\\u0007\"}",
        "{\"name\":\" a\"}",
        "{\"name\":\"a\",\"expires_in\":-1}",
        "{\"name\":\"a\",\"expires_in\":0}",
        "{\"name\":\"a\",\"expires_in\":1e99}",
        "{\"name\":\"a\",\"expires_in\":4294967295}",
    ] {
        let answer = post_raw(&plane, "/tokens", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["message"].is_string());
    }
    post_raw(&plane, "/tokens", vec![0xff, 0xfe])
        .await
        .expect(400);
    let text = request(&plane.admin, Method::POST, "/tokens");
    let mut text = text.body(Body::from("{\"name\":\"a\"}")).unwrap();
    text.headers_mut()
        .insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    plane.send(text).await.expect(415);
}

#[tokio::test]
async fn a_host_that_is_not_ours_is_misdirected() {
    let plane = TestPlane::start().await;
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "10.0.0.1",
        "",
        "x.localhost:7070",
    ] {
        for path in [
            "/",
            "/login",
            "/api/v1/healthz",
            "/api/v1/me",
            "/api/v1/delegates/connect",
            "/nothing",
        ] {
            let request = Request::builder().uri(path).header(header::HOST, host);
            let answer = plane.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (421, "misdirected"),
                "{host} {path}"
            );
        }
    }
    let absolute = Request::builder()
        .uri("http://evil.example/api/v1/healthz")
        .header(header::HOST, "localhost");
    plane
        .send(absolute.body(Body::empty()).unwrap())
        .await
        .expect(421);
    let none = Request::builder().uri("/api/v1/healthz");
    plane
        .send(none.body(Body::empty()).unwrap())
        .await
        .expect(421);
}

#[tokio::test]
async fn queries_cursors_and_paths_are_checked() {
    let plane = TestPlane::start().await;
    for query in [
        "cursor=x",
        "limit=0",
        "limit=101",
        "limit=x",
        "x=1",
        "cursor=",
        "limit=99999999999",
    ] {
        for list in [
            "/gitspaces",
            "/users",
            "/tokens",
            "/machines",
            "/join-tokens",
            "/delegates",
        ] {
            let answer = plane.get(&plane.admin, &format!("{list}?{query}")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (400, "invalid"),
                "{list}?{query}"
            );
        }
    }
    for path in [
        "/gitspaces/%00",
        "/gitspaces/..%2f..",
        "/gitspaces/%ff",
        "/machines/x",
        "/delegates/%0a",
        "/nothing",
        "/users/x",
    ] {
        let method = if path.starts_with("/gitspaces")
            || path == "/nothing"
            || path.starts_with("/delegates")
        {
            Method::GET
        } else if path.starts_with("/users") {
            Method::PATCH
        } else {
            Method::DELETE
        };
        let answer = plane
            .call(&plane.admin, method, path, Some(json!({})))
            .await;
        assert_eq!(answer.status, 404, "{path} {answer:?}");
        assert!(answer.json()["code"].is_string());
    }
    let answer = plane.call(&plane.admin, Method::PUT, "/me", None).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (405, "method_not_allowed")
    );
}

#[tokio::test]
async fn every_answer_has_a_trace_id_and_takes_the_callers() {
    let plane = TestPlane::start().await;
    let made = plane.get("", "/healthz").await;
    made.header("gitspaces-trace")
        .parse::<uuid::Uuid>()
        .unwrap();
    let own = "6f1c1e9e-8c1f-4d0e-9f0a-0123456789ab";
    let request = request(&plane.admin, Method::GET, "/nothing").header("gitspaces-trace", own);
    let answer = plane
        .send(request.body(Body::empty()).unwrap())
        .await
        .expect(404);
    assert_eq!(answer.header("gitspaces-trace"), own);
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
}
