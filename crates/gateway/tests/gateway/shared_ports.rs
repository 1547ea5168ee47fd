//! Ports that their owner shares.

use crate::harness::{HOST, World, claims, read_head, route, uuid, within};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{
    gateway::{GrantClaims, PortSet, Route, ToGateway},
    gitspace::{GitspaceState, PortVisibility, SharedPort},
};

/// Of [`HOST`].
const PORT: u16 = 8000;

async fn share(world: &World, visibility: PortVisibility) {
    let mut route = route(GitspaceState::Running, true);
    route.shared = match visibility {
        PortVisibility::Private => Vec::new(),
        _ => vec![SharedPort {
            port: PORT,
            visibility,
        }],
    };
    tell(world, ToGateway::Route { route }).await;
}

/// When this is over, it is known: so is what was told after it.
async fn tell(world: &World, message: ToGateway) {
    static MARKS: AtomicUsize = AtomicUsize::new(100_000);
    world.tell.send(Some(message)).await.unwrap();
    let slug = format!("mark-{}", MARKS.fetch_add(1, Ordering::SeqCst));
    let mark = Route {
        slug: slug.parse().unwrap(),
        gitspace: uuid(8),
        shared: vec![SharedPort {
            port: 1,
            visibility: PortVisibility::Public,
        }],
        ..route(GitspaceState::Stopped, false)
    };
    let mark = ToGateway::Route { route: mark };
    world.tell.send(Some(mark)).await.unwrap();
    let ask =
        format!("GET / HTTP/1.1\r\nHost: 1--{slug}.localhost:7080\r\nConnection: close\r\n\r\n");
    within("what was told", async {
        while !world.ask(&ask).await.starts_with("HTTP/1.1 503") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn guest(world: &World) -> String {
    world.sign(&GrantClaims {
        user: uuid(77),
        ports: PortSet::Only { ports: vec![PORT] },
        workspace: false,
        is_guest: true,
        ..claims()
    })
}

#[tokio::test]
async fn a_public_port_is_open_to_programs_without_a_grant_and_no_other_port_is() {
    let world = World::start().await;
    share(&world, PortVisibility::Public).await;
    let answer = world.get("/api", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for host in [
        "8001--demo-ab12cd.localhost:7080",
        "demo-ab12cd.localhost:7080",
    ] {
        let answer = world
            .ask(format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{host}: {answer}");
    }
}

#[tokio::test]
async fn a_project_port_is_open_to_its_guests_alone() {
    let world = World::start().await;
    share(&world, PortVisibility::Project).await;
    let answer = world.get("/", "").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let by_guest = format!("gitspaces-grant: {}\r\n", guest(&world));
    let answer = world.get("/", &by_guest).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    share(&world, PortVisibility::Private).await;
    let answer = world.get("/", &by_guest).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("port_not_shared"), "{answer}");
    assert!(world.granted("/", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_guest_s_grant_that_claims_more_than_shared_ports_opens_nothing() {
    let world = World::start().await;
    share(&world, PortVisibility::Public).await;
    let guest = GrantClaims {
        user: uuid(77),
        is_guest: true,
        ..claims()
    };
    for claims in [
        GrantClaims {
            ports: PortSet::All {},
            workspace: false,
            ..guest.clone()
        },
        GrantClaims {
            ports: PortSet::Only {
                ports: vec![PORT, 22],
            },
            workspace: false,
            ..guest.clone()
        },
        GrantClaims {
            ports: PortSet::Only { ports: vec![PORT] },
            workspace: true,
            ..guest
        },
    ] {
        let grant = world.sign(&claims);
        for host in [
            "22--demo-ab12cd.localhost:7080",
            "demo-ab12cd.localhost:7080",
        ] {
            let answer = world
                .ask(format!(
                    "GET / HTTP/1.1\r\nHost: {host}\r\ngitspaces-grant: {grant}\r\nConnection: close\r\n\r\n"
                ))
                .await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{claims:?}: {answer}");
        }
    }
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_person_is_told_whose_port_it_is_before_anything_of_it_is_shown() {
    let world = World::start().await;
    share(&world, PortVisibility::Public).await;
    let page = world.get("/a?b", "Accept: text/html\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(
        page.contains("<code>ada</code> shares port 8000 of the gitspace <code>demo</code>"),
        "{page}"
    );
    assert!(
        page.contains("action=\"/.gitspaces/visit?return=%2Fa%3Fb\""),
        "{page}"
    );
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 0);

    let visit = |origin: &str| {
        format!(
            "POST /.gitspaces/visit?return=%2Fa%3Fb HTTP/1.1\r\nHost: {HOST}\r\nOrigin: {origin}\r\nAccept: text/html\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    let answer = world.ask(visit("http://evil.example")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = world.ask(visit(&format!("http://{HOST}"))).await;
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    assert!(answer.contains("\r\nlocation: /a?b\r\n"), "{answer}");
    let cookie = "gitspaces-grant=visitor";
    assert!(
        answer.contains(&format!("\r\nset-cookie: {cookie}; Path=/; ")),
        "{answer}"
    );
    let answer = world
        .get(
            "/a?b",
            &format!("Accept: text/html\r\nCookie: {cookie}\r\n"),
        )
        .await;
    assert!(answer.contains("GET /a?b HTTP/1.1"), "{answer}");
    assert!(
        !world.seen.text().contains("visitor"),
        "the app does not see it"
    );
}

#[tokio::test]
async fn a_shared_port_that_is_made_private_ends_what_is_open_within_a_second() {
    let world = World::start().await;
    share(&world, PortVisibility::Public).await;
    let mut stream = world.connect().await;
    let upgrade = format!(
        "GET /socket HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let head = within("an answer", read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let told = Instant::now();
    share(&world, PortVisibility::Private).await;
    let mut rest = Vec::new();
    // Cut or closed: over.
    drop(within("its end", stream.read_to_end(&mut rest)).await);
    assert!(told.elapsed().as_millis() < 1000, "{:?}", told.elapsed());
}

#[tokio::test]
async fn whoever_visits_a_port_that_does_not_answer_is_not_told_what_does() {
    let world = World::start().await;
    let mut shared = route(GitspaceState::Running, true);
    // One at which nothing listens, and one whose host is away.
    shared.shared = [8001, 8003]
        .map(|port| SharedPort {
            port,
            visibility: PortVisibility::Public,
        })
        .to_vec();
    tell(&world, ToGateway::Route { route: shared }).await;
    for port in [8001, 8003] {
        let ask = |head: &str| {
            format!(
                "GET / HTTP/1.1\r\nHost: {port}--demo-ab12cd.localhost:7080\r\nConnection: close\r\n{head}\r\n"
            )
        };
        let owner = world
            .ask(ask(&format!("gitspaces-grant: {}\r\n", world.grant())))
            .await;
        assert!(owner.contains("\"cause\""), "{owner}");
        let visitor = world.ask(ask("")).await;
        assert!(visitor.starts_with("HTTP/1.1 502"), "{visitor}");
        assert!(!visitor.contains("\"cause\""), "{visitor}");
        assert!(visitor.contains("nothing answers"), "{visitor}");
    }
}

#[tokio::test]
async fn whoever_visits_starts_nothing_and_learns_no_cause() {
    let world = World::start().await;
    let mut stopped = route(GitspaceState::Error, false);
    stopped.error = Some("secret-cause".to_owned());
    stopped.shared = vec![SharedPort {
        port: PORT,
        visibility: PortVisibility::Public,
    }];
    tell(&world, ToGateway::Route { route: stopped }).await;
    let by_guest = format!("gitspaces-grant: {}\r\n", guest(&world));
    let by_cookie = format!(
        "Accept: text/html\r\nCookie: gitspaces-grant={}\r\n",
        guest(&world)
    );
    for head in ["", &by_guest, &by_cookie] {
        let answer = world.get("/", head).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{head}: {answer}");
        assert!(!answer.contains("secret-cause"), "{answer}");
        assert!(!answer.contains("<form"), "{answer}");
    }
    let pressed = world
        .ask(format!(
            "POST /.gitspaces/start HTTP/1.1\r\nHost: {HOST}\r\nOrigin: http://{HOST}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ))
        .await;
    assert!(pressed.starts_with("HTTP/1.1 403"), "{pressed}");
    assert_eq!(world.seen.woken.load(Ordering::SeqCst), 0);
}
