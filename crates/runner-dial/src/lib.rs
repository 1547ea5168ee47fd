//! Streams into this host's gitspaces, for a gateway beside the runner, in a process of its own or in the delegate's; and the probe of the way
//! from the runner on, for that gateway and for the delegate.
//!
//! The runner hands over the connected socket itself, so that user traffic has no hop here; where it says `relay`, the connection to the
//! runner is the stream.

use daemon::ErrorChain;
use futures_util::future::{BoxFuture, join_all};
use gateway::{Authorized, Dial, DialError, Target, Upstream};
use http::{Method, StatusCode};
use local_rpc::{
    Client, ClientError,
    fd::{PassedStream, recv_fd},
};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use wire::{
    agent::ListeningPort,
    control::{Hop, HopReport, ProbeReport},
    ids::{DelegateUuid, GitspaceUuid},
    runner::{DIAL_PROTOCOL, DialTarget, STREAM_HEADER},
};

/// The page is shown without the list where that takes longer.
const LIST_LIMIT: Duration = Duration::from_secs(2);

/// More than the runner takes for Docker and its agents together.
const RUNNER_LIMIT: Duration = Duration::from_secs(4);
const STREAM_LIMIT: Duration = Duration::from_secs(3);

const RUNNER_HINT: &str =
    "on the delegate's host: `systemctl status runner-agent`, `runner-agent doctor`";

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

    async fn open_target(&self, target: Target) -> Result<Upstream, DialError> {
        if self.delegate.is_some_and(|own| own != target.delegate) {
            return Err(DialError::Elsewhere);
        }
        self.open(target.gitspace, target.to).await
    }

    /// For somebody whom whoever calls has authorised, or a gateway before it.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn open(
        &self,
        gitspace: GitspaceUuid,
        to: DialTarget,
    ) -> Result<Upstream, DialError> {
        let path = format!("/v1/gitspaces/{gitspace}/dial?target={to}");
        let upgraded = match self
            .runner
            .upgrade(Method::POST, &path, DIAL_PROTOCOL, None::<&()>)
            .await
        {
            Ok(upgraded) => upgraded,
            Err(error) => return Err(self.why(gitspace, to, &error).await),
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

    async fn why(&self, gitspace: GitspaceUuid, to: DialTarget, error: &ClientError) -> DialError {
        let code = error.problem().map(|problem| problem.code.as_str());
        match (error.status(), code, to) {
            (_, Some("unknown_gitspace"), _) if self.delegate.is_none() => DialError::Elsewhere,
            (_, Some("not_running"), _) | (Some(StatusCode::NOT_FOUND), _, _) => {
                DialError::NotRunning
            }
            (_, Some("port_closed"), DialTarget::Port(_)) => DialError::PortClosed {
                listening: self.listening(gitspace).await,
            },
            (_, _, DialTarget::Port(_) | DialTarget::Workspace | DialTarget::Ssh) => {
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

/// Probes from the runner on; in `all` with the time of every agent.
pub async fn probe_runner(runner: &Client, all: bool) -> ProbeReport {
    let begun = Instant::now();
    let path = format!("/v1/probe?all={all}");
    let answer = timeout(RUNNER_LIMIT, runner.get::<ProbeReport>(&path)).await;
    let took = begun.elapsed();
    let hop = match answer {
        Ok(Ok(report)) => return report.bounded().through(Hop::Runner, took),
        Ok(Err(error)) if is_unknown(&error) => HopReport::not_supported(
            Hop::Runner,
            "runner-agent is of an older version, which cannot be probed",
        ),
        Ok(Err(error)) => HopReport::failed(
            Hop::Runner,
            took,
            &ErrorChain(&error).to_string(),
            Some(RUNNER_HINT),
        ),
        Err(_) => HopReport::failed(
            Hop::Runner,
            took,
            &format!(
                "runner-agent did not answer within {} s",
                RUNNER_LIMIT.as_secs()
            ),
            Some(RUNNER_HINT),
        ),
    };
    ProbeReport::only(hop, took)
}

fn is_unknown(error: &ClientError) -> bool {
    error.status() == Some(StatusCode::NOT_FOUND)
        && error
            .problem()
            .is_some_and(|problem| problem.code == local_rpc::server::NO_ROUTE)
}

impl RunnerDial {
    /// The runner, what it reaches, and a stream into each of `gitspaces` whose agent answers it.
    async fn go(&self, gitspaces: Vec<(GitspaceUuid, DelegateUuid)>) -> ProbeReport {
        let mut report = probe_runner(&self.runner, false).await;
        if report.broken_at().is_some() || report.unsupported_at().is_some() {
            return report;
        }
        let silent: Vec<_> = report.hops.iter().filter_map(|hop| hop.gitspace).collect();
        let tried = gitspaces.into_iter().filter(|(gitspace, delegate)| {
            !silent.contains(gitspace) && self.delegate.is_none_or(|own| own == *delegate)
        });
        let streams = tried.map(async |(gitspace, delegate)| {
            let begun = Instant::now();
            let target = Target {
                gitspace,
                delegate,
                to: DialTarget::Workspace,
            };
            let why = match timeout(STREAM_LIMIT, self.open_target(target)).await {
                Ok(Ok(_) | Err(DialError::NotRunning | DialError::Elsewhere)) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no stream within {} s", STREAM_LIMIT.as_secs()),
            };
            Some(HopReport::failed(Hop::Agent, begun.elapsed(), &why, None).of(gitspace))
        });
        let failed: Vec<_> = join_all(streams).await.into_iter().flatten().collect();
        let count = u32::try_from(failed.len()).unwrap_or(u32::MAX);
        // A silent one that the runner counts and does not name is counted once.
        let silent = report.silent_agents.saturating_add(count);
        report.silent_agents = silent.min(report.agents.max(count));
        report.hops.extend(failed);
        report
    }
}

impl Dial for RunnerDial {
    fn has(&self, delegate: DelegateUuid) -> Option<bool> {
        self.delegate.map(|own| own == delegate)
    }

    fn probe(&self, gitspaces: Vec<(GitspaceUuid, DelegateUuid)>) -> BoxFuture<'_, ProbeReport> {
        Box::pin(self.go(gitspaces))
    }

    fn dial(&self, target: Authorized<Target>) -> BoxFuture<'_, Result<Upstream, DialError>> {
        Box::pin(self.open_target(target.into_inner()))
    }
}
