//! One-time codes, exchanged at the control plane for the grant that becomes the cookie.

use crate::{
    ask::{AskError, ask},
    cookies,
    endpoint::Endpoint,
    gateway::Shared,
    page::Notice,
    path,
    site::Site,
};
use daemon::ErrorChain;
use hyper::StatusCode;
use std::sync::Arc;
use wire::{
    gateway::{ExchangeRequest, ExchangeResponse},
    problem::Problem,
    runner::DialTarget,
    secret::Secret,
};

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
        let question = ExchangeRequest {
            code: Secret::new(code),
            slug: site.slug.clone(),
            port: match site.to {
                DialTarget::Port(port) => Some(port),
                DialTarget::Workspace | DialTarget::Ssh => None,
            },
        };
        match ask(&self.endpoint, "/api/v1/gateways/exchange", &question).await {
            Ok(answer) => welcome(shared, &answer),
            Err(error) => refused(&error),
        }
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
    let mut notice = Notice::redirect(303, answer.return_to.clone());
    notice.cookie = Some(cookies::keep(grant, seconds, shared.domain.secure()));
    notice
}

fn refused(error: &AskError) -> Notice {
    match error {
        AskError::Status { status, problem } if status.is_client_error() => {
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
            let status = if matches!(error, AskError::TimedOut) {
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
