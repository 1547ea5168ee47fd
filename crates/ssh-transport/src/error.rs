//! Why a connection cannot go on.

use crate::fields::FieldError;

/// Reasons in a `DISCONNECT` (RFC 4253, section 11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Disconnect {
    ProtocolError = 2,
    KeyExchangeFailed = 3,
    MacError = 5,
    ServiceNotAvailable = 7,
    ConnectionLost = 10,
    ByApplication = 11,
    TooManyConnections = 12,
    NoMoreAuthMethods = 14,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    #[error("the peer speaks no SSH 2")]
    NotSsh,
    #[error("there is no {what} that both sides know")]
    NothingInCommon { what: &'static str },
    #[error("a packet of the peer has a length that is not taken")]
    Length,
    #[error("a packet of the peer is not authentic")]
    NotAuthentic,
    #[error("message {number} comes out of turn")]
    OutOfTurn { number: u8 },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the peer's part of the key agreement is not taken")]
    Agreement,
    #[error("the peer's host key is not taken")]
    HostKey,
    #[error("the system has no randomness to give")]
    Random,
    #[error("the peer sends more than it may")]
    Flood,
    #[error("the peer disconnected: {text}")]
    Disconnected { reason: u32, text: String },
}

impl TransportError {
    /// What the peer is told; `None` where it is gone.
    #[must_use]
    pub const fn reason(&self) -> Option<Disconnect> {
        match self {
            Self::NotSsh | Self::Disconnected { .. } => None,
            Self::NothingInCommon { .. } | Self::Agreement | Self::HostKey => {
                Some(Disconnect::KeyExchangeFailed)
            }
            Self::NotAuthentic => Some(Disconnect::MacError),
            Self::Length | Self::OutOfTurn { .. } | Self::Field(_) | Self::Random | Self::Flood => {
                Some(Disconnect::ProtocolError)
            }
        }
    }
}
