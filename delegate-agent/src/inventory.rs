//! What this host is and has.

use crate::config::CapacitySettings;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use wire::{
    control::{Capacity, Inventory},
    runner::HostReport,
};

/// Bytes of one text.
const MAX_TEXT: usize = 256;

/// The host's name, `unknown` where it has none.
#[must_use]
pub fn hostname() -> String {
    System::host_name()
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Reads the host; `report` is what the runner says of Docker, its disk and the capacity, where it answers.
#[must_use]
pub fn collect(report: Option<&HostReport>, capacity: CapacitySettings) -> Inventory {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let (memory_bytes, memory_available_bytes) = System::new_with_specifics(kind)
        .map(|system| (system.total_memory(), system.available_memory()))
        .unwrap_or_else(|error| {
            tracing::warn!(?error, "Cannot read the host's memory");
            (0, 0)
        });
    let cpus = std::thread::available_parallelism()
        .ok()
        .and_then(|count| u32::try_from(count.get()).ok())
        .unwrap_or(1);
    // A runner that does not answer takes nothing.
    let nothing = Capacity {
        gitspaces: 0,
        cpu_millis: 0,
        memory_bytes: 0,
    };
    Inventory {
        hostname: short(hostname()),
        os: short(System::long_os_version().unwrap_or_else(|_| "unknown".to_owned())),
        kernel: short(System::kernel_version().unwrap_or_else(|_| "unknown".to_owned())),
        arch: short(System::cpu_arch()),
        cpus,
        memory_bytes,
        memory_available_bytes,
        disk_bytes: report.map_or(0, |report| report.disk_bytes),
        disk_available_bytes: report.map_or(0, |report| report.disk_available_bytes),
        docker_version: report
            .and_then(|report| report.docker_version.clone())
            .map(short),
        capacity: report.map_or(nothing, |report| capacity.over(report.capacity)),
    }
}

/// The control plane takes no longer texts, and no person needs them.
fn short(mut text: String) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_described_and_takes_nothing_without_a_runner() {
        let inventory = collect(None, CapacitySettings::default());
        assert!(
            inventory.cpus >= 1 && inventory.memory_bytes > 0,
            "{inventory:?}"
        );
        assert!(!inventory.kernel.is_empty() && !inventory.hostname.is_empty());
        assert_eq!(inventory.capacity.gitspaces, 0);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = short("é".repeat(MAX_TEXT));
        assert_eq!(text, "é".repeat(MAX_TEXT / 2));
    }
}
