//! Following and waiting, against a server that cuts its streams.

use super::*;
use crate::{
    progress::{self, Goal},
    test_server::{Answer, api, full, gitspace, json, pieces, serve},
};
use http::Request;
use serde_json::json as value;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use wire::{api::Gitspace, gitspace::GitspaceState};

fn event(id: u64, generation: u64, kind: &str, state: &str) -> String {
    let event = value!({
        "id": id, "at": "2026-01-01T00:00:00Z", "kind": kind, "message": "said", "phase": "clone", "duration_ms": 1,
        "generation": generation, "state": state, "trace": "00000000-0000-4000-8000-000000000001",
    });
    format!("event: timeline\nid: {id}\ndata: {event}\n\n")
}

#[tokio::test]
async fn a_stream_that_is_cut_goes_on_after_the_last_item_and_shows_each_once() {
    let round = Arc::new(AtomicUsize::new(0));
    let port = serve(move |request: Request<Incoming>| {
        let round = round.fetch_add(1, Ordering::Relaxed);
        async move {
            let (one, two, three) = (
                event(1, 1, "action", "starting"),
                event(2, 1, "phase_started", "starting"),
                event(3, 1, "state_changed", "running"),
            );
            let asked = request.uri().query().unwrap().to_owned();
            let (half, rest) = two.split_at(20);
            match round {
                0 => {
                    assert_eq!(asked, "after=0");
                    Ok(pieces(&[": hello\n\n", &one, half], true))
                }
                1 => Ok(full(503, "")),
                2 => {
                    assert_eq!(asked, "after=1");
                    // The server may send again what was seen.
                    Ok(pieces(&[&one, half, rest], false))
                }
                3 => {
                    assert_eq!(asked, "after=2");
                    Ok(pieces(&[&three], false))
                }
                _ => Ok(full(404, "")),
            }
        }
    })
    .await;
    let api = api(port);
    let mut follow = Follow::<TimelineEvent>::new(&api, "/gitspaces/demo/events".to_owned(), 0);
    let mut ids = Vec::new();
    while let Some(event) = follow.next().await.unwrap() {
        ids.push(event.it.id);
    }
    assert_eq!(ids, [1, 2, 3]);
}

#[tokio::test]
async fn what_was_never_there_is_an_error_and_no_end() {
    let port = serve(|_| async { Ok(full(404, "")) }).await;
    let api = api(port);
    let mut follow = Follow::<LogEntry>::new(&api, "/gitspaces/demo/logs".to_owned(), 0);
    let error = follow.next().await.unwrap_err();
    assert_eq!(error.exit(), crate::exit::Exit::NotFound);
}

/// Waits for generation 2 of a gitspace; `after` is what the API shows of it once the stream has been opened.
async fn waited(
    after: impl Fn() -> http::Response<crate::test_server::Body> + Send + Sync + 'static,
    last_state: &'static str,
    goal: Goal,
) -> Result<Option<Object<Gitspace>>, CliError> {
    let after = Arc::new(after);
    let port = serve(move |request: Request<Incoming>| {
        let after = after.clone();
        async move {
            let answer: Answer = if request.uri().path().ends_with("/events") {
                Ok(pieces(
                    &[
                        &event(1, 1, "state_changed", "stopped"),
                        &event(2, 2, "action", "starting"),
                        &event(3, 2, "phase_completed", "starting"),
                        &event(4, 2, "state_changed", last_state),
                    ],
                    false,
                ))
            } else {
                Ok(after())
            };
            answer
        }
    })
    .await;
    let api = api(port);
    let started = Object::of("test", gitspace("starting", 2)).unwrap();
    progress::wait(&api, started, goal, 0).await
}

#[tokio::test]
async fn a_wait_ends_where_the_action_leads() {
    let goal = Goal::State(GitspaceState::Running);
    let end = waited(|| json(200, &gitspace("running", 2)), "running", goal).await;
    assert_eq!(end.unwrap().unwrap().it.state, GitspaceState::Running);
    let end = waited(|| full(404, ""), "deleted", Goal::Gone).await;
    assert!(end.unwrap().is_none());
}

#[tokio::test]
async fn a_wait_fails_with_the_gitspace_and_is_overtaken_by_another_action() {
    let goal = Goal::State(GitspaceState::Running);
    let failed = || {
        let mut failed = gitspace("error", 2);
        failed["error"] =
            value!({"code": "image_missing", "message": "no image", "hint": "build it"});
        json(200, &failed)
    };
    let error = waited(failed, "error", goal).await.unwrap_err();
    assert_eq!(error.exit(), crate::exit::Exit::Failure);
    assert!(
        matches!(error, CliError::Ended { failure: Some(failure), .. } if failure.message == "no image")
    );
    let error = waited(|| json(200, &gitspace("stopping", 3)), "running", goal)
        .await
        .unwrap_err();
    assert!(matches!(error, CliError::Overtaken { .. }), "{error}");
}
