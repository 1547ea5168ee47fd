//! gitspace-agent's control socket, version 1: what the runner asks of the agent inside a gitspace.
//!
//! | method, path | body | answer |
//! |---|---|---|
//! | `GET /v1/health` | | [`Health`] |
//! | `PUT /v1/config` | [`AgentConfig`] | 204: who works here and with which credentials |
//! | `PUT /v1/jobs/{id}` | [`JobSpec`] | 202; the same id again changes nothing |
//! | `GET /v1/jobs/{id}/events?after=N` | | NDJSON of [`JobEvent`], ends after `exited` |
//! | `DELETE /v1/jobs/{id}` | | 204: SIGTERM, then SIGKILL, to its whole process group; forgets an ended one |
//! | `GET /v1/ports` | | `[ListeningPort]` |
//! | `GET /v1/activity` | | [`Activity`] |
//! | `GET /v1/git` | | [`GitState`] of the workspace folder |
//! | `POST /v1/dial?target=T` | | upgrade [`crate::runner::DIAL_PROTOCOL`] |
//!
//! The agent runs beside code its owner does not control and that may be root there: whoever reads its answers bounds and checks them.

use crate::{
    failure::Failure,
    gitspace::{GitCredential, GitIdentity, RepoSpec},
    task::LogStream,
    text::{GitspaceName, Slug},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the agent's folder is mounted in a gitspace: `bin/` read-only, `run/` private to one gitspace.
pub const AGENT_DIR: &str = "/.gitspaces";
/// The agent's binary inside a gitspace.
pub const AGENT_BINARY: &str = "/.gitspaces/bin/gitspace-agent";
/// Mounted folder of sockets and job output; `control.sock` is the control socket.
pub const AGENT_RUN_DIR: &str = "/.gitspaces/run";
/// File name of the control socket in the run folder.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Where the gitspace's volume is mounted; the clone is in a folder of it that is named after the repository.
pub const WORKSPACES_DIR: &str = "/workspaces";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    pub version: String,
    /// How long `serve` has been up.
    pub uptime_ms: u64,
    /// Whether a config has been put since the container started.
    pub configured: bool,
    /// Public host key of its SSH server, as `known_hosts` has it: `ssh-ed25519 AAAA…`. None of a sandbox, or of an older agent. Whoever
    /// reads it checks that it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_host_key: Option<String>,
}

/// Who works here. Kept in memory alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    pub name: GitspaceName,
    pub slug: Slug,
    /// User of terminals and exec: a name or `uid[:gid]`.
    pub remote_user: String,
    pub workspace_folder: String,
    /// devcontainer.json's `remoteEnv`; `None` unsets.
    #[serde(default)]
    pub remote_env: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub forward_ports: Vec<u16>,
    #[serde(default)]
    pub git_credentials: Vec<GitCredential>,
    #[serde(default)]
    pub git_identity: Option<GitIdentity>,
}

/// Work that outlives the connection that asked for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case", deny_unknown_fields)]
pub enum JobSpec {
    Clone(CloneJob),
    Command(CommandJob),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneJob {
    pub repo: RepoSpec,
    /// Absolute; made whole beside it and renamed, so that it exists only once the clone is whole.
    pub destination: String,
    #[serde(default)]
    pub credentials: Vec<GitCredential>,
    #[serde(default, skip_serializing_if = "SshTrust::is_default")]
    pub ssh: SshTrust,
}

/// Which ssh servers a clone trusts beside those that its image knows. An older agent refuses a job that has one, and none is said where it
/// is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshTrust {
    /// Lines of `known_hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_hosts: Vec<String>,
    /// Take the key of a server of which none is known.
    #[serde(default)]
    pub accept_new: bool,
}

impl SshTrust {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandJob {
    /// Name or `uid[:gid]`.
    pub user: String,
    pub cwd: String,
    #[serde(default)]
    pub env: BTreeMap<String, Option<String>>,
    pub command: CommandLine,
    /// Whether a job of this id that ended well is not run again in this container, ever. An older agent refuses a job that says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

/// A devcontainer.json command: a string goes to a shell, an array does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case", deny_unknown_fields)]
pub enum CommandLine {
    Shell {
        script: String,
    },
    Exec {
        argv: Vec<String>,
    },
    /// Run at the same time; the job fails with the first that failed, after all have ended.
    Parallel {
        commands: BTreeMap<String, CommandLine>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// 1, 2, 3, … per job.
    pub seq: u64,
    pub at: Timestamp,
    pub event: JobEventKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobEventKind {
    Output {
        stream: LogStream,
        text: String,
    },
    /// Last event.
    Exited {
        outcome: JobOutcome,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum JobOutcome {
    Done {
        /// For a clone: `1a2b3c4 (main)`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    Failed {
        /// Exit code; 128 + n after signal n. `None` where nothing could be run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        failure: Failure,
    },
    Cancelled {},
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListeningPort {
    pub port: u16,
    /// Address it is bound to, `127.0.0.1`, `0.0.0.0`, `::1`, …
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Named in `forwardPorts`.
    pub forwarded: bool,
}

/// When somebody last did something here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Activity {
    /// Keys typed or output of an open terminal or exec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_terminal: Option<Timestamp>,
    /// A connection dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_connection: Option<Timestamp>,
    pub open_terminals: u32,
    pub open_connections: u32,
}

/// What would be lost by deleting the gitspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GitState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    pub staged: u32,
    pub unstaged: u32,
    pub untracked: u32,
    /// Commits on any local branch that no remote-tracking branch has.
    pub unpushed: u32,
    pub stashes: u32,
}
