//! Gitspaces that do not run, and whoever comes to them.

use crate::harness::{HOST, World, read_head, route, snapshot, within};
use std::sync::atomic::Ordering;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use wire::{gateway::ToGateway, gitspace::GitspaceState, task::Phase};

/// With a control plane that starts what somebody comes to, and a gitspace that does not run.
async fn asleep() -> World {
    let world = World::start_unconnected("http://localhost:7080").await;
    let mut told = snapshot(&world.key);
    if let ToGateway::Snapshot { wakes, routes, .. } = &mut told {
        *wakes = true;
        *routes = vec![route(GitspaceState::Stopped, false)];
    }
    world.tell.send(Some(told)).await.unwrap();
    world.until_connected().await;
    world
}

async fn tell(world: &World, state: GitspaceState, reachable: bool) {
    let route = route(state, reachable);
    world
        .tell
        .send(Some(ToGateway::Route { route }))
        .await
        .unwrap();
}

fn woken(world: &World) -> usize {
    world.seen.woken.load(Ordering::SeqCst)
}

async fn until_woken(world: &World) {
    within("it is asked for", async {
        while woken(world) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A request that is on its way.
async fn asking(world: &World, head: &str, body: &str) -> TcpStream {
    let mut stream = world.connect().await;
    let request = format!(
        "{head}Host: {HOST}\r\ngitspaces-grant: {}\r\n\r\n{body}",
        world.grant()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_program_s_request_waits_for_the_start_and_goes_on_on_the_same_connection() {
    let world = asleep().await;
    let mut stream = asking(&world, "POST /x HTTP/1.1\r\nContent-Length: 5\r\n", "hel").await;
    until_woken(&world).await;
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 0);
    tell(&world, GitspaceState::Starting, false).await;
    // What comes meanwhile is kept.
    stream.write_all(b"lo").await.unwrap();
    tell(&world, GitspaceState::Running, true).await;
    let head = within("an answer", read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        world.seen.text().contains("POST /x HTTP/1.1"),
        "{}",
        world.seen.text()
    );
    assert!(world.seen.text().contains("hello"), "{}", world.seen.text());
    assert_eq!(woken(&world), 1);
}

#[tokio::test]
async fn a_start_that_fails_is_what_the_request_is_answered_with() {
    let world = asleep().await;
    let mut stream = asking(&world, "GET / HTTP/1.1\r\n", "").await;
    until_woken(&world).await;
    tell(&world, GitspaceState::Starting, false).await;
    tell(&world, GitspaceState::Error, false).await;
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("gitspace_failed"), "{answer}");
}

#[tokio::test]
async fn a_control_plane_that_refuses_is_quoted() {
    let world = asleep().await;
    world.seen.refuses_to_wake.store(true, Ordering::SeqCst);
    let answer = world.granted("/", "").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("it failed"), "{answer}");
}

#[tokio::test]
async fn whoever_does_not_want_a_start_gets_none() {
    let world = asleep().await;
    let answer = world.granted("/", "gitspaces-wake: never\r\n").await;
    assert!(answer.contains("gitspace_not_running"), "{answer}");
    assert_eq!(woken(&world), 0);
}

#[tokio::test]
async fn a_page_that_a_person_opens_starts_it_and_shows_how_it_goes() {
    let world = asleep().await;
    let cookie = format!(
        "Cookie: gitspaces-grant={}\r\nAccept: text/html\r\n",
        world.grant()
    );
    let page = world.get("/", &cookie).await;
    assert!(page.starts_with("HTTP/1.1 503"), "{page}");
    assert!(page.contains("is starting"), "{page}");
    assert!(page.contains("\r\nrefresh: 1\r\n"), "{page}");
    assert_eq!(woken(&world), 1);
    let mut cloning = route(GitspaceState::Starting, false);
    cloning.phase = Some(Phase::Clone);
    let told = ToGateway::Route { route: cloning };
    world.tell.send(Some(told)).await.unwrap();
    within("its phase", async {
        while !world.get("/", &cookie).await.contains("clone") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let before = woken(&world);
    let page = world.get("/", &cookie).await;
    assert!(page.contains("is starting"), "{page}");
    assert_eq!(
        woken(&world),
        before,
        "one that looks again asks for nothing"
    );
}

#[tokio::test]
async fn a_page_that_was_left_open_does_not_keep_its_gitspace_awake() {
    let world = asleep().await;
    let cookie = format!("Cookie: gitspaces-grant={}\r\n", world.grant());
    let origin = format!("Origin: http://{HOST}\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for head in [
        format!("{cookie}Connection: close\r\n"),
        format!("{cookie}{origin}Connection: close\r\nAccept: application/json\r\n"),
        format!("{cookie}{origin}{upgrade}"),
        format!("{cookie}Connection: close\r\nAccept: text/html, */*\r\nSec-Fetch-Mode: cors\r\n"),
    ] {
        let answer = world
            .ask(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{head}\r\n"))
            .await;
        assert!(answer.contains("gitspace_not_running"), "{answer}");
    }
    assert_eq!(woken(&world), 0);
}

#[tokio::test]
async fn a_frame_of_another_page_or_what_is_fetched_in_advance_starts_nothing() {
    let world = asleep().await;
    let cookie = format!(
        "Cookie: gitspaces-grant={}\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n",
        world.grant()
    );
    for head in [
        "Sec-Fetch-Dest: iframe\r\n",
        "Sec-Fetch-Dest: document\r\nSec-Purpose: prefetch;prerender\r\n",
        "Sec-Fetch-Dest: document\r\nSec-Fetch-Dest: iframe\r\n",
    ] {
        let answer = world.get("/", &format!("{cookie}{head}")).await;
        assert!(answer.contains("gitspace_not_running"), "{answer}");
    }
    assert_eq!(woken(&world), 0);
    let opened = format!("{cookie}Sec-Fetch-Dest: document\r\n");
    let answer = world.get("/", &opened).await;
    assert!(answer.contains("is starting"), "{answer}");
    assert_eq!(woken(&world), 1);
}

#[tokio::test]
async fn a_client_that_goes_while_it_waits_is_not_waited_for() {
    let world = asleep().await;
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let before = woken(&world);
        let stream = asking(&world, "GET / HTTP/1.1\r\n", "").await;
        within("it waits", async {
            while woken(&world) == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        waiting.spawn(async move { drop(stream) });
    }
    while waiting.join_next().await.is_some() {}
    tell(&world, GitspaceState::Running, true).await;
    let answer = world.granted("/", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let dials = world.seen.dials.load(Ordering::SeqCst);
    assert_eq!(dials, 1, "nothing is dialled for whoever is gone");
}

/// Where nothing is started by coming to it.
async fn stopped() -> World {
    let world = World::start_unconnected("http://localhost:7080").await;
    let mut told = snapshot(&world.key);
    if let ToGateway::Snapshot { routes, .. } = &mut told {
        *routes = vec![route(GitspaceState::Stopped, false)];
    }
    world.tell.send(Some(told)).await.unwrap();
    world.until_connected().await;
    world
}

/// What a browser sends for the button of a page.
async fn pressed(world: &World, method: &str, head: &str) -> String {
    let cookie = world.grant();
    world
        .ask(format!(
            "{method} /.gitspaces/start?return=%2Fa%3Fb%3Dc HTTP/1.1\r\nHost: {HOST}\r\nCookie: gitspaces-grant={cookie}\r\n\
             Accept: text/html\r\nConnection: close\r\n{head}\r\n"
        ))
        .await
}

#[tokio::test]
async fn a_stopped_gitspace_has_a_page_whose_button_starts_it_and_goes_back() {
    let world = stopped().await;
    let cookie = format!("Cookie: gitspaces-grant={}\r\n", world.grant());
    let page = world
        .get("/a?b=c", &format!("{cookie}Accept: text/html\r\n"))
        .await;
    assert!(
        page.contains("<form method=\"post\" action=\"/.gitspaces/start?return=%2Fa%3Fb%3Dc\">"),
        "{page}"
    );
    assert!(!page.contains("form-action"), "{page}");
    assert!(page.contains("referrer-policy: same-origin"), "{page}");
    assert_eq!(woken(&world), 0, "by looking at it");

    let origin = format!("Origin: http://{HOST}\r\nContent-Length: 0\r\n");
    let answer = pressed(&world, "POST", &origin).await;
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    assert!(answer.contains("\r\nlocation: /a?b=c\r\n"), "{answer}");
    assert_eq!(woken(&world), 1);
    assert_eq!(
        world.seen.asked_for.load(Ordering::SeqCst),
        1,
        "it was asked for, and not only come to"
    );
}

/// A page that was open over night.
#[tokio::test]
async fn a_button_pressed_after_the_grant_s_end_leads_back_by_the_sign_in() {
    let world = stopped().await;
    let press = |head: &str| {
        format!(
            "POST /.gitspaces/start?return=%2Fa HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\nConnection: close\r\n{head}\r\n"
        )
    };
    let own = format!("Origin: http://{HOST}\r\nAccept: text/html\r\n");
    let answer = world.ask(press(&own)).await;
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    assert!(answer.contains("\r\nlocation: /a\r\n"), "{answer}");
    let answer = world.ask(press("Origin: http://evil.example\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(woken(&world), 0);
}

#[tokio::test]
async fn only_its_own_page_presses_the_button() {
    let world = stopped().await;
    for (method, head) in [
        ("GET", ""),
        (
            "POST",
            "Origin: http://evil.example\r\nContent-Length: 0\r\n",
        ),
        ("POST", "Origin: null\r\nContent-Length: 0\r\n"),
        (
            "POST",
            "Sec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n",
        ),
        ("POST", "Sec-Fetch-Site: same-site\r\nContent-Length: 0\r\n"),
    ] {
        let answer = pressed(&world, method, head).await;
        let status = answer.get(9..12);
        assert!(matches!(status, Some("403" | "405")), "{head}: {answer}");
    }
    let answer = world
        .ask(format!(
            "POST /.gitspaces/start HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 303"),
        "back to sign in: {answer}"
    );
    assert_eq!(woken(&world), 0);
}

#[tokio::test]
async fn a_button_leads_back_to_no_other_site() {
    let world = stopped().await;
    let answer = world
        .ask(format!(
            "POST /.gitspaces/start?return=//evil.example HTTP/1.1\r\nHost: {HOST}\r\nCookie: gitspaces-grant={}\r\n\
             Origin: http://{HOST}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            world.grant()
        ))
        .await;
    assert!(answer.contains("\r\nlocation: /\r\n"), "{answer}");
}
