//! `/v1/gitspaces` and `/v1/watch`: what is there, and what the agents inside say.

use super::Api;
use crate::{agent_client::agent_answer, board::Board, dial::running_agent, shared::Shared};
use futures_util::{Stream, stream};
use http::{Response, StatusCode, Uri};
use local_rpc::{
    ClientError,
    server::{self, Body},
};
use serde::Serialize;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;
use wire::{gitspace::Observed, ids::GitspaceUuid, problem::Problem};

pub(super) fn list(api: &Api) -> Response<Body> {
    server::json(StatusCode::OK, &api.shared.board.after(0))
}

pub(super) fn watch(api: &Api, uri: &Uri) -> Response<Body> {
    match server::query_value::<bool>(uri, "draining") {
        Ok(believed) => server::ndjson(follow(Arc::clone(&api.shared), believed)),
        Err(error) => error.into_response(),
    }
}

struct Watch {
    shared: Arc<Shared>,
    seen: u64,
    pending: VecDeque<Observed>,
    changes: watch::Receiver<u64>,
    drain: watch::Receiver<bool>,
    /// The watcher believes something else than what holds.
    mistaken: bool,
}

/// All first, then each change, up to the stop. A watcher that is slow gets the latest of each.
///
/// It ends too where the runner is not drained as the watcher believes, or stops to be: the watcher comes again, and asks what else has changed.
fn follow(shared: Arc<Shared>, believed: Option<bool>) -> impl Stream<Item = Observed> + Send {
    let board: &Board = &shared.board;
    let changes = board.subscribe();
    let mut drain = shared.drain.subscribe();
    let drained = *drain.borrow_and_update();
    let watch = Watch {
        shared,
        seen: 0,
        pending: VecDeque::new(),
        changes,
        drain,
        mistaken: believed.is_some_and(|believed| believed != drained),
    };
    stream::unfold(watch, |mut watch| async move {
        let stop = watch.shared.tasks.drain_token();
        if watch.mistaken {
            return None;
        }
        loop {
            if let Some(observed) = watch.pending.pop_front() {
                watch.seen = observed.revision;
                return Some((observed, watch));
            }
            watch.changes.borrow_and_update();
            watch.pending = watch.shared.board.after(watch.seen).into();
            if watch.pending.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return None,
                    _ = watch.drain.changed() => return None,
                    changed = watch.changes.changed() => changed.ok()?,
                }
            }
        }
    })
}

/// What the agent of a running gitspace says.
pub(super) async fn ask(api: &Api, gitspace: GitspaceUuid, what: &str) -> Response<Body> {
    let agent = match running_agent(&api.shared, gitspace) {
        Ok(agent) => agent,
        Err(response) => return *response,
    };
    match what {
        "ports" => told(agent.ports().await),
        "activity" => told(agent.activity().await),
        "git" => told(agent.git().await),
        _ => server::problem(
            StatusCode::NOT_FOUND,
            &Problem::new("no_route", "nothing answers this path"),
        ),
    }
}

fn told<T: Serialize>(answer: Result<T, ClientError>) -> Response<Body> {
    match answer {
        Ok(value) => server::json(StatusCode::OK, &value),
        Err(error) => {
            let (status, problem) = agent_answer(&error);
            server::problem(status, &problem)
        }
    }
}
