//! What Docker and the runner hold of a deployment.

use crate::{deployment::Deployment, docker};
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DevContainer {
    pub(super) id: String,
    pub(super) gitspace: String,
    pub(super) key: String,
    pub(super) running: bool,
}

#[derive(Debug)]
pub(super) struct Counted {
    pub(super) dev: Vec<DevContainer>,
    pub(super) sandboxes: usize,
    /// Without the common beginning: keys of machines.
    pub(super) networks: Vec<String>,
    pub(super) volumes: Vec<String>,
}

impl Counted {
    pub(super) fn of(host: &Deployment) -> Result<Self> {
        let filter = format!("label=gitspaces.deployment={}", host.label);
        let format = "{{.ID}}|{{.Label \"gitspaces.role\"}}|{{.Label \"gitspaces.gitspace\"}}|{{.Label \"gitspaces.key\"}}|{{.State}}";
        let listed = docker::lines(&[
            "ps",
            "-a",
            "--no-trunc",
            "--filter",
            &filter,
            "--format",
            format,
        ])?;
        let mut dev = Vec::new();
        let mut sandboxes = 0;
        for line in listed {
            let fields: Vec<&str> = line.split('|').collect();
            if let [id, "dev-container", gitspace, key, state] = fields[..] {
                dev.push(DevContainer {
                    id: id.to_owned(),
                    gitspace: gitspace.to_owned(),
                    key: key.to_owned(),
                    running: state == "running",
                });
            } else {
                sandboxes += 1;
            }
        }
        let names = |what: &str| -> Result<Vec<String>> {
            let mut names: Vec<String> =
                docker::lines(&[what, "ls", "--filter", &filter, "--format", "{{.Name}}"])?
                    .iter()
                    .map(|name| name.trim_start_matches("gitspaces-").to_owned())
                    .collect();
            names.sort();
            Ok(names)
        };
        Ok(Self {
            dev,
            sandboxes,
            networks: names("network")?,
            volumes: names("volume")?,
        })
    }

    pub(super) fn dev_of(&self, gitspace: &str) -> Vec<&DevContainer> {
        self.dev
            .iter()
            .filter(|container| container.gitspace == gitspace)
            .collect()
    }
}

/// Ids of the tasks that the runner holds; `None` while it does not answer.
pub(super) fn tasks(host: &Deployment) -> Result<Option<usize>> {
    let said = host.curl(&[
        "--unix-socket",
        host.path("runner.sock").as_str(),
        "http://localhost/v1/tasks",
    ])?;
    if said.code != 0 {
        return Ok(None);
    }
    let tasks: Value = serde_json::from_str(&said.out)?;
    Ok(tasks.as_array().map(Vec::len))
}

/// Pids and start times of all processes in a container.
pub(super) fn processes(container: &str) -> Result<Vec<String>> {
    docker::lines(&["top", container, "-eo", "pid,lstart,args"])
}

/// How often each line was written by the commands of a dev container's life.
pub(super) fn commands(container: &str) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for line in docker::lines(&["exec", container, "cat", "/tmp/.count"])? {
        *counts.entry(line).or_default() += 1;
    }
    Ok(counts)
}
