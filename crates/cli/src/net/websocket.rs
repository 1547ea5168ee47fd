//! WebSocket through the same client: the handshake is an HTTP request, so that a refusal comes with its words.

use super::{Call, Client, RequestError};
use http::{HeaderName, HeaderValue, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

/// The library's default is 128 KiB for each direction.
const BUFFER: usize = 16 * 1024;
/// A snapshot of a terminal with its scroll-back is one message.
const MAX_MESSAGE: usize = 5 * 1024 * 1024;

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Opens a WebSocket at the target of `call`.
pub(crate) async fn open(client: &Client, call: Call) -> Result<Socket, RequestError> {
    let url = call.origin.to_string();
    let broken = || RequestError::Handshake { url: url.clone() };
    let key = generate_key();
    let key_value = HeaderValue::from_str(&key).map_err(|_| broken())?;
    let call = call
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(
            HeaderName::from_static("sec-websocket-version"),
            HeaderValue::from_static("13"),
        )
        .header(HeaderName::from_static("sec-websocket-key"), key_value);
    let answer = client.open(&call).await?;
    let accepted = answer
        .headers()
        .get("sec-websocket-accept")
        .is_some_and(|accept| accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
    if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS || !accepted {
        return Err(broken());
    }
    let upgraded = hyper::upgrade::on(answer)
        .await
        .map_err(|source| RequestError::Cut { url, source })?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(BUFFER + MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await)
}
