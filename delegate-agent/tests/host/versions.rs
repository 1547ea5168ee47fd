//! Two sides that have no version in common say so, each with what both speak.

use crate::{control_plane::TestControlPlane, delegate::TestDelegate};
use delegate_agent::identity::Identity;
use link::client::Stage;
use newtype_uuid::GenericUuid as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wire::{control::DisconnectCode, ids::DelegateUuid};

const OWN: &str = "gitspaces.control.v1";
const LATER: &str = "gitspaces.control.v2";

#[tokio::test]
async fn a_delegate_of_another_version_is_refused_with_what_both_speak() {
    let control_plane = TestControlPlane::start().await;
    let ask = async |offered: &str| {
        let mut stream = TcpStream::connect(control_plane.address).await.unwrap();
        let port = control_plane.address.port();
        let request = format!(
            "GET /api/v1/delegates/connect HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offered}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let both = format!("Sec-WebSocket-Protocol: {LATER}, {OWN}\r\n");
    let taken = ask(&both).await;
    assert!(
        taken.starts_with("HTTP/1.1 101") && taken.contains(OWN) && !taken.contains(LATER),
        "the one they share is taken: {taken}"
    );
    for (offered, words) in [
        (format!("Sec-WebSocket-Protocol: {LATER}\r\n"), LATER),
        (String::new(), "nothing"),
    ] {
        let refused = ask(&offered).await;
        assert!(
            refused.starts_with("HTTP/1.1 400")
                && refused.contains("unsupported_protocol")
                && refused.contains(&format!(
                    "this control plane speaks `{OWN}`, and the delegate offers `{words}`"
                ))
                && refused.contains("upgrade"),
            "{refused}"
        );
    }
}

/// Answers every connection with `answer`, made from the request's head.
async fn server(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = answer(&String::from_utf8_lossy(&head));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, tasks)
}

async fn refused_by(
    answer: impl Fn(&str) -> String + Clone + Send + 'static,
) -> delegate_agent::status::LastError {
    let (port, _server) = server(answer).await;
    let url = format!("http://localhost:{port}");
    let mut delegate = TestDelegate::new(&url);
    let identity = Identity {
        delegate: Some(DelegateUuid::from_untyped_uuid(uuid::Uuid::from_u128(1))),
        ..Identity::generate("host-1", &url).unwrap()
    };
    delegate.identity().save(&identity).unwrap();
    delegate.start().await;
    let status = delegate.until_state(Stage::Backoff).await;
    let error = status.last_error.expect("says why");
    let pause = status
        .next_try
        .expect("dials again")
        .duration_since(error.at);
    assert!(pause.as_secs() > 30, "a person has to act: {pause}");
    error
}

#[tokio::test]
async fn a_control_plane_of_another_version_is_named_with_what_both_speak() {
    let problem = format!(
        r#"{{"code":"unsupported_protocol","message":"this control plane speaks `{LATER}`, and the delegate offers `{OWN}`","hint":"upgrade"}}"#
    );
    let error = refused_by(move |head| {
        assert!(head.contains(OWN), "{head}");
        format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{problem}",
            problem.len()
        )
    })
    .await;
    assert_eq!(error.code, Some(DisconnectCode::Version), "{error:?}");
    assert!(
        error.message.contains(OWN) && error.message.contains(LATER),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_switches_to_a_protocol_that_was_not_offered_is_left() {
    for protocol in [
        format!("Sec-WebSocket-Protocol: {LATER}\r\n"),
        String::new(),
    ] {
        let error = refused_by(move |head| {
            let key = head
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
                .unwrap();
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n{protocol}\r\n",
                derive_accept_key(key.trim().as_bytes())
            )
        })
        .await;
        assert_eq!(error.code, Some(DisconnectCode::Version), "{error:?}");
        assert!(error.message.contains(OWN), "{error:?}");
    }
}
