//! A one-time code becomes a cookie that only the browser and the gateway ever see.

use crate::harness::{HOST, World, snapshot};

#[tokio::test]
async fn a_code_is_exchanged_for_a_cookie_that_opens_the_gitspace() {
    let world = World::start().await;
    let answer = world
        .get("/.gitspaces/open?code=good", "Accept: text/html\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 303 See Other\r\n"), "{answer}");
    assert!(answer.contains("\r\nlocation: /x?y=z\r\n"), "{answer}");
    let cookie = answer
        .split("\r\nset-cookie: ")
        .nth(1)
        .unwrap()
        .split("\r\n")
        .next()
        .unwrap();
    assert!(cookie.starts_with("gitspaces-grant=v4.public."), "{cookie}");
    for attribute in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age="] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    assert!(
        world
            .get("/", &format!("Cookie: {pair}\r\n"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(!world.seen.text().contains("v4.public"));
    assert!(!world.seen.text().contains("good"));
}

#[tokio::test]
async fn over_tls_the_cookie_is_bound_to_its_host() {
    let world = World::start_unconnected("https://localhost:7080").await;
    world.tell.send(Some(snapshot(&world.key))).await.unwrap();
    let answer = world.get("/.gitspaces/open?code=good", "").await;
    assert!(
        answer.contains("\r\nset-cookie: __Host-gitspaces=v4.public."),
        "{answer}"
    );
    assert!(answer.contains("; Secure\r\n"), "{answer}");
    // Any host below the domain could have set the other name.
    let grant = world.grant();
    for (name, status) in [
        ("__Host-gitspaces", "200"),
        ("gitspaces-grant", "401"),
        ("__host-gitspaces", "401"),
    ] {
        let answer = world.get("/", &format!("Cookie: {name}={grant}\r\n")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{name}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_redirect_never_leaves_the_origin() {
    let world = World::start().await;
    for path in [
        "//evil.example",
        "/%5Cevil",
        "http://evil.example",
        "javascript:alert(1)",
        "evil",
        "",
        "/%0d%0aSet-Cookie:%20x=y",
        "/%09/evil",
        "%20/x",
        "%5C%5Cevil",
        "/%5C/evil",
        "/%00",
    ] {
        let answer = world
            .get(&format!("/.gitspaces/open?code=path%3D{path}"), "")
            .await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{path}: {answer}");
        assert!(
            !answer.to_lowercase().contains("\r\nlocation:"),
            "{path}: {answer}"
        );
        assert!(
            !answer.to_lowercase().contains("\r\nset-cookie:"),
            "{path}: {answer}"
        );
    }
    let answer = world
        .get("/.gitspaces/open?code=path%3D/%255Cevil", "")
        .await;
    assert!(answer.contains("\r\nlocation: /%5Cevil\r\n"), "{answer}");
}

#[tokio::test]
async fn a_used_code_is_refused_with_a_hint() {
    let world = World::start().await;
    let answer = world.get("/.gitspaces/open?code=used", "").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("the code was used"), "{answer}");
    assert!(
        world
            .get("/.gitspaces/open", "")
            .await
            .starts_with("HTTP/1.1 400 ")
    );
    let post = format!(
        "POST /.gitspaces/open?code=good HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    assert!(world.ask(post).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn our_own_paths_never_reach_the_app() {
    let world = World::start().await;
    for path in [
        "/.gitspaces",
        "/.gitspaces/",
        "/.gitspaces/x",
        "/%2egitspaces/open?code=good",
        "//.gitspaces/open",
        "/./.gitspaces/open",
        "/.GITSPACES/open",
        "/.gitspaces%2fopen",
        "/.gitspaces%5copen",
        "/.gitspaces;a=b/open",
        "/%252egitspaces/x",
        "/\\.gitspaces/x",
    ] {
        let answer = world.granted(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    for path in ["/../x", "/a/../.gitspaces/open", "/a/%2e%2E/b"] {
        let answer = world.granted(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    assert_eq!(world.seen.text(), "");
}
