//! The control socket: what the runner asks. Routes only; the work is elsewhere.

use crate::{
    agent::Agent,
    dial, git_state,
    job::{Job, Jobs},
    ports, terminal,
};
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use local_rpc::server::{self, Body, RequestError};
use std::{collections::VecDeque, sync::Arc};
use wire::{
    agent::{Activity, AgentConfig, Health, JobEvent, JobSpec},
    problem::Problem,
};

/// Of a config or a job: environment and scripts of devcontainer.json.
const MAX_BODY: usize = 1024 * 1024;

pub(crate) async fn handle(agent: Arc<Agent>, request: Request<Incoming>) -> Response<Body> {
    answer(&agent, request)
        .await
        .unwrap_or_else(RequestError::into_response)
}

async fn answer(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
) -> Result<Response<Body>, RequestError> {
    let uri = request.uri().clone();
    let segments = server::segments(&uri);
    Ok(match (request.method(), segments.as_slice()) {
        (&Method::GET, ["v1", "health"]) => server::json(
            StatusCode::OK,
            &Health {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_ms: u64::try_from(agent.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                configured: agent.is_configured(),
                ssh_host_key: host_key(agent).await,
            },
        ),
        (&Method::PUT, ["v1", "config"]) => {
            let config: AgentConfig = server::read_json(request, MAX_BODY).await?;
            agent.configure(config);
            server::empty(StatusCode::NO_CONTENT)
        }
        (&Method::PUT, ["v1", "jobs", id]) => {
            let spec: JobSpec = server::read_json(request, MAX_BODY).await?;
            match Jobs::put(agent, id, spec) {
                Ok(()) => server::empty(StatusCode::ACCEPTED),
                Err(problem) if problem.code == "too_many_jobs" => {
                    server::problem(StatusCode::TOO_MANY_REQUESTS, &problem)
                }
                Err(problem) => server::problem(StatusCode::BAD_REQUEST, &problem),
            }
        }
        (&Method::GET, ["v1", "jobs", id, "events"]) => {
            let after = server::query_value(&uri, "after")?.unwrap_or(0);
            match agent.jobs.get(id) {
                Some(job) => server::ndjson(events(job, after)),
                None => server::problem(
                    StatusCode::NOT_FOUND,
                    &Problem::new("no_job", "there is no such job").cause(
                        "it was never put, was deleted, or ended with a restart of the agent",
                    ),
                ),
            }
        }
        (&Method::DELETE, ["v1", "jobs", id]) => {
            agent.jobs.delete(id);
            server::empty(StatusCode::NO_CONTENT)
        }
        (&Method::GET, ["v1", "ports"]) => {
            server::json(StatusCode::OK, &ports::listening(agent).await)
        }
        (&Method::GET, ["v1", "activity"]) => server::json(StatusCode::OK, &activity(agent).await),
        (&Method::GET, ["v1", "git"]) => git_state::answer(agent).await,
        (&Method::POST, ["v1", "dial"]) => dial::answer(agent, request).await?,
        _ => server::no_route(&request.into_parts().0),
    })
}

/// Of a gitspace: a sandbox has no SSH server.
async fn host_key(agent: &Agent) -> Option<String> {
    agent.config()?;
    match agent.host_key().await {
        Ok(key) => key.public().map(|key| key.to_string()),
        Err(error) => {
            tracing::warn!(%error, "The gitspace cannot be reached over SSH");
            None
        }
    }
}

fn events(job: Arc<Job>, after: u64) -> impl futures_util::Stream<Item = JobEvent> + Send {
    stream::unfold(
        (job, after, VecDeque::new()),
        |(job, mut after, mut pending)| async move {
            if pending.is_empty() {
                pending = VecDeque::from(job.log.next_after(after).await);
            }
            let event: JobEvent = pending.pop_front()?;
            after = event.seq;
            Some((event, (job, after, pending)))
        },
    )
}

async fn activity(agent: &Agent) -> Activity {
    let terminals = terminal::client::list(&agent.run_dir).await;
    let last_typed = terminals
        .iter()
        .map(|terminal| terminal.last_activity)
        .max();
    Activity {
        last_terminal: last_typed.max(agent.last_exec()),
        last_connection: agent.dialled.last(),
        open_terminals: u32::try_from(terminals.iter().filter(|terminal| !terminal.ended).count())
            .unwrap_or(u32::MAX),
        open_connections: agent.dialled.open().await,
    }
}
