//! What is written of a gitspace and of a spare.

use super::FORMAT;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use wire::{
    agent::CommandLine,
    gitspace::{Generation, GitspaceSpec},
    ids::GitspaceUuid,
};

/// What the runner knows of one gitspace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(super) format: u32,
    pub(crate) gitspace: GitspaceUuid,
    /// Of the last task that ended.
    #[serde(default)]
    pub(crate) generation: Generation,
    /// Highest of any task that was taken, also of one that was cancelled.
    #[serde(default)]
    pub(crate) taken: Generation,
    /// Without secrets.
    #[serde(default)]
    pub(crate) spec: Option<GitspaceSpec>,
    #[serde(default)]
    pub(crate) machine: Option<MachineRecord>,
    /// Name of the clone's folder, once the clone is whole.
    #[serde(default)]
    pub(crate) clone: Option<CloneRecord>,
    #[serde(default)]
    pub(crate) container: Option<ContainerRecord>,
}

/// Network, volume and sandbox, all named by one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    pub(crate) key: String,
    /// Whether the sandbox is wanted.
    #[serde(default)]
    pub(crate) sandbox: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CloneRecord {
    /// Absolute, inside the container.
    pub(crate) folder: String,
    /// User the files belong to, once they were given to one.
    #[serde(default)]
    pub(crate) owner: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) name: String,
    /// `None` until Docker has made it.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// Hash of the agent that is mounted into it.
    #[serde(default)]
    pub(crate) agent: String,
    pub(crate) image: String,
    pub(crate) remote_user: String,
    pub(crate) workspace_folder: String,
    #[serde(default)]
    pub(crate) remote_env: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub(crate) forward_ports: Vec<u16>,
    #[serde(default)]
    pub(crate) on_create: Option<CommandLine>,
    #[serde(default)]
    pub(crate) post_create: Option<CommandLine>,
    #[serde(default)]
    pub(crate) post_start: Option<CommandLine>,
    /// Once-only commands that ended well.
    #[serde(default)]
    pub(crate) done: BTreeSet<Hook>,
    /// Docker's start time of the run that `postStartCommand` ended well in.
    #[serde(default)]
    pub(crate) post_started: Option<String>,
    /// Whether it is meant to run: an end that nobody asked for is told from one that somebody did.
    #[serde(default)]
    pub(crate) wanted_running: bool,
}

impl ContainerRecord {
    pub(crate) fn initialized(&self) -> bool {
        [
            (Hook::OnCreate, &self.on_create),
            (Hook::PostCreate, &self.post_create),
        ]
        .iter()
        .all(|(hook, command)| command.is_none() || self.done.contains(hook))
    }
}

/// Commands that run once for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hook {
    OnCreate,
    PostCreate,
}

impl Record {
    pub(crate) fn new(gitspace: GitspaceUuid) -> Self {
        Self {
            format: FORMAT,
            gitspace,
            generation: Generation::default(),
            taken: Generation::default(),
            spec: None,
            machine: None,
            clone: None,
            container: None,
        }
    }
}

/// A sandbox that waits for a gitspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spare {
    pub(super) format: u32,
    pub(crate) key: String,
    /// What it was made of: one of another image or agent is not used.
    pub(crate) image: String,
    pub(crate) agent: String,
    /// Whether it is whole.
    pub(crate) ready: bool,
}

impl Spare {
    pub(crate) fn new(key: String, image: String, agent: String) -> Self {
        Self {
            format: FORMAT,
            key,
            image,
            agent,
            ready: false,
        }
    }
}
