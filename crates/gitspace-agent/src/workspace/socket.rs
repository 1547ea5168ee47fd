//! WebSockets of the workspace service.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use local_rpc::server::{self, Body};
use std::time::Duration;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use wire::{
    failure::Failure,
    problem::Problem,
    workspace::{ClientMessage, ServerMessage},
};

pub(super) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// The library's own size costs 128 KiB a connection.
const READ_BUFFER: usize = 8 * 1024;
const WRITE_BUFFER: usize = 16 * 1024;
/// What a client may send at once: a large paste.
const MAX_MESSAGE: usize = 128 * 1024;
/// Snapshots are one message.
const MAX_WRITE_BUFFER: usize = 32 * 1024 * 1024;
/// The answer is on its way when this starts to count.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);
/// For the message that says what is wanted.
pub(super) const FIRST_MESSAGE_LIMIT: Duration = Duration::from_secs(30);
/// Keeps what lies between from hanging up, and notices who is gone.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);

/// A socket that comes once its `101` has been sent.
pub(super) struct Pending(OnUpgrade);

/// The answer to a handshake.
pub(super) fn accept(
    request: &mut Request<Incoming>,
) -> Result<(Pending, Response<Body>), Box<Response<Body>>> {
    let headers = request.headers();
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() <= 64);
    let version = headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_some_and(|version| version == "13");
    let (Some(key), true, true) = (key, version, wants_websocket(headers)) else {
        return Err(Box::new(server::problem(
            StatusCode::UPGRADE_REQUIRED,
            &Problem::new("upgrade_required", "this address is a WebSocket"),
        )));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| {
        Box::new(server::problem(
            StatusCode::BAD_REQUEST,
            &Problem::new("bad_handshake", "the WebSocket key is not one"),
        ))
    })?;
    let pending = Pending(hyper::upgrade::on(request));
    let mut response = server::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok((pending, response))
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

impl Pending {
    pub(super) async fn open(self) -> Option<Socket> {
        let upgraded = tokio::time::timeout(UPGRADE_LIMIT, self.0)
            .await
            .ok()?
            .ok()?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        Some(
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config))
                .await,
        )
    }
}

pub(super) fn text(message: &ServerMessage) -> Message {
    // Plain enums always have a JSON form.
    Message::text(serde_json::to_string(message).unwrap_or_default())
}

pub(super) fn failed(failure: Failure) -> Message {
    text(&ServerMessage::Failed { failure })
}

/// What a client said.
pub(super) enum Said {
    Message(ClientMessage),
    Input(bytes::Bytes),
    /// Ping and pong: the library answers.
    Nothing,
    Bye,
}

pub(super) fn understand(message: Message) -> Result<Said, String> {
    match message {
        Message::Text(text) => serde_json::from_str(&text)
            .map(Said::Message)
            .map_err(|error| error.to_string()),
        Message::Binary(bytes) => Ok(Said::Input(bytes)),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(Said::Nothing),
        Message::Close(_) => Ok(Said::Bye),
    }
}
