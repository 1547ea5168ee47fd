//! Why a delegate's link is not there.
//!
//! One code for both ends: in the `bye` frame and in the WebSocket's close frame, in both logs, in the delegate's `/status` and in the
//! control plane's API. The words beside it are for a person and may change; the code does not.

use serde::{Deserialize, Serialize};

/// The close codes that a WebSocket leaves to its applications begin at 4000.
const FIRST_CLOSE_CODE: u16 = 4000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DisconnectCode {
    /// The process stops, or was asked to connect anew; dial again.
    GoingAway,
    /// Another connection of the same delegate came in.
    Superseded,
    /// Two processes have this identity and throw each other out: the host was cloned.
    Cloned,
    /// The delegate's key was revoked; dialling again will not help until it is enrolled anew.
    Revoked,
    /// The key was one of this delegate's, and another has taken its place: an old copy of the identity.
    SupersededKey,
    /// The server does not know this delegate.
    UnknownDelegate,
    /// The proof does not verify.
    BadProof,
    /// The proof's times do not fit the server's clock.
    ClockSkew,
    /// No common version.
    Version,
    /// A frame that cannot be read, is out of order or of another epoch.
    Protocol,
    /// A frame, a hello or a welcome above its limit.
    TooLarge,
    /// Nothing was heard for the silence limit, or the greeting took too long.
    Silence,
    /// Too many connections, or too much that waits.
    Overloaded,
    /// The control plane cannot store what the delegate says.
    NotStored,
    /// There was no connection to be had: no address, no proxy, no TLS. Nobody can be told.
    CannotConnect,
    /// The delegate cannot say who and what it is.
    CannotGreet,
    /// The connection broke without a word. Nobody can be told.
    ConnectionLost,
    /// A code of a later version.
    #[serde(other)]
    Other,
}

impl DisconnectCode {
    pub const ALL: [Self; 18] = [
        Self::GoingAway,
        Self::Superseded,
        Self::Cloned,
        Self::Revoked,
        Self::SupersededKey,
        Self::UnknownDelegate,
        Self::BadProof,
        Self::ClockSkew,
        Self::Version,
        Self::Protocol,
        Self::TooLarge,
        Self::Silence,
        Self::Overloaded,
        Self::NotStored,
        Self::CannotConnect,
        Self::CannotGreet,
        Self::ConnectionLost,
        Self::Other,
    ];

    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GoingAway => "going_away",
            Self::Superseded => "superseded",
            Self::Cloned => "cloned",
            Self::Revoked => "revoked",
            Self::SupersededKey => "superseded_key",
            Self::UnknownDelegate => "unknown_delegate",
            Self::BadProof => "bad_proof",
            Self::ClockSkew => "clock_skew",
            Self::Version => "version",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
            Self::Silence => "silence",
            Self::Overloaded => "overloaded",
            Self::NotStored => "not_stored",
            Self::CannotConnect => "cannot_connect",
            Self::CannotGreet => "cannot_greet",
            Self::ConnectionLost => "connection_lost",
            Self::Other => "other",
        }
    }

    /// Of the WebSocket's close frame, whose reason is [`DisconnectCode::as_str`].
    #[must_use]
    pub const fn close_code(self) -> u16 {
        FIRST_CLOSE_CODE
            + match self {
                Self::Other => 0,
                Self::GoingAway => 1,
                Self::Superseded => 2,
                Self::Cloned => 3,
                Self::Revoked => 4,
                Self::UnknownDelegate => 5,
                Self::BadProof => 6,
                Self::ClockSkew => 7,
                Self::Version => 8,
                Self::Protocol => 9,
                Self::TooLarge => 10,
                Self::Silence => 11,
                Self::Overloaded => 12,
                Self::NotStored => 13,
                Self::CannotConnect => 14,
                Self::CannotGreet => 15,
                Self::ConnectionLost => 16,
                Self::SupersededKey => 17,
            }
    }

    /// `None` where the close frame is not one of ours: a proxy's, say.
    #[must_use]
    pub fn of_close_code(code: u16) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|known| known.close_code() == code)
    }
}

impl std::fmt::Display for DisconnectCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a delegate's last connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Disconnect {
    pub code: DisconnectCode,
    /// In words.
    pub reason: String,
}

impl std::fmt::Display for Disconnect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_code_is_the_same_word_in_json_in_logs_and_in_a_close_frame() {
        for code in DisconnectCode::ALL {
            let json = serde_json::to_string(&code).expect("writes");
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(DisconnectCode::of_close_code(code.close_code()), Some(code));
        }
        let numbers: HashSet<_> = DisconnectCode::ALL.map(DisconnectCode::close_code).into();
        assert_eq!(numbers.len(), DisconnectCode::ALL.len());
        assert_eq!(DisconnectCode::of_close_code(1000), None);
    }

    #[test]
    fn a_code_of_a_later_version_is_read_as_other() {
        let code: DisconnectCode = serde_json::from_str("\"of_the_future\"").expect("reads");
        assert_eq!(code, DisconnectCode::Other);
    }
}
