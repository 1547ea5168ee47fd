//! One-time codes, exchanged at the control plane for the grant that becomes the cookie.

use crate::{
    cookies,
    endpoint::{ConnectError, Endpoint},
    gateway::Shared,
    page::Notice,
    path,
    site::Site,
};
use bytes::Bytes;
use daemon::ErrorChain;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{sync::Arc, time::Duration};
use wire::{
    gateway::{ExchangeRequest, ExchangeResponse},
    problem::Problem,
    runner::DialTarget,
    secret::Secret,
};

/// For one exchange, all in all.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// Largest answer.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
enum CodeError {
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
    #[error("the control plane did not answer within {} s", EXCHANGE_LIMIT.as_secs())]
    TimedOut,
    #[error("the control plane answered {status}")]
    Status {
        status: StatusCode,
        problem: Option<Box<Problem>>,
    },
}

#[derive(Debug)]
pub(crate) struct Codes {
    endpoint: Arc<Endpoint>,
}

impl Codes {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint }
    }

    /// The answer to a browser that came with `code`.
    pub(crate) async fn exchange(&self, shared: &Shared, site: &Site, code: String) -> Notice {
        let asked = tokio::time::timeout(EXCHANGE_LIMIT, self.ask(site, code)).await;
        match asked.unwrap_or(Err(CodeError::TimedOut)) {
            Ok(answer) => welcome(shared, &answer),
            Err(error) => refused(&error),
        }
    }

    async fn ask(&self, site: &Site, code: String) -> Result<ExchangeResponse, CodeError> {
        let question = ExchangeRequest {
            code: Secret::new(code),
            slug: site.slug.clone(),
            port: match site.to {
                DialTarget::Port(port) => Some(port),
                DialTarget::Workspace | DialTarget::Ssh => None,
            },
        };
        let json = serde_json::to_vec(&question).map_err(|source| CodeError::Json { source })?;
        let request = Request::post(self.endpoint.path("/api/v1/gateways/exchange"))
            .header("host", self.endpoint.authority())
            .header("authorization", self.endpoint.bearer())
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(Bytes::from(json)))
            .map_err(|_| CodeError::Request)?;
        let stream = self
            .endpoint
            .connect()
            .await
            .map_err(|source| CodeError::Connect { source })?;
        let http = |source| CodeError::Http { source };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let answer = async move {
            let answer = sender.send_request(request).await.map_err(http)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|_| CodeError::Body)?
                .to_bytes();
            if status == StatusCode::OK {
                return serde_json::from_slice(&body).map_err(|source| CodeError::Json { source });
            }
            let problem = serde_json::from_slice(&body).ok().map(Box::new);
            Err(CodeError::Status { status, problem })
        };
        let (answer, closed) = tokio::join!(answer, connection);
        if let Err(error) = closed {
            tracing::debug!(%error, "The connection of a code exchange did not close in order");
        }
        answer
    }
}

fn welcome(shared: &Shared, answer: &ExchangeResponse) -> Notice {
    let grant = answer.grant.expose();
    let clean = !grant.is_empty()
        && grant
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if !clean || !path::is_local(&answer.return_to) {
        tracing::error!(
            "The control plane's answer to a code was refused: its grant or its path is malformed"
        );
        return Notice::new(
            502,
            Problem::new(
                "exchange_malformed",
                "the control plane's answer cannot be used",
            ),
        );
    }
    let seconds = answer
        .exp
        .duration_since(shared.clock.now())
        .as_secs()
        .max(0);
    let secure = shared.domain.secure();
    let name = cookies::grant_cookie(secure);
    let attribute = if secure { "; Secure" } else { "" };
    let mut notice = Notice::redirect(303, answer.return_to.clone());
    notice.cookie = Some(format!(
        "{name}={grant}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{attribute}"
    ));
    notice
}

fn refused(error: &CodeError) -> Notice {
    match error {
        CodeError::Status { status, problem } if status.is_client_error() => {
            let said = problem.as_deref().map(ToString::to_string);
            if *status == StatusCode::UNAUTHORIZED {
                tracing::error!(said, "The control plane does not take this gateway's token");
            }
            let mut problem = Problem::new(
                "code_refused",
                "this link does not open the gitspace any more",
            )
            .hint("a link opens once and for a short time: open the gitspace again from its page or with `gitspace url NAME --login`");
            problem.cause = said;
            Notice::new(403, problem)
        }
        error => {
            tracing::warn!(error = %ErrorChain(error), "Cannot exchange a code");
            let status = if matches!(error, CodeError::TimedOut) {
                504
            } else {
                502
            };
            Notice::new(
                status,
                Problem::new(
                    "control_plane_unreachable",
                    "the control plane cannot be asked about this link",
                )
                .cause(ErrorChain(error).to_string())
                .hint("wait a moment and open the link again"),
            )
        }
    }
}
