//! What the control plane tells on its admin socket; the routes are those of every daemon, see the `admin` crate.

use admin::{About, Check, Registry, Severity, Subject, metrics::gauge};
use camino::Utf8PathBuf;
use control_plane::{Bootstrap, ControlPlaneView};
use daemon::ErrorChain;
use http::{Method, Response, StatusCode};
use local_rpc::{
    Peer,
    server::{self, Body},
};
use serde_json::{Value, json};
use std::time::Duration;
use tls_server::ServedCertificate;
use wire::problem::Problem;

/// A database that takes longer is not one to work with.
const PING_LIMIT: Duration = Duration::from_secs(2);

const DATABASE: &str = "database";
const DELEGATES: &str = "delegates";
const DATA_PATH: &str = "data_path";
const STATE_DISK: &str = "state_disk";

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) control_plane: ControlPlaneView,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) state_dir: Utf8PathBuf,
    pub(crate) certificate: Option<ServedCertificate>,
    pub(crate) certificate_warn_days: u32,
    pub(crate) config_files: Vec<Utf8PathBuf>,
}

impl Admin {
    async fn admin_token(&self) -> Response<Body> {
        match self.bootstrap.mint().await {
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
            daemon: "gitspaces-control-plane".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    async fn checks(&self) -> Vec<Check> {
        let asked = tokio::time::timeout(PING_LIMIT, self.control_plane.ping()).await;
        let cause = match asked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(ErrorChain(&error).to_string()),
            Err(_) => Some(format!("no answer within {} s", PING_LIMIT.as_secs())),
        };
        let database = match cause {
            None => Check::good(DATABASE, Severity::Error, "the database answers"),
            Some(cause) => Check::bad(DATABASE, Severity::Error, "the database does not answer")
                .cause(cause)
                .fix("look at the disk of the state folder"),
        };
        let counts = self.control_plane.delegates();
        let words = format!(
            "{} of {} delegates are connected, {} of them ready",
            counts.connected, counts.enrolled, counts.ready
        );
        let delegates = if counts.ready < counts.enrolled {
            Check::bad(DELEGATES, Severity::Warning, words)
                .fix("`gitspace delegate list` says which are away, since when and why")
        } else {
            Check::good(DELEGATES, Severity::Warning, words)
        };
        let broken = self.control_plane.broken_paths();
        let paths = match broken.first() {
            None => Check::good(
                DATA_PATH,
                Severity::Warning,
                format!(
                    "the last probes found the way through every connected delegate whole, but for {} that were not probed; {} of {} agents answer",
                    counts.unprobed,
                    counts.agents.saturating_sub(counts.silent_agents),
                    counts.agents
                ),
            ),
            Some(first) => Check::bad(
                DATA_PATH,
                Severity::Warning,
                format!(
                    "the way into gitspaces is broken through {} of {} connected delegates: through {} at `{}` since {}",
                    broken.len(),
                    counts.connected,
                    first.delegate,
                    first.broken_at,
                    first.since
                ),
            )
            .fix("`gitspace delegate probe NAME` says what is wrong there"),
        };
        let mut checks = vec![
            database,
            delegates,
            paths,
            Check::disk(STATE_DISK, "the control plane's state", &self.state_dir).await,
        ];
        if let Some(certificate) = &self.certificate {
            checks.extend(certificate.checks(self.certificate_warn_days));
        }
        checks
    }

    async fn status(&self) -> Value {
        json!({
            "delegates": self.control_plane.delegates(),
            "broken_paths": self.control_plane.broken_paths(),
            "refused_lately": self.control_plane.refused_lately(),
            "tls": self.certificate.as_ref().map(ServedCertificate::view),
        })
    }

    async fn tasks(&self) -> Value {
        match self.control_plane.open_tasks().await {
            Ok(tasks) => json!(tasks),
            Err(error) => json!({"error": ErrorChain(&error).to_string()}),
        }
    }

    fn metrics(&self, registry: &mut Registry) {
        if let Some(certificate) = &self.certificate {
            certificate.metrics(registry);
        }
        let counts = self.control_plane.delegates();
        for (name, help, count) in [
            (
                "gitspaces_delegates_enrolled",
                "Delegates that are not revoked",
                counts.enrolled,
            ),
            (
                "gitspaces_delegates_connected",
                "Delegates whose link is live",
                counts.connected,
            ),
            (
                "gitspaces_delegates_ready",
                "Connected delegates whose runners answer",
                counts.ready,
            ),
            (
                "gitspaces_delegates_draining",
                "Delegates that take nothing more",
                counts.draining,
            ),
            (
                "gitspaces_delegates_broken_path",
                "Connected delegates through which the last probe did not get into gitspaces",
                counts.broken,
            ),
            (
                "gitspaces_delegates_unprobed",
                "Connected delegates that cannot be probed, or were not yet",
                counts.unprobed,
            ),
            (
                "gitspaces_agents_probed",
                "Agents in gitspaces that ran at the last probes",
                counts.agents,
            ),
            (
                "gitspaces_agents_silent",
                "Of these, those that did not answer",
                counts.silent_agents,
            ),
        ] {
            gauge(
                registry,
                name,
                help,
                u64::try_from(count).unwrap_or(u64::MAX),
            );
        }
    }

    /// `POST /admin-token`: 201; a token for the first administrator is made, and the answer is the file it lies in.
    async fn own_route(
        &self,
        method: &Method,
        path: &[&str],
        peer: &Peer,
    ) -> Option<Response<Body>> {
        match (method, path) {
            (&Method::POST, ["admin-token"]) => Some(match admin::owner_only(peer) {
                Ok(()) => self.admin_token().await,
                Err(refusal) => *refusal,
            }),
            _ => None,
        }
    }

    fn config_files(&self) -> Vec<Utf8PathBuf> {
        self.config_files.clone()
    }
}
