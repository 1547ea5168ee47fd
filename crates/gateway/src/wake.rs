//! Gitspaces that somebody comes to and that do not run: they are asked for, and waited for.
//!
//! | who comes | what happens |
//! |---|---|
//! | a program with a grant in its header, SSH | the start is asked for, and the connection waits and goes on |
//! | a person, by the button of a page | the start is asked for, and the page tells how it goes |
//! | a person, by a page that is opened | the start is asked for, and the page tells how it goes |
//! | what else a page asks for by its cookie | waits for a start that is under way, and begins none: a page that was left open would keep its gitspace awake |

use crate::{
    ask::{AskError, ask},
    endpoint::Endpoint,
    gateway::Shared,
    page::Notice,
    state_page::state_page,
};
use daemon::ErrorChain;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use wire::{
    gateway::{Route, WakeRequest, WakeResponse},
    gitspace::GitspaceState,
    problem::Problem,
    secret::Secret,
    text::Slug,
};

const PATH: &str = "/api/v1/gateways/wake";
/// A first start with a large image and long commands takes minutes; whoever waits longer looks at its timeline.
const LIMIT: Duration = Duration::from_mins(10);
/// Of the control plane, at once.
const MAX_ASKING: usize = 16;

#[derive(Debug)]
pub(crate) struct Waking {
    endpoint: Arc<Endpoint>,
    asking: Semaphore,
}

/// What a start was asked for with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By<'a> {
    /// It may be asked for with this grant.
    Grant(&'a str),
    /// One that is under way is waited for.
    Nothing,
}

impl Waking {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            asking: Semaphore::new(MAX_ASKING),
        }
    }

    /// Has the gitspace of a grant started, for somebody who came to it.
    pub(crate) async fn ask(&self, grant: &str) -> Result<GitspaceState, Box<Notice>> {
        self.ask_with(grant, false).await
    }

    /// The same, for somebody who asked for it.
    pub(crate) async fn start(&self, grant: &str) -> Result<GitspaceState, Box<Notice>> {
        self.ask_with(grant, true).await
    }

    async fn ask_with(
        &self,
        grant: &str,
        is_asked_for: bool,
    ) -> Result<GitspaceState, Box<Notice>> {
        let _place = self.asking.acquire().await;
        let question = WakeRequest {
            grant: Secret::new(grant),
            is_asked_for,
        };
        match ask::<_, WakeResponse>(&self.endpoint, PATH, &question).await {
            Ok(answer) => Ok(answer.state),
            Err(error) => Err(Box::new(not_woken(&error))),
        }
    }

    /// Waits until the gitspace can be reached; `tell` hears how it goes.
    pub(crate) async fn until_reachable(
        &self,
        shared: &Shared,
        slug: &Slug,
        by: By<'_>,
        mut tell: impl FnMut(&Route),
    ) -> Result<(), Box<Notice>> {
        let until = Instant::now() + LIMIT;
        let mut changes = shared.known.changes();
        let mut asked = false;
        let mut started = false;
        loop {
            changes.mark_unchanged();
            let route = shared.known.read().routes.get(slug).cloned();
            let Some(route) = route else {
                let gone = Problem::new("gitspace_not_found", "the gitspace is not known here");
                return Err(Box::new(Notice::new(404, gone)));
            };
            if route.reachable && route.delegate.is_some() {
                return Ok(());
            }
            tell(&route);
            match (route.state, by) {
                (GitspaceState::Starting, _) => started = true,
                // Its host is away for a moment, or it is on its way down.
                (
                    GitspaceState::Running | GitspaceState::Stopping | GitspaceState::Resetting,
                    _,
                ) => {}
                (GitspaceState::Stopped | GitspaceState::Uninitialized, By::Grant(grant))
                    if !started =>
                {
                    if !asked {
                        self.ask(grant).await?;
                        asked = true;
                        // The route that says so may be here already.
                        continue;
                    }
                }
                _ => return Err(Box::new(state_page(&route))),
            }
            match timeout_at(until, changes.changed()).await {
                Ok(Ok(())) => {}
                // The gateway ends.
                Ok(Err(_)) => return Err(Box::new(state_page(&route))),
                Err(_) => return Err(Box::new(too_long(&route))),
            }
        }
    }
}

fn not_woken(error: &AskError) -> Notice {
    if let AskError::Status {
        status,
        problem: Some(problem),
    } = error
        && status.is_client_error()
    {
        let mut notice = Notice::new(503, Problem::clone(problem));
        "gitspace_not_running".clone_into(&mut notice.problem.code);
        return notice;
    }
    tracing::warn!(error = %ErrorChain(error), "Cannot ask for the start of a gitspace");
    let problem = Problem::new(
        "control_plane_unreachable",
        "the gitspace does not run, and the control plane cannot be asked to start it",
    )
    .cause(ErrorChain(error).to_string())
    .hint("try again in a moment");
    let mut notice = Notice::new(503, problem);
    notice.retry_after = Some(5);
    notice
}

fn too_long(route: &Route) -> Notice {
    let name = &route.name;
    let problem = Problem::new(
        "gitspace_starting",
        format!(
            "the gitspace `{name}` has not started within {} minutes",
            LIMIT.as_secs() / 60
        ),
    )
    .hint(format!("`gitspace events {name}` shows how it goes"));
    Notice::new(504, problem)
}
