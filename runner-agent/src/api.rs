//! The two sockets: the runner's API ([`wire::runner`]), and what the admin socket tells.
//!
//! Here is only the API's table of routes. A handler is dropped when its client goes away, so nothing that must happen runs in one.

mod access;
mod admin;
mod gitspaces;
mod tasks;

pub(crate) use access::Access;
pub(crate) use admin::Admin;

use crate::{docker::Docker, gitspace::Gitspaces, host_report, probe::Prober, shared::Shared};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use local_rpc::{
    Peer,
    server::{self, Body},
};
use std::{str::FromStr, sync::Arc};
use wire::problem::Problem;

#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) shared: Arc<Shared>,
    pub(crate) gitspaces: Gitspaces,
    pub(crate) docker: Docker,
    pub(crate) prober: Prober,
    pub(crate) access: Access,
}

impl Api {
    pub(crate) async fn answer(self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let uri = request.uri().clone();
        let method = request.method().clone();
        if let Err(refusal) = self.access.check(&peer, &method, &server::segments(&uri)) {
            return *refusal;
        }
        match (&method, server::segments(&uri).as_slice()) {
            (&Method::PUT, ["v1", "tasks", task]) => match id(task) {
                Ok(task) => Box::pin(tasks::put(&self, task, request)).await,
                Err(refusal) => *refusal,
            },
            (&Method::GET, ["v1", "tasks"]) => tasks::list(&self),
            (&Method::GET, ["v1", "tasks", task, "events"]) => match id(task) {
                Ok(task) => tasks::events(&self, task, &uri),
                Err(refusal) => *refusal,
            },
            (&Method::POST, ["v1", "tasks", task, "cancel"]) => match id(task) {
                Ok(task) => tasks::cancel(&self, task).await,
                Err(refusal) => *refusal,
            },
            (&Method::DELETE, ["v1", "tasks", task]) => match id(task) {
                Ok(task) => tasks::delete(&self, task),
                Err(refusal) => *refusal,
            },
            (&Method::GET, ["v1", "gitspaces"]) => gitspaces::list(&self),
            (&Method::GET, ["v1", "watch"]) => gitspaces::watch(&self, &uri),
            (&Method::GET, ["v1", "probe"]) => match server::query_value::<bool>(&uri, "all") {
                // A gateway has its turn with the other daemons, and sees no single agent that answers.
                Ok(all) => match self
                    .prober
                    .ask(all.unwrap_or(false) && self.access.holds(&peer).is_none())
                    .await
                {
                    Some(report) => server::json(StatusCode::OK, &report),
                    None => server::problem(
                        StatusCode::SERVICE_UNAVAILABLE,
                        &Problem::new("stopping", "the runner is stopping"),
                    ),
                },
                Err(error) => error.into_response(),
            },
            (&Method::GET, ["v1", "host"]) => server::json(
                StatusCode::OK,
                &host_report::report(
                    &self.shared.config,
                    &self.docker,
                    self.shared.drain.is_draining(),
                )
                .await,
            ),
            (&Method::GET, ["v1", "gitspaces", gitspace, what]) => match id(gitspace) {
                Ok(gitspace) => gitspaces::ask(&self, gitspace, what).await,
                Err(refusal) => *refusal,
            },
            (&Method::POST, ["v1", "gitspaces", gitspace, "dial"]) => match id(gitspace) {
                Ok(gitspace) => {
                    Box::pin(crate::dial::answer(&self.shared, gitspace, request)).await
                }
                Err(refusal) => *refusal,
            },
            _ => server::no_route(&request.into_parts().0),
        }
    }
}

fn id<T: FromStr>(text: &str) -> Result<T, Box<Response<Body>>> {
    text.parse().map_err(|_| {
        Box::new(server::problem(
            StatusCode::BAD_REQUEST,
            &Problem::new("invalid_id", "the path holds something else than an id"),
        ))
    })
}
