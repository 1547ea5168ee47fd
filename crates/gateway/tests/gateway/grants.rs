//! Nothing reaches a gitspace without a grant for it that holds.

use crate::harness::{
    HOST, SLUG, World, claims, read_head, revoke_user, route, snapshot, uuid, within,
};
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::Ordering;
use token::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{
    gateway::{GRANT_PURPOSE, GrantClaims, PortSet, Revocation, RevokedSubject, ToGateway},
    gitspace::GitspaceState,
};

#[tokio::test]
async fn a_request_with_a_grant_reaches_the_app_by_header_and_by_cookie() {
    let world = World::start().await;
    let grant = world.grant();
    assert!(
        world
            .granted("/a?b=c", "")
            .await
            .contains("GET /a?b=c HTTP/1.1\r\n")
    );
    let answer = world
        .get("/", &format!("Cookie: a=b; gitspaces-grant={grant}\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn no_byte_reaches_the_app_without_a_grant_that_holds() {
    let world = World::start().await;
    let now = Timestamp::now();
    let stranger = SigningKey::generate().unwrap();
    let good = world.grant();
    let mut changed = good.clone().into_bytes();
    changed[40] = if changed[40] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    let of = |claims: GrantClaims| world.sign(&claims);
    let cases = [
        ("nothing", String::new(), 401),
        ("rubbish", "x".to_owned(), 401),
        ("a changed grant", changed, 401),
        ("half a grant", good[..good.len() / 2].to_owned(), 401),
        (
            "another key's",
            token::sign(&claims(), &stranger, GRANT_PURPOSE).unwrap(),
            401,
        ),
        (
            "another purpose's",
            token::sign(&claims(), &world.key, "gitspaces proof v1").unwrap(),
            401,
        ),
        (
            "an expired one",
            of(GrantClaims {
                iat: now - SignedDuration::from_secs(60),
                exp: now - SignedDuration::from_secs(1),
                ..claims()
            }),
            401,
        ),
        (
            "one of the future",
            of(GrantClaims {
                iat: now + SignedDuration::from_secs(120),
                exp: now + SignedDuration::from_secs(240),
                ..claims()
            }),
            401,
        ),
        (
            "another gateway's",
            of(GrantClaims {
                gateway: uuid(2),
                ..claims()
            }),
            403,
        ),
        (
            "another gitspace's",
            of(GrantClaims {
                gitspace: uuid(8),
                ..claims()
            }),
            403,
        ),
        (
            "another slug's",
            of(GrantClaims {
                slug: "other-xy98zw".parse().unwrap(),
                ..claims()
            }),
            403,
        ),
        (
            "another port's",
            of(GrantClaims {
                ports: PortSet::Only { ports: vec![3000] },
                ..claims()
            }),
            403,
        ),
    ];
    for (name, grant, status) in cases {
        let header = match grant.as_str() {
            "" => String::new(),
            grant => format!("gitspaces-grant: {grant}\r\n"),
        };
        let cookie = format!("Cookie: gitspaces-grant={grant}\r\n");
        for head in [header, cookie] {
            let answer = world.get("/canary", &head).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{name}: {answer}"
            );
            assert!(answer.contains("\"code\":\""), "{name}: {answer}");
            assert!(!answer.contains("v4.public"), "{name}: {answer}");
        }
    }
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 0);
    assert_eq!(world.seen.text(), "");
}

