//! `GET /gitspaces/{gitspace}/logs`

use super::{
    events::{FollowQuery, read_or_follow},
    resolve,
};
use crate::{
    api::{
        error::ApiError,
        extract::{Param, Params},
        sse::Followed,
    },
    identity::caller::Caller,
    orchestrator::Change,
    state::AppState,
};
use axum::{extract::State, response::Response};
use http::HeaderMap;
use wire::{
    api::{LogEntry, Page},
    ids::GitspaceUuid,
    problem::Problem,
};

impl Followed for LogEntry {
    const EVENT: &'static str = "log";

    fn id(&self) -> u64 {
        self.id
    }

    fn is_change(change: Change, gitspace: GitspaceUuid) -> bool {
        change == Change::Log(gitspace)
    }

    fn read(
        state: &AppState,
        gitspace: GitspaceUuid,
        after: u64,
        limit: u32,
    ) -> store::Answer<'_, Vec<Self>> {
        state.store.log(gitspace, after, limit)
    }
}

/// Read or follow the output of a gitspace's phases.
///
/// With `follow=true` or `Accept: text/event-stream` each entry is an event `log` whose `id` is the entry's.
#[utoipa::path(get, path = "/gitspaces/{gitspace}/logs", tag = "gitspaces",
    params(("gitspace" = String, Path, description = "Name, id or slug."), FollowQuery), responses(
    (status = 200, content(
        (Page<LogEntry> = "application/json"),
        (LogEntry = "text/event-stream"),
    )),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
    (status = 503, description = "Too many streams are open.", body = Problem),
))]
pub(crate) async fn gitspace_logs(
    State(state): State<AppState>,
    caller: Caller,
    Param(gitspace): Param<String>,
    Params(query): Params<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    read_or_follow::<LogEntry>(&state, caller, record.id, &headers, query).await
}
