//! Binding the socket, and its table of routes.

use crate::{DrainRequest, Readiness, Subject, bundle, http_body::MAX_REQUEST, metrics};
use camino::Utf8Path;
use daemon::{Clock, ErrorChain, Lifecycle, Pulses, logging::LogHandle};
use http::{Method, Request, Response, StatusCode};
use local_rpc::{
    BindError, BindOptions, Listener, Peer, PeerPolicy, ServerConfig,
    server::{self, Body, RequestBody, ServeError},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{io, os::unix::net::UnixListener, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;

/// A loop that does not answer so long is stuck: none does anything slow between two turns.
const TURN_LIMIT: Duration = Duration::from_secs(2);

/// Where the socket is, and who gets in.
#[derive(Debug)]
pub struct AdminSocket<'a> {
    pub path: &'a Utf8Path,
    /// The group that may connect, beside root and the daemon's own user.
    pub gid: Option<u32>,
    /// Bound by the service manager already.
    pub passed: Option<UnixListener>,
}

/// Ready to be served.
#[derive(Debug)]
pub struct BoundAdmin {
    listener: Listener,
    config: ServerConfig,
}

impl AdminSocket<'_> {
    /// Takes the passed socket, or binds the path with mode 0660; a missing folder is made.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(self) -> Result<BoundAdmin, BindError> {
        let io = |step, source: io::Error| BindError::Io {
            path: self.path.to_owned(),
            step,
            source,
        };
        let mut policy = PeerPolicy::owner();
        if let Some(gid) = self.gid {
            policy = policy.allow_gid(gid);
        }
        let listener = match self.passed {
            Some(passed) => {
                // Whom the unit lets connect by the file's group gets in: the service manager is who decided it.
                if let Some(gid) = group_of(self.path) {
                    policy = policy.allow_gid(gid);
                }
                Listener::from_std(passed)
                    .map_err(|source| io("watch the passed socket", source))?
            }
            None => {
                if let Some(folder) = self.path.parent() {
                    std::fs::create_dir_all(folder)
                        .map_err(|source| io("make its directory", source))?;
                }
                Listener::bind(
                    self.path,
                    BindOptions {
                        mode: 0o660,
                        gid: self.gid,
                    },
                )?
            }
        };
        Ok(BoundAdmin {
            listener,
            config: ServerConfig::new(policy),
        })
    }
}

/// The group of a socket's file.
#[must_use]
pub fn group_of(path: &Utf8Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|data| data.gid())
}

/// Body of `GET` and `PUT /log-level`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// As `info` or `warn,runner_agent=debug`.
    pub filter: String,
}

impl BoundAdmin {
    /// Serves for as long as the daemon takes requests.
    pub fn spawn<S: Subject>(
        self,
        lifecycle: &Lifecycle,
        subject: S,
        log: LogHandle,
        clock: Arc<dyn Clock>,
    ) {
        let (pulses, stop) = (lifecycle.tasks().pulses(), lifecycle.drain_token());
        lifecycle.spawn("admin", self.serve(subject, log, pulses, clock, stop));
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve<S: Subject>(
        self,
        subject: S,
        log: LogHandle,
        pulses: Pulses,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let routes = Routes {
            started: clock.now(),
            subject,
            log,
            pulses,
            clock,
        };
        let service = move |request, peer| {
            let routes = routes.clone();
            async move { routes.answer(request, &peer).await }
        };
        server::serve(self.listener, self.config, service, stop).await
    }
}

#[derive(Clone, Debug)]
struct Routes<S> {
    subject: S,
    log: LogHandle,
    pulses: Pulses,
    clock: Arc<dyn Clock>,
    started: jiff::Timestamp,
}

impl<S: Subject> Routes<S> {
    async fn answer(&self, request: Request<RequestBody>, peer: &Peer) -> Response<Body> {
        let uri = request.uri().clone();
        match (request.method(), server::segments(&uri).as_slice()) {
            (&Method::GET, ["healthz"]) => self.health().await,
            (&Method::GET, ["readyz"]) => {
                let readiness = Readiness::of(self.subject.checks().await);
                server::json(
                    if readiness.ready {
                        StatusCode::OK
                    } else {
                        StatusCode::SERVICE_UNAVAILABLE
                    },
                    &readiness,
                )
            }
            (&Method::GET, ["status"]) => server::json(StatusCode::OK, &self.status().await),
            (&Method::GET, ["tasks"]) => server::json(StatusCode::OK, &self.subject.tasks().await),
            (&Method::GET, ["metrics"]) => match metrics::text(&self.subject) {
                Ok(text) => server::bytes(StatusCode::OK, metrics::CONTENT_TYPE, text),
                Err(error) => internal("the metrics cannot be written", &error),
            },
            (&Method::GET, ["drain"]) => server::json(StatusCode::OK, &self.subject.drain_state()),
            (&Method::POST, ["drain"]) => {
                match server::read_json::<Option<DrainRequest>, _>(request, MAX_REQUEST).await {
                    Ok(wanted) => drained(self.subject.drain(wanted.unwrap_or_default()).await),
                    Err(error) => error.into_response(),
                }
            }
            (&Method::POST, ["undrain"]) => drained(self.subject.undrain().await),
            (&Method::GET, ["log-level"]) => self.log_level(),
            (&Method::PUT, ["log-level"]) => {
                match server::read_json::<LogLevel, _>(request, MAX_REQUEST).await {
                    Ok(wanted) => self.set_log_level(&wanted),
                    Err(error) => error.into_response(),
                }
            }
            (&Method::POST, ["reconnect"]) => match self.subject.reconnect() {
                Ok(()) => server::empty(StatusCode::ACCEPTED),
                Err((status, problem)) => server::problem(status, &problem),
            },
            (&Method::GET, ["support-bundle"]) => self.bundle().await,
            (method, path) => match self.subject.own_route(method, path, peer).await {
                Some(answer) => answer,
                None => server::no_route(&request.into_parts().0),
            },
        }
    }

