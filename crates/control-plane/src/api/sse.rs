//! Server-sent events: what is stored, then what comes, until the client goes, its credentials end, or the gitspace is gone.
//!
//! Nothing is buffered: each event is read from the store when the one before was taken by the client.

use super::error::ApiError;
use crate::{identity::caller::Caller, orchestrator::Change, state::AppState, streams::OpenStream};
use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures_util::stream;
use http::{HeaderMap, header};
use serde::Serialize;
use std::{collections::VecDeque, convert::Infallible, pin::Pin, time::Duration};
use tokio::{sync::broadcast, time::Instant};
use wire::{api::MAX_PAGE, ids::GitspaceUuid};

/// Comments sent while nothing happens, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often credentials are checked again, and the store is asked without having been told.
const RECHECK: Duration = Duration::from_secs(10);

/// Something with a rising id that is stored per gitspace.
pub(crate) trait Followed: Serialize + Send + Sized + 'static {
    /// Name of its events.
    const EVENT: &'static str;

    fn id(&self) -> u64;
    fn is_change(change: Change, gitspace: GitspaceUuid) -> bool;
    fn read(
        state: &AppState,
        gitspace: GitspaceUuid,
        after: u64,
        limit: u32,
    ) -> store::Answer<'_, Vec<Self>>;
}

/// Whether the client asks for a stream.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| {
            let essence = part.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case("text/event-stream")
        })
}

/// Where a client that was cut off goes on.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some)
        .ok_or_else(|| ApiError::invalid("`Last-Event-ID`", "it is not a number of this stream"))
}

struct Follower<T> {
    state: AppState,
    caller: Caller,
    gitspace: GitspaceUuid,
    after: u64,
    ready: VecDeque<T>,
    changes: broadcast::Receiver<Change>,
    recheck_at: Instant,
    /// The last things of a gitspace that is deleted are still to be sent.
    last_round: bool,
    _open: OpenStream,
}

/// The stream of what comes after `after`.
pub(crate) fn follow<T: Followed>(
    state: &AppState,
    caller: Caller,
    gitspace: GitspaceUuid,
    after: u64,
) -> Result<Response, ApiError> {
    let open = state
        .streams
        .open(caller.user.id)
        .ok_or(ApiError::TooMany {
            what: "event streams",
        })?;
    let follower = Follower::<T> {
        // Before the first read: what is stored between the two is seen in one of them.
        changes: state.orchestrator.changes(),
        state: state.clone(),
        caller,
        gitspace,
        after,
        ready: VecDeque::new(),
        recheck_at: Instant::now() + RECHECK,
        last_round: false,
        _open: open,
    };
    let events: Pin<Box<dyn futures_util::Stream<Item = Result<Event, Infallible>> + Send>> =
        Box::pin(stream::unfold(follower, |mut follower| async move {
            let event = follower.next().await?;
            Some((Ok(event), follower))
        }));
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

impl<T: Followed> Follower<T> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.after = item.id();
                match serde_json::to_string(&item) {
                    Ok(data) => {
                        return Some(
                            Event::default()
                                .event(T::EVENT)
                                .id(item.id().to_string())
                                .data(data),
                        );
                    }
                    Err(error) => {
                        tracing::error!(%error, "Cannot write an event");
                        return None;
                    }
                }
            }
            match T::read(&self.state, self.gitspace, self.after, MAX_PAGE).await {
                Ok(items) if !items.is_empty() => {
                    self.ready = items.into();
                    continue;
                }
                Ok(_) if self.last_round => return None,
                Ok(_) => {}
                Err(error) => {
                    // The client comes back with the last id it has.
                    tracing::warn!(error = %daemon::ErrorChain(&error), "Stream ends, because the store does not answer");
                    return None;
                }
            }
            if !self.wait().await {
                return None;
            }
        }
    }

    /// Until there can be more. False where there will be none.
    async fn wait(&mut self) -> bool {
        let stop = self.state.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            // Before the changes, which can come all the time.
            () = tokio::time::sleep_until(self.recheck_at) => {
                self.recheck_at = Instant::now() + RECHECK;
                if !matches!(self.caller.still_valid(&self.state).await, Ok(true)) {
                    return false;
                }
            }
            () = told::<T>(&mut self.changes, self.gitspace) => {}
        }
        match self.state.store.gitspace(self.gitspace).await {
            Ok(Some(record)) => {
                self.last_round = record.deleted.is_some();
                true
            }
            Ok(None) | Err(_) => false,
        }
    }
}

/// Returns when something was stored that the follower wants, or could have been.
async fn told<T: Followed>(changes: &mut broadcast::Receiver<Change>, gitspace: GitspaceUuid) {
    loop {
        match changes.recv().await {
            Ok(change)
                if T::is_change(change, gitspace) || change == Change::Gitspace(gitspace) =>
            {
                return;
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            // The orchestrator has ended: the stop follows.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
