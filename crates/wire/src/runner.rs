//! The runner's API socket, version 1.
//!
//! | method, path | body | answer |
//! |---|---|---|
//! | `PUT /v1/tasks/{task}` | [`crate::task::Task`] | 202 [`TaskStatus`]; 409 while another task holds the gitspace; 412 where one of a later generation was taken. Journaled before the answer; safe to repeat |
//! | `GET /v1/tasks` | | `[TaskStatus]` |
//! | `GET /v1/tasks/{task}/events?after=N` | | NDJSON of [`crate::task::TaskEvent`], waits for more, ends after `finished` |
//! | `POST /v1/tasks/{task}/cancel` | | 202 |
//! | `DELETE /v1/tasks/{task}` | | 204; 409 before it has finished |
//! | `GET /v1/gitspaces` | | `[Observed]` |
//! | `GET /v1/watch?draining=` | | NDJSON of [`crate::gitspace::Observed`]: all first, then each change; ends where the runner is not drained as asked, or stops to be |
//! | `GET /v1/host` | | [`HostReport`] |
//! | `GET /v1/probe?all=` | | [`crate::control::ProbeReport`] from Docker on; in `all` the time of every agent |
//! | `GET /v1/gitspaces/{gitspace}/ports` | | `[ListeningPort]` |
//! | `GET /v1/gitspaces/{gitspace}/activity` | | [`crate::agent::Activity`] |
//! | `GET /v1/gitspaces/{gitspace}/git` | | [`crate::agent::GitState`] |
//! | `POST /v1/gitspaces/{gitspace}/dial?target=T` | | upgrade [`DIAL_PROTOCOL`]; `T` is a port, `workspace` or `ssh` |

pub use crate::control::TaskStatus;
use serde::{Deserialize, Serialize};

/// `Upgrade:` of a dial, at the runner and at gitspace-agent alike.
pub const DIAL_PROTOCOL: &str = "gitspaces-dial";

/// Answer header of a dial: `fd` (one byte with the connected socket in `SCM_RIGHTS` follows) or `relay` (the connection is the stream).
pub const STREAM_HEADER: &str = "gitspaces-stream";

/// Largest request body the runner takes, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// Where a stream into a gitspace goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DialTarget {
    /// `127.0.0.1:port` inside the gitspace.
    Port(u16),
    /// gitspace-agent's own HTTP service: terminal, exec, ports.
    Workspace,
    /// gitspace-agent's own SSH server. It takes the method `none` for any user: whoever can dial is authorised.
    Ssh,
}

impl std::fmt::Display for DialTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Workspace => f.write_str("workspace"),
            Self::Ssh => f.write_str("ssh"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dial target is a port from 1 to 65535, `workspace` or `ssh`")]
pub struct DialTargetError;

impl std::str::FromStr for DialTarget {
    type Err = DialTargetError;
    fn from_str(text: &str) -> Result<Self, DialTargetError> {
        match text {
            "workspace" => Ok(Self::Workspace),
            "ssh" => Ok(Self::Ssh),
            text => match text.parse::<u16>() {
                Ok(port) if port != 0 => Ok(Self::Port(port)),
                _ => Err(DialTargetError),
            },
        }
    }
}

/// What the runner knows of its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// Of the runner's software.
    pub version: String,
    /// `None` while Docker does not answer; `docker_failure` says why.
    pub docker_version: Option<String>,
    pub docker_failure: Option<crate::failure::Failure>,
    /// Of the disk that holds Docker's data.
    pub disk_bytes: u64,
    pub disk_available_bytes: u64,
    pub capacity: crate::control::Capacity,
    /// An operator drained the runner: it refuses starts.
    #[serde(default)]
    pub draining: bool,
}
