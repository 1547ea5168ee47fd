//! Stop, reset and delete: Docker first, the ledger last, and what is not there is fine.

use super::work::Work;
use crate::sandbox;
use std::time::Duration;
use wire::failure::Failure;

/// For processes to end by themselves.
const STOP_GRACE: Duration = Duration::from_secs(10);

type Done = Result<((), Option<String>), Failure>;

impl Work {
    pub(super) async fn stop(&self) -> Done {
        let docker = self.docker().await?;
        let record = self.record();
        if let Some(machine) = record.machine.filter(|machine| machine.sandbox) {
            docker
                .remove_container(&self.shared.names.sandbox(&machine.key))
                .await?;
            self.retire_sandbox()?;
        }
        let Some(container) = record.container else {
            return Ok(((), Some("there is no dev container".to_owned())));
        };
        self.update_container(|container| container.wanted_running = false)?;
        docker.stop_container(&container.name, STOP_GRACE).await?;
        Ok(((), None))
    }

    pub(super) async fn reset(&self) -> Done {
        self.stop().await?;
        let docker = self.docker().await?;
        let record = self.record();
        if let (Some(container), Some(machine)) = (&record.container, &record.machine) {
            docker.remove_container(&container.name).await?;
            sandbox::remove_run_dir(&self.shared.names.dev_run_dir(&machine.key));
            self.update(|record| record.container = None)?;
        }
        Ok(((), None))
    }

    pub(super) async fn delete(&self) -> Done {
        let docker = self.docker().await?;
        let record = self.record();
        if let Some(container) = &record.container {
            docker.remove_container(&container.name).await?;
        }
        if let Some(machine) = &record.machine {
            sandbox::remove_machine(&self.shared, &docker, &machine.key).await?;
        }
        self.shared
            .ledger
            .remove(self.task.gitspace, self.shared.clock.now())?;
        Ok(((), None))
    }
}
