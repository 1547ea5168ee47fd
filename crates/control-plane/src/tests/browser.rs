//! Login, sessions, and the way to a gitspace.

use super::support::{Answer, TestPlane, page, request};
use axum::body::Body;
use http::{Method, header};
use serde_json::json;
use std::time::Duration;

const ORIGIN: &str = "http://localhost:7070";

async fn log_in(plane: &TestPlane, token: &str, next: &str, origin: Option<&str>) -> Answer {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("token", token)
        .append_pair("next", next)
        .finish();
    let mut request = page(Method::POST, "/login")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(origin) = origin {
        request = request.header(header::ORIGIN, origin);
    }
    plane.send(request.body(Body::from(form)).unwrap()).await
}

pub(super) async fn session(plane: &TestPlane, token: &str) -> String {
    let answer = log_in(plane, token, "/", Some(ORIGIN)).await.expect(303);
    let cookie = answer.header("set-cookie");
    for attribute in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age="] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

pub(super) async fn get(plane: &TestPlane, path: &str, cookie: &str) -> Answer {
    let request = page(Method::GET, path).header(header::COOKIE, cookie);
    plane.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_browser_logs_in_and_goes_on_to_the_gitspace_it_wanted() {
    let plane = TestPlane::start().await;
    let slug = plane.gitspace(&plane.admin, "demo").await;
    let wanted = format!("/authorize?gitspace={slug}&port=3000&return=%2Fa%3Fb%3Dc");
    let to_login = get(&plane, &wanted, "").await.expect(303);
    let form = get(&plane, to_login.header("location"), "")
        .await
        .expect(200);
    assert!(form.text.contains("name=\"token\""));
    let next = form
        .text
        .split("name=\"next\" type=\"hidden\" value=\"")
        .nth(1)
        .unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    let back = log_in(&plane, &plane.admin, &next, Some(ORIGIN))
        .await
        .expect(303);
    let cookie = back
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let there = get(&plane, back.header("location"), &cookie)
        .await
        .expect(302);
    let start = format!("http://3000--{slug}.localhost:7080/.gitspaces/open?code=gsc_");
    assert!(there.header("location").starts_with(&start), "{there:?}");
}

#[tokio::test]
async fn nobody_is_redirected_off_site() {
    let plane = TestPlane::start().await;
    let slug = plane.gitspace(&plane.admin, "demo").await;
    let cookie = session(&plane, &plane.admin).await;
    for place in [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "http://evil.example@demo.localhost:7080/",
        &format!("http://{slug}.localhost:7080.evil.example/"),
        &format!("http://{slug}.localhost:7080@evil.example/"),
        &format!("https://{slug}.localhost:7080/"),
        "http://localhost:7070/",
        "javascript:alert(1)",
        "/x\r\nset-cookie: a=b",
        "/\t/evil.example",
        "x",
    ] {
        let encoded: String = url::form_urlencoded::byte_serialize(place.as_bytes()).collect();
        let path = format!("/authorize?gitspace={slug}&return={encoded}");
        for cookie in [cookie.as_str(), ""] {
            let answer = get(&plane, &path, cookie).await;
            assert_eq!(answer.status, 400, "{place:?} {answer:?}");
            assert!(!answer.headers.contains_key("location"));
        }
        let answer = log_in(&plane, &plane.admin, place, Some(ORIGIN))
            .await
            .expect(303);
        assert_eq!(answer.header("location"), "/", "{place:?}");
    }
    for query in [
        "gitspace=evil.example",
        "gitspace=",
        "",
        "gitspace=a%2Fb",
        &format!("gitspace={slug}&gitspace=other"),
        &format!("gitspace={slug}&port=0"),
        &format!("gitspace={slug}&port=99999"),
        &format!("gitspace={slug}&port=x"),
        &format!("gitspace={slug}.evil.example"),
    ] {
        let answer = get(&plane, &format!("/authorize?{query}"), &cookie).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    let own = format!("http%3A%2F%2F8080--{slug}.localhost%3A7080%2Fx");
    let answer = get(
        &plane,
        &format!("/authorize?gitspace={slug}&return={own}"),
        &cookie,
    )
    .await;
    assert!(answer.header("location").starts_with(&format!(
        "http://8080--{slug}.localhost:7080/.gitspaces/open?code="
    )));
}

#[tokio::test]
async fn anothers_gitspace_does_not_exist_in_a_browser_either() {
    let plane = TestPlane::start().await;
    let (owner, other) = (plane.user("owner").await, plane.user("other").await);
    let slug = plane.gitspace(&owner.token, "demo").await;
    let cookie = session(&plane, &other.token).await;
    let answer = get(&plane, &format!("/authorize?gitspace={slug}"), &cookie)
        .await
        .expect(404);
    let none = get(&plane, "/authorize?gitspace=none-abcdef", &cookie)
        .await
        .expect(404);
    assert_eq!(answer.text, none.text);
}

#[tokio::test]
async fn a_page_in_a_frame_or_an_image_gets_no_code() {
    let plane = TestPlane::start().await;
    let slug = plane.gitspace(&plane.admin, "demo").await;
    let cookie = session(&plane, &plane.admin).await;
    for dest in ["iframe", "image", "empty", "script"] {
        let request = page(Method::GET, &format!("/authorize?gitspace={slug}"))
            .header(header::COOKIE, &cookie)
            .header("sec-fetch-dest", dest);
        plane
            .send(request.body(Body::empty()).unwrap())
            .await
            .expect(403);
    }
}

#[tokio::test]
async fn a_form_of_another_site_neither_logs_in_nor_out() {
    let plane = TestPlane::start().await;
    for origin in [
        None,
        Some("http://evil.example"),
        Some("null"),
        Some("http://x.localhost:7080"),
        Some("http://localhost:7080"),
    ] {
        let answer = log_in(&plane, &plane.admin, "/", origin).await;
        assert_eq!(answer.status, 403, "{origin:?}");
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    let cookie = session(&plane, &plane.admin).await;
    let out = page(Method::POST, "/logout").header(header::COOKIE, &cookie);
    plane
        .send(out.body(Body::empty()).unwrap())
        .await
        .expect(403);
    get(&plane, "/", &cookie).await.expect(200);
    let out = page(Method::POST, "/logout")
        .header(header::COOKIE, &cookie)
        .header(header::ORIGIN, ORIGIN);
    plane
        .send(out.body(Body::empty()).unwrap())
        .await
        .expect(303);
    get(&plane, "/", &cookie).await.expect(303);
}

#[tokio::test]
async fn a_cookie_changes_nothing_without_own_origin_and_csrf_token() {
    let plane = TestPlane::start().await;
    let cookie = session(&plane, &plane.admin).await;
    let me = request("", Method::GET, "/me").header(header::COOKIE, &cookie);
    let me = plane
        .send(me.body(Body::empty()).unwrap())
        .await
        .expect(200);
    let csrf = me.header("gitspaces-csrf").to_owned();
    let evil = Some("http://evil.example");
    let own = Some(ORIGIN);
    for (origin, sent, status) in [
        (None, None, 403),
        (own, None, 403),
        (None, Some(csrf.as_str()), 403),
        (evil, Some(csrf.as_str()), 403),
        (own, Some("x"), 403),
        (own, Some(""), 403),
        (own, Some(csrf.as_str()), 201),
    ] {
        let mut post = request("", Method::POST, "/tokens").header(header::COOKIE, &cookie);
        if let Some(origin) = origin {
            post = post.header(header::ORIGIN, origin);
        }
        if let Some(sent) = sent {
            post = post.header("gitspaces-csrf", sent);
        }
        let post = post.body(Body::from("{\"name\":\"x\"}")).unwrap();
        let answer = plane.send(post).await;
        assert_eq!(answer.status.as_u16(), status, "{origin:?} {sent:?}");
    }
}

#[tokio::test]
async fn a_session_ends_with_its_time_its_user_and_any_revoked_token_of_its_user() {
    let plane = TestPlane::start().await;
    let user = plane.user("ada").await;
    let path = format!("/users/{}", user.id);
    let set = |disabled: bool| {
        plane.call(
            &plane.admin,
            Method::PATCH,
            &path,
            Some(json!({"disabled": disabled})),
        )
    };

    let cookie = session(&plane, &user.token).await;
    get(&plane, "/", &cookie).await.expect(200);
    set(true).await.expect(200);
    get(&plane, "/", &cookie).await.expect(303);
    set(false).await.expect(200);
    get(&plane, "/", &cookie).await.expect(303);

    let cookie = session(&plane, &user.token).await;
    plane.clock.advance(Duration::from_secs(12 * 3600));
    get(&plane, "/", &cookie).await.expect(303);

    let cookie = session(&plane, &user.token).await;
    plane
        .delete(&user.token, &format!("/tokens/{}", user.token_id))
        .await
        .expect(204);
    get(&plane, "/", &cookie).await.expect(303);
}

#[tokio::test]
async fn a_wrong_token_gets_the_form_again_and_nothing_of_it_is_shown() {
    let plane = TestPlane::start().await;
    let answer = log_in(
        &plane,
        "gsp_<script>alert(1)</script>",
        "/\"><script>",
        Some(ORIGIN),
    )
    .await;
    assert_eq!(answer.status, 401);
    assert!(!answer.text.contains("<script>"), "{}", answer.text);
    let policy = answer.header("content-security-policy");
    assert!(
        policy.starts_with(
            "default-src 'none'; style-src 'self'; form-action 'self' http://*.localhost:7080;"
        ),
        "{policy}"
    );
}
