//! One HTTP request to the control plane, outside the link: enrolment, and a look whether it is there.

use crate::transport::{ConnectError, Transport};
use bytes::Bytes;
use daemon::{Exit, Hint};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use std::time::Duration;

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("cannot reach the control plane")]
    Connect {
        #[source]
        source: ConnectError,
    },
    #[error("the control plane `{control_plane}` broke off")]
    Http {
        control_plane: String,
        #[source]
        source: BoxError,
    },
    #[error("the control plane `{control_plane}` did not answer within {} s", ANSWER_LIMIT.as_secs())]
    TooLong { control_plane: String },
}

impl Hint for AskError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { source } => source.hint().map(str::to_owned),
            Self::Http { .. } | Self::TooLong { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        Exit::Unavailable
    }
}

/// Sends `request`, whose URI is a path. `connected` is called when there is a connection.
///
/// # Errors
/// See [`AskError`].
pub async fn ask(
    transport: &Transport,
    mut request: Request<Full<Bytes>>,
    connected: impl FnOnce(),
) -> Result<Response<Bytes>, AskError> {
    let control_plane = transport.origin().ascii();
    let http = |source: BoxError| AskError::Http {
        control_plane: control_plane.clone(),
        source,
    };
    let host = transport.origin().authority().parse();
    request.headers_mut().insert(
        header::HOST,
        host.map_err(|error| http(BoxError::from(error)))?,
    );
    let call = async {
        let stream = transport
            .connect()
            .await
            .map_err(|source| AskError::Connect { source })?;
        connected();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| http(error.into()))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?;
            Ok::<_, BoxError>(Response::from_parts(head, body.to_bytes()))
        };
        // The answer says it where the connection fails.
        let driver = async {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "A connection to the control plane ended");
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            answer = answer => answer.map_err(http),
            never = driver => never,
        }
    };
    tokio::time::timeout(ANSWER_LIMIT, call)
        .await
        .map_err(|_| AskError::TooLong {
            control_plane: control_plane.clone(),
        })?
}
