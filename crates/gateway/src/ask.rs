//! Single questions to the control plane.

use crate::endpoint::{ConnectError, Endpoint};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use wire::problem::Problem;

/// For one question, all in all.
const LIMIT: Duration = Duration::from_secs(10);
/// Largest answer.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the control plane cannot be asked")]
    Connect {
        #[source]
        source: ConnectError,
    },
    #[error("the control plane was asked and did not answer")]
    Http {
        #[source]
        source: hyper::Error,
    },
    #[error("the request for the control plane cannot be made")]
    Request,
    #[error("the answer of the control plane cannot be read")]
    Body,
    #[error("the answer of the control plane is not what was asked for")]
    Json {
        #[source]
        source: serde_json::Error,
    },
    #[error("the control plane did not answer within {} s", LIMIT.as_secs())]
    TimedOut,
    #[error("the control plane answered {status}")]
    Status {
        status: StatusCode,
        problem: Option<Box<Problem>>,
    },
}

/// Asks at `path`, on a connection of its own.
pub(crate) async fn ask<Q: Serialize + Sync, A: DeserializeOwned>(
    endpoint: &Endpoint,
    path: &str,
    question: &Q,
) -> Result<A, AskError> {
    tokio::time::timeout(LIMIT, exchange(endpoint, path, question))
        .await
        .unwrap_or(Err(AskError::TimedOut))
}

async fn exchange<Q: Serialize + Sync, A: DeserializeOwned>(
    endpoint: &Endpoint,
    path: &str,
    question: &Q,
) -> Result<A, AskError> {
    let json = serde_json::to_vec(question).map_err(|source| AskError::Json { source })?;
    let request = Request::post(endpoint.path(path))
        .header("host", endpoint.authority())
        .header("authorization", endpoint.bearer())
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(Bytes::from(json)))
        .map_err(|_| AskError::Request)?;
    let stream = endpoint
        .connect()
        .await
        .map_err(|source| AskError::Connect { source })?;
    let http = |source| AskError::Http { source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(http)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|_| AskError::Body)?
            .to_bytes();
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|source| AskError::Json { source });
        }
        let problem = serde_json::from_slice(&body).ok().map(Box::new);
        Err(AskError::Status { status, problem })
    };
    let (answer, closed) = tokio::join!(answer, connection);
    if let Err(error) = closed {
        tracing::debug!(%error, "The connection of a question did not close in order");
    }
    answer
}
