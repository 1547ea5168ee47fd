//! A gateway that is there and does nothing: without one, no gitspace is made.

use futures_util::StreamExt as _;
use http::HeaderValue;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, client::IntoClientRequest as _},
};
use tokio_util::sync::CancellationToken;
use wire::{gateway::SUBPROTOCOL, secret::Secret};

/// Until the drain. Pings are answered while it is read.
pub(crate) async fn stay(
    port: u16,
    token: Secret,
    drain: CancellationToken,
) -> Result<(), tungstenite::Error> {
    let url = format!("ws://127.0.0.1:{port}/api/v1/gateways/connect");
    let mut request = url.into_client_request()?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|error| tungstenite::Error::HttpFormat(error.into()))?;
    let headers = request.headers_mut();
    headers.insert("authorization", bearer);
    headers.insert(
        "sec-websocket-protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let (mut socket, _) = connect_async(request).await?;
    tokio::select! {
        () = async { while socket.next().await.is_some() {} } => {}
        () = drain.cancelled() => {}
    }
    Ok(())
}
