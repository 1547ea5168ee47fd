//! Why a gitspace cannot be reached, in words for whoever came to it.

use crate::page::Notice;
use wire::{gateway::Route, gitspace::GitspaceState, problem::Problem};

/// For its owner, from what is known of it.
pub(crate) fn state_page(route: &Route) -> Notice {
    let name = &route.name;
    let problem = |code: &str, message: String| Problem::new(code, message);
    let start = format!("start it with `gitspace start {name}`");
    let (status, problem, retry_after) = match route.state {
        GitspaceState::Starting => (503, starting(route), Some(1)),
        GitspaceState::Stopping | GitspaceState::Resetting => (
            503,
            problem(
                "gitspace_not_running",
                format!("the gitspace `{name}` is {}", route.state),
            )
            .hint(start),
            None,
        ),
        GitspaceState::Stopped | GitspaceState::Uninitialized => (
            503,
            problem(
                "gitspace_not_running",
                format!("the gitspace `{name}` does not run: it is {}", route.state),
            )
            .hint(start),
            None,
        ),
        GitspaceState::Deleting | GitspaceState::Deleted => (
            404,
            problem(
                "gitspace_deleted",
                format!("the gitspace `{name}` is {}", route.state),
            )
            .hint("make another with `gitspace create`"),
            None,
        ),
        GitspaceState::Error => {
            let problem = problem(
                "gitspace_failed",
                format!("the gitspace `{name}` failed and does not run"),
            )
            .hint(format!(
                "see `gitspace events {name}`; then start, reset or delete it"
            ));
            let problem = match &route.error {
                Some(error) => problem.cause(error.clone()),
                None => problem,
            };
            (502, problem, None)
        }
        GitspaceState::Running => (
            503,
            problem(
                "gitspace_unreachable",
                format!("the gitspace `{name}` runs, but its host is not connected"),
            )
            .hint("wait a moment; `gitspace delegate list` shows which hosts are away"),
            Some(5),
        ),
    };
    let mut notice = Notice::new(status, problem);
    notice.retry_after = retry_after;
    notice
}

/// For somebody whose gitspace it is not: no cause of its own, and nothing to be done about it.
pub(crate) fn guests_page(route: &Route) -> Notice {
    let (code, message) = match route.state {
        GitspaceState::Running => (
            "gitspace_unreachable",
            "the gitspace that shares this port cannot be reached",
        ),
        _ => (
            "gitspace_not_running",
            "the gitspace that shares this port does not run",
        ),
    };
    let problem = Problem::new(code, message).hint("ask whoever gave you the link");
    let mut notice = Notice::new(503, problem);
    if route.state == GitspaceState::Starting {
        notice.retry_after = Some(2);
    }
    notice
}

/// The same, where it runs and the port does not answer: what else listens there, and how the host is, is not theirs to know.
pub(crate) fn guests_dial(status: u16) -> Notice {
    Notice::new(
        status,
        Problem::new("port_closed", "nothing answers at this port now")
            .hint("ask whoever gave you the link"),
    )
}

/// A page of it looks again each second, and so shows how it goes.
fn starting(route: &Route) -> Problem {
    let problem = Problem::new(
        "gitspace_starting",
        format!("the gitspace `{}` is starting", route.name),
    );
    let problem = match route.phase {
        Some(phase) => problem.cause(format!("{}…", phase.as_str())),
        None => problem,
    };
    problem.hint("this page goes on by itself")
}
