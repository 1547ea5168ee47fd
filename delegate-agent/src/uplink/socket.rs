//! From an address to a WebSocket that speaks our subprotocol.

use crate::{
    ask::IS_TLS,
    stranger::Stranger,
    transport::{Stream, Transport},
};
use daemon::ErrorChain;
use link::shell::{Dialect, Incoming};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest as _,
        error::ProtocolError,
        handshake::client::Request,
        http::{HeaderValue, StatusCode, header},
        protocol::{CloseFrame, WebSocketConfig},
    },
};
use wire::{
    control::{DisconnectCode, MAX_FRAME, SUBPROTOCOLS},
    problem::Problem,
};

/// One connection for the whole host: but the default of 128 KiB is for bulk.
const BUFFER: usize = 4 * 1024;

pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// tungstenite, as the link's shell speaks it.
#[derive(Debug)]
pub(super) struct Tungstenite;

impl Dialect for Tungstenite {
    type Message = Message;
    type Error = tungstenite::Error;
    type Text = Utf8Bytes;

    fn text(frame: String) -> Message {
        Message::text(frame)
    }

    fn close(code: u16, reason: &'static str) -> Message {
        Message::Close(Some(CloseFrame {
            code: code.into(),
            reason: reason.into(),
        }))
    }

    fn read(message: Message) -> Incoming<Utf8Bytes> {
        match message {
            Message::Text(text) => Incoming::Text(text),
            Message::Binary(_) => Incoming::Binary,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Incoming::Other,
            Message::Close(frame) => {
                Incoming::Close(frame.map(|frame| (frame.code.into(), frame.reason.to_string())))
            }
        }
    }

    fn is_oversized(error: &tungstenite::Error) -> bool {
        matches!(error, tungstenite::Error::Capacity(_))
    }
}

/// Why there is no WebSocket.
#[derive(Debug)]
pub(super) struct DialError {
    pub(super) code: DisconnectCode,
    pub(super) reason: String,
}

impl DialError {
    fn new(reason: String) -> Self {
        Self {
            code: DisconnectCode::CannotConnect,
            reason,
        }
    }
}

pub(super) async fn dial(transport: Transport) -> Result<Socket, DialError> {
    let request =
        request(&transport).map_err(|error| DialError::new(ErrorChain(&error).to_string()))?;
    let stream = transport.connect().await.map_err(|error| {
        let reason = ErrorChain(&error).to_string();
        DialError::new(match error.hint() {
            Some(hint) => format!("{reason}; {hint}"),
            None => reason,
        })
    })?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(4 * MAX_FRAME)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(error) => {
            if may_be_tls(&error) && transport.is_tls_after_all().await {
                return Err(DialError::new(format!(
                    "`{}` is not answered as HTTP: that port speaks TLS; {IS_TLS}",
                    transport.origin().ascii()
                )));
            }
            Err(refusal(&error, &transport))
        }
    }
}

fn request(transport: &Transport) -> Result<Request, tungstenite::Error> {
    let origin = transport.origin();
    let scheme = if origin.is_tls() { "wss" } else { "ws" };
    let url = format!("{scheme}://{}/api/v1/delegates/connect", origin.authority());
    let mut request = url.into_client_request()?;
    let offered = HeaderValue::from_str(&SUBPROTOCOLS.join(", "))
        .map_err(|error| tungstenite::Error::HttpFormat(error.into()))?;
    request
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
    Ok(request)
}

/// Whether this is how a server that waits for TLS takes a plain request: it hangs up, says an alert, or a refusal that is not ours.
fn may_be_tls(error: &tungstenite::Error) -> bool {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            response.status() == StatusCode::BAD_REQUEST
                && serde_json::from_slice::<Problem>(body).is_err()
        }
        tungstenite::Error::Protocol(error) => matches!(
            error,
            ProtocolError::HandshakeIncomplete | ProtocolError::HttparseError(_)
        ),
        tungstenite::Error::Io(_) => true,
        _ => false,
    }
}

/// Why there is no WebSocket, in the server's own words where it has some.
fn refusal(error: &tungstenite::Error, transport: &Transport) -> DialError {
    let response = match error {
        tungstenite::Error::Http(response) => response,
        // It switched protocols, and to none of ours.
        tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            return DialError {
                code: DisconnectCode::Version,
                reason: format!(
                    "{}; this delegate offers `{}`, and the server takes none of it",
                    ErrorChain(error),
                    SUBPROTOCOLS.join(", ")
                ),
            };
        }
        _ => return DialError::new(ErrorChain(error).to_string()),
    };
    let body = response.body().as_deref().unwrap_or_default();
    let answer = response.as_ref().clone().map(Option::unwrap_or_default);
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if !Stranger::is_gateway(&answer) => DialError {
            code: code_of(&problem),
            reason: match problem.hint.clone() {
                Some(hint) => format!("{problem}; {hint}"),
                None => problem.to_string(),
            },
        },
        Ok(_) | Err(_) => {
            let stranger = Stranger::of(&answer);
            DialError::new(format!(
                "`{}` is not a control plane: {stranger}; {}",
                transport.origin().ascii(),
                stranger.hint()
            ))
        }
    }
}

/// Of what the control plane answers instead of a WebSocket.
fn code_of(problem: &Problem) -> DisconnectCode {
    match problem.code.as_str() {
        "unsupported_protocol" => DisconnectCode::Version,
        "stopping" => DisconnectCode::GoingAway,
        "overloaded" => DisconnectCode::Overloaded,
        _ => DisconnectCode::CannotConnect,
    }
}
