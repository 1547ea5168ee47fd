//! HTTP requests to the control plane, outside the link: enrolment, rotation, and a look whether it is there.

use crate::{
    stranger::Stranger,
    transport::{ConnectError, Transport},
};
use bytes::Bytes;
use daemon::{Exit, Hint};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use wire::problem::Problem;

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 * 1024;
/// Where the port of a plain URL speaks TLS.
pub(crate) const IS_TLS: &str = "write `https://` in place of `http://` in the control plane's URL";

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
    #[error("`{control_plane}` is not answered as HTTP: that port speaks TLS")]
    IsTls { control_plane: String },
    #[error("the control plane `{control_plane}` did not answer within {} s", ANSWER_LIMIT.as_secs())]
    TooLong { control_plane: String },
}

impl Hint for AskError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { source } => source.hint(),
            Self::IsTls { .. } => Some(IS_TLS.to_owned()),
            Self::Http { .. } => Some(
                "something there takes connections and does not answer as an HTTP server: is that the control plane's port?".to_owned(),
            ),
            Self::TooLong { .. } => Some(
                "does it hang, or is that another server's port? see the control plane's `/api/v1/healthz`".to_owned(),
            ),
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
    let answer = tokio::time::timeout(ANSWER_LIMIT, call)
        .await
        .map_err(|_| AskError::TooLong {
            control_plane: control_plane.clone(),
        })?;
    match answer {
        Err(AskError::Http { .. }) if transport.is_tls_after_all().await => {
            Err(AskError::IsTls { control_plane })
        }
        answer => answer,
    }
}

/// Why a call with JSON has no answer that is one.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot write the request")]
    Request {
        #[source]
        source: BoxError,
    },
    #[error("the control plane refuses: {problem}")]
    Refused {
        status: StatusCode,
        problem: Box<Problem>,
    },
    #[error("`{control_plane}` is not a control plane: {stranger}")]
    NotAControlPlane {
        control_plane: String,
        status: StatusCode,
        stranger: Stranger,
    },
}

impl CallError {
    /// What a control plane of before the call answers.
    #[must_use]
    pub fn is_unknown_call(&self) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem.code == "no_route")
    }

    /// Whether it is sure that the control plane has done nothing. Elsewhere an answer may have been lost.
    #[must_use]
    pub fn is_without_effect(&self) -> bool {
        match self {
            Self::Ask(AskError::Connect { .. } | AskError::IsTls { .. }) | Self::Request { .. } => {
                true
            }
            Self::Ask(AskError::Http { .. } | AskError::TooLong { .. }) => false,
            Self::Refused { status, .. } | Self::NotAControlPlane { status, .. } => {
                !status.is_server_error() && !status.is_success()
            }
        }
    }
}

impl Hint for CallError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Ask(error) => error.hint(),
            Self::Refused { .. } if self.is_unknown_call() => {
                Some("the control plane is older than this delegate; upgrade it first".to_owned())
            }
            Self::Refused { problem, .. } => problem.hint.clone(),
            Self::NotAControlPlane { stranger, .. } => Some(stranger.hint()),
            Self::Request { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Ask(error) => error.exit(),
            Self::NotAControlPlane { .. } => Exit::Usage,
            Self::Refused { status, .. }
                if status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS =>
            {
                Exit::TryAgain
            }
            Self::Refused { .. } => Exit::Refused,
            Self::Request { .. } => Exit::Failure,
        }
    }
}

/// Sends `body` as JSON to a path of the API, and reads the answer.
///
/// # Errors
/// See [`CallError`].
pub async fn call<T: DeserializeOwned>(
    transport: &Transport,
    method: Method,
    path: &str,
    body: &(impl Serialize + Sync),
    connected: impl FnOnce(),
) -> Result<T, CallError> {
    let request = serde_json::to_vec(body)
        .map_err(Into::into)
        .and_then(|json| {
            Request::builder()
                .method(method)
                .uri(path)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json")
                .body(Full::new(Bytes::from(json)))
                .map_err(Into::into)
        })
        .map_err(|source| CallError::Request { source })?;
    let answer = ask(transport, request, connected).await?;
    read(transport, &answer).await
}

/// What a control plane says in JSON, or who answers in its place.
///
/// # Errors
/// See [`CallError`].
pub async fn read<T: DeserializeOwned>(
    transport: &Transport,
    answer: &Response<Bytes>,
) -> Result<T, CallError> {
    let status = answer.status();
    if status.is_success() {
        if let Ok(value) = serde_json::from_slice(answer.body()) {
            return Ok(value);
        }
    } else if !Stranger::is_gateway(answer)
        && let Ok(problem) = serde_json::from_slice::<Problem>(answer.body())
    {
        return Err(CallError::Refused {
            status,
            problem: Box::new(problem),
        });
    }
    let stranger = if status == StatusCode::BAD_REQUEST && transport.is_tls_after_all().await {
        Stranger::Tls
    } else {
        Stranger::of(answer)
    };
    Err(CallError::NotAControlPlane {
        control_plane: transport.origin().ascii(),
        status,
        stranger,
    })
}
