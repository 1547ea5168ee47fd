//! Gitspaces, their actions, timeline and logs.

use crate::{
    failure::Failure,
    gateway::PortSet,
    gitspace::{
        DesiredState, DevContainer, Generation, GitspaceState, PortVisibility, RepoSpec, Resources,
    },
    ids::{GitspaceUuid, GrantUuid, MachineUuid, TaskUuid, TraceUuid},
    secret::Secret,
    task::{LogStream, Phase},
    text::{GitspaceName, Slug, SshPublicKey},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `POST /gitspaces`. It starts at once unless `start` is false.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateGitspace {
    pub repo: RepoSpec,
    /// Made from the repository's name where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub name: Option<GitspaceName>,
    /// Name of a machine; the default one where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    #[serde(default = "yes")]
    pub start: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gitspace {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: GitspaceUuid,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: GitspaceName,
    /// Host label of its URLs.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub slug: Slug,
    pub owner: String,
    pub repo: RepoSpec,
    /// Name of its machine.
    pub machine: String,
    pub resources: Resources,
    pub state: GitspaceState,
    pub desired: DesiredState,
    pub generation: Generation,
    /// What is being done, while something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Why it is in state `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What is wrong with it while it runs: `agent_silent`, `out_of_memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Failure>,
    /// Actions that are taken from here.
    pub actions: Vec<GitspaceAction>,
    /// Name of the delegate whose host holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<String>,
    /// False while that delegate is away: the state is the last one known.
    pub delegate_connected: bool,
    /// Whether its dev container can be entered now.
    pub reachable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev_container: Option<DevContainer>,
    /// Where the browser opens it.
    pub url: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated: Timestamp,
}

/// `POST /gitspaces/{name or id}/actions`. Delete is `DELETE /gitspaces/{name or id}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GitspaceAction {
    Start,
    Stop,
    Reset,
    /// Stop what is under way and go back to where it can rest.
    Cancel,
    Delete,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ActionRequest {
    pub action: GitspaceAction,
}

/// An entry of the timeline, `GET /gitspaces/{..}/events` (list, or `text/event-stream` by `Accept`; `?after=` or `Last-Event-ID`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineEvent {
    /// Rises within a gitspace.
    pub id: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    pub kind: TimelineKind,
    /// A sentence for a person.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    pub generation: Generation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub task: Option<TaskUuid>,
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub trace: TraceUuid,
    /// State after this event.
    pub state: GitspaceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TimelineKind {
    /// A user's action was taken.
    Action,
    /// A delegate was chosen and given a task.
    TaskAssigned,
    PhaseStarted,
    PhaseCompleted,
    PhaseFailed,
    /// The state changed (task ended, container died, delegate gone or back).
    StateChanged,
    /// Something went wrong that will be tried again by itself.
    Retrying,
    #[serde(other)]
    Other,
}

/// A line of output, `GET /gitspaces/{..}/logs` (`?after=`, `?follow=true` for `text/event-stream`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogEntry {
    /// Rises within a gitspace.
    pub id: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    pub phase: Phase,
    pub stream: LogStream,
    /// As it was written, line breaks included; not necessarily whole lines.
    pub text: String,
}

/// `POST /gitspaces/{..}/grants`: a grant for a program, sent to the gateway in a header.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateGrant {
    /// All ports where missing.
    #[serde(default)]
    pub ports: Option<Vec<u16>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grant {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: GrantUuid,
    /// Shown once.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub grant: Secret,
    pub ports: PortSet,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub exp: Timestamp,
    /// Origin of the workspace, `http(s)://<slug>.<domain>[:port]`.
    pub url: String,
    /// Public host key of the gitspace's SSH server, `ssh-ed25519 AAAA…`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ssh_host_key: Option<SshPublicKey>,
}

/// `POST /gitspaces/{..}/links`: a URL with a one-time code, for a browser that is not logged in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateLink {
    /// The workspace where missing.
    #[serde(default)]
    pub port: Option<u16>,
    /// Path and query to open; `/` where missing.
    #[serde(default)]
    pub path: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// Opens once, until `exp`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub url: Secret,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub exp: Timestamp,
}

/// `PUT /gitspaces/{..}/ports/{port}`: who may come to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SharePort {
    pub visibility: PortVisibility,
}

/// A port that others than the owner may come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortShare {
    pub port: u16,
    /// As it was set.
    pub visibility: PortVisibility,
    /// As it holds: no more than this deployment's `max_port_visibility`.
    pub effective: PortVisibility,
    pub url: String,
}

/// `GET /gitspaces/{..}/ports`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortShares {
    /// By port; those that are not here are private.
    pub items: Vec<PortShare>,
    /// The most that may be set.
    pub max_visibility: PortVisibility,
}

/// A resource class. `GET /machines`, `POST /infra-providers/{id}/machines`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Machine {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: MachineUuid,
    pub name: String,
    pub infra_provider: String,
    pub resources: Resources,
    pub is_default: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateMachine {
    pub name: String,
    pub resources: Resources,
    #[serde(default)]
    pub is_default: bool,
}
