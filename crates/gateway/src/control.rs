//! The link to the control plane: a WebSocket over which keys, routes and revocations come.
//!
//! It is dialled again for ever, with full jitter. While it is cut, what is known stays in force. A message that cannot be
//! read cuts it, because the snapshot that the next connection begins with makes up for whatever it said.

use crate::{
    endpoint::{ConnectError, Endpoint},
    gateway::Shared,
    known::BadKey,
};
use daemon::ErrorChain;
use futures_util::{SinkExt as _, StreamExt as _};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{
        self, Message, client::IntoClientRequest as _, http::HeaderValue, protocol::WebSocketConfig,
    },
};
use tokio_util::sync::CancellationToken;
use wire::gateway::{FromGateway, MAX_PROBED_HOPS, SUBPROTOCOL, ToGateway};

/// A snapshot of some hundred thousand gitspaces.
const MAX_MESSAGE: usize = 64 << 20;
const READ_BUFFER: usize = 16 * 1024;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
const PING_PERIOD: Duration = Duration::from_secs(10);
/// Without a word for so long, the link is taken for dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
const SEND_LIMIT: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A link that held so long starts the back-off anew.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot reach the control plane")]
    Connect {
        #[source]
        source: ConnectError,
    },
    #[error("the control plane refused the link")]
    Handshake {
        #[source]
        source: Box<tungstenite::Error>,
    },
    #[error("the handshake took longer than {} s", HANDSHAKE_LIMIT.as_secs())]
    HandshakeTimedOut,
    #[error("the control plane speaks another protocol than {SUBPROTOCOL}")]
    Subprotocol,
    #[error("the link broke")]
    Broken {
        #[source]
        source: Box<tungstenite::Error>,
    },
    #[error("the control plane closed the link")]
    Closed,
    #[error("nothing was heard for {} s", SILENCE_LIMIT.as_secs())]
    Silent,
    #[error("a message could not be sent in time")]
    Stuck,
    #[error("it was asked to be made anew")]
    Asked,
    #[error("a message of the control plane cannot be read")]
    Message {
        #[source]
        source: serde_json::Error,
    },
    #[error("a message of the control plane cannot be used")]
    Key {
        #[source]
        source: BadKey,
    },
}

/// Keeps the link up until the drain.
pub(crate) async fn run(
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    drain: CancellationToken,
) -> Result<(), Infallible> {
    let mut attempt = 0_u32;
    loop {
        let started = Instant::now();
        let error = tokio::select! {
            never = session(&shared, &endpoint) => match never { Err(error) => error, Ok(never) => match never {} },
            () = shared.link.asked() => LinkError::Asked,
            () = drain.cancelled() => return Ok(()),
        };
        shared.link.down(ErrorChain(&error).to_string());
        if started.elapsed() >= QUIET {
            attempt = 0;
        }
        let wait = backoff(attempt, jitter());
        attempt = attempt.saturating_add(1);
        tracing::warn!(
            error = %ErrorChain(&error),
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "Link to the control plane is down"
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.link.asked() => {}
            () = drain.cancelled() => return Ok(()),
        }
    }
}

/// Anywhere up to the doubled wait; `jitter` is from 0 to 2^32 - 1.
fn backoff(attempt: u32, jitter: u32) -> Duration {
    let ceiling = BACKOFF_FIRST
        .saturating_mul(1 << attempt.min(16))
        .min(BACKOFF_MAX);
    ceiling.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
}

fn jitter() -> u32 {
    // Without randomness the whole wait is the safe choice.
    getrandom::u32().unwrap_or(u32::MAX)
}

