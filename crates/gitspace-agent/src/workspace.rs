//! The workspace service: what a user reaches at the gitspace's own origin. See `wire::workspace` for its contract.
//!
//! Who may come is the gateway's decision; everything that does come is taken as hostile in form: sizes, times and counts are limited.

mod assets;
mod attach;
mod exec;
mod socket;

use crate::{agent::Agent, git_state, ports, ssh, terminal};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use local_rpc::server::{self, Body, RequestError};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::net::UnixStream;
use wire::{
    failure::{Failure, FailureCode},
    ids::TerminalUuid,
    problem::Problem,
    workspace::TerminalRequest,
};

const HEADER_LIMIT: Duration = Duration::from_secs(30);
/// Browsers send cookies of the whole domain along, though none should come this far.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
const MAX_BODY: usize = 64 * 1024;

/// Serves one connection to its end.
pub(crate) async fn serve(agent: Arc<Agent>, stream: UnixStream) {
    agent.dialled.workspace_opened();
    let shared = Arc::clone(&agent);
    let service = service_fn(move |request| {
        let agent = Arc::clone(&shared);
        async move {
            let mut response = answer(&agent, request)
                .await
                .unwrap_or_else(RequestError::into_response);
            harden(response.headers_mut());
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "A workspace connection ended with an error");
    }
    agent.dialled.workspace_closed();
}

/// On every answer: nothing of it may be guessed at, framed, or kept where it is not the page's own asset.
fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

async fn answer(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
) -> Result<Response<Body>, RequestError> {
    let uri = request.uri().clone();
    let segments = server::segments(&uri);
    Ok(match (request.method(), segments.as_slice()) {
        (&Method::GET, ["api", "v1", "terminals"]) => {
            let terminals = terminal::client::list(&agent.run_dir).await;
            let infos: Vec<_> = terminals
                .into_iter()
                .filter(|terminal| !terminal.ended)
                .map(|terminal| terminal.info)
                .collect();
            server::json(StatusCode::OK, &infos)
        }
        (&Method::POST, ["api", "v1", "terminals"]) => {
            // An empty body is a plain shell.
            let wanted: Option<TerminalRequest> = server::read_json(request, MAX_BODY).await?;
            match terminal::client::create(agent, wanted.unwrap_or_default()).await {
                Ok(info) => server::json(StatusCode::CREATED, &info),
                Err(failure) => refusal(failure),
            }
        }
        (&Method::DELETE, ["api", "v1", "terminals", id]) => match id.parse::<TerminalUuid>() {
            Ok(id) if terminal::client::hang_up(&agent.run_dir, id).await => {
                server::empty(StatusCode::NO_CONTENT)
            }
            Ok(_) | Err(_) => no_terminal(),
        },
        (&Method::GET, ["api", "v1", "terminals", id, "attach"]) => match id.parse() {
            Ok(id) => attach::answer(agent, request, id),
            Err(_) => no_terminal(),
        },
        (&Method::GET, ["api", "v1", "exec"]) => exec::answer(agent, request),
        (&Method::GET, ["api", "v1", "ssh"]) => ssh::answer(agent, request)?,
        (&Method::GET, ["api", "v1", "ports"]) => {
            server::json(StatusCode::OK, &ports::listening(agent).await)
        }
        (&Method::GET, ["api", "v1", "git"]) => git_state::answer(agent).await,
        (&Method::GET | &Method::HEAD, [name]) => match assets::find(name) {
            Some(asset) => asset.answer(request.headers()),
            None => server::no_route(&request.into_parts().0),
        },
        _ => server::no_route(&request.into_parts().0),
    })
}

fn no_terminal() -> Response<Body> {
    server::problem(
        StatusCode::NOT_FOUND,
        &Problem::new("no_terminal", "there is no such terminal")
            .hint("it may have ended; open another one"),
    )
}

fn refusal(failure: Failure) -> Response<Body> {
    let (status, code) = match failure.code {
        FailureCode::ToolMissing => (StatusCode::SERVICE_UNAVAILABLE, "tool_missing"),
        FailureCode::PreconditionFailed => (StatusCode::CONFLICT, "precondition_failed"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    let mut problem = Problem::new(code, failure.message);
    problem.cause = failure.detail;
    problem.hint = failure.hint;
    server::problem(status, &problem)
}
