//! The control link, `gitspaces.control.v1`: frames and bodies between control plane and delegate.
//!
//! One WebSocket text message is one [`Frame`]. The server speaks first ([`Frame::Challenge`]); the delegate proves its key in
//! [`Frame::Hello`], and tells the rest of a long one in [`Frame::HelloRest`]; the server answers [`Frame::Welcome`] or [`Frame::Bye`].
//! After that both sides send [`Frame::Data`], numbered per [`StreamUuid`], acknowledged cumulatively, and [`Frame::Ping`]. A delegate whose hello
//! says that it answers probes is sent [`Frame::Probe`].
//!
//! Every connection ends with a [`DisconnectCode`]: in a [`Frame::Bye`], and again in the WebSocket's close frame.

mod disconnect;
mod keys;
mod probe;

pub use disconnect::{Disconnect, DisconnectCode};
pub use keys::{
    KEY_CHECK_PURPOSE, KEY_PROPOSAL_PURPOSE, KEY_USE_PURPOSE, KeyChallenge, KeyClaims, KeyProof,
    KeyProposal, KeyState,
};
pub use probe::{Hop, HopProblem, HopReport, MAX_PROBE_AGENTS, MAX_PROBE_WORDS, ProbeReport};

use crate::{
    gitspace::{Generation, Observed, Resources},
    ids::{DelegateUuid, GitspaceUuid, StreamUuid, TaskUuid},
    task::{Task, TaskEvent, TaskKind},
    tunnel::TunnelOffers,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The WebSocket subprotocol; its last part is the version.
pub const SUBPROTOCOL: &str = "gitspaces.control.v1";

/// All that this software speaks, the best first: a delegate offers them, and the control plane takes the first of its own among them.
pub const SUBPROTOCOLS: [&str; 1] = [SUBPROTOCOL];

/// Largest frame either side sends or takes, in bytes.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Largest frame before the peer has proved who it is, in bytes.
pub const MAX_GREETING_FRAME: usize = 256 * 1024;

/// Tasks of one hello: the verdicts on all of them fit into the welcome.
pub const MAX_HELLO_TASKS: usize = 8_000;

/// Gitspaces of one hello.
pub const MAX_HELLO_GITSPACES: usize = 10_000;

/// All frames of one hello together, in bytes.
pub const MAX_HELLO: usize = 16 * 1024 * 1024;

/// Purpose the delegate's proof is signed for; see `token`.
pub const PROOF_PURPOSE: &str = "gitspaces delegate proof v1";

/// Purpose the enrolment proof is signed for.
pub const ENROL_PURPOSE: &str = "gitspaces delegate enrolment v1";

/// Which accepted connection of a delegate this is; given by the server, higher each time. A frame of another epoch is refused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// `U` is what this side sends or reads as data: [`Up`] from the delegate, [`Down`] from the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Frame<B> {
    /// Server, first: what the proof has to contain.
    Challenge {
        nonce: String,
        now: Timestamp,
    },
    /// Delegate, second.
    Hello {
        /// Signed [`ProofClaims`].
        proof: String,
        /// Life of the sender's numbering; a new one when the delegate starts.
        stream: StreamUuid,
        /// Highest number of that stream which was acknowledged: a server that does not remember goes on above it. A delegate of before it
        /// was said says nothing: such a server goes on with whatever comes first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        acked: Option<u64>,
        hello: Box<Hello>,
        /// A [`Frame::HelloRest`] follows, which the server reads once the proof is good.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
    /// Delegate: tasks and gitspaces of its hello that did not fit into the frames before.
    HelloRest {
        tasks: Vec<TaskStatus>,
        gitspaces: Vec<Observed>,
        /// Another one follows.
        more: bool,
    },
    /// Server, third: the delegate is in.
    Welcome {
        epoch: Epoch,
        stream: StreamUuid,
        /// Highest number of the delegate's stream that the server has taken; what is above is sent again.
        received: u64,
        welcome: Box<Welcome>,
    },
    Data {
        epoch: Epoch,
        seq: u64,
        /// Highest number taken from the peer.
        ack: u64,
        body: B,
    },
    Ack {
        epoch: Epoch,
        ack: u64,
    },
    Ping {
        epoch: Epoch,
        id: u64,
    },
    Pong {
        epoch: Epoch,
        id: u64,
    },
    /// Server, to a delegate that answers probes: go the rest of the way, and tell how far it goes.
    Probe {
        epoch: Epoch,
        id: u64,
        /// The time of every agent is wanted, not only which are silent.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        all: bool,
    },
    /// The delegate's answer, for the way from itself on.
    Probed {
        epoch: Epoch,
        id: u64,
        report: Box<ProbeReport>,
    },
    /// Last word before hanging up, from either side.
    Bye {
        code: DisconnectCode,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

/// What a delegate signs to prove its key on one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofClaims {
    pub delegate: DelegateUuid,
    /// Origin of the control plane the delegate believes it speaks to, `http(s)://host[:port]`.
    pub audience: String,
    /// The challenge's nonce.
    pub nonce: String,
    pub iat: Timestamp,
    pub exp: Timestamp,
}

/// What the delegate is and believes, at each (re)connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Of the delegate's software.
    pub version: String,
    pub inventory: Inventory,
    /// For delegate selectors. The delegate's name is one too.
    pub tags: Vec<String>,
    /// It finishes what it has and takes nothing more.
    pub draining: bool,
    /// It answers [`Frame::Probe`]. An older one says nothing, and would break off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probes: bool,
    /// It opens tunnels to gateways, and takes [`Down::Tunnels`]. An older one says nothing, and would break off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tunnels: bool,
    /// Whether the runner answered; where not, `tasks` and `gitspaces` say nothing and the server concludes nothing from them.
    pub runner_ready: bool,
    /// Every task the runner holds, finished and not acknowledged ones included.
    pub tasks: Vec<TaskStatus>,
    /// Every gitspace the runner knows.
    pub gitspaces: Vec<Observed>,
}

/// What the server makes of a hello.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Of the control plane's software.
    pub version: String,
    pub heartbeat_ms: u64,
    pub silence_limit_ms: u64,
    /// One for each task of the hello.
    pub tasks: Vec<TaskVerdict>,
}

