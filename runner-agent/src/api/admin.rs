//! The admin socket: is it alive, can it work, and what does it hold.

use crate::{config::FirewallMode, docker::Docker, reconcile::Orphans, shared::Shared};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use local_rpc::server::{self, Body};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use wire::gitspace::ObservedState;

const DOCKER_DEADLINE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(crate) struct AdminApi {
    pub(crate) shared: Arc<Shared>,
    pub(crate) docker: Docker,
    pub(crate) orphans: Arc<Orphans>,
}

/// One thing that the runner needs.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// Whether the runner is ready without it.
    required: bool,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Status<'a> {
    version: &'static str,
    deployment: &'a str,
    machine: &'static str,
    docker_host: &'a str,
    agent: &'a str,
    gitspaces: usize,
    running: usize,
    tasks_open: usize,
    tasks_finished: usize,
    spares: usize,
    /// Volumes that nobody knows, kept for a person to decide.
    orphan_volumes: Vec<String>,
    damaged_ledger_files: &'a [crate::ledger::Damaged],
    damaged_task_journals: usize,
}

impl AdminApi {
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let uri = request.uri().clone();
        match (request.method(), server::segments(&uri).as_slice()) {
            (&Method::GET, ["healthz"]) => server::bytes(StatusCode::OK, "text/plain", "ok\n"),
            (&Method::GET, ["readyz"]) => {
                let checks = self.checks().await;
                let ready = checks.iter().all(|check| check.ok || !check.required);
                let status = if ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                server::json(status, &Readiness { ready, checks })
            }
            (&Method::GET, ["status"]) => self.status(),
            _ => server::no_route(&request.into_parts().0),
        }
    }

    async fn checks(&self) -> Vec<Check> {
        let good = |name, required, message: String| Check {
            name,
            ok: true,
            required,
            code: "ok",
            message,
            fix: None,
        };
        let mut checks = Vec::new();
        checks.push(match self.docker.about(DOCKER_DEADLINE).await {
            Ok((version, _)) => good("docker", true, format!("Docker {version} answers")),
            Err(error) => {
                let failure = error.failure();
                Check {
                    name: "docker",
                    ok: false,
                    required: true,
                    code: "docker_unavailable",
                    message: daemon::ErrorChain(&error).to_string(),
                    fix: failure.hint,
                }
            }
        });
        let damaged = self.shared.ledger.damaged().len() + self.shared.journal.damaged();
        checks.push(if damaged == 0 {
            good("ledger", false, "every file could be read".to_owned())
        } else {
            Check {
                name: "ledger",
                ok: false,
                required: false,
                code: "ledger_damaged",
                message: format!("{damaged} files could not be read and were put aside"),
                fix: Some(format!(
                    "see the files called `.damaged` in {}",
                    self.shared.config.state_dir
                )),
            }
        });
        checks.push(match self.shared.firewall.problem() {
            None if self.shared.firewall.mode() == FirewallMode::Off => {
                good("firewall", true, "off by configuration".to_owned())
            }
            None => good("firewall", true, "set up".to_owned()),
            Some(cause) => Check {
                name: "firewall",
                ok: false,
                required: true,
                code: "firewall_failed",
                message: cause,
                fix: Some("install `iptables` and run the runner with CAP_NET_ADMIN".to_owned()),
            },
        });
        let image = &self.shared.config.default_image;
        checks.push(match self.docker.image(image).await {
            Ok(Some(_)) => good("default_image", false, format!("{image} is on the host")),
            Ok(None) => Check {
                name: "default_image",
                ok: false,
                required: false,
                code: "image_missing",
                message: format!("{image} is not on the host"),
                fix: crate::sandbox::default_image_missing(image).hint,
            },
            Err(error) => Check {
                name: "default_image",
                ok: false,
                required: false,
                code: "docker_unavailable",
                message: daemon::ErrorChain(&error).to_string(),
                fix: None,
            },
        });
        checks.push(match self.shared.pool.failure() {
            None => good("sandbox_pool", false, "nothing failed".to_owned()),
            Some(failure) => Check {
                name: "sandbox_pool",
                ok: false,
                required: false,
                code: "sandbox_failed",
                message: failure.message,
                fix: failure.hint,
            },
        });
        checks
    }

    fn status(&self) -> Response<Body> {
        let shared = &self.shared;
        let observed = shared.board.after(0);
        let tasks = shared.journal.all();
        let finished = tasks.iter().filter(|task| task.finished()).count();
        server::json(
            StatusCode::OK,
            &Status {
                version: env!("CARGO_PKG_VERSION"),
                deployment: shared.names.deployment(),
                machine: shared.machine.provider(),
                docker_host: self.docker.host(),
                agent: &shared.agent_copy.hash,
                gitspaces: shared.ledger.records().len(),
                running: observed
                    .iter()
                    .filter(|observed| observed.state == ObservedState::Running)
                    .count(),
                tasks_open: tasks.len() - finished,
                tasks_finished: finished,
                spares: shared
                    .ledger
                    .spares()
                    .iter()
                    .filter(|spare| spare.ready)
                    .count(),
                orphan_volumes: self.orphans.get(),
                damaged_ledger_files: shared.ledger.damaged(),
                damaged_task_journals: shared.journal.damaged(),
            },
        )
    }
}
