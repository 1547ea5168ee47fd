//! Requests that two parsers might read in two ways, and hosts that are not ours.

use crate::harness::{HOST, World, read_head, within};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Each with `HOST` and `GRANT` to be filled in; none may reach the app.
const SMUGGLING: &[(&str, &str)] = &[
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    ),
    (
        "both lengths, other order",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ),
    (
        "the same length twice",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: 1, 1\r\n\r\na",
    ),
    (
        "a signed length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: +1\r\n\r\na",
    ),
    (
        "a negative length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: -1\r\n\r\na",
    ),
    (
        "a hexadecimal length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: 0x1\r\n\r\na",
    ),
    (
        "a length of spaces",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: 1 1\r\n\r\na",
    ),
    (
        "an empty length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length:\r\n\r\na",
    ),
    (
        "a huge length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTContent-Length: 99999999999999999999\r\n\r\na",
    ),
    (
        "an unknown coding",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: gzip\r\n\r\na",
    ),
    (
        "chunked after another",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked before another",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with a parameter",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: chunked;x\r\n\r\n0\r\n\r\n",
    ),
    (
        "a misspelled coding",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a vertical tab before the coding",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a space before the colon",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: HOST\r\nGRANTTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded line",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTX-A: b\r\n c\r\n\r\n",
    ),
    (
        "a folded coding",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a first line that is folded",
        "GET / HTTP/1.1\r\n Host: x\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "a bare carriage return",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTX-A: b\rX-B: c\r\n\r\n",
    ),
    ("bare line feeds", "GET / HTTP/1.1\nHost: HOST\nGRANT\n"),
    (
        "one bare line feed",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTX-A: b\nX-B: c\r\n\r\n",
    ),
    (
        "a NUL in a value",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTX-A: b\0c\r\n\r\n",
    ),
    (
        "a NUL in a name",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTX\0A: b\r\n\r\n",
    ),
    (
        "no colon",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTX-A\r\n\r\n",
    ),
    (
        "an empty name",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANT: b\r\n\r\n",
    ),
    (
        "a space in a name",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTX A: b\r\n\r\n",
    ),
    (
        "a control in the path",
        "GET /\x01 HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "a space in the path",
        "GET /a b HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n"),
    (
        "a tab for a space",
        "GET\t/ HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    ("a fragment", "GET /a#b HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n"),
    ("no slash", "GET a HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n"),
    (
        "an asterisk",
        "OPTIONS * HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "an authority",
        "GET HOST HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "another absolute host",
        "GET http://evil.example/ HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "an absolute host with a user",
        "GET http://u@HOST/ HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "another scheme",
        "GET ftp://HOST/ HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "another version",
        "GET / HTTP/1.2\r\nHost: HOST\r\nGRANT\r\n",
    ),
    ("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("HTTP/0.9", "GET /\r\n\r\n"),
    (
        "a lower-case version",
        "GET / http/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n"),
    (
        "CONNECT",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "CONNECT with a path",
        "CONNECT / HTTP/1.1\r\nHost: HOST\r\nGRANT\r\n",
    ),
    ("no host", "GET / HTTP/1.1\r\nGRANT\r\n"),
    (
        "two hosts",
        "GET / HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\nGRANT\r\n",
    ),
    (
        "the same host twice",
        "GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\nGRANT\r\n",
    ),
    (
        "an unknown expectation",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTExpect: x\r\nContent-Length: 1\r\n\r\na",
    ),
    (
        "two grants",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTgitspaces-grant: x\r\n\r\n",
    ),
    (
        "two origins",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTOrigin: a\r\nOrigin: b\r\n\r\n",
    ),
    (
        "an upgrade with a body",
        "GET / HTTP/1.1\r\nHost: HOST\r\nGRANTConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
    ),
    (
        "an upgrade by POST",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    (
        "an upgrade in HTTP/1.0",
        "GET / HTTP/1.0\r\nHost: HOST\r\nGRANTConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    (
        "a chunk size that is none",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ),
    (
        "a chunk with bare line feeds",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
    ),
    (
        "a trailer that is a length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nGRANTTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
    ),
];

#[tokio::test]
pub(crate) async fn an_ambiguous_request_is_refused_before_the_app_sees_a_byte() {
    let world = World::start().await;
    let grant = format!("gitspaces-grant: {}\r\n", world.grant());
    for (name, request) in SMUGGLING {
        let request = request.replace("HOST", HOST).replace("GRANT", &grant);
        let answer = world.ask(&request).await;
        let status = answer.get(9..12).unwrap_or_default();
        assert!(
            matches!(status, "400" | "405" | "417" | "421" | "431"),
            "{name}: {answer:?}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{name} was answered twice: {answer:?}"
        );
    }
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 0);
    assert_eq!(world.seen.text(), "");
}

#[tokio::test]
async fn an_unknown_host_is_misdirected() {
    let world = World::start().await;
    let grant = world.grant();
    for host in [
        "localhost:7080",
        "127.0.0.1:7080",
        "[::1]:7080",
        "evil.example",
        "8000--demo-ab12cd.localhost.evil.example",
        "8000--demo-ab12cd.localhost.",
        "8000--demo-ab12cd.localhost:80",
        "x.8000--demo-ab12cd.localhost:7080",
        "u@8000--demo-ab12cd.localhost:7080",
        "08000--demo-ab12cd.localhost",
        "8000--demo-ab12cdlocalhost",
        "8000---demo-ab12cd.localhost",
        "0--demo-ab12cd.localhost",
        "99999--demo-ab12cd.localhost",
        "",
        "8000--demo-ab12cd.localhost:7080, evil.example",
        "8000--demo-ab12cd.evil.localhost",
        "8000--demo-ab12cd%2elocalhost",
    ] {
        let answer = world
            .ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\ngitspaces-grant: {grant}\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
    }
    assert_eq!(world.seen.dials.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_absolute_target_that_agrees_is_forwarded_as_a_path() {
    let world = World::start().await;
    let answer = world.granted(&format!("http://{HOST}/a?b"), "").await;
    assert!(answer.contains("\r\n\r\nGET /a?b HTTP/1.1\r\n"), "{answer}");
}

#[tokio::test]
pub(crate) async fn a_head_that_is_too_large_is_refused() {
    let world = World::start().await;
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    assert!(world.granted("/", &many).await.starts_with("HTTP/1.1 431 "));
    let large = format!("X-Large: {}\r\n", "x".repeat(40_000));
    assert!(
        world
            .granted("/", &large)
            .await
            .starts_with("HTTP/1.1 431 ")
    );
    let fits = format!("X-Large: {}\r\n", "x".repeat(20_000));
    assert!(world.granted("/", &fits).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
pub(crate) async fn what_follows_a_request_is_a_request_of_its_own() {
    let world = World::start().await;
    let grant = world.grant();
    let granted = format!(
        "POST /one HTTP/1.1\r\nHost: {HOST}\r\ngitspaces-grant: {grant}\r\nContent-Length: 2\r\n\r\nab"
    );
    let naked = format!("GET /two HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let answer = world.ask(format!("{granted}{naked}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("HTTP/1.1 401 "), "{answer}");
    assert!(!world.seen.text().contains("/two"), "{}", world.seen.text());
}

#[tokio::test]
pub(crate) async fn a_head_that_comes_byte_by_byte_is_read() {
    let world = World::start().await;
    let request = format!(
        "GET /slow HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\ngitspaces-grant: {}\r\n\r\n",
        world.grant()
    );
    let mut stream = world.connect().await;
    for byte in request.bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let head = within("an answer", read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut rest = Vec::new();
    within("the end", stream.read_to_end(&mut rest))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_app_sets_and_clears_nothing_beyond_its_own_host() {
    let world = World::start().await;
    let ask = [
        "Set-Cookie: wide=1; Path=/; Domain=localhost; HttpOnly",
        "set-cookie: wider=1;dOMAIN\t=.localhost;Domain=8000--demo-ab12cd.localhost",
        "Set-Cookie: gitspaces-grant=planted; Max-Age=9999",
        "Set-Cookie:  Gitspaces-Grant =planted",
        "Set-Cookie: =gitspaces-grant=planted",
        "Set-Cookie: gitspaces-grant",
        "Set-Cookie: __Host-gitspaces=planted; Secure; Path=/",
        "Set-Cookie: __secure-gitspaces-grant=planted; Secure",
        "Set-Cookie: gitspaces-grant=; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "Clear-Site-Data: \"cookies\"",
        "Clear-Site-Data: \"storage\", \"cookies\"",
        "Set-Cookie: last=1",
    ];
    let lines: String = ask
        .iter()
        .map(|line| format!("X-Say: {line}\r\n"))
        .collect();
    let answer = world.granted("/", &lines).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body.matches("planted").count(),
        5,
        "the app was not asked: {body}"
    );
    let set: Vec<&str> = head
        .split("\r\n")
        .filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            ["set-cookie", "clear-site-data"]
                .iter()
                .any(|wanted| name.eq_ignore_ascii_case(wanted))
        })
        .collect();
    assert_eq!(
        set,
        [
            "Set-Cookie: app=1",
            "Set-Cookie: wide=1; Path=/; HttpOnly",
            "set-cookie: wider=1",
            "Clear-Site-Data: \"storage\"",
            "Set-Cookie: last=1",
        ]
    );
}

#[tokio::test]
async fn a_set_cookie_with_a_control_character_spoils_its_answer() {
    let world = World::start().await;
    let answer = world.granted("/nul", "").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(!answer.to_lowercase().contains("set-cookie"), "{answer}");
}
