//! The server's side of an upgrade: from HTTP to the bare socket.

use crate::{
    request::RequestError,
    respond::{Body, empty},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::UnixStream;

/// The answer is on its way when this starts to count.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("the client went away before the upgrade")]
    Gone {
        #[source]
        source: hyper::Error,
    },
    #[error("the upgrade did not happen within {} s", UPGRADE_DEADLINE.as_secs())]
    Slow,
    #[error("the upgraded connection is not a Unix socket")]
    NotASocket,
}

/// A connection that has left HTTP.
#[derive(Debug)]
pub struct Upgraded {
    pub stream: UnixStream,
    /// What the client sent behind its request; comes before anything read from `stream`.
    pub leftover: Bytes,
}

/// The upgrade that follows the `101`.
#[derive(Debug)]
pub struct PendingUpgrade {
    on_upgrade: OnUpgrade,
    protocol: &'static str,
}

/// Checks that the client asks for `protocol` (`Connection: upgrade`, `Upgrade: <protocol>`).
///
/// # Errors
/// `426` where it does not.
pub fn prepare_upgrade<B>(
    request: &mut Request<B>,
    protocol: &'static str,
) -> Result<PendingUpgrade, RequestError> {
    let has = |name, wanted: &str| {
        request
            .headers()
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if has(header::CONNECTION, "upgrade") && has(header::UPGRADE, protocol) {
        Ok(PendingUpgrade {
            on_upgrade: hyper::upgrade::on(request),
            protocol,
        })
    } else {
        Err(RequestError::UpgradeRequired { protocol })
    }
}

impl PendingUpgrade {
    /// The `101` to answer with; `headers` go with it.
    #[must_use]
    pub fn response(&self, headers: HeaderMap) -> Response<Body> {
        let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
        *response.headers_mut() = headers;
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static(self.protocol));
        response
    }

    /// The bare socket. Await it in a task of its own: it comes after the handler has returned the `101`.
    ///
    /// # Errors
    /// Fails where the client went away, or the handler answered something else.
    pub async fn stream(self) -> Result<Upgraded, UpgradeError> {
        let upgraded = tokio::time::timeout(UPGRADE_DEADLINE, self.on_upgrade)
            .await
            .map_err(|_| UpgradeError::Slow)?
            .map_err(|source| UpgradeError::Gone { source })?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| UpgradeError::NotASocket)?;
        Ok(Upgraded {
            stream: parts.io.into_inner(),
            leftover: parts.read_buf,
        })
    }
}
