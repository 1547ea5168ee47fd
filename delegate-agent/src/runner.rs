//! The runner's API socket, as the delegate uses it.

use camino::Utf8Path;
use local_rpc::{Client, ClientError, client::NdjsonStream};
use std::time::Duration;
use wire::{
    control::TaskStatus,
    failure::{Failure, FailureCode},
    gitspace::Observed,
    ids::TaskUuid,
    runner::HostReport,
    task::{Task, TaskEvent},
};

/// The runner journals before it answers, and does everything slow afterwards.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Thousands of gitspaces, or hundreds with their failures: as much as a hello can tell.
const MAX_ANSWER: usize = wire::control::MAX_HELLO;

/// Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Runner {
    client: Client,
}

impl Runner {
    #[must_use]
    pub fn new(socket: &Utf8Path) -> Self {
        Self {
            client: Client::new(socket)
                .with_deadline(CALL_LIMIT)
                .with_max_response(MAX_ANSWER),
        }
    }

    /// The bare client, for dials and probes.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn host(&self) -> Result<HostReport, ClientError> {
        self.client.get("/v1/host").await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn tasks(&self) -> Result<Vec<TaskStatus>, ClientError> {
        self.client.get("/v1/tasks").await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn gitspaces(&self) -> Result<Vec<Observed>, ClientError> {
        self.client.get("/v1/gitspaces").await
    }

    /// Ends where the runner is not `draining` as its delegate has told, or stops to be.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(&self, draining: bool) -> Result<NdjsonStream<Observed>, ClientError> {
        self.client
            .stream_ndjson(&format!("/v1/watch?draining={draining}"))
            .await
    }

    /// Journaled when it is answered; safe to repeat.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_task(&self, task: &Task) -> Result<TaskStatus, ClientError> {
        self.client
            .put(&format!("/v1/tasks/{}", task.id), task)
            .await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn events(
        &self,
        task: TaskUuid,
        after: u64,
    ) -> Result<NdjsonStream<TaskEvent>, ClientError> {
        self.client
            .stream_ndjson(&format!("/v1/tasks/{task}/events?after={after}"))
            .await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel(&self, task: TaskUuid) -> Result<(), ClientError> {
        let _: Option<serde_json::Value> = self
            .client
            .post(
                &format!("/v1/tasks/{task}/cancel"),
                &serde_json::Value::Null,
            )
            .await?;
        Ok(())
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn forget(&self, task: TaskUuid) -> Result<(), ClientError> {
        let _: Option<serde_json::Value> = self.client.delete(&format!("/v1/tasks/{task}")).await?;
        Ok(())
    }
}

/// What a runner's refusal means for the task's gitspace: its own code where it is one of ours.
#[must_use]
pub fn failure_of(error: &ClientError) -> Failure {
    if error.is_unreachable() {
        return Failure::new(
            FailureCode::RunnerUnavailable,
            "the runner does not answer its delegate",
        )
        .detail(daemon::ErrorChain(error).to_string())
        .hint("on the delegate's host: systemctl status runner-agent");
    }
    let Some(problem) = error.problem() else {
        return Failure::new(FailureCode::Internal, "the runner would not take the task")
            .detail(daemon::ErrorChain(error).to_string());
    };
    let code = serde_json::from_value(serde_json::Value::String(problem.code.clone()))
        .unwrap_or(FailureCode::Internal);
    // Another task holds the gitspace, or the runner's own disk takes nothing: nothing is wrong with this one, and it can be given again.
    let code = match error.status() {
        Some(http::StatusCode::CONFLICT | http::StatusCode::INSUFFICIENT_STORAGE)
            if code == FailureCode::Internal =>
        {
            FailureCode::RunnerUnavailable
        }
        _ => code,
    };
    Failure {
        code,
        message: problem.message.clone(),
        detail: problem.cause.clone(),
        hint: problem.hint.clone(),
    }
    .bounded()
}
