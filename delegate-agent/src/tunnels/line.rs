//! One line to a gateway, up to the welcome.

use super::WayOut;
use crate::{
    config::{ConfigError, Origin},
    transport::{ConnectError, Stream, Transport, TransportError},
};
use futures_util::{SinkExt as _, StreamExt as _};
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        handshake::client::Request,
        http::{HeaderValue, header},
    },
};
use tunnel::{prefer_small, websocket_config};
use wire::{
    problem::Problem,
    shown,
    tunnel::{MAX_HELLO, PATH, SUBPROTOCOL, TunnelHello, TunnelOffer, TunnelWelcome},
};

/// For the gateway's answer, and for its welcome.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Characters of a gateway's words.
const MAX_REASON: usize = 500;

pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("the gateway's URL is none")]
    Url {
        #[source]
        source: ConfigError,
    },
    #[error("cannot tell how to reach the gateway")]
    Transport {
        #[source]
        source: TransportError,
    },
    #[error(transparent)]
    Connect { source: ConnectError },
    #[error("cannot ask the gateway")]
    Request {
        #[source]
        source: Box<tungstenite::Error>,
    },
    /// Who that is, is not known: there may be something else at the URL.
    #[error("what answers at `{url}` refused the tunnel: {why}")]
    Refused { url: String, why: String },
    #[error("the gateway broke off")]
    Broken {
        #[source]
        source: Box<tungstenite::Error>,
    },
    #[error("the gateway did not answer within {} s", ANSWER_LIMIT.as_secs())]
    TooLong,
    #[error("the gateway said something else than a welcome")]
    NoWelcome,
}

fn broken(source: tungstenite::Error) -> LineError {
    LineError::Broken {
        source: Box::new(source),
    }
}

pub(super) async fn dial(
    way_out: &WayOut,
    offer: &TunnelOffer,
    hello: &TunnelHello,
) -> Result<(Socket, TunnelWelcome), LineError> {
    let origin = Origin::parse("url", &offer.url).map_err(|source| LineError::Url { source })?;
    let request = request(&origin, offer).map_err(|source| LineError::Request {
        source: Box::new(source),
    })?;
    let transport = Transport::new(
        origin,
        way_out.proxy.clone(),
        &way_out.env,
        way_out.ca_file.as_deref(),
    )
    .map_err(|source| LineError::Transport { source })?
    .to_gateway();
    let stream = transport
        .connect()
        .await
        .map_err(|source| LineError::Connect { source })?;
    if let Err(error) = prefer_small(stream.tcp()) {
        tracing::warn!(%error, "Small messages may wait for large ones in this tunnel");
    }
    let greet = async {
        let (mut socket, _) = client_async_with_config(request, stream, Some(websocket_config()))
            .await
            .map_err(|error| refused(&offer.url, error))?;
        let text = serde_json::to_string(hello).map_err(|_| LineError::NoWelcome)?;
        socket.send(Message::text(text)).await.map_err(broken)?;
        let Some(first) = socket.next().await else {
            return Err(LineError::NoWelcome);
        };
        match first.map_err(broken)? {
            Message::Text(text) if text.len() <= MAX_HELLO => {
                let welcome =
                    serde_json::from_str(text.as_str()).map_err(|_| LineError::NoWelcome)?;
                Ok((socket, welcome))
            }
            Message::Close(Some(close)) if !close.reason.is_empty() => Err(LineError::Refused {
                url: offer.url.clone(),
                why: shown::bounded(&close.reason, MAX_REASON),
            }),
            _ => Err(LineError::NoWelcome),
        }
    };
    timeout(ANSWER_LIMIT, greet)
        .await
        .map_err(|_| LineError::TooLong)?
}

fn request(origin: &Origin, offer: &TunnelOffer) -> Result<Request, tungstenite::Error> {
    let scheme = if origin.is_tls() { "wss" } else { "ws" };
    let url = format!("{scheme}://{}{PATH}", origin.authority());
    let mut request = url.into_client_request()?;
    let headers = request.headers_mut();
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", offer.ticket.expose()))
        .map_err(tungstenite::http::Error::from)?;
    bearer.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, bearer);
    Ok(request)
}

/// With the gateway's own words, where it has any.
fn refused(url: &str, error: tungstenite::Error) -> LineError {
    let tungstenite::Error::Http(answer) = error else {
        return broken(error);
    };
    let problem = answer
        .body()
        .as_ref()
        .and_then(|body| serde_json::from_slice::<Problem>(body).ok());
    let why = match problem {
        Some(problem) => problem.to_string(),
        None => format!("it answered {}", answer.status()),
    };
    LineError::Refused {
        url: url.to_owned(),
        why: shown::bounded(&why, MAX_REASON),
    }
}