/// What is to become of a task the runner holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum TaskVerdict {
    /// Go on, and send events above `after`.
    Continue { task: TaskUuid, after: u64 },
    /// Superseded: cancel it, and send events above `after`.
    Cancel { task: TaskUuid, after: u64 },
    /// Its result is stored, or nobody knows it: forget it.
    Forget { task: TaskUuid },
}

/// From the delegate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "body", rename_all = "snake_case")]
pub enum Up {
    TaskEvent {
        task: TaskUuid,
        gitspace: GitspaceUuid,
        event: TaskEvent,
    },
    /// The runner would not take a task.
    TaskRefused {
        task: TaskUuid,
        gitspace: GitspaceUuid,
        failure: crate::failure::Failure,
    },
    Observed {
        observed: Observed,
    },
    Inventory {
        inventory: Inventory,
    },
    /// The runner stopped or began to answer.
    RunnerReady {
        ready: bool,
    },
    Draining {
        draining: bool,
    },
}

/// From the control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "body", rename_all = "snake_case")]
pub enum Down {
    Assign {
        task: Box<Task>,
        /// From now until the task's deadline, in milliseconds: the host's clock may be another than the control plane's. Where it is missing,
        /// the deadline is taken as it stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_ms: Option<u64>,
    },
    Cancel {
        task: TaskUuid,
    },
    /// To a delegate that opens tunnels; takes the place of what was said before.
    Tunnels {
        offers: TunnelOffers,
    },
    /// Events of `task` up to `seq` are stored; where that covers `finished`, the runner may forget the task.
    Stored {
        task: TaskUuid,
        seq: u64,
    },
}

/// What a runner holds of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub task: TaskUuid,
    pub gitspace: GitspaceUuid,
    pub generation: Generation,
    pub kind: TaskKind,
    pub finished: bool,
    /// Number of its last event.
    pub last_seq: u64,
}

/// What the host is and has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inventory {
    pub hostname: String,
    pub os: String,
    pub kernel: String,
    pub arch: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub memory_available_bytes: u64,
    pub disk_bytes: u64,
    pub disk_available_bytes: u64,
    /// `None` while the runner or its Docker does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_version: Option<String>,
    /// What may be given to gitspaces, as the operator configured it.
    pub capacity: Capacity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Capacity {
    /// Running gitspaces at most.
    pub gitspaces: u32,
    /// Sum over running gitspaces.
    pub cpu_millis: u32,
    pub memory_bytes: u64,
}

impl Capacity {
    /// Whether `next` fits beside `used` (count and sums of what runs).
    #[must_use]
    pub const fn fits(&self, used: &Self, next: &Resources) -> bool {
        used.gitspaces < self.gitspaces
            && used.cpu_millis.saturating_add(next.cpu_millis) <= self.cpu_millis
            && used.memory_bytes.saturating_add(next.memory_bytes) <= self.memory_bytes
    }
}

/// Body of `POST /api/v1/delegates/enroll`: a join token for the registration of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    pub join_token: crate::secret::Secret,
    pub name: String,
    pub tags: Vec<String>,
    /// Ed25519 public key, base64url without padding.
    pub public_key: String,
    /// Signed [`EnrolClaims`]: the sender holds the private key.
    pub proof: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolClaims {
    /// As in [`ProofClaims::audience`].
    pub audience: String,
    pub name: String,
    pub iat: Timestamp,
    pub exp: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolResponse {
    pub delegate: DelegateUuid,
    pub name: String,
}
