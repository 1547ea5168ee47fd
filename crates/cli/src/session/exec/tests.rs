//! Exec against a WebSocket server that behaves like the agent.

use super::*;
use crate::test_server::{Answer, Body, api, full, json, serve};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json as value;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};
use tokio_util::task::TaskTracker;
use wire::{
    failure::{Failure, FailureCode},
    workspace::ServerMessage,
};

type ServerSocket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

fn accept<F, A>(mut request: Request<Incoming>, script: F) -> Response<Body>
where
    F: FnOnce(ServerSocket) -> A + Send + 'static,
    A: Future<Output = ()> + Send,
{
    let key = request.headers()["sec-websocket-key"].as_bytes();
    let mut response = full(101, "");
    for (name, text) in [
        ("connection", "Upgrade".to_owned()),
        ("upgrade", "websocket".to_owned()),
        ("sec-websocket-accept", derive_accept_key(key)),
    ] {
        response.headers_mut().insert(name, text.parse().unwrap());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    TaskTracker::new().spawn(async move {
        let stream = TokioIo::new(upgrade.await.unwrap());
        script(WebSocketStream::from_raw_socket(stream, Role::Server, None).await).await;
    });
    response
}

async fn tell(socket: &mut ServerSocket, message: &ServerMessage) {
    let text = serde_json::to_string(message).unwrap();
    socket.send(Message::text(text)).await.unwrap();
}

async fn asked(socket: &mut ServerSocket) -> ClientMessage {
    match socket.next().await.unwrap().unwrap() {
        Message::Text(text) => serde_json::from_str(text.as_str()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Runs `argv` against `script` with `typed` on stdin; gives what was said last, stdout and stderr.
async fn run_against<F, A>(script: F, typed: &[&str]) -> (Heard, Vec<u8>, Vec<u8>)
where
    F: Fn(ServerSocket) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = ()> + Send,
{
    let port = serve(move |request| {
        let script = script.clone();
        async move {
            let answer: Answer = Ok(if request.uri().path().ends_with("/grants") {
                let host = request.headers()["host"].to_str().unwrap().replace("127.0.0.1", "demo.localhost");
                json(
                    201,
                    &value!({"id": "00000000-0000-4000-8000-000000000001", "grant": "signed", "ports": {"set": "all"},
                        "exp": "2026-01-01T00:00:00Z", "url": format!("http://{host}")}),
                )
            } else {
                assert_eq!(request.uri().path(), PATH);
                assert_eq!(request.headers()["gitspaces-grant"], "signed");
                assert!(!request.headers().contains_key("authorization"));
                accept(request, script)
            });
            answer
        }
    })
    .await;
    let api = api(port);
    let entry = api.grant("demo").await.unwrap();
    let socket = entry.websocket(api.client(), PATH).await.unwrap();
    let (sender, receiver) = mpsc::channel(8);
    for text in typed {
        sender.send(text.as_bytes().to_vec()).await.unwrap();
    }
    drop(sender);
    let request = ExecRequest {
        argv: vec!["cat".to_owned()],
        cwd: None,
        env: [("A".to_owned(), "b".to_owned())].into(),
        tty: None,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let signals = Signals::listen(false).unwrap();
    let end = carry(socket, request, Some(receiver), signals, &mut out, &mut err)
        .await
        .unwrap();
    (end, out, err)
}

#[tokio::test]
async fn a_command_has_its_stdin_its_two_outputs_and_its_exit_code() {
    let script = |mut socket: ServerSocket| async move {
        match asked(&mut socket).await {
            ClientMessage::Exec(request) => {
                assert_eq!(request.argv, ["cat"]);
                assert_eq!(request.env["A"], "b");
            }
            other => panic!("{other:?}"),
        }
        socket.send(Message::Ping(Bytes::new())).await.unwrap();
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => {
                    for channel in [Channel::Stdout, Channel::Stderr] {
                        let message = [&[channel.byte()], bytes.as_ref()].concat();
                        socket.send(Message::binary(message)).await.unwrap();
                    }
                }
                Message::Text(text) => {
                    assert!(text.as_str().contains("eof"));
                    break;
                }
                _ => {}
            }
        }
        tell(&mut socket, &ServerMessage::Exited { exit_code: 7 }).await;
    };
    let (end, out, err) = run_against(script, &["hello ", "world"]).await;
    assert!(matches!(end, Heard::Exited(7)), "{end:?}");
    assert_eq!(
        (out.as_slice(), err.as_slice()),
        (&b"hello world"[..], &b"hello world"[..])
    );
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_told_with_its_reason() {
    let script = |mut socket: ServerSocket| async move {
        asked(&mut socket).await;
        let failure = Failure::new(FailureCode::ToolMissing, "there is no `cat`");
        tell(&mut socket, &ServerMessage::Failed { failure }).await;
    };
    let (end, ..) = run_against(script, &[]).await;
    assert!(matches!(end, Heard::Failed(failure) if failure.message == "there is no `cat`"));
}

#[tokio::test]
async fn a_line_that_ends_without_a_last_word_is_cut() {
    let script = |mut socket: ServerSocket| async move {
        asked(&mut socket).await;
        socket
            .send(Message::binary(b"\x01half".to_vec()))
            .await
            .unwrap();
    };
    let (end, out, _) = run_against(script, &[]).await;
    assert!(matches!(end, Heard::Cut(_)), "{end:?}");
    assert_eq!(out, b"half");
}

#[tokio::test]
async fn bytes_of_no_known_channel_are_shown_nowhere() {
    let script = |mut socket: ServerSocket| async move {
        asked(&mut socket).await;
        socket
            .send(Message::binary(b"\x09odd".to_vec()))
            .await
            .unwrap();
        drop(socket.next().await);
    };
    let (end, out, err) = run_against(script, &[]).await;
    assert!(matches!(end, Heard::Cut(_)), "{end:?}");
    assert!(out.is_empty() && err.is_empty());
}

#[test]
fn exit_codes_pass_and_nothing_else_looks_like_success() {
    for (code, passed) in [(0, 0), (7, 7), (143, 143), (255, 255), (256, 1), (-1, 1)] {
        assert_eq!(
            format!("{:?}", exit_code(code)),
            format!("{:?}", ExitCode::from(passed))
        );
    }
}
