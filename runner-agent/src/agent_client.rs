//! The runner's side of gitspace-agent's control socket.
//!
//! Invariant: the agent's folder belongs to whoever is root in the gitspace, so every answer is bounded, and nothing it says decides
//! about anything but this gitspace.

use crate::silence;
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::StreamExt as _;
use hyper::Method;
use local_rpc::{
    Client, ClientError,
    fd::{PassedStream, recv_fd},
};
use std::{os::fd::OwnedFd, time::Duration};
use wire::{
    agent::{
        Activity, AgentConfig, CONTROL_SOCKET, GitState, Health, JobEvent, JobEventKind,
        JobOutcome, JobSpec, ListeningPort,
    },
    failure::{Failure, FailureCode, MAX_DETAIL},
    problem::Problem,
    runner::{DIAL_PROTOCOL, DialTarget, STREAM_HEADER},
    task::LogStream,
};

const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// A probe of an agent that answers takes a millisecond.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// Between two tries of an agent that is starting.
const PROBE_PAUSE: Duration = Duration::from_millis(4);
/// After a stream of job events broke off: the agent's serving part may be starting again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const RECONNECT_LIMIT: Duration = Duration::from_secs(10);
const MAX_RESPONSE: usize = 1024 * 1024;
const MAX_PORTS: usize = 1024;
const MAX_WORDS: usize = 1024;

/// The agent of one container.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    dir: Utf8PathBuf,
    client: Client,
}

impl Agent {
    pub(crate) fn new(run_dir: &Utf8Path) -> Self {
        Self {
            dir: run_dir.to_owned(),
            client: Client::untrusted(run_dir, CONTROL_SOCKET)
                .with_deadline(CALL_DEADLINE)
                .with_max_response(MAX_RESPONSE),
        }
    }

    pub(crate) async fn health(&self) -> Result<Health, ClientError> {
        self.client
            .clone()
            .with_deadline(PROBE_DEADLINE)
            .get("/v1/health")
            .await
    }

    /// Waits until the agent answers; bounded by the caller.
    pub(crate) async fn wait(&self) -> Health {
        loop {
            match self.health().await {
                Ok(health) => return health,
                Err(error) => {
                    tracing::trace!(error = %daemon::ErrorChain(&error), "The agent does not answer yet");
                }
            }
            tokio::time::sleep(PROBE_PAUSE).await;
        }
    }

    pub(crate) async fn configure(&self, config: &AgentConfig) -> Result<(), Failure> {
        self.client
            .put("/v1/config", config)
            .await
            .map_err(|error| silence::failure_of("give the agent its configuration", &error))
    }

    /// Starts a job, or finds the one of this id, and follows it to its end. `output` hears every piece of its output.
    pub(crate) async fn run_job(
        &self,
        id: &str,
        spec: &JobSpec,
        output: impl FnMut(LogStream, &str) + Send,
    ) -> Result<JobOutcome, Failure> {
        self.run_job_unless(id, spec, output, || std::future::ready(false))
            .await
    }

