//! `/v1/tasks`: take, list, follow, cancel, acknowledge.

use super::Api;
use crate::{
    gitspace::{SUPERSEDED_HINT, SubmitError},
    journal::TaskJournal,
};
use futures_util::{Stream, stream};
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use local_rpc::server::{self, Body};
use std::{collections::VecDeque, sync::Arc};
use tokio_util::sync::CancellationToken;
use wire::{
    control::TaskStatus,
    ids::TaskUuid,
    problem::Problem,
    runner::MAX_BODY,
    task::{Task, TaskEvent},
};

const DRAINING_HINT: &str = "`runner-agent undrain` on its host takes work again";

pub(super) async fn put(api: &Api, id: TaskUuid, request: Request<Incoming>) -> Response<Body> {
    let task: Task = match server::read_json(request, MAX_BODY).await {
        Ok(task) => task,
        Err(error) => return error.into_response(),
    };
    if task.id != id {
        return server::problem(
            StatusCode::BAD_REQUEST,
            &Problem::new("invalid_body", "the task's id is not the one in the path"),
        );
    }
    match api.gitspaces.submit(task).await {
        Ok(status) => server::json(StatusCode::ACCEPTED, &status),
        Err(error) => {
            let (status, code) = match &error {
                SubmitError::Busy { .. } => (StatusCode::CONFLICT, "busy"),
                SubmitError::OtherGitspace { .. } => (StatusCode::CONFLICT, "task_id_in_use"),
                SubmitError::Superseded { .. } => (StatusCode::PRECONDITION_FAILED, "superseded"),
                SubmitError::Ledger { .. } => (StatusCode::INSUFFICIENT_STORAGE, "ledger_failed"),
                SubmitError::Journal { .. } => (StatusCode::INSUFFICIENT_STORAGE, "journal_failed"),
                SubmitError::Draining => (StatusCode::CONFLICT, "draining"),
                SubmitError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            };
            let mut problem = Problem::new(code, error.to_string());
            let source: Option<&(dyn std::error::Error + 'static)> = match &error {
                SubmitError::Superseded { .. } => {
                    problem = problem.hint(SUPERSEDED_HINT);
                    None
                }
                SubmitError::Draining => {
                    problem = problem.hint(DRAINING_HINT);
                    None
                }
                SubmitError::Ledger { source } => Some(source),
                SubmitError::Journal { source } => Some(source),
                SubmitError::Busy { .. }
                | SubmitError::OtherGitspace { .. }
                | SubmitError::Stopping => None,
            };
            if let Some(source) = source {
                tracing::error!(error = %daemon::ErrorChain(&error), "A task is not taken");
                problem = problem
                    .cause(daemon::ErrorChain(source).to_string())
                    .hint("check the disk that holds the runner's state folder");
            }
            server::problem(status, &problem)
        }
    }
}

pub(super) fn list(api: &Api) -> Response<Body> {
    let tasks: Vec<TaskStatus> = api
        .shared
        .journal
        .all()
        .iter()
        .map(|journal| journal.status())
        .collect();
    server::json(StatusCode::OK, &tasks)
}

pub(super) fn events(api: &Api, id: TaskUuid, uri: &Uri) -> Response<Body> {
    let after = match server::query_value::<u64>(uri, "after") {
        Ok(after) => after.unwrap_or(0),
        Err(error) => return error.into_response(),
    };
    match api.shared.journal.get(id) {
        Some(journal) => {
            if let Some(end) = journal.end_after(after) {
                return server::ndjson(stream::iter([end]));
            }
            journal.skip_to(after);
            server::ndjson(follow(journal, after, api.shared.tasks.drain_token()))
        }
        None => unknown(),
    }
}

/// Events above `after`, as they come, up to `finished` or the drain.
fn follow(
    journal: Arc<TaskJournal>,
    after: u64,
    stop: CancellationToken,
) -> impl Stream<Item = TaskEvent> + Send {
    let changes = journal.subscribe();
    stream::unfold(
        (journal, after, VecDeque::<TaskEvent>::new(), changes, stop),
        |(journal, mut after, mut pending, mut changes, stop)| async move {
            loop {
                if let Some(event) = pending.pop_front() {
                    after = event.seq;
                    return Some((event, (journal, after, pending, changes, stop)));
                }
                changes.borrow_and_update();
                let (events, finished) = journal.events(after);
                if events.is_empty() {
                    if finished {
                        return None;
                    }
                    tokio::select! {
                        () = stop.cancelled() => return None,
                        changed = changes.changed() => changed.ok()?,
                    }
                }
                pending = events.into();
            }
        },
    )
}

pub(super) async fn cancel(api: &Api, id: TaskUuid) -> Response<Body> {
    match api.shared.journal.get(id) {
        Some(journal) => {
            api.gitspaces.cancel(&journal).await;
            server::json(StatusCode::ACCEPTED, &journal.status())
        }
        None => unknown(),
    }
}

pub(super) fn delete(api: &Api, id: TaskUuid) -> Response<Body> {
    match api.shared.journal.get(id) {
        Some(journal) if !journal.finished() => server::problem(
            StatusCode::CONFLICT,
            &Problem::new("not_finished", "the task has not finished")
                .hint("cancel it, and wait for its end"),
        ),
        // Acknowledged before is acknowledged.
        _ => match api.shared.journal.remove(id) {
            Ok(()) => server::empty(StatusCode::NO_CONTENT),
            Err(error) => {
                tracing::error!(error = %daemon::ErrorChain(&error), "A task is not forgotten");
                server::problem(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &Problem::new("journal_failed", error.to_string())
                        .cause(daemon::ErrorChain(&error).to_string()),
                )
            }
        },
    }
}

fn unknown() -> Response<Body> {
    server::problem(
        StatusCode::NOT_FOUND,
        &Problem::new("unknown_task", "this runner has no such task"),
    )
}
