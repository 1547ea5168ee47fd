//! What the app gets and what comes back.

use crate::harness::{HOST, ORIGIN, World, read_head, within};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn neither_grant_nor_cookie_nor_forged_address_reaches_the_app() {
    let world = World::start().await;
    let grant = world.grant();
    let answer = world
        .get(
            "/",
            &format!(
                "gitspaces-grant: {grant}\r\nCookie: a=1; gitspaces-grant={grant}; b=2\r\nCookie: __Host-gitspaces={grant}\r\n\
                 Gitspaces_Grant: {grant}\r\nX-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nX-Forwarded-Proto: evil\r\n\
                 X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Hop: canary\r\nKeep-Alive: 5\r\n\
                 Connection: x-hop, x-forwarded-for, x-forwarded-host, forwarded, cookie, host\r\nProxy-Authorization: canary\r\n\
                 TE: trailers\r\nX-Custom: kept\r\n"
            ),
        )
        .await;
    let seen = world.seen.text();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for secret in [
        "v4.public",
        "6.6.6.6",
        "evil",
        "canary",
        "gitspaces-grant",
        "__Host",
    ] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
    for line in [
        "cookie: a=1; b=2\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        &format!("x-forwarded-host: {HOST}\r\n"),
        &format!("forwarded: for=127.0.0.1;host=\"{HOST}\";proto=http\r\n"),
        &format!("host: {HOST}\r\n"),
        "te: trailers\r\n",
        "X-Custom: kept\r\n",
    ] {
        let line = format!("\r\n{line}");
        assert_eq!(seen.matches(&line).count(), 1, "{line} in {seen}");
    }
    assert!(answer.contains("Set-Cookie: app=1\r\n"), "{answer}");
    assert!(!answer.contains("forged"), "{answer}");
}

#[tokio::test]
pub(crate) async fn a_body_passes_counted_and_in_chunks_with_its_trailers() {
    let world = World::start().await;
    let grant = world.grant();
    let head = format!(
        "POST /p HTTP/1.1\r\nHost: {HOST}\r\ngitspaces-grant: {grant}\r\nConnection: close\r\n"
    );
    let answer = world
        .ask(format!("{head}Content-Length: 5\r\n\r\nhello"))
        .await;
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    let chunked = "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n".to_lowercase();
    let answer = world
        .ask(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunked}"))
        .await;
    assert!(answer.ends_with(&chunked), "{answer}");
    assert!(
        world
            .granted("/trailers", "")
            .await
            .ends_with("2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n")
    );
}

#[tokio::test]
pub(crate) async fn a_large_body_passes_whole() {
    let world = World::start().await;
    let body = "0123456789abcdef".repeat(64 * 1024);
    let answer = world
        .ask(format!(
            "POST /p HTTP/1.1\r\nHost: {HOST}\r\ngitspaces-grant: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            world.grant(),
            body.len()
        ))
        .await;
    assert!(answer.ends_with(&body), "{} bytes", answer.len());
}

