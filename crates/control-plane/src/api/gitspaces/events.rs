//! `GET /gitspaces/{gitspace}/events`

use super::resolve;
use crate::{
    api::{
        error::ApiError,
        extract::{Param, Params},
        page,
        sse::{self, Followed},
    },
    identity::caller::Caller,
    orchestrator::Change,
    state::AppState,
};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use serde::Deserialize;
use wire::{
    api::{Page, TimelineEvent},
    ids::GitspaceUuid,
    problem::Problem,
};

/// Query of the timeline and of the log.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct FollowQuery {
    /// What comes after this id; `next` of the page before. `Last-Event-ID` goes before it.
    #[serde(default, alias = "cursor")]
    after: Option<u64>,
    /// 1 to 100; 100 where missing.
    #[serde(default)]
    limit: Option<u32>,
    /// Answer with `text/event-stream`, as `Accept` can also ask for.
    #[serde(default)]
    follow: bool,
}

/// A page or a stream of what is stored of a gitspace by rising id.
pub(super) async fn read_or_follow<T: Followed>(
    state: &AppState,
    caller: Caller,
    gitspace: GitspaceUuid,
    headers: &HeaderMap,
    query: FollowQuery,
) -> Result<Response, ApiError> {
    let limit = page::limit(query.limit)?;
    let after = sse::last_event_id(headers)?.or(query.after).unwrap_or(0);
    if query.follow || sse::is_wanted(headers) {
        return sse::follow::<T>(state, caller, gitspace, after);
    }
    let items = T::read(state, gitspace, after, limit).await?;
    let is_full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = items
        .last()
        .filter(|_| is_full)
        .map(|item| item.id().to_string());
    Ok(Json(Page { items, next }).into_response())
}

impl Followed for TimelineEvent {
    const EVENT: &'static str = "timeline";

    fn id(&self) -> u64 {
        self.id
    }

    fn is_change(change: Change, gitspace: GitspaceUuid) -> bool {
        change == Change::Timeline(gitspace)
    }

    fn read(
        state: &AppState,
        gitspace: GitspaceUuid,
        after: u64,
        limit: u32,
    ) -> store::Answer<'_, Vec<Self>> {
        state.store.timeline(gitspace, after, limit)
    }
}

/// Read or follow the timeline of a gitspace.
///
/// With `Accept: text/event-stream` or `follow=true` each entry is an event `timeline` whose `id` is the entry's.
#[utoipa::path(get, path = "/gitspaces/{gitspace}/events", tag = "gitspaces",
    params(("gitspace" = String, Path, description = "Name, id or slug."), FollowQuery), responses(
    (status = 200, content(
        (Page<TimelineEvent> = "application/json"),
        (TimelineEvent = "text/event-stream"),
    )),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
    (status = 503, description = "Too many streams are open.", body = Problem),
))]
pub(crate) async fn gitspace_events(
    State(state): State<AppState>,
    caller: Caller,
    Param(gitspace): Param<String>,
    Params(query): Params<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    read_or_follow::<TimelineEvent>(&state, caller, record.id, &headers, query).await
}
