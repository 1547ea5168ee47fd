//! Containers as they are made: what differs, and what is the same for all of ours.

use super::calls::Labels;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, RestartPolicy,
    RestartPolicyNameEnum,
};
use std::collections::{BTreeMap, HashMap};
use wire::gitspace::Resources;

/// Docker counts in billionths of a CPU.
const NANOS_PER_MILLI: i64 = 1_000_000;
/// Dropped from every gitspace. What `useradd`, `sudo`, package managers and servers on low ports need is kept.
const CAP_DROP: [&str; 5] = ["NET_RAW", "MKNOD", "AUDIT_WRITE", "SYS_CHROOT", "SETFCAP"];

/// What is to be made; everything that is not here is the same for every container of ours.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPlan {
    pub(crate) name: String,
    pub(crate) hostname: String,
    pub(crate) image: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) labels: Labels,
    pub(crate) network: String,
    /// Name and target.
    pub(crate) volume: (String, String),
    /// Host path, target, whether read-only.
    pub(crate) binds: Vec<(String, String, bool)>,
    pub(crate) cpu_millis: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) pids: u32,
}

pub(super) fn nano_cpus(millis: u32) -> i64 {
    i64::from(millis) * NANOS_PER_MILLI
}

pub(super) fn memory(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What Docker leaves out is not limited: 0.
pub(super) fn limits(config: &HostConfig) -> Resources {
    let number = |value: Option<i64>| value.unwrap_or(0).max(0);
    Resources {
        cpu_millis: u32::try_from(number(config.nano_cpus) / NANOS_PER_MILLI).unwrap_or(u32::MAX),
        memory_bytes: u64::try_from(number(config.memory)).unwrap_or(0),
        pids: u32::try_from(number(config.pids_limit)).unwrap_or(u32::MAX),
    }
}

pub(super) fn create_body(plan: ContainerPlan) -> ContainerCreateBody {
    let mut mounts = vec![Mount {
        typ: Some(MountType::VOLUME),
        source: Some(plan.volume.0),
        target: Some(plan.volume.1),
        ..Default::default()
    }];
    for (source, target, read_only) in plan.binds {
        mounts.push(Mount {
            typ: Some(MountType::BIND),
            source: Some(source),
            target: Some(target),
            read_only: Some(read_only),
            ..Default::default()
        });
    }
    let memory = memory(plan.memory_bytes);
    ContainerCreateBody {
        hostname: Some(plan.hostname),
        user: Some("0:0".to_owned()),
        env: Some(
            plan.env
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        ),
        entrypoint: Some(plan.entrypoint),
        // An empty list keeps the image's own command from becoming arguments of ours.
        cmd: Some(Vec::new()),
        image: Some(plan.image),
        working_dir: Some(plan.working_dir),
        // What the first process, which is ours, listens to; an image may name another for its own.
        stop_signal: Some("SIGTERM".to_owned()),
        labels: Some(plan.labels),
        host_config: Some(HostConfig {
            nano_cpus: Some(nano_cpus(plan.cpu_millis)),
            memory: Some(memory),
            // The same as the memory: no swap.
            memory_swap: Some(memory),
            pids_limit: Some(i64::from(plan.pids)),
            mounts: Some(mounts),
            network_mode: Some(plan.network),
            cap_drop: Some(CAP_DROP.iter().map(|&name| name.to_owned()).collect()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "1m".to_owned()),
                    ("max-file".to_owned(), "2".to_owned()),
                ])),
            }),
            init: Some(false),
            ..Default::default()
        }),
        ..Default::default()
    }
}
