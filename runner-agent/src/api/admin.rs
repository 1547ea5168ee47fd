//! What the runner tells on its admin socket; the routes are those of every daemon, see the `admin` crate.

use crate::{checks, docker::Docker, reconcile::Orphans, shared::Shared};
use ::admin::{About, Check, DrainRequest, DrainState, Registry, Subject, metrics::gauge};
use camino::Utf8PathBuf;
use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use serde_json::{Value, json};
use std::sync::Arc;
use wire::{gitspace::ObservedState, problem::Problem};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) docker: Docker,
    pub(crate) orphans: Arc<Orphans>,
    pub(crate) config_files: Vec<Utf8PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

impl Admin {
    fn unfinished(&self) -> usize {
        let tasks = self.shared.journal.all();
        tasks.iter().filter(|task| !task.finished()).count()
    }
}

impl Subject for Admin {
    fn about(&self) -> About {
        About {
            daemon: "runner-agent".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    async fn checks(&self) -> Vec<Check> {
        let draining = self.shared.drain.is_draining();
        checks::running(&self.shared, &self.docker, &self.orphans.get(), draining).await
    }

    async fn status(&self) -> Value {
        let shared = &self.shared;
        let observed = shared.board.after(0);
        let tasks = shared.journal.all();
        let finished = tasks.iter().filter(|task| task.finished()).count();
        let running = observed
            .iter()
            .filter(|observed| observed.state == ObservedState::Running)
            .count();
        let spares = shared.ledger.spares();
        let kept = self.orphans.get();
        json!({
            "deployment": shared.names.deployment(),
            "machine": shared.machine.provider(),
            "docker_host": self.docker.host(),
            "agent": shared.agent_copy.hash,
            "gitspaces": shared.ledger.records().len(),
            "running": running,
            "tasks_open": tasks.len() - finished,
            "tasks_finished": finished,
            "spares": spares.iter().filter(|spare| spare.ready).count(),
            // Kept for a person to decide.
            "orphan_volumes": kept.volumes,
            "orphan_containers": kept.containers,
            // What the ledger had lost and was found by its labels, since the start.
            "adopted": shared.ledger.adopted(),
            "damaged_ledger_files": shared.ledger.damaged(),
            "damaged_task_journals": shared.journal.damaged(),
        })
    }

    async fn tasks(&self) -> Value {
        let tasks = self.shared.journal.all();
        json!(tasks.iter().map(|task| task.status()).collect::<Vec<_>>())
    }

    fn metrics(&self, registry: &mut Registry) {
        let gitspaces = Family::<StateLabel, Gauge>::default();
        for observed in self.shared.board.after(0) {
            let state = word(observed.state);
            gitspaces.get_or_create(&StateLabel { state }).inc();
        }
        registry.register(
            "gitspaces_gitspaces",
            "Gitspaces by what they are seen as",
            gitspaces,
        );
        let spares = self.shared.ledger.spares();
        gauge(
            registry,
            "gitspaces_sandbox_spares",
            "Sandboxes that are ready to be claimed",
            spares.iter().map(|spare| u64::from(spare.ready)).sum(),
        );
        gauge(
            registry,
            "gitspaces_orphan_volumes",
            "Volumes that no gitspace knows",
            u64::try_from(self.orphans.get().volumes.len()).unwrap_or(u64::MAX),
        );
    }

    fn drain_state(&self) -> DrainState {
        self.shared.drain.state(self.unfinished())
    }

    async fn drain(&self, request: DrainRequest) -> Result<DrainState, (StatusCode, Problem)> {
        if request.deadline_s.is_some() {
            let problem = Problem::new("no_deadline", "the runner hands no task back by itself")
                .hint(
                    "give the deadline to `delegate-agent drain`: it speaks to the control plane",
                );
            return Err((StatusCode::BAD_REQUEST, problem));
        }
        let now = self.shared.clock.now();
        tokio::task::block_in_place(|| self.shared.drain.begin(request, now))
            .map_err(|error| error.problem())?;
        tracing::info!("Draining");
        Ok(self.drain_state())
    }

    async fn undrain(&self) -> Result<DrainState, (StatusCode, Problem)> {
        tokio::task::block_in_place(|| self.shared.drain.end()).map_err(|error| error.problem())?;
        tracing::info!("Taking work again");
        Ok(self.drain_state())
    }

    fn config_files(&self) -> Vec<Utf8PathBuf> {
        self.config_files.clone()
    }
}

const fn word(state: ObservedState) -> &'static str {
    match state {
        ObservedState::Absent => "absent",
        ObservedState::Provisioned => "provisioned",
        ObservedState::Stopped => "stopped",
        ObservedState::Running => "running",
    }
}
