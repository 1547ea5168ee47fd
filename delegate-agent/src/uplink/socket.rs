//! From an address to a WebSocket that speaks our subprotocol.

use crate::transport::{Stream, Transport};
use daemon::ErrorChain;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest as _,
        handshake::client::Request,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};
use wire::{
    control::{MAX_FRAME, SUBPROTOCOL},
    problem::Problem,
};

/// One connection for the whole host: but the default of 128 KiB is for bulk.
const BUFFER: usize = 4 * 1024;
/// Of an answer that is not a WebSocket's.
const MAX_QUOTE: usize = 300;

pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

pub(super) async fn dial(transport: Transport) -> Result<Socket, String> {
    let request = request(&transport).map_err(|error| ErrorChain(&error).to_string())?;
    let stream = transport.connect().await.map_err(|error| {
        let hint = error.hint();
        let mut reason = ErrorChain(&error).to_string();
        if let Some(hint) = hint {
            reason.push_str("; ");
            reason.push_str(hint);
        }
        reason
    })?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(4 * MAX_FRAME)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(error) => Err(refusal(&error)),
    }
}

fn request(transport: &Transport) -> Result<Request, tungstenite::Error> {
    let origin = transport.origin();
    let scheme = if origin.is_tls() { "wss" } else { "ws" };
    let url = format!("{scheme}://{}/api/v1/delegates/connect", origin.authority());
    let mut request = url.into_client_request()?;
    request.headers_mut().insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(request)
}

/// Why there is no WebSocket, in the server's own words where it has some.
fn refusal(error: &tungstenite::Error) -> String {
    let tungstenite::Error::Http(response) = error else {
        return ErrorChain(error).to_string();
    };
    let body = response.body().as_deref().unwrap_or_default();
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => match problem.hint.clone() {
            Some(hint) => format!("{problem}; {hint}"),
            None => problem.to_string(),
        },
        Err(_) => {
            let quote: String = String::from_utf8_lossy(body)
                .chars()
                .take(MAX_QUOTE)
                .filter(|c| !c.is_control())
                .collect();
            format!("the server answered {}: {quote}", response.status())
        }
    }
}
