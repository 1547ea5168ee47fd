//! What can go wrong with Docker, in the user's words.

use bollard::errors::Error;
use std::time::Duration;
use wire::failure::{Failure, FailureCode};

#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerError {
    #[error("cannot {what}: Docker does not answer")]
    Unavailable {
        what: String,
        #[source]
        source: Box<Error>,
    },
    #[error("cannot {what}: Docker did not answer within {} s", limit.as_secs())]
    Timeout { what: String, limit: Duration },
    #[error("cannot {what}")]
    Refused {
        what: String,
        status: Option<u16>,
        #[source]
        source: Box<Error>,
    },
}

impl DockerError {
    pub(super) fn new(what: &str, source: Error) -> Self {
        let what = what.to_owned();
        match &source {
            Error::SocketNotFoundError(_)
            | Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. }
            | Error::RequestTimeoutError => Self::Unavailable {
                what,
                source: Box::new(source),
            },
            Error::DockerResponseServerError { status_code, .. } => Self::Refused {
                what,
                status: Some(*status_code),
                source: Box::new(source),
            },
            _ => Self::Refused {
                what,
                status: None,
                source: Box::new(source),
            },
        }
    }

    pub(super) fn timeout(what: &str, limit: Duration) -> Self {
        Self::Timeout {
            what: what.to_owned(),
            limit,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// A network that uses this one's bridge is there, or in the making.
    pub(crate) fn is_same_bridge(&self) -> bool {
        self.status().is_some() && self.cause().contains("networks have same bridge name")
    }

    /// containerd has something of the container that Docker does not know of: a process, or its folder.
    pub(crate) fn is_stray(&self) -> bool {
        let cause = self.cause();
        let folder = cause.contains("failed to start shim") && cause.contains("file exists");
        self.status().is_some() && (folder || cause.contains("id already in use"))
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. })
    }

    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => *status,
            Self::Unavailable { .. } | Self::Timeout { .. } => None,
        }
    }

    /// Docker's own words.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Unavailable { source, .. } | Self::Refused { source, .. } => match &**source {
                Error::DockerResponseServerError { message, .. } => message.clone(),
                Error::DockerStreamError { error } => error.clone(),
                other => daemon::ErrorChain(other).to_string(),
            },
            Self::Timeout { .. } => String::new(),
        }
    }

    pub(crate) fn failure(&self) -> Failure {
        let cause = self.cause();
        let lower = cause.to_lowercase();
        let (code, hint) = if self.is_unavailable() {
            (
                FailureCode::DockerUnavailable,
                Some("check that Docker runs on the host: `systemctl status docker`"),
            )
        } else if self.is_stray() {
            (
                FailureCode::DockerUnavailable,
                Some(
                    "Docker was killed while it started the container, and containerd still holds it; where that does not end by itself, `systemctl restart containerd docker` on the host",
                ),
            )
        } else if lower.contains("no space left on device") {
            (
                FailureCode::DiskFull,
                Some(
                    "free space on the disk that holds Docker's data: `docker system df` shows what uses it; then start again",
                ),
            )
        } else if lower.contains("bind source path does not exist")
            || lower.contains("/.gitspaces/bin/gitspace-agent")
        {
            (
                FailureCode::DockerFailed,
                Some(
                    "the copy of gitspace-agent or its folder is gone from the host: the operator restarts runner-agent, which makes it again; where the agent was upgraded since, reset the gitspace",
                ),
            )
        } else if lower.contains("no such image") {
            (FailureCode::ImageMissing, None)
        } else if lower.contains("address pool") {
            (
                FailureCode::DockerFailed,
                Some(
                    "Docker has no free network: set `default-address-pools` in its daemon.json, or delete gitspaces that are not used",
                ),
            )
        } else if lower.contains("unable to apply caps") {
            (
                FailureCode::DockerFailed,
                Some("the host does not have a capability that the container asks for"),
            )
        } else {
            (FailureCode::DockerFailed, None)
        };
        let mut failure = Failure::new(code, self.to_string());
        if !cause.is_empty() {
            failure = failure.detail(cause);
        }
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<DockerError> for Failure {
    fn from(error: DockerError) -> Self {
        error.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_another_refusal() {
        let error = DockerError::new(
            "create a container",
            Error::DockerResponseServerError {
                status_code: 500,
                message: "mkdir /var/lib/docker/x: no space left on device".to_owned(),
            },
        );
        let failure = error.failure();
        assert_eq!(failure.code, FailureCode::DiskFull);
        assert!(failure.hint.is_some());
    }

    #[test]
    fn an_agent_that_is_gone_from_the_host_is_made_again_by_the_runner() {
        for message in [
            "invalid mount config for type \"bind\": bind source path does not exist: /x/agent/1",
            "OCI runtime create failed: exec: \"/.gitspaces/bin/gitspace-agent\": stat: no such file",
        ] {
            let error = DockerError::new(
                "start the container",
                Error::DockerResponseServerError {
                    status_code: 400,
                    message: message.to_owned(),
                },
            );
            let hint = error.failure().hint.unwrap();
            assert!(hint.contains("restarts runner-agent"), "{hint}");
        }
    }

    #[test]
    fn what_a_killed_docker_left_half_done_is_told_from_a_refusal_and_tried_again() {
        let refused = |message: &str| {
            DockerError::new(
                "start the container",
                Error::DockerResponseServerError {
                    status_code: 409,
                    message: message.to_owned(),
                },
            )
        };
        for message in [
            "id already in use",
            "failed to start shim: mkdir /run/containerd/x/moby/7d08: file exists: unknown",
        ] {
            let error = refused(message);
            assert!(error.is_stray(), "{message}");
            assert!(error.failure().code.is_transient(), "{message}");
        }
        let bridge = "cannot create network a (gs-1): conflicts with network b (gs-1): networks have same bridge name";
        assert!(refused(bridge).is_same_bridge());
        let other = refused("mkdir /var/lib/docker/x: file exists");
        assert!(!other.is_stray() && !other.is_same_bridge());
    }

    #[test]
    fn a_missing_socket_is_unavailable() {
        let error = DockerError::new("look", Error::SocketNotFoundError("/x".to_owned()));
        assert_eq!(error.failure().code, FailureCode::DockerUnavailable);
    }
}
