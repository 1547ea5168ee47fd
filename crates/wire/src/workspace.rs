//! gitspace-agent's workspace service: what a user reaches at `http(s)://<gitspace>.<domain>/`, through the gateway.
//!
//! | method, path | what |
//! |---|---|
//! | `GET /` | the terminal page and its assets |
//! | `GET /api/v1/terminals` | `[TerminalInfo]` |
//! | `POST /api/v1/terminals` | [`TerminalRequest`] → [`TerminalInfo`] |
//! | `DELETE /api/v1/terminals/{id}` | SIGHUP to it |
//! | `GET /api/v1/terminals/{id}/attach` | WebSocket, see below |
//! | `GET /api/v1/exec` | WebSocket, see below |
//! | `GET /api/v1/ssh` | `Upgrade:` [`SSH_PROTOCOL`]: the gitspace's SSH server, which takes whoever comes this far |
//! | `GET /api/v1/ssh?session={id}` | `Upgrade:` [`SSH_LINE_PROTOCOL`]: the same, as a stream whose line may be cut (crate `resumable`). The client chooses the id, a random one |
//! | `GET /api/v1/ssh?session={id}&resume=true` | `Upgrade:` [`SSH_LINE_PROTOCOL`]: the next line of that stream; 404 `ssh_session_over` where it has ended |
//! | `GET /api/v1/ports` | `[ListeningPort]` |
//! | `GET /api/v1/git` | [`crate::agent::GitState`] |
//!
//! WebSocket messages. Text messages are [`ClientMessage`] and [`ServerMessage`]; binary ones are bytes: from the client they are input; from the
//! server the first byte is the [`Channel`].
//!
//! Attach: the client sends [`ClientMessage::Attach`] first. The server answers [`ServerMessage::Attached`]; with `from` still in its buffer the
//! stream goes on right there, and `position` is `from`. Else `snapshot` is true: the next binary message, one and whole, redraws scroll-back and
//! screen on a terminal that was reset; it is not counted, and the stream goes on from `position`. Every other byte is counted; the client
//! remembers where it is for its next attach. A client that is too slow for the terminal gets another `Attached` with a snapshot in mid-stream.
//!
//! Exec: the client sends [`ClientMessage::Exec`] first; the process dies with the connection.

use crate::agent::ListeningPort;
use crate::failure::Failure;
use crate::ids::TerminalUuid;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `Upgrade:` of a connection that goes on as SSH.
pub const SSH_PROTOCOL: &str = "gitspaces-ssh";

/// `Upgrade:` of a connection that is a line of a resumable stream.
pub const SSH_LINE_PROTOCOL: &str = "gitspaces.ssh-line.v1";

/// For how long an SSH session waits for its next line: from the evening to the next day's.
pub const SSH_SESSION_KEPT: std::time::Duration = std::time::Duration::from_hours(24);

/// Ports as the workspace service lists them.
pub type Ports = Vec<ListeningPort>;

/// First byte of a binary message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Stdout,
    Stderr,
}

impl Channel {
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalRequest {
    /// The login shell where missing.
    #[serde(default)]
    pub argv: Vec<String>,
    #[serde(default)]
    pub size: Option<Size>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalInfo {
    pub id: TerminalUuid,
    pub title: String,
    pub started: Timestamp,
    pub attached: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    Attach {
        /// Count of bytes the client has; `None` asks for a snapshot.
        #[serde(default)]
        from: Option<u64>,
        size: Size,
    },
    Exec(ExecRequest),
    Resize {
        size: Size,
    },
    /// Exec only: `TERM`, `INT`, `HUP`, `KILL`, `QUIT`.
    Signal {
        signal: String,
    },
    /// Exec only: end of input.
    Eof {},
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    pub argv: Vec<String>,
    /// The workspace folder where missing.
    #[serde(default)]
    pub cwd: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A PTY of this size; without it stdout and stderr come apart.
    #[serde(default)]
    pub tty: Option<Size>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    Attached {
        position: u64,
        snapshot: bool,
        size: Size,
    },
    /// Last message. `exit_code` is 128 + n after signal n.
    Exited { exit_code: i32 },
    /// Last message: it could not be started, or is not there.
    Failed { failure: Failure },
}
