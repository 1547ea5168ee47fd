//! What the delegate tells on its admin socket; the routes are those of every daemon, see the `admin` crate.

use crate::{
    VERSION,
    checks::Checks,
    drain::Drain,
    identity::{IdentityFile, KeyInUse},
    probe::Prober,
    rotate::Rotation,
    status::{Board, Found, LinkStatus},
    transport::Transport,
    tunnels::TunnelStatus,
    uplink::LinkHandle,
};
use admin::{
    About, Check, DrainRequest, DrainState, Registry, Subject,
    metrics::{counter, gauge},
};
use camino::Utf8PathBuf;
use control_plane::Bootstrap;
use daemon::{Clock, ErrorChain, Hint as _};
use http::{Method, Response, StatusCode};
use link::client::Stage;
use local_rpc::{
    Peer,
    server::{self, Body},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tls_server::ServedCertificate;
use tokio::sync::Mutex;
use wire::{
    control::{Epoch, Hop, ProbeReport},
    problem::Problem,
};

/// What the answers are made of. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) name: String,
    pub(crate) board: Board,
    pub(crate) link: LinkHandle,
    pub(crate) prober: Prober,
    pub(crate) checks: Checks,
    pub(crate) drain: Drain,
    pub(crate) config_files: Vec<Utf8PathBuf>,
    /// Of the control plane in this process.
    pub(crate) bootstrap: Option<Bootstrap>,
    pub(crate) keys: Keys,
}

/// What a rotation of the key changes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) transport: Transport,
    pub(crate) file: IdentityFile,
    pub(crate) in_use: KeyInUse,
    pub(crate) clock: Arc<dyn Clock>,
    /// One rotation at a time.
    pub(crate) turn: Arc<Mutex<()>>,
}

impl Admin {
    fn tunnels(&self) -> BTreeMap<String, TunnelStatus> {
        let tunnels = self.board.tunnels.borrow();
        tunnels
            .iter()
            .map(|(lane, entry)| (lane.clone(), entry.status()))
            .collect()
    }

    fn link(&self) -> LinkStatus {
        let link = self.board.link.borrow().clone();
        link.with_skew_of(&*self.keys.clock)
    }

    /// What the last probe found and how long ago, while that says something.
    fn probe(&self) -> Option<(Found, Duration)> {
        let found = self.board.probe.borrow().clone()?;
        let age = found.age(self.keys.clock.instant())?;
        Some((found, age))
    }

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

    /// Where whoever asked goes away in the middle, it is as if the daemon was killed there: the next call goes on.
    async fn rotate(&self) -> Response<Body> {
        let link = self.board.link.borrow().epoch.map(Epoch);
        let keys = &self.keys;
        let _turn = keys.turn.lock().await;
        let rotation = Rotation {
            transport: &keys.transport,
            file: &keys.file,
            in_use: Some(&keys.in_use),
            link,
        };
        let step = |step: &str| tracing::info!(step, "Rotating the key");
        match rotation.run(&*keys.clock, step).await {
            Ok(rotated) => {
                // A link that was made meanwhile was opened with the key that has ended, and one that is being made may be.
                if link.is_none() || self.board.link.borrow().epoch.map(Epoch) != link {
                    self.link.reconnect();
                }
                tracing::info!(
                    ended = rotated.ended,
                    key = rotated.key.fingerprint,
                    "Key rotated"
                );
                server::json(StatusCode::OK, &rotated)
            }
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "The key is not rotated");
                let mut problem = Problem::new("not_rotated", ErrorChain(&error).to_string());
                problem.hint = error.hint();
                server::problem(StatusCode::BAD_GATEWAY, &problem)
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
        let (link, runner) = (self.link(), self.board.runner.borrow().clone());
        json!({
            "name": self.name,
            "key": self.keys.in_use.get().map(|key| key.public().kid().clone()),
            "link": link,
            "runner": runner,
            "probe": self.probe().map(|(found, age)| json!({
                "at": found.at,
                "age_s": age.as_secs(),
                "report": found.report,
            })),
            "tunnels": self.tunnels(),
            "tasks": self.board.tasks.borrow().len(),
            "tls": self.checks.certificates.served.as_ref().map(ServedCertificate::view),
        })
    }

    async fn tasks(&self) -> Value {
        json!(*self.board.tasks.borrow())
    }

