//! Tasks: what the control plane asks of a runner, and what it hears of them.
//!
//! Delivery is at least once; effects are exactly once by [`Task::id`]. A task's events are numbered from 1 without a gap, and its last
//! event is [`TaskEventKind::Finished`]; the runner keeps them until that one is acknowledged.

use crate::{
    failure::Failure,
    gitspace::{Generation, GitspaceSpec, Observed},
    ids::{GitspaceUuid, TaskUuid, TraceUuid},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest text of one log event, in bytes; longer output is cut into several events.
pub const MAX_LOG_TEXT: usize = 16 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub id: TaskUuid,
    pub gitspace: GitspaceUuid,
    pub generation: Generation,
    /// 1 for the first try of this generation's verb.
    pub attempt: u32,
    /// After this the runner gives up by itself with `deadline_exceeded`.
    pub deadline: Timestamp,
    pub trace: TraceUuid,
    pub verb: TaskVerb,
}

impl Task {
    /// The same without what must not lie on a disk.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        Self {
            verb: match &self.verb {
                TaskVerb::Provision { spec } => TaskVerb::Provision {
                    spec: spec.without_secrets(),
                },
                TaskVerb::Start { spec } => TaskVerb::Start {
                    spec: spec.without_secrets(),
                },
                other @ (TaskVerb::Stop {}
                | TaskVerb::Reset {}
                | TaskVerb::Delete {}
                | TaskVerb::Observe {}) => other.clone(),
            },
            ..self.clone()
        }
    }
}

/// Level-triggered verbs: each says where to end up, from wherever the gitspace is, and is safe to repeat.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskVerb {
    /// Network, volume and a whole clone. Ends in `provisioned` (or stays further on).
    Provision { spec: GitspaceSpec },
    /// A running dev container whose lifecycle commands have run. Provisions first where needed.
    Start { spec: GitspaceSpec },
    /// The container stopped, everything kept.
    Stop {},
    /// The container removed, the volume kept. Ends in `provisioned`.
    Reset {},
    /// Everything removed.
    Delete {},
    /// Look again and answer with what is there.
    Observe {},
}

impl TaskVerb {
    #[must_use]
    pub const fn kind(&self) -> TaskKind {
        match self {
            Self::Provision { .. } => TaskKind::Provision,
            Self::Start { .. } => TaskKind::Start,
            Self::Stop {} => TaskKind::Stop,
            Self::Reset {} => TaskKind::Reset,
            Self::Delete {} => TaskKind::Delete,
            Self::Observe {} => TaskKind::Observe,
        }
    }

    #[must_use]
    pub const fn spec(&self) -> Option<&GitspaceSpec> {
        match self {
            Self::Provision { spec } | Self::Start { spec } => Some(spec),
            Self::Stop {} | Self::Reset {} | Self::Delete {} | Self::Observe {} => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    Provision,
    Start,
    Stop,
    Reset,
    Delete,
    Observe,
}

impl TaskKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reset => "reset",
            Self::Delete => "delete",
            Self::Observe => "observe",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskEvent {
    /// 1, 2, 3, … per task.
    pub seq: u64,
    pub at: Timestamp,
    pub event: TaskEventKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TaskEventKind {
    PhaseStarted {
        phase: Phase,
    },
    PhaseCompleted {
        phase: Phase,
        duration_ms: u64,
        /// What came of it, for a person: `cloned 1a2b3c4 of main`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    PhaseFailed {
        phase: Phase,
        duration_ms: u64,
        failure: Failure,
    },
    Log {
        phase: Phase,
        stream: LogStream,
        /// At most [`MAX_LOG_TEXT`] bytes, any line breaks included.
        text: String,
    },
    Finished {
        outcome: TaskOutcome,
        observed: Box<Observed>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TaskOutcome {
    Done {},
    Failed { failure: Failure },
    Cancelled {},
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// Said by the platform, not by a command.
    System,
}

/// Steps of a task that a user sees in the timeline, with durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Network, volume and the sandbox that clones.
    Machine,
    Clone,
    /// Reading and checking devcontainer.json.
    Devcontainer,
    /// Finding or pulling the image.
    Image,
    /// Creating and starting the dev container, until its agent answers.
    Container,
    OnCreateCommand,
    PostCreateCommand,
    PostStartCommand,
    Stop,
    Reset,
    Delete,
    Observe,
    /// A phase of a later version.
    #[serde(other)]
    Other,
}

impl Phase {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Clone => "clone",
            Self::Devcontainer => "devcontainer",
            Self::Image => "image",
            Self::Container => "container",
            Self::OnCreateCommand => "on_create_command",
            Self::PostCreateCommand => "post_create_command",
            Self::PostStartCommand => "post_start_command",
            Self::Stop => "stop",
            Self::Reset => "reset",
            Self::Delete => "delete",
            Self::Observe => "observe",
            Self::Other => "other",
        }
    }
}
