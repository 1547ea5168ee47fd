//! Streams into this host's gitspaces, for a gateway beside the runner, in a process of its own or in the delegate's.
//!
//! The runner hands over the connected socket itself, so that user traffic has no hop here; where it says `relay`, the connection to the
//! runner is the stream.

use daemon::ErrorChain;
use futures_util::future::BoxFuture;
use gateway::{Authorized, Dial, DialError, Target, Upstream};
use http::{Method, StatusCode};
use local_rpc::{
    Client, ClientError,
    fd::{PassedStream, recv_fd},
};
use std::time::Duration;
use wire::{
    agent::ListeningPort,
    ids::{DelegateUuid, GitspaceUuid},
    runner::{DIAL_PROTOCOL, DialTarget, STREAM_HEADER},
};

/// The page is shown without the list where that takes longer.
const LIST_LIMIT: Duration = Duration::from_secs(2);

const ELSEWHERE: &str = "it is on another host, and this gateway reaches its own host only";

/// Through the runner's socket.
#[derive(Clone, Debug)]
pub struct RunnerDial {
    runner: Client,
    /// Whose gitspaces are on this host, where that is known.
    delegate: Option<DelegateUuid>,
}

impl RunnerDial {
    /// Every target is tried; what the runner does not know is taken to be on another host.
    #[must_use]
    pub fn new(runner: Client) -> Self {
        Self {
            runner,
            delegate: None,
        }
    }

    /// Targets of other delegates are refused without asking the runner.
    #[must_use]
    pub fn of_delegate(self, delegate: DelegateUuid) -> Self {
        Self {
            delegate: Some(delegate),
            ..self
        }
    }

    async fn open(&self, target: Target) -> Result<Upstream, DialError> {
        if self.delegate.is_some_and(|own| own != target.delegate) {
            return Err(unreachable(ELSEWHERE));
        }
        let path = format!(
            "/v1/gitspaces/{}/dial?target={}",
            target.gitspace, target.to
        );
        let upgraded = match self
            .runner
            .upgrade(Method::POST, &path, DIAL_PROTOCOL, None::<&()>)
            .await
        {
            Ok(upgraded) => upgraded,
            Err(error) => return Err(self.why(target, &error).await),
        };
        match upgraded
            .headers
            .get(STREAM_HEADER)
            .map(http::HeaderValue::as_bytes)
        {
            Some(b"fd") => {
                let (fd, _) = recv_fd(&upgraded.stream)
                    .await
                    .map_err(|error| unreachable(ErrorChain(&error).to_string()))?;
                PassedStream::new(fd)
                    .map(Upstream::Passed)
                    .map_err(|error| unreachable(ErrorChain(&error).to_string()))
            }
            Some(b"relay") => Ok(Upstream::Unix(upgraded.stream)),
            Some(_) | None => Err(unreachable("the runner does not say what the stream is")),
        }
    }

    async fn why(&self, target: Target, error: &ClientError) -> DialError {
        let code = error.problem().map(|problem| problem.code.as_str());
        match (error.status(), code, target.to) {
            (_, Some("unknown_gitspace"), _) if self.delegate.is_none() => unreachable(ELSEWHERE),
            (_, Some("not_running"), _) | (Some(StatusCode::NOT_FOUND), _, _) => {
                DialError::NotRunning
            }
            (_, Some("port_closed"), DialTarget::Port(_)) => DialError::PortClosed {
                listening: self.listening(target.gitspace).await,
            },
            (_, _, DialTarget::Port(_) | DialTarget::Workspace) => {
                unreachable(ErrorChain(error).to_string())
            }
        }
    }

    async fn listening(&self, gitspace: GitspaceUuid) -> Vec<ListeningPort> {
        let path = format!("/v1/gitspaces/{gitspace}/ports");
        let asked = self.runner.get::<Vec<ListeningPort>>(&path);
        match tokio::time::timeout(LIST_LIMIT, asked).await {
            Ok(Ok(ports)) => ports,
            Ok(Err(error)) => {
                tracing::debug!(%gitspace, error = %ErrorChain(&error), "Cannot list ports");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}

fn unreachable(cause: impl Into<String>) -> DialError {
    DialError::Unreachable {
        cause: cause.into(),
    }
}

impl Dial for RunnerDial {
    fn dial(&self, target: Authorized<Target>) -> BoxFuture<'_, Result<Upstream, DialError>> {
        Box::pin(self.open(target.into_inner()))
    }
}
