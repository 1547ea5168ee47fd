//! What the delegate tells on its admin socket; the routes are those of every daemon, see the `admin` crate.

use crate::{VERSION, checks::Checks, drain::Drain, status::Board, uplink::LinkHandle};
use admin::{About, Check, DrainFileError, DrainRequest, DrainState, Subject};
use camino::Utf8PathBuf;
use control_plane::Bootstrap;
use daemon::{ErrorChain, Hint as _};
use http::{Method, Response, StatusCode};
use local_rpc::server::{self, Body};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use serde_json::{Value, json};
use wire::problem::Problem;

/// What the answers are made of. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) name: String,
    pub(crate) board: Board,
    pub(crate) link: LinkHandle,
    pub(crate) checks: Checks,
    pub(crate) drain: Drain,
    pub(crate) config_files: Vec<Utf8PathBuf>,
    /// Of the control plane in this process.
    pub(crate) bootstrap: Option<Bootstrap>,
}

impl Admin {
    /// The token itself is not in the answer: the socket's group may ask, and the file is for this user and root.
    async fn admin_token(&self) -> Response<Body> {
        let Some(bootstrap) = &self.bootstrap else {
            let problem = Problem::new("no_control_plane", "no control plane runs in this process")
                .hint("ask the delegate-agent that embeds it");
            return server::problem(StatusCode::NOT_FOUND, &problem);
        };
        match bootstrap.mint().await {
            Ok(file) => server::json(StatusCode::CREATED, &json!({"file": file})),
            Err(error) => {
                let problem = Problem::new("not_made", "cannot make the token")
                    .cause(ErrorChain(&error).to_string());
                server::problem(StatusCode::INTERNAL_SERVER_ERROR, &problem)
            }
        }
    }
}

impl Subject for Admin {
    fn about(&self) -> About {
        About {
            daemon: "delegate-agent".to_owned(),
            version: VERSION.to_owned(),
        }
    }

    async fn checks(&self) -> Vec<Check> {
        self.checks.all(self.drain.state().draining).await
    }

    async fn status(&self) -> Value {
        // Copied at once: a borrow holds up who publishes.
        let (link, runner) = (
            self.board.link.borrow().clone(),
            self.board.runner.borrow().clone(),
        );
        json!({
            "name": self.name,
            "link": link,
            "runner": runner,
            "tasks": self.board.tasks.borrow().len(),
        })
    }

    async fn tasks(&self) -> Value {
        json!(*self.board.tasks.borrow())
    }

    fn metrics(&self, registry: &mut Registry) {
        let link = self.board.link.borrow().clone();
        let gauge = |registry: &mut Registry, name: &str, help: &str, value: i64| {
            let gauge = Gauge::<i64>::default();
            gauge.set(value);
            registry.register(name, help, gauge);
        };
        gauge(
            registry,
            "gitspaces_link_live",
            "Whether the link to the control plane is live",
            i64::from(link.state == "live"),
        );
        gauge(
            registry,
            "gitspaces_link_waiting",
            "Messages that wait for the link",
            i64::try_from(link.waiting_control + link.waiting_bulk + link.in_flight)
                .unwrap_or(i64::MAX),
        );
        if let Some(skew) = link.clock_skew_ms {
            gauge(
                registry,
                "gitspaces_clock_skew_milliseconds",
                "The control plane's clock minus this host's",
                skew,
            );
        }
        let connections = Counter::<u64>::default();
        connections.inc_by(link.connections);
        registry.register(
            "gitspaces_link_connections",
            "Times that the link became live",
            connections,
        );
        let runner = self.board.runner.borrow().clone();
        gauge(
            registry,
            "gitspaces_runner_ready",
            "Whether the runner answers",
            i64::from(runner.ready == Some(true)),
        );
        gauge(
            registry,
            "gitspaces_gitspaces",
            "Gitspaces that the runner has told of",
            i64::try_from(runner.gitspaces).unwrap_or(i64::MAX),
        );
    }

    fn drain_state(&self) -> DrainState {
        self.drain.state()
    }

    async fn drain(&self, request: DrainRequest) -> Result<DrainState, Problem> {
        self.drain
            .begin(request)
            .await
            .map_err(|error| problem(&error))
    }

    async fn undrain(&self) -> Result<DrainState, Problem> {
        self.drain.end().await.map_err(|error| problem(&error))
    }

    fn reconnect(&self) -> Result<(), (StatusCode, Problem)> {
        self.link.reconnect();
        Ok(())
    }

    /// `POST /admin-token`: 201; the embedded control plane makes a token for its first administrator, and the answer is the file it lies in.
    async fn own_route(&self, method: &Method, path: &[&str]) -> Option<Response<Body>> {
        match (method, path) {
            (&Method::POST, ["admin-token"]) => Some(self.admin_token().await),
            _ => None,
        }
    }

    fn config_files(&self) -> Vec<Utf8PathBuf> {
        self.config_files.clone()
    }
}

fn problem(error: &DrainFileError) -> Problem {
    let mut problem = Problem::new("drain_not_kept", "the host's drain is as it was")
        .cause(ErrorChain(error).to_string());
    problem.hint = error.hint();
    problem
}
