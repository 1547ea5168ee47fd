//! The admin socket: `curl --unix-socket /run/gitspaces/delegate/admin.sock http://localhost/status`.
//!
//! | method, path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 where the link is live, the runner answers and the clock is right, else 503; says which |
//! | `GET /status` | [`crate::status`], whole |
//! | `POST /reconnect` | 202; hangs up and dials at once |
//! | `POST /admin-token` | 201; the embedded control plane makes a token for its first administrator, and the answer is the file it lies in |

use crate::{
    VERSION,
    runner::Runner,
    status::Board,
    uplink::{LinkHandle, clock_is_right},
};
use camino::Utf8Path;
use control_plane::Bootstrap;
use daemon::ErrorChain;
use http::{Method, Request, Response, StatusCode};
use local_rpc::{
    BindError, BindOptions, Listener, PeerPolicy, ServerConfig,
    server::{self, Body, RequestBody, ServeError},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;

/// Whoever asks wants to know how it is, not how long the runner may take.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// What the answers are made of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    pub name: String,
    pub board: Board,
    pub runner: Runner,
    pub link: LinkHandle,
    /// Of the control plane in this process.
    pub bootstrap: Option<Bootstrap>,
}

/// Binds the socket: root, this user and the socket's group get in.
///
/// # Errors
/// See [`BindError`].
pub fn bind(path: &Utf8Path, gid: Option<u32>) -> Result<(Listener, ServerConfig), BindError> {
    let listener = Listener::bind(path, BindOptions { mode: 0o660, gid })?;
    let policy = PeerPolicy::owner();
    let policy = match gid {
        Some(gid) => policy.allow_gid(gid),
        None => policy,
    };
    Ok((listener, ServerConfig::new(policy)))
}

impl Admin {
    /// Serves until `stop`.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve(
        self,
        (listener, config): (Listener, ServerConfig),
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let service = move |request, _peer| {
            let admin = self.clone();
            async move { admin.answer(request).await }
        };
        server::serve(listener, config, service, stop).await
    }

    async fn answer(&self, request: Request<RequestBody>) -> Response<Body> {
        let (head, _) = request.into_parts();
        match (&head.method, server::segments(&head.uri).as_slice()) {
            (&Method::GET, ["healthz"]) => server::json(StatusCode::OK, &json!({"status": "ok"})),
            (&Method::GET, ["readyz"]) => {
                let (ready, body) = self.ready().await;
                let status = if ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                server::json(status, &body)
            }
            (&Method::GET, ["status"]) => server::json(StatusCode::OK, &self.status().await),
            (&Method::POST, ["reconnect"]) => {
                self.link.reconnect();
                server::empty(StatusCode::ACCEPTED)
            }
            (&Method::POST, ["admin-token"]) => self.admin_token().await,
            _ => server::no_route(&head),
        }
    }

    /// The token itself is not in the answer: the socket's group may ask, and the file is for this user and root.
    async fn admin_token(&self) -> Response<Body> {
        let Some(bootstrap) = &self.bootstrap else {
            let problem = Problem::new("no_control_plane", "no control plane runs in this process")
                .hint("ask the delegate-agent that embeds it");
            return server::json(StatusCode::NOT_FOUND, &problem);
        };
        match bootstrap.mint().await {
            Ok(file) => server::json(StatusCode::CREATED, &json!({"file": file})),
            Err(error) => {
                let problem = Problem::new("not_made", "cannot make the token")
                    .cause(ErrorChain(&error).to_string());
                server::json(StatusCode::INTERNAL_SERVER_ERROR, &problem)
            }
        }
    }

    async fn ready(&self) -> (bool, Value) {
        let runner = self.probe().await;
        let link = self.board.link.borrow().clone();
        let live = link.state == "live";
        let clock = clock_is_right(link.clock_skew_ms);
        let ready = live && runner.is_ok() && clock;
        let body = json!({
            "ready": ready,
            "link": {"ready": live, "state": link.state, "error": if live { None } else { link.last_error }},
            "runner": {"ready": runner.is_ok(), "error": runner.err()},
            "clock": {"ready": clock, "skew_ms": link.clock_skew_ms},
        });
        (ready, body)
    }

    async fn status(&self) -> Value {
        let probe = self.probe().await;
        // Copied at once: a borrow holds up who publishes.
        let (link, runner, tasks) = (
            self.board.link.borrow().clone(),
            self.board.runner.borrow().clone(),
            self.board.tasks.borrow().clone(),
        );
        json!({
            "version": VERSION,
            "name": self.name,
            "link": link,
            "runner": {"answers": probe.is_ok(), "error": probe.err(), "watch": runner},
            "tasks": tasks,
        })
    }

    async fn probe(&self) -> Result<(), String> {
        match tokio::time::timeout(PROBE_LIMIT, self.runner.host()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ErrorChain(&error).to_string()),
            Err(_) => Err(format!(
                "the runner did not answer within {} s",
                PROBE_LIMIT.as_secs()
            )),
        }
    }
}
