//! Delegate and gateway: the tunnel of a host that nobody can connect to.
//!
//! The delegate opens `GET` [`PATH`] at a gateway (WebSocket, subprotocol [`SUBPROTOCOL`], `Authorization: Bearer <ticket>`), with a ticket that
//! the control plane signed for this delegate and this gateway ([`TunnelClaims`]). Text comes first: [`TunnelHello`], then [`TunnelWelcome`]. From
//! there on both send batches of streams, as the crate `tunnel` has them. The gateway opens streams; the first words of one are a
//! [`StreamRequest`], those of a refusal a [`StreamRefusal`], both as JSON.

use crate::{
    agent::ListeningPort,
    ids::{DelegateUuid, GatewayUuid, GitspaceUuid, StreamUuid},
    runner::DialTarget,
    secret::Secret,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The first version of what is said over a line.
pub const SUBPROTOCOL: &str = "gitspaces.tunnel.v1";

/// At the gateway's own host, which is no gitspace's.
pub const PATH: &str = "/_gitspaces/tunnel";

/// Purpose a ticket is signed for; see `token`.
pub const TICKET_PURPOSE: &str = "gitspaces tunnel v1";

/// Longest of the first texts, in bytes.
pub const MAX_HELLO: usize = 4 * 1024;

/// Ports that a refusal names.
pub const MAX_LISTED: usize = 32;

/// How long a tunnel without a line waits for the next one, at both ends.
pub const GRACE: Duration = Duration::from_secs(60);

/// Where a delegate is to open tunnels.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TunnelOffers {
    /// All gateways that there are: a tunnel to another one ends.
    pub gateways: Vec<GatewayUuid>,
    /// Those of them that take tunnels, each with a fresh ticket. One that is not here just now is not dialled; its lines stay.
    pub open: Vec<TunnelOffer>,
}

/// One gateway, and by what right.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TunnelOffer {
    pub gateway: GatewayUuid,
    /// `http(s)://host[:port]`
    pub url: String,
    /// Signed [`TunnelClaims`].
    pub ticket: Secret,
}

/// Of a ticket: the right to open tunnels for one delegate at one gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelClaims {
    pub delegate: DelegateUuid,
    /// The only gateway that may take it.
    pub gateway: GatewayUuid,
    pub iat: Timestamp,
    pub exp: Timestamp,
}

/// The delegate's first text on a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelHello {
    /// One life of the delegate's process: what another one opened is over.
    pub process: StreamUuid,
    /// Which of the tunnels to this gateway.
    pub lane: u8,
    /// Rises with each line of the lane, so that one that was left and comes late is known.
    pub line: u64,
    /// The tunnel that is to go on on this line.
    pub tunnel: Option<StreamUuid>,
    /// Numbered batches of it that came to the delegate.
    pub received: u64,
}

/// The gateway's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TunnelWelcome {
    /// It is known and goes on: so many numbered batches of it came to the gateway.
    Resumed { received: u64 },
    /// Another one begins: what the delegate had is over. The name is new each time: where this is not heard, nobody goes on with half of it.
    Begun { tunnel: StreamUuid },
}

/// What a stream is opened for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stream", rename_all = "snake_case", deny_unknown_fields)]
pub enum StreamRequest {
    /// Into a gitspace, for somebody whom the gateway has authorised.
    Dial {
        gitspace: GitspaceUuid,
        /// As [`DialTarget`] is written.
        to: String,
    },
    /// How far the way goes, from the delegate on: a [`crate::control::ProbeReport`] as JSON, and the end.
    Probe {},
}

impl StreamRequest {
    /// To `to` in `gitspace`.
    #[must_use]
    pub fn dial(gitspace: GitspaceUuid, to: DialTarget) -> Self {
        Self::Dial {
            gitspace,
            to: to.to_string(),
        }
    }
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum StreamRefusal {
    /// Nothing listens there.
    PortClosed {
        /// What does; at most [`MAX_LISTED`].
        listening: Vec<ListeningPort>,
    },
    NotRunning {},
    Unreachable {
        cause: String,
    },
}
