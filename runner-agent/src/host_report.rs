//! What the host has, and what of it gitspaces may use.

use crate::{
    config::{CapacityConfig, RunnerConfig},
    docker::Docker,
};
use admin::DiskError;
use camino::Utf8Path;
use daemon::ErrorChain;
use std::time::Duration;
use wire::{control::Capacity, runner::HostReport};

/// A delegate asks often, and waits.
const DOCKER_DEADLINE: Duration = Duration::from_secs(3);
/// Left to the host itself where the operator does not say.
const HOST_MEMORY: u64 = 1024 * 1024 * 1024;
/// Docker's own address pools give about thirty networks.
const DEFAULT_GITSPACES: u32 = 20;
/// A CPU that waits can be given twice.
const CPU_SHARES: u32 = 4;

pub(crate) fn capacity(config: &CapacityConfig) -> Capacity {
    let cpus = std::thread::available_parallelism()
        .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
    let memory = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    Capacity {
        gitspaces: config.gitspaces.unwrap_or(DEFAULT_GITSPACES),
        cpu_millis: config
            .cpu_millis
            .unwrap_or(cpus.saturating_mul(1000 * CPU_SHARES)),
        memory_bytes: config
            .memory_bytes
            .unwrap_or_else(|| memory.saturating_sub(HOST_MEMORY).max(memory / 2)),
    }
}

pub(crate) async fn report(config: &RunnerConfig, docker: &Docker, draining: bool) -> HostReport {
    let (docker_version, root, docker_failure) = match docker.about(DOCKER_DEADLINE).await {
        Ok((version, root)) => (Some(version), root, None),
        Err(error) => (None, String::new(), Some(error.failure())),
    };
    let known = if root.is_empty() {
        disk(&config.state_dir).await
    } else {
        match disk(Utf8Path::new(&root)).await {
            // It is on another host, or hidden from this process.
            Err(DiskError::Refused(_)) => disk(&config.state_dir).await,
            known => known,
        }
    };
    let (disk_bytes, disk_available_bytes) = known.unwrap_or_else(|error| {
        tracing::warn!(error = %ErrorChain(&error), root, "Nothing is known of the disk that gitspaces are on");
        (0, 0)
    });
    HostReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        docker_version,
        docker_failure,
        disk_bytes,
        disk_available_bytes,
        capacity: capacity(&config.capacity),
        draining,
    }
}

/// Size and free space of the disk that holds a folder.
async fn disk(path: &Utf8Path) -> Result<(u64, u64), DiskError> {
    let stat = admin::look_at_disk(path).await?;
    let block = stat.fragment_size();
    Ok((
        stat.blocks().saturating_mul(block),
        stat.blocks_available().saturating_mul(block),
    ))
}
