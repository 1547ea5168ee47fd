//! The text that Prometheus reads.

use crate::Subject;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge, info::Info},
    registry::Registry,
};
use std::sync::atomic::AtomicU64;

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything of a daemon and its process, as of now.
pub(crate) fn text<S: Subject>(subject: &S) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    let about = subject.about();
    registry.register(
        "gitspaces_daemon",
        "Which program this is",
        Info::new(vec![("daemon", about.daemon), ("version", about.version)]),
    );
    of_process(&mut registry);
    let drain = subject.drain_state();
    gauge(
        &mut registry,
        "gitspaces_draining",
        "Whether the daemon takes nothing more",
        u64::from(drain.draining),
    );
    gauge(
        &mut registry,
        "gitspaces_tasks_open",
        "Tasks that are not finished",
        u64::try_from(drain.left).unwrap_or(u64::MAX),
    );
    subject.metrics(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// A number as it is at this moment.
pub fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<u64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

/// A number that only grows while the process lives.
pub fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64, AtomicU64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

/// What every Prometheus client library says of its process, by the names they agreed on.
fn of_process(registry: &mut Registry) {
    if let Some(pages) = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        && let Ok(Some(size)) = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
    {
        gauge(
            registry,
            "process_resident_memory_bytes",
            "Resident memory",
            pages.saturating_mul(u64::try_from(size).unwrap_or(0)),
        );
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge(
            registry,
            "process_open_fds",
            "Open file descriptors",
            u64::try_from(open.count()).unwrap_or(u64::MAX),
        );
    }
}