    async fn health(&self) -> Response<Body> {
        let silent = self.pulses.silent(TURN_LIMIT).await;
        if silent.is_empty() {
            server::json(StatusCode::OK, &json!({"status": "ok"}))
        } else {
            server::json(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"status": "stuck", "loops": silent}),
            )
        }
    }

    async fn status(&self) -> serde_json::Value {
        let about = self.subject.about();
        json!({
            "daemon": about.daemon,
            "version": about.version,
            "pid": std::process::id(),
            "started": self.started,
            "log_filter": self.log.filter(),
            "drain": self.subject.drain_state(),
            "is": self.subject.status().await,
        })
    }

    fn log_level(&self) -> Response<Body> {
        match self.log.filter() {
            Some(filter) => server::json(StatusCode::OK, &LogLevel { filter }),
            None => server::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                &Problem::new("logging_ended", "logging has ended"),
            ),
        }
    }

    fn set_log_level(&self, wanted: &LogLevel) -> Response<Body> {
        match self.log.set_filter(&wanted.filter) {
            Ok(()) => {
                tracing::info!(filter = wanted.filter, "Log filter changed");
                self.log_level()
            }
            Err(error) => {
                use daemon::Hint as _;
                // The source quotes the filter again.
                let mut problem = Problem::new("bad_log_filter", error.to_string());
                problem.hint = error.hint();
                server::problem(StatusCode::BAD_REQUEST, &problem)
            }
        }
    }

    async fn bundle(&self) -> Response<Body> {
        let parts = bundle::Parts {
            at: self.clock.now(),
            status: self.status().await,
            readiness: Readiness::of(self.subject.checks().await),
            silent_loops: self.pulses.silent(TURN_LIMIT).await,
            tasks: self.subject.tasks().await,
            metrics: metrics::text(&self.subject)
                .unwrap_or_else(|error| format!("# cannot be written: {error}\n")),
            config_files: self.subject.config_files(),
            log: self.log.recent(),
        };
        let packed = tokio::task::spawn_blocking(move || bundle::pack(&parts)).await;
        match packed {
            Ok(Ok(bytes)) => server::bytes(StatusCode::OK, "application/x-tar", bytes),
            Ok(Err(error)) => internal("the support bundle cannot be packed", &error),
            Err(error) => internal("the support bundle cannot be packed", &error),
        }
    }
}

fn drained(result: Result<crate::DrainState, (StatusCode, Problem)>) -> Response<Body> {
    match result {
        Ok(state) => server::json(StatusCode::OK, &state),
        Err((status, problem)) => server::problem(status, &problem),
    }
}

fn internal(message: &'static str, error: &(dyn std::error::Error + 'static)) -> Response<Body> {
    tracing::error!(error = %ErrorChain(error), message, "An admin request failed");
    server::problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        &Problem::new("internal", message).cause(ErrorChain(error).to_string()),
    )
}
