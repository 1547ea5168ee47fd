//! WebSockets and whatever else switches protocols.

use crate::harness::{HOST, ORIGIN, World, claims, read_head, revoke_user, within};
use jiff::{SignedDuration, Timestamp};
use std::{sync::atomic::Ordering, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wire::gateway::{GrantClaims, Revocation, RevokedSubject, ToGateway};

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn request(head: &str) -> String {
    format!("GET /ws HTTP/1.1\r\nHost: {HOST}\r\n{UPGRADE}{head}\r\n")
}

async fn open(world: &World, grant: &str) -> TcpStream {
    let mut stream = world.connect().await;
    let head = request(&format!(
        "Origin: {ORIGIN}\r\nCookie: gitspaces-grant={grant}\r\n"
    ));
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = within("101", read_head(&mut stream)).await;
    assert!(
        answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nupgrade: websocket\r\n"), "{answer}");
    let mut hello = [0; 5];
    within("hello", stream.read_exact(&mut hello))
        .await
        .unwrap();
    assert_eq!(&hello, b"hello");
    stream
}

async fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    within("the echo", stream.read_exact(&mut back))
        .await
        .unwrap();
    assert_eq!(back, text);
}

#[tokio::test]
pub(crate) async fn a_websocket_passes_both_ways_and_its_end_passes_too() {
    let world = World::start().await;
    let mut stream = open(&world, &world.grant()).await;
    echo(&mut stream, b"ping").await;
    echo(&mut stream, &b"x".repeat(100_000)[..4096]).await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within("the end", stream.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_websocket_of_a_foreign_origin_is_refused() {
    let world = World::start().await;
    let grant = world.grant();
    let cookie = format!("Cookie: gitspaces-grant={grant}\r\n");
    for origin in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: \r\n",
        "Origin: http://8000--demo-ab12cd.localhost\r\n",
        "Origin: http://8000--demo-ab12cd.localhost:7081\r\n",
        "Origin: https://8000--demo-ab12cd.localhost:7080\r\n",
        "Origin: http://8000--demo-ab12cd.localhost:7080.evil.example\r\n",
        "Origin: http://evil8000--demo-ab12cd.localhost:7080\r\n",
        "Origin: http://demo-ab12cd.localhost:7080\r\n",
        "Origin: http://8001--demo-ab12cd.localhost:7080\r\n",
        "Origin: http://other-ab12cd.localhost:7080\r\n",
        "Origin: http://localhost:7080\r\n",
        "Origin: http://8000--demo-ab12cd.localhost.:7080\r\n",
        "Origin: http://u@8000--demo-ab12cd.localhost:7080\r\n",
        "Origin: HTTP://8000--DEMO-AB12CD.LOCALHOST:7080\r\n",
        "Origin: http://8000--demo-ab12cd.localhost:7080/\r\n",
        "",
    ] {
        let answer = world.ask(request(&format!("{cookie}{origin}"))).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{origin}: {answer}");
    }
    let answer = world
        .ask(request(&format!(
            "gitspaces-grant: {grant}\r\nOrigin: http://evil.example\r\n"
        )))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_program_with_the_grant_in_a_header_needs_no_origin() {
    let world = World::start().await;
    let mut stream = world.connect().await;
    let head = request(&format!("gitspaces-grant: {}\r\n", world.grant()));
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(
        within("101", read_head(&mut stream))
            .await
            .starts_with("HTTP/1.1 101 ")
    );
}

#[tokio::test]
pub(crate) async fn a_revocation_cuts_a_live_websocket_within_a_second() {
    let world = World::start().await;
    let mut stream = open(&world, &world.grant()).await;
    echo(&mut stream, b"ping").await;
    let start = Instant::now();
    world.tell.send(Some(revoke_user())).await.unwrap();
    let mut rest = Vec::new();
    drop(within("the cut", stream.read_to_end(&mut rest)).await);
    assert!(start.elapsed().as_millis() < 1000, "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_end_of_a_grant_cuts_a_live_websocket_within_a_second() {
    let world = World::start().await;
    let exp = Timestamp::now() + SignedDuration::from_millis(1500);
    let grant = world.sign(&GrantClaims { exp, ..claims() });
    let mut stream = open(&world, &grant).await;
    echo(&mut stream, b"ping").await;
    let mut rest = Vec::new();
    drop(within("the cut", stream.read_to_end(&mut rest)).await);
    let late = Timestamp::now().duration_since(exp);
    assert!(
        late >= SignedDuration::ZERO && late < SignedDuration::from_secs(1),
        "{late}"
    );
}

#[tokio::test]
async fn a_websocket_outlives_its_grant_by_the_next_one_and_ends_with_a_revocation_all_the_same() {
    let world = World::start().await;
    world.seen.renews.store(true, Ordering::SeqCst);
    let exp = Timestamp::now() + SignedDuration::from_millis(2500);
    let grant = world.sign(&GrantClaims { exp, ..claims() });
    let mut first = open(&world, &grant).await;
    let mut second = open(&world, &grant).await;
    while Timestamp::now() < exp + SignedDuration::from_millis(700) {
        echo(&mut first, b"ping").await;
        echo(&mut second, b"ping").await;
    }
    // Two where it was looked just between the two.
    let renewed = world.seen.renewed.load(Ordering::SeqCst);
    assert!((1..=2).contains(&renewed), "{renewed}");
    // By the id of the first one.
    let revocation = Revocation {
        subject: RevokedSubject::Grant { grant: claims().id },
        before: Timestamp::now(),
    };
    let revoked = ToGateway::Revoked { revocation };
    world.tell.send(Some(revoked)).await.unwrap();
    for stream in [&mut first, &mut second] {
        let mut rest = Vec::new();
        drop(within("the cut", stream.read_to_end(&mut rest)).await);
    }
}

#[tokio::test]
pub(crate) async fn bytes_after_an_upgrade_wait_for_the_101() {
    let world = World::start().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    // The app refuses the upgrade: what follows must not become a request to it, nor to us.
    let head =
        request(&format!("gitspaces-grant: {}\r\n", world.grant())).replace("/ws", "/refuse");
    let answer = world.ask(format!("{head}{smuggled}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert!(
        !world.seen.text().contains("smuggled"),
        "{}",
        world.seen.text()
    );
}

#[tokio::test]
async fn an_offer_of_http2_is_not_passed_on() {
    let world = World::start().await;
    let answer = world
        .granted("/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = world.seen.text().to_lowercase();
    assert!(
        !seen.contains("upgrade") && !seen.contains("http2"),
        "{seen}"
    );
}
