//! What is done about an agent that stays silent.

use super::Silent;
use crate::shared::Shared;
use wire::{failure::Failure, ids::GitspaceUuid};

/// What gitspace-agent's `init` takes for it.
const REPLACE: &str = "SIGUSR1";

/// The first process of its container starts it again. An agent of an older version takes no such signal and goes on as it is.
pub(super) async fn replace(shared: &Shared, gitspace: GitspaceUuid, silent: Silent) {
    let record = shared.ledger.get(gitspace);
    let container = record.and_then(|record| record.container);
    let Some(container) = container.and_then(|container| container.id) else {
        return;
    };
    match (signal(shared, gitspace, &container).await, silent) {
        (Ok(()), Silent::ForLong) => {
            tracing::warn!(
                %gitspace,
                hint = "where it stays silent, the gitspace has no CPU or memory left, or its agent is of an older version: stop it and start it again",
                "The agent of a gitspace is silent for long, and is replaced; its terminals stay"
            );
        }
        (Ok(()), Silent::Still) => tracing::debug!(%gitspace, "The agent is replaced once more"),
        (Err(failure), _) => {
            tracing::warn!(%gitspace, %failure, detail = failure.detail, "A silent agent cannot be replaced");
        }
    }
}

async fn signal(shared: &Shared, gitspace: GitspaceUuid, container: &str) -> Result<(), Failure> {
    let docker = shared.machine.docker(gitspace).await?;
    docker
        .signal_container(container, REPLACE)
        .await
        .map_err(|error| error.failure())
}
