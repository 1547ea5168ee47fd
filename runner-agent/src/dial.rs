//! Dialling into a gitspace: the socket comes from the agent inside and is handed on. No byte of a user passes through here.

use crate::{agent_client::Agent, shared::Shared};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use local_rpc::{
    fd::send_fd,
    server::{self, Body},
};
use std::sync::Arc;
use wire::{
    gitspace::ObservedState,
    ids::GitspaceUuid,
    problem::Problem,
    runner::{DIAL_PROTOCOL, DialTarget, STREAM_HEADER},
};

/// The agent of a gitspace that runs, or the answer that says why there is none.
pub(crate) fn running_agent(
    shared: &Shared,
    gitspace: GitspaceUuid,
) -> Result<Agent, Box<Response<Body>>> {
    let refuse = |status, problem: &Problem| Err(Box::new(server::problem(status, problem)));
    let Some(observed) = shared.board.get(gitspace) else {
        return refuse(
            StatusCode::NOT_FOUND,
            &Problem::new("unknown_gitspace", "this runner has no such gitspace"),
        );
    };
    let machine = shared
        .ledger
        .get(gitspace)
        .and_then(|record| record.machine);
    match (observed.state, machine) {
        (ObservedState::Running, Some(machine)) => {
            Ok(Agent::new(&shared.names.dev_run_dir(&machine.key)))
        }
        _ => refuse(
            StatusCode::CONFLICT,
            &Problem::new("not_running", "the gitspace does not run").hint("start it first"),
        ),
    }
}

pub(crate) async fn answer(
    shared: &Arc<Shared>,
    gitspace: GitspaceUuid,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let target = match server::query_value::<DialTarget>(request.uri(), "target") {
        Ok(Some(target)) => target,
        Ok(None) => {
            return server::problem(
                StatusCode::BAD_REQUEST,
                &Problem::new("invalid_query", "the query has no `target`"),
            );
        }
        Err(error) => return error.into_response(),
    };
    let pending = match server::prepare_upgrade(&mut request, DIAL_PROTOCOL) {
        Ok(pending) => pending,
        Err(error) => return error.into_response(),
    };
    let agent = match running_agent(shared, gitspace) {
        Ok(agent) => agent,
        Err(response) => return *response,
    };
    let (socket, byte) = match agent.dial(target).await {
        Ok(dialled) => dialled,
        Err(error) => {
            let (status, problem) = error.answer();
            return server::problem(status, &problem);
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        HeaderName::from_static(STREAM_HEADER),
        HeaderValue::from_static("fd"),
    );
    let response = pending.response(headers);
    shared.tasks.spawn_job("dial", async move {
        match pending.stream().await {
            Ok(upgraded) => {
                if let Err(error) = send_fd(&upgraded.stream, &socket, byte).await {
                    tracing::debug!(error = %daemon::ErrorChain(&error), "A dialled socket could not be handed on");
                }
            }
            Err(error) => {
                tracing::debug!(error = %daemon::ErrorChain(&error), "A dial was given up");
            }
        }
    });
    response
}