    fn metrics(&self, registry: &mut Registry) {
        if let Some(certificate) = &self.checks.certificates.served {
            certificate.metrics(registry);
        }
        let tunnels = self.tunnels();
        gauge(
            registry,
            "gitspaces_tunnels_up",
            "Tunnels to gateways that have a line",
            count(tunnels.values().filter(|tunnel| tunnel.up).count()),
        );
        gauge(
            registry,
            "gitspaces_tunnel_streams",
            "Streams that gateways have open through tunnels",
            count(tunnels.values().map(|tunnel| tunnel.streams).sum()),
        );
        let link = self.link();
        gauge(
            registry,
            "gitspaces_link_live",
            "Whether the link to the control plane is live",
            u64::from(link.state == Stage::Live),
        );
        gauge(
            registry,
            "gitspaces_link_waiting",
            "Messages that wait for the link",
            count(link.waiting_control + link.waiting_bulk + link.in_flight),
        );
        counter(
            registry,
            "gitspaces_link_connections",
            "Times that the link became live",
            link.connections,
        );
        if let Some(skew) = link.clock_skew_ms {
            gauge(
                registry,
                "gitspaces_clock_skew_milliseconds",
                "How far the control plane's clock and this host's are apart, either way; `status` says which is behind",
                skew.unsigned_abs(),
            );
        }
        if let Some((found, age)) = self.probe() {
            probed(registry, &found.report, age);
        }
        let runner = self.board.runner.borrow().clone();
        gauge(
            registry,
            "gitspaces_runner_ready",
            "Whether the runner answers",
            u64::from(runner.ready == Some(true)),
        );
        gauge(
            registry,
            "gitspaces_told",
            "Gitspaces that the runner has told of",
            count(runner.gitspaces),
        );
    }

    fn drain_state(&self) -> DrainState {
        self.drain.state()
    }

    async fn drain(&self, request: DrainRequest) -> Result<DrainState, (StatusCode, Problem)> {
        self.drain.begin(request).map_err(|error| error.problem())
    }

    async fn undrain(&self) -> Result<DrainState, (StatusCode, Problem)> {
        self.drain.end().map_err(|error| error.problem())
    }

    fn reconnect(&self) -> Result<(), (StatusCode, Problem)> {
        self.link.reconnect();
        Ok(())
    }

    /// `POST /rotate`: 200; a new key is in force at both ends, and the answer says which.
    /// `POST /probe`: the way to the control plane and to this host's gitspaces, each part with its time.
    ///
    /// `POST /admin-token`: 201; the embedded control plane makes a token for its first administrator, and the answer is the file it lies in.
    async fn own_route(
        &self,
        method: &Method,
        path: &[&str],
        peer: &Peer,
    ) -> Option<Response<Body>> {
        match (method, path) {
            (&Method::POST, ["probe"]) => Some(server::json(
                StatusCode::OK,
                &self.prober.both_ways(&self.link, true).await,
            )),
            (&Method::POST, ["admin-token"]) => Some(match admin::owner_only(peer) {
                Ok(()) => self.admin_token().await,
                Err(refusal) => *refusal,
            }),
            (&Method::POST, ["rotate"]) => Some(match admin::owner_only(peer) {
                Ok(()) => self.rotate().await,
                Err(refusal) => *refusal,
            }),
            _ => None,
        }
    }

    fn config_files(&self) -> Vec<Utf8PathBuf> {
        self.config_files.clone()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HopLabel {
    hop: &'static str,
}

/// What the last probe found, whoever asked for it.
fn probed(registry: &mut Registry, report: &ProbeReport, age: Duration) {
    let whole = Family::<HopLabel, Gauge>::default();
    let took = Family::<HopLabel, Gauge>::default();
    for one in report.hops.iter().filter(|one| one.hop != Hop::Agent) {
        let label = HopLabel {
            hop: one.hop.as_str(),
        };
        whole.get_or_create(&label).set(i64::from(!one.is_failed()));
        took.get_or_create(&label)
            .set(i64::try_from(one.took_us).unwrap_or(i64::MAX));
    }
    registry.register(
        "gitspaces_probe_hop_up",
        "Whether the part of the way answered the last probe",
        whole,
    );
    registry.register(
        "gitspaces_probe_hop_microseconds",
        "What the last probe spent on the part of the way",
        took,
    );
    gauge(
        registry,
        "gitspaces_probe_age_seconds",
        "How long ago the last probe was; five minutes after it nothing is told of it",
        age.as_secs(),
    );
    gauge(
        registry,
        "gitspaces_agents_silent",
        "Agents that did not answer the last probe",
        u64::from(report.silent_agents),
    );
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
