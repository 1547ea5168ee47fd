//! What can go wrong with a call.

use crate::BoxError;
use http::StatusCode;
use std::{io, sync::Arc, time::Duration};
use wire::problem::Problem;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to `{target}`")]
    Connect {
        target: Arc<str>,
        #[source]
        source: io::Error,
    },
    #[error("`{target}` did not answer {what} within {} ms", limit.as_millis())]
    Timeout {
        target: Arc<str>,
        what: Arc<str>,
        limit: Duration,
    },
    /// The server's answer is a refusal or a failure; the problem says which.
    #[error("{problem}")]
    Status {
        target: Arc<str>,
        what: Arc<str>,
        status: StatusCode,
        problem: Box<Problem>,
    },
    #[error("{what} on `{target}` broke off")]
    Protocol {
        target: Arc<str>,
        what: Arc<str>,
        #[source]
        source: BoxError,
    },
    #[error("`{target}` answered {what} with more than {limit} bytes")]
    TooLarge {
        target: Arc<str>,
        what: Arc<str>,
        limit: usize,
    },
    #[error("`{target}` answered {what} with something else than expected, at `{path}`: {message}")]
    Decode {
        target: Arc<str>,
        what: Arc<str>,
        path: String,
        message: String,
    },
}

impl ClientError {
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Protocol { .. }
            | Self::TooLarge { .. }
            | Self::Decode { .. } => None,
        }
    }

    /// What the server said, where it said something.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Status { problem, .. } => Some(problem),
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Protocol { .. }
            | Self::TooLarge { .. }
            | Self::Decode { .. } => None,
        }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Nobody answered, or not to the end: the same call may succeed later, and may or may not have had its effect.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Protocol { .. } => true,
            Self::Status { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge { .. } | Self::Decode { .. } => false,
        }
    }
}

/// What an error says about the call it happened to.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) target: Arc<str>,
    pub(super) what: Arc<str>,
}

impl Call {
    pub(super) fn connect(&self, source: io::Error) -> ClientError {
        ClientError::Connect {
            target: Arc::clone(&self.target),
            source,
        }
    }

    pub(super) fn timeout(&self, limit: Duration) -> ClientError {
        ClientError::Timeout {
            target: Arc::clone(&self.target),
            what: Arc::clone(&self.what),
            limit,
        }
    }

    pub(super) fn status(&self, status: StatusCode, problem: Problem) -> ClientError {
        ClientError::Status {
            target: Arc::clone(&self.target),
            what: Arc::clone(&self.what),
            status,
            problem: Box::new(problem),
        }
    }

    pub(super) fn protocol(&self, source: impl Into<BoxError>) -> ClientError {
        ClientError::Protocol {
            target: Arc::clone(&self.target),
            what: Arc::clone(&self.what),
            source: source.into(),
        }
    }

    pub(super) fn too_large(&self, limit: usize) -> ClientError {
        ClientError::TooLarge {
            target: Arc::clone(&self.target),
            what: Arc::clone(&self.what),
            limit,
        }
    }

    pub(super) fn decode(&self, path: String, message: String) -> ClientError {
        ClientError::Decode {
            target: Arc::clone(&self.target),
            what: Arc::clone(&self.what),
            path,
            message,
        }
    }
}