#[tokio::test]
async fn the_workspace_needs_a_grant_that_names_it() {
    let world = World::start().await;
    let without = world.sign(&GrantClaims {
        workspace: false,
        ..claims()
    });
    for (grant, status) in [(world.grant(), 200), (without, 403)] {
        let answer = world
            .ask(format!("GET / HTTP/1.1\r\nHost: {SLUG}.localhost:7080\r\nConnection: close\r\ngitspaces-grant: {grant}\r\n\r\n"))
            .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_browser_without_a_grant_is_sent_to_sign_in_and_comes_back() {
    let world = World::start().await;
    let answer = world.get("/a?b=c&d", "Accept: text/html,*/*\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 302 Found\r\n"), "{answer}");
    assert!(
        answer.contains("\r\nlocation: http://localhost:7070/authorize?gitspace=demo-ab12cd&port=8000&return=%2Fa%3Fb%3Dc%26d\r\n"),
        "{answer}"
    );
    let answer = world.get("//evil.example", "Accept: text/html\r\n").await;
    assert!(answer.contains("&return=%2F\r\n"), "{answer}");
}

#[tokio::test]
async fn a_gitspace_that_does_not_exist_looks_like_one_that_does() {
    let world = World::start().await;
    let ask = |slug: &str| {
        world.ask(format!(
            "GET / HTTP/1.1\r\nHost: 8000--{slug}.localhost:7080\r\nConnection: close\r\n\r\n"
        ))
    };
    assert_eq!(ask(SLUG).await, ask("nobody-ab12cd").await);
}

#[tokio::test]
pub(crate) async fn a_revoked_grant_is_refused_on_the_same_connection() {
    let world = World::start().await;
    let grant = world.grant();
    let mut stream = world.connect().await;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\ngitspaces-grant: {grant}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(
        within("an answer", read_head(&mut stream))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let head = format!("gitspaces-grant: {grant}\r\n");
    world.tell_until(revoke_user(), &head, "HTTP/1.1 401").await;
    drop(stream.write_all(request.as_bytes()).await);
    let mut rest = String::new();
    drop(within("the end", stream.read_to_string(&mut rest)).await);
    assert!(!rest.contains("HTTP/1.1 200"), "{rest}");
    // One that was issued afterwards holds.
    let later = world.sign(&GrantClaims {
        iat: Timestamp::now(),
        ..claims()
    });
    assert!(
        world
            .get("/", &format!("gitspaces-grant: {later}\r\n"))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn a_snapshot_brings_the_revocations_of_before() {
    let world = World::start().await;
    let mut message = snapshot(&world.key);
    if let ToGateway::Snapshot { revocations, .. } = &mut message {
        revocations.push(Revocation {
            subject: RevokedSubject::Grant { grant: claims().id },
            before: Timestamp::now(),
        });
    }
    let head = format!("gitspaces-grant: {}\r\n", world.grant());
    world.tell.send(None).await.unwrap();
    world.tell_until(message, &head, "HTTP/1.1 401").await;
}

#[tokio::test]
async fn a_withdrawn_key_voids_its_grants() {
    let world = World::start().await;
    let head = format!("gitspaces-grant: {}\r\n", world.grant());
    assert!(world.get("/", &head).await.starts_with("HTTP/1.1 200"));
    let other = SigningKey::generate().unwrap();
    let keys = ToGateway::Keys {
        keys: vec![other.public().to_string()],
    };
    world.tell_until(keys, &head, "HTTP/1.1 401").await;
}

#[tokio::test]
async fn a_cut_link_changes_nothing() {
    let world = World::start().await;
    world.tell.send(None).await.unwrap();
    assert!(world.granted("/", "").await.starts_with("HTTP/1.1 200"));
    // It is dialled again and hears what is told then.
    let gone = ToGateway::RouteGone {
        slug: SLUG.parse().unwrap(),
    };
    world.tell.send(Some(snapshot(&world.key))).await.unwrap();
    world
        .tell_until(
            gone,
            &format!("gitspaces-grant: {}\r\n", world.grant()),
            "HTTP/1.1 404",
        )
        .await;
}

#[tokio::test]
async fn before_the_first_snapshot_it_says_so() {
    let world = World::start_unconnected("http://localhost:7080").await;
    let answer = world.granted("/", "").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("gateway_not_connected"), "{answer}");
    assert!(answer.contains("\r\nretry-after: 2\r\n"), "{answer}");
}

#[tokio::test]
async fn who_has_a_grant_is_told_the_state_of_the_gitspace() {
    let world = World::start().await;
    let head = format!("gitspaces-grant: {}\r\n", world.grant());
    for (state, status, code) in [
        (
            GitspaceState::Stopped,
            "HTTP/1.1 503",
            "gitspace_not_running",
        ),
        (GitspaceState::Starting, "HTTP/1.1 503", "gitspace_starting"),
        (GitspaceState::Error, "HTTP/1.1 502", "gitspace_failed"),
        (GitspaceState::Deleted, "HTTP/1.1 404", "gitspace_deleted"),
    ] {
        let mut route = route(state, false);
        route.error = Some("image <gone>".to_owned());
        world
            .tell_until(ToGateway::Route { route }, &head, status)
            .await;
        within(code, async {
            while !world.get("/", &head).await.contains(code) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let failed = ToGateway::Route {
        route: wire::gateway::Route {
            error: Some("image <gone>".to_owned()),
            ..route(GitspaceState::Error, false)
        },
    };
    world.tell_until(failed, &head, "HTTP/1.1 502").await;
    let page = world
        .get("/", &format!("{head}Accept: text/html\r\n"))
        .await;
    assert!(page.contains("image &lt;gone&gt;"), "{page}");
}

#[tokio::test]
async fn a_closed_port_is_answered_with_those_that_are_open() {
    let world = World::start().await;
    for (port, status, words) in [
        (8001, 502, "these ports are listened on: 8000 (node)"),
        (8002, 503, "the gitspace does not run"),
        (8003, 502, "the delegate &lt;is&gt; away"),
    ] {
        let answer = world
            .ask(format!(
                "GET / HTTP/1.1\r\nHost: {port}--{SLUG}.localhost:7080\r\nConnection: close\r\nAccept: text/html\r\ngitspaces-grant: {}\r\n\r\n",
                world.grant()
            ))
            .await;
        assert!(
            answer.to_lowercase().contains(&words.to_lowercase()),
            "{answer}"
        );
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}