    /// The same, and an agent that broke off is waited for only while `ended` says no: its container may be what has ended.
    pub(crate) async fn run_job_unless<E>(
        &self,
        id: &str,
        spec: &JobSpec,
        mut output: impl FnMut(LogStream, &str) + Send,
        ended: impl Fn() -> E + Send,
    ) -> Result<JobOutcome, Failure>
    where
        E: Future<Output = bool> + Send,
    {
        let path = format!("/v1/jobs/{id}");
        self.client
            .put::<_, serde::de::IgnoredAny>(&path, spec)
            .await
            .map_err(|error| silence::failure_of("start a job in the gitspace", &error))?;
        let mut seen = 0;
        let mut broken_for = Duration::ZERO;
        loop {
            let events = format!("{path}/events?after={seen}");
            let error = match self.client.stream_ndjson::<JobEvent>(&events).await {
                Ok(mut stream) => loop {
                    match stream.next().await {
                        Some(Ok(event)) if event.seq <= seen => {}
                        Some(Ok(event)) => {
                            seen = event.seq;
                            broken_for = Duration::ZERO;
                            match event.event {
                                JobEventKind::Output { stream, text } => output(stream, &text),
                                JobEventKind::Exited { outcome } => return Ok(bounded(outcome)),
                            }
                        }
                        Some(Err(error)) => break Some(error),
                        None => break None,
                    }
                },
                Err(error) => Some(error),
            };
            if broken_for >= RECONNECT_LIMIT
                || error.as_ref().is_some_and(|error| !error.is_unreachable())
                || ended().await
            {
                return Err(match error {
                    Some(error) => silence::failure_of("follow a job in the gitspace", &error),
                    None => Failure::new(
                        FailureCode::AgentUnreachable,
                        "the agent broke off while it told of a job in the gitspace",
                    )
                    .hint("start the gitspace again: what was done already is not done twice"),
                });
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
            broken_for += RECONNECT_PAUSE;
        }
    }

    /// Ends a job, or forgets one that has ended; one that is not there is fine.
    pub(crate) async fn delete_job(&self, id: &str) {
        let deleted = self
            .client
            .delete::<serde::de::IgnoredAny>(&format!("/v1/jobs/{id}"))
            .await;
        if let Err(error) = deleted
            && !error.is_not_found()
        {
            tracing::debug!(dir = %self.dir, job = id, error = %daemon::ErrorChain(&error), "Cannot delete a job");
        }
    }

    pub(crate) async fn ports(&self) -> Result<Vec<ListeningPort>, ClientError> {
        let mut ports: Vec<ListeningPort> = self.client.get("/v1/ports").await?;
        ports.truncate(MAX_PORTS);
        for port in &mut ports {
            cut(&mut port.address, 64);
            if let Some(process) = &mut port.process {
                cut(process, 256);
            }
        }
        Ok(ports)
    }

    pub(crate) async fn activity(&self) -> Result<Activity, ClientError> {
        self.client.get("/v1/activity").await
    }

    pub(crate) async fn git(&self) -> Result<GitState, ClientError> {
        let mut state: GitState = self
            .client
            .clone()
            .with_deadline(Duration::from_secs(30))
            .get("/v1/git")
            .await?;
        for text in [&mut state.branch, &mut state.commit].into_iter().flatten() {
            cut(text, 256);
        }
        Ok(state)
    }

    /// A connected socket into the gitspace, and the byte that came with it.
    pub(crate) async fn dial(&self, target: DialTarget) -> Result<(OwnedFd, u8), DialError> {
        let upgraded = self
            .client
            .upgrade(
                Method::POST,
                &format!("/v1/dial?target={target}"),
                DIAL_PROTOCOL,
                None::<&()>,
            )
            .await
            .map_err(|source| DialError::Agent { source })?;
        match upgraded
            .headers
            .get(STREAM_HEADER)
            .and_then(|value| value.to_str().ok())
        {
            Some("fd") => {
                let (fd, byte) = tokio::time::timeout(CALL_DEADLINE, recv_fd(&upgraded.stream))
                    .await
                    .map_err(|_| DialError::NoSocket)?
                    .map_err(|source| DialError::Socket { source })?;
                let stream =
                    PassedStream::new(fd).map_err(|source| DialError::NotAStream { source })?;
                Ok((stream.into_fd(), byte))
            }
            // The connection to the agent is the stream: it can be handed on all the same.
            Some("relay") => {
                let stream = upgraded
                    .stream
                    .into_std()
                    .map_err(|source| DialError::Detach { source })?;
                Ok((stream.into(), 0))
            }
            _ => Err(DialError::NoHeader),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the agent of the gitspace refused the dial")]
    Agent {
        #[source]
        source: ClientError,
    },
    #[error("the agent of the gitspace sent no socket in time")]
    NoSocket,
    #[error("the agent of the gitspace sent no socket")]
    Socket {
        #[source]
        source: local_rpc::fd::FdError,
    },
    #[error("the agent of the gitspace sent something else than a connected socket")]
    NotAStream {
        #[source]
        source: local_rpc::fd::PassedStreamError,
    },
    #[error("the connection to the agent cannot be handed on")]
    Detach {
        #[source]
        source: std::io::Error,
    },
    #[error("the agent of the gitspace did not say how it hands over the stream")]
    NoHeader,
}

impl DialError {
    /// Status and body of the answer to whoever dialled.
    pub(crate) fn answer(&self) -> (http::StatusCode, Problem) {
        let Self::Agent { source } = self else {
            return (
                http::StatusCode::BAD_GATEWAY,
                Problem::new("agent_unreachable", self.to_string())
                    .cause(daemon::ErrorChain(self).to_string()),
            );
        };
        agent_answer(source)
    }
}

/// What the agent's refusal is for whoever asked the runner.
pub(crate) fn agent_answer(error: &ClientError) -> (http::StatusCode, Problem) {
    match (error.status(), error.problem()) {
        (Some(status), Some(problem)) if status.is_client_error() || status.is_server_error() => {
            let mut problem = problem.clone();
            cut(&mut problem.code, 64);
            cut(&mut problem.message, MAX_WORDS);
            for text in [&mut problem.cause, &mut problem.hint]
                .into_iter()
                .flatten()
            {
                cut(text, MAX_WORDS);
            }
            (status, problem)
        }
        _ => (
            http::StatusCode::BAD_GATEWAY,
            Problem::new(
                "agent_unreachable",
                "the agent of the gitspace does not answer",
            )
            .cause(daemon::ErrorChain(error).to_string())
            .hint(silence::hint(error)),
        ),
    }
}

/// A failure's words come from inside the gitspace.
fn bounded(outcome: JobOutcome) -> JobOutcome {
    match outcome {
        JobOutcome::Done { detail } => JobOutcome::Done {
            detail: detail.map(|mut detail| {
                cut(&mut detail, MAX_WORDS);
                detail
            }),
        },
        JobOutcome::Failed {
            exit_code,
            mut failure,
        } => {
            cut(&mut failure.message, MAX_WORDS);
            if let Some(hint) = &mut failure.hint {
                cut(hint, MAX_WORDS);
            }
            if let Some(detail) = failure.detail.take() {
                failure = failure.detail(detail);
            }
            JobOutcome::Failed { exit_code, failure }
        }
        JobOutcome::Cancelled {} => JobOutcome::Cancelled {},
    }
}

/// Shortens to at most `max` bytes, without control characters but line ends and tabs.
fn cut(text: &mut String, max: usize) {
    debug_assert!(max <= MAX_DETAIL);
    text.retain(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    if text.len() > max {
        let mut end = max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}
