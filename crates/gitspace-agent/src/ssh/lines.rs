//! SSH sessions whose lines may be cut: by a restart of the gateway, the end of a grant, a laptop that sleeps. The session waits for its next line,
//! and nothing that runs in it notices.
//!
//! Who comes with a session's id gets it: the id is the client's, random, and said to this gitspace alone, whose owner has been let in.

use super::{Watch, serve_on};
use crate::agent::{Agent, lock};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use local_rpc::server::{self, Body, RequestError, prepare_upgrade, query_value};
use resumable::{Endpoint, Line, Lines, Side};
use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    net::UnixStream,
    sync::mpsc,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use wire::{
    ids::SshSessionUuid,
    problem::Problem,
    workspace::{SSH_LINE_PROTOCOL, SSH_SESSION_KEPT},
};

/// At once. With one more, the one that has been without a line for longest ends.
const MAX_SESSIONS: usize = 64;
/// For the client to have heard the last word.
const GOODBYE: Duration = Duration::from_secs(60);
/// The same, where the gitspace stops.
const LAST_GOODBYE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<SshSessionUuid, Arc<Session>>>);

#[derive(Debug)]
struct Session {
    lines: mpsc::Sender<UnixStream>,
    /// Since when it has no line.
    away: Mutex<Option<Instant>>,
    ended: CancellationToken,
}

/// What comes to one session.
struct Given {
    agent: Arc<Agent>,
    session: Arc<Session>,
    lines: mpsc::Receiver<UnixStream>,
    kept: Pin<Box<Sleep>>,
    is_on_line: bool,
}

impl Given {
    /// A gitspace whose sessions all wait for a line is one that nobody is in.
    fn note(&mut self, is_on_line: bool) {
        if is_on_line == self.is_on_line {
            return;
        }
        self.is_on_line = is_on_line;
        if is_on_line {
            self.agent.dialled.workspace_opened();
            *lock(&self.session.away) = None;
        } else {
            self.agent.dialled.workspace_closed();
            let now = Instant::now();
            *lock(&self.session.away) = Some(now);
            self.kept.as_mut().reset(now + SSH_SESSION_KEPT);
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.note(false);
    }
}

impl Lines for Given {
    fn poll_next(&mut self, cx: &mut Context<'_>, is_cut: bool) -> Poll<io::Result<Box<dyn Line>>> {
        if let Poll::Ready(Some(line)) = self.lines.poll_recv(cx) {
            self.note(true);
            return Poll::Ready(Ok(Box::new(line)));
        }
        if !is_cut {
            return Poll::Pending;
        }
        self.note(false);
        ready!(self.kept.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Answers `101`; the connection is the session's line from then on.
pub(super) fn answer(
    agent: &Arc<Agent>,
    mut request: Request<Incoming>,
    id: SshSessionUuid,
) -> Result<Response<Body>, RequestError> {
    let resumes = query_value(request.uri(), "resume")?.unwrap_or(false);
    let upgrade = prepare_upgrade(&mut request, SSH_LINE_PROTOCOL)?;
    let session = if resumes {
        let found = lock(&agent.ssh_lines.0).get(&id).cloned();
        found.ok_or(Refusal::Over)
    } else {
        begin(agent, id)
    };
    let session = match session {
        Ok(session) => session,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    let response = upgrade.response(HeaderMap::new());
    agent.tasks.spawn(async move {
        match upgrade.stream().await {
            Ok(upgraded) if upgraded.leftover.is_empty() => {
                // It may have ended meanwhile: the client sees its line end.
                drop(session.lines.send(upgraded.stream).await);
            }
            Ok(_) => tracing::debug!("A client of SSH did not wait for the answer"),
            Err(error) => tracing::debug!(%error, "A connection did not become a line of SSH"),
        }
    });
    Ok(response)
}

enum Refusal {
    Over,
    Exists,
    TooMany,
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        let (status, problem) = match self {
            Self::Over => (
                StatusCode::NOT_FOUND,
                Problem::new("ssh_session_over", "the SSH session has ended").hint(
                    "its gitspace or the agent in it was restarted meanwhile, or nobody came back to it for a day",
                ),
            ),
            Self::Exists => (
                StatusCode::CONFLICT,
                Problem::new("ssh_session_exists", "there is an SSH session of this id"),
            ),
            Self::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                Problem::new(
                    "too_many_ssh_sessions",
                    format!("{MAX_SESSIONS} SSH sessions are open in this gitspace"),
                )
                .hint("end some of them"),
            ),
        };
        server::problem(status, &problem)
    }
}

fn begin(agent: &Arc<Agent>, id: SshSessionUuid) -> Result<Arc<Session>, Refusal> {
    let mut sessions = lock(&agent.ssh_lines.0);
    if sessions.contains_key(&id) {
        return Err(Refusal::Exists);
    }
    if sessions.len() >= MAX_SESSIONS {
        let longest = sessions
            .iter()
            .filter_map(|(&id, session)| Some(((*lock(&session.away))?, id)))
            .min();
        let ended = longest.and_then(|(_, id)| sessions.remove(&id));
        let ended = ended.ok_or(Refusal::TooMany)?;
        tracing::info!("An SSH session that waits for its line makes room for another one");
        ended.ended.cancel();
    }
    let (give, lines) = mpsc::channel(1);
    let session = Arc::new(Session {
        lines: give,
        away: Mutex::new(Some(Instant::now())),
        ended: CancellationToken::new(),
    });
    sessions.insert(id, Arc::clone(&session));
    let given = Given {
        agent: Arc::clone(agent),
        session: Arc::clone(&session),
        lines,
        kept: Box::pin(sleep(SSH_SESSION_KEPT)),
        is_on_line: false,
    };
    let (agent, own) = (Arc::clone(agent), Arc::clone(&session));
    let tasks = agent.ssh_sessions.clone();
    tasks.spawn(async move {
        let mut endpoint = Endpoint::new(Side::Called(given));
        tokio::select! {
            () = serve_on(&agent, &mut endpoint, Watch::Line) => {
                // Whoever is in between lines comes for the last words.
                let limit = if agent.stopping.is_cancelled() {
                    LAST_GOODBYE
                } else {
                    GOODBYE
                };
                drop(timeout(limit, endpoint.finish()).await);
            }
            () = own.ended.cancelled() => {}
        }
        let mut sessions = lock(&agent.ssh_lines.0);
        if sessions
            .get(&id)
            .is_some_and(|found| Arc::ptr_eq(found, &own))
        {
            sessions.remove(&id);
        }
    });
    Ok(session)
}