#[tokio::test]
pub(crate) async fn a_client_that_waits_for_100_continue_is_told_by_the_app() {
    let world = World::start().await;
    let mut stream = world.connect().await;
    let head = format!(
        "POST /p HTTP/1.1\r\nHost: {HOST}\r\ngitspaces-grant: {}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        world.grant()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(
        within("100", read_head(&mut stream)).await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(b"hello").await.unwrap();
    assert!(
        within("200", read_head(&mut stream))
            .await
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
}

#[tokio::test]
pub(crate) async fn interim_answers_and_answers_without_a_length_pass() {
    let world = World::start().await;
    let answer = world.granted("/interim", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
    let answer = world.granted("/until-end", "").await;
    assert!(answer.ends_with("\r\n\r\nall of it"), "{answer}");
    let answer = world
        .ask(format!(
            "GET /old HTTP/1.0\r\nHost: {HOST}\r\ngitspaces-grant: {}\r\n\r\n",
            world.grant()
        ))
        .await;
    assert!(answer.contains("GET /old HTTP/1.0\r\n"), "{answer}");
    let answer = world
        .ask(format!(
            "HEAD /h HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\ngitspaces-grant: {}\r\n\r\n",
            world.grant()
        ))
        .await;
    assert!(
        answer.ends_with("\r\n\r\n") && answer.contains("content-length: "),
        "{answer}"
    );
}

#[tokio::test]
pub(crate) async fn an_event_arrives_before_the_answer_ends() {
    let world = World::start().await;
    let mut stream = world.connect().await;
    let request = format!(
        "GET /events HTTP/1.1\r\nHost: {HOST}\r\ngitspaces-grant: {}\r\n\r\n",
        world.grant()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(
        within("the head", read_head(&mut stream))
            .await
            .contains("text/event-stream")
    );
    let mut event = [0; 9];
    within("the event", stream.read_exact(&mut event))
        .await
        .unwrap();
    assert_eq!(&event, b"data: 1\n\n");
}

#[tokio::test]
pub(crate) async fn connections_to_the_app_are_used_again_and_dialled_again_when_closed() {
    let world = World::start().await;
    for _ in 0..5 {
        assert!(world.granted("/", "").await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 1);
    // The app closes after this one without saying so.
    assert!(world.granted("/once", "").await.ends_with("ok"));
    assert!(world.granted("/", "").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_app_that_does_not_speak_http_is_a_bad_gateway() {
    let world = World::start().await;
    for path in ["/garbage", "/close"] {
        let answer = world.granted(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{path}: {answer}");
        assert!(answer.contains("bad_answer"), "{path}: {answer}");
    }
}

#[tokio::test]
pub(crate) async fn a_client_that_goes_away_ends_the_apps_work() {
    let world = World::start().await;
    let mut stream = world.connect().await;
    let request = format!(
        "GET /never HTTP/1.1\r\nHost: {HOST}\r\ngitspaces-grant: {}\r\n\r\n",
        world.grant()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    within("the request at the app", async {
        while !world.seen.text().contains("/never") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(stream);
    within("the end at the app", async {
        while !world.seen.text().contains("[gone]") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
pub(crate) async fn a_stalled_reader_stalls_the_app_instead_of_filling_memory() {
    let world = World::start().await;
    let mut stream = world.connect().await;
    let request = format!(
        "GET /endless HTTP/1.1\r\nHost: {HOST}\r\ngitspaces-grant: {}\r\n\r\n",
        world.grant()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    within("the head", read_head(&mut stream)).await;
    // Until nothing more moves: the kernel's buffers of two connections and two of ours are full.
    let mut last = usize::MAX;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    within("the stall", async {
        loop {
            ticks.tick().await;
            let sent = world.seen.sent.load(Ordering::SeqCst);
            if sent == last {
                break;
            }
            last = sent;
        }
    })
    .await;
    assert!(
        last < 32 << 20,
        "the app could send {last} bytes to a reader that reads nothing"
    );
    let mut some = vec![0; 1 << 20];
    within("more", stream.read_exact(&mut some)).await.unwrap();
}

#[tokio::test]
async fn a_page_of_another_site_cannot_act_with_the_cookie() {
    let world = World::start().await;
    let cookie = format!("Cookie: gitspaces-grant={}\r\n", world.grant());
    let post = |head: String| {
        world.ask(format!("POST /act HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: 0\r\n{cookie}{head}\r\n"))
    };
    for head in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://8001--demo-ab12cd.localhost:7080\r\n",
        "Origin: http://other-ab12cd.localhost:7080\r\n",
        "Origin: https://8000--demo-ab12cd.localhost:7080\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: \r\n",
    ] {
        let answer = post(head.to_owned()).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{head}: {answer}");
    }
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 0);
    for head in [
        String::new(),
        format!("Origin: {ORIGIN}\r\nSec-Fetch-Site: same-origin\r\n"),
    ] {
        let answer = post(head.clone()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{head}: {answer}");
    }
}
