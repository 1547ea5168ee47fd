//! What can go wrong with one request, in words, with what to do and the exit code.

use crate::exit::Exit;
use camino::Utf8PathBuf;
use http::StatusCode;
use std::{io, time::Duration};
use wire::problem::Problem;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("cannot find the address of `{host}`")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot reach {url}")]
    Connect {
        url: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot agree on TLS with {url}")]
    Tls {
        url: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the certificates in `{path}`")]
    CaFile {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("this host has no certificates that say which servers to trust")]
    NoRoots,
    #[error("the connection to {url} was cut")]
    Cut {
        url: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{url} gave no {what} within {} s", limit.as_secs())]
    Silent {
        url: String,
        what: &'static str,
        limit: Duration,
    },
    /// The server said no, in its own words.
    #[error("{problem}")]
    Refused {
        status: StatusCode,
        problem: Box<Problem>,
    },
    /// Something answered, but not the API.
    #[error("{url} answered {status} without saying why")]
    Unexplained { url: String, status: StatusCode },
    #[error("{url} sent more than {limit} bytes, which is taken from nobody")]
    TooLarge { url: String, limit: usize },
    #[error("{url} answered something else than was asked for")]
    Unreadable {
        url: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{url} does not speak WebSocket as asked")]
    Handshake { url: String },
    #[error("a request to {url} cannot be written")]
    Request {
        url: String,
        #[source]
        source: http::Error,
    },
}

/// The other end broke off, or its first bytes are of another protocol.
fn says_no_tls(source: &io::Error) -> bool {
    let is_other = source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidMessage(_)));
    is_other || source.kind() == io::ErrorKind::UnexpectedEof
}

impl RequestError {
    /// Whether the same request may work on another connection a moment later.
    pub(crate) const fn is_connection(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Cut { .. } => true,
            Self::Tls { .. }
            | Self::CaFile { .. }
            | Self::NoRoots
            | Self::Silent { .. }
            | Self::Refused { .. }
            | Self::Unexplained { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. }
            | Self::Handshake { .. }
            | Self::Request { .. } => false,
        }
    }

    /// The first sending of the same request is still being worked on.
    pub(crate) fn is_in_progress(&self) -> bool {
        self.code() == Some("idempotency_key_in_progress")
    }

    /// Whether whoever waits anyway (for an event, for a terminal) should go on trying.
    pub(crate) fn is_passing(&self) -> bool {
        self.is_connection()
            || matches!(self, Self::Silent { .. })
            || self.status().is_some_and(|status| {
                status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
            })
    }

    pub(crate) const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } | Self::Unexplained { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The API's stable code.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => Some(&problem.code),
            _ => None,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        if let Self::Refused { problem, .. } = self
            && problem.hint.is_some()
        {
            return problem.hint.clone();
        }
        let hint = match self {
            Self::Resolve { .. } => "is the URL right? see `gitspace login --help`",
            Self::Connect { .. } | Self::Cut { .. } | Self::Silent { .. } => {
                "is the server running, and is this the right URL?"
            }
            Self::Tls { source, .. } if says_no_tls(source) => {
                "does the server speak plain http? then its URL begins with http://"
            }
            Self::Tls { .. } | Self::NoRoots => {
                "where the server has a certificate of a private CA, name the CA's file with --ca-file"
            }
            Self::CaFile { .. } => "it has to hold certificates in PEM",
            Self::TooLarge { .. } | Self::Unreadable { .. } | Self::Handshake { .. } => {
                "is this the URL of a control plane, and of a version that fits this command?"
            }
            Self::Request { .. } => return None,
            Self::Refused { status, .. } | Self::Unexplained { status, .. } => match *status {
                StatusCode::UNAUTHORIZED => {
                    "log in with a valid token: gitspace login < TOKEN_FILE"
                }
                StatusCode::MISDIRECTED_REQUEST => {
                    "the server does not go by this name: use the URL that it was configured with"
                }
                status if status.is_redirection() => {
                    "redirects are not followed: log in with the URL that the server itself uses"
                }
                _ => return None,
            },
        };
        Some(hint.to_owned())
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Cut { .. }
            | Self::Silent { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. }
            | Self::Handshake { .. } => Exit::Unavailable,
            Self::CaFile { .. } | Self::NoRoots => Exit::Config,
            Self::Request { .. } => Exit::Failure,
            Self::Refused { status, .. } | Self::Unexplained { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Refused,
                StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
                StatusCode::BAD_REQUEST
                | StatusCode::UNPROCESSABLE_ENTITY
                | StatusCode::PAYLOAD_TOO_LARGE => Exit::Data,
                // A name that is taken stays so; everything else in conflict passes.
                StatusCode::CONFLICT if self.code() == Some("taken") => Exit::Data,
                StatusCode::CONFLICT
                    if matches!(
                        self.code(),
                        Some("visibility_not_allowed" | "too_many_ports")
                    ) =>
                {
                    Exit::Refused
                }
                StatusCode::CONFLICT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE => Exit::TryAgain,
                StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Exit::Unavailable,
                StatusCode::MISDIRECTED_REQUEST => Exit::Config,
                status if status.is_redirection() => Exit::Config,
                _ => Exit::Failure,
            },
        }
    }
}