async fn session(shared: &Shared, endpoint: &Endpoint) -> Result<Infallible, LinkError> {
    let stream = endpoint
        .connect()
        .await
        .map_err(|source| LinkError::Connect { source })?;
    let handshake = |source| LinkError::Handshake {
        source: Box::new(source),
    };
    let mut request = endpoint
        .websocket_url("/api/v1/gateways/connect")
        .into_client_request()
        .map_err(handshake)?;
    let headers = request.headers_mut();
    headers.insert(
        "sec-websocket-protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let mut bearer = HeaderValue::from_str(&endpoint.bearer()).map_err(|error| {
        handshake(tungstenite::Error::from(tungstenite::http::Error::from(
            error,
        )))
    })?;
    bearer.set_sensitive(true);
    headers.insert("authorization", bearer);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let (mut socket, answer) = tokio::time::timeout(
        HANDSHAKE_LIMIT,
        client_async_with_config(request, stream, Some(config)),
    )
    .await
    .map_err(|_| LinkError::HandshakeTimedOut)?
    .map_err(handshake)?;
    let agreed = answer.headers().get("sec-websocket-protocol");
    if agreed.is_none_or(|protocol| protocol != SUBPROTOCOL) {
        return Err(LinkError::Subprotocol);
    }
    let hello = FromGateway::Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        domain: shared.domain.name().to_owned(),
        origin: Some(shared.domain.origin()),
        ssh: shared.ssh_endpoint.clone(),
        tunnels: shared.tunnel_url.clone(),
    };
    let hello = serde_json::to_string(&hello).map_err(|source| LinkError::Message { source })?;
    let mut outgoing = Some(Message::text(hello));
    let mut pings = tokio::time::interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut probes = shared.probe.subscribe();
    // What was found before this connection is told, too.
    probes.mark_changed();
    let mut takes_probes = false;
    loop {
        if let Some(message) = outgoing.take() {
            tokio::time::timeout(SEND_LIMIT, socket.send(message))
                .await
                .map_err(|_| LinkError::Stuck)?
                .map_err(broken)?;
        }
        tokio::select! {
            message = socket.next() => {
                heard = Instant::now();
                match message.ok_or(LinkError::Closed)?.map_err(broken)? {
                    Message::Text(text) => takes_probes |= handle(shared, text.as_str())?,
                    Message::Close(_) => return Err(LinkError::Closed),
                    // tungstenite answers pings by itself when it is polled.
                    Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
                }
            }
            Ok(()) = probes.changed(), if takes_probes => {
                let found = probes.borrow_and_update().clone();
                if let Some((_, report)) = found {
                    let report = Box::new(report.brief(MAX_PROBED_HOPS));
                    let said = FromGateway::Probed { report };
                    let text = serde_json::to_string(&said)
                        .map_err(|source| LinkError::Message { source })?;
                    outgoing = Some(Message::text(text));
                }
            }
            _ = pings.tick() => {
                if heard.elapsed() >= SILENCE_LIMIT {
                    return Err(LinkError::Silent);
                }
                outgoing = Some(Message::Ping(bytes::Bytes::new()));
            }
        }
    }
}

fn broken(source: tungstenite::Error) -> LinkError {
    LinkError::Broken {
        source: Box::new(source),
    }
}

/// Whether the control plane says that it takes what probes find.
fn handle(shared: &Shared, text: &str) -> Result<bool, LinkError> {
    let message: ToGateway =
        serde_json::from_str(text).map_err(|source| LinkError::Message { source })?;
    let mut takes_probes = false;
    if let ToGateway::Snapshot {
        routes,
        gateway,
        probes,
        ..
    } = &message
    {
        takes_probes = *probes;
        tracing::info!(%gateway, routes = routes.len(), "Link to the control plane is up");
        shared.link.up(shared.clock.now());
    }
    let consequence = shared
        .known
        .apply(message)
        .map_err(|source| LinkError::Key { source })?;
    if let Some(gitspace) = consequence.unreachable {
        shared.pool.forget(gitspace);
    }
    Ok(takes_probes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_jitters_down_to_nothing() {
        assert_eq!(backoff(0, u32::MAX), BACKOFF_FIRST);
        assert_eq!(backoff(1, u32::MAX), BACKOFF_FIRST * 2);
        assert_eq!(backoff(1000, u32::MAX), BACKOFF_MAX);
        assert_eq!(backoff(5, 0), Duration::ZERO);
    }
}
