//! From a grant to the gitspace's own SSH server, or to the words for why not.

use super::{
    board::Live,
    leg::{Leg, LegError},
    listener::{SOFTWARE, Service},
    wake::wake_silently,
};
use crate::{
    Upstream,
    authorize::{Refusal, authorize},
    connection::{DIAL_LIMIT, undialled},
    state_page::state_page,
};
use ssh_transport::{Transport, TransportError, Writer, number};
use std::time::Duration;
use wire::{
    gateway::SshGrant, gitspace::GitspaceState, ids::GitspaceUuid, problem::Problem,
    runner::DialTarget,
};

/// For the gitspace's SSH server to let us in.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// It is asked for no user: the gitspace has one.
const USER: &str = "gitspace";

/// Why it stays shut; shown to the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Shut(pub(super) String);

impl From<&Problem> for Shut {
    fn from(problem: &Problem) -> Self {
        Self(match &problem.hint {
            Some(hint) => format!("{problem}; {hint}"),
            None => problem.to_string(),
        })
    }
}

impl From<Refusal> for Shut {
    fn from(refusal: Refusal) -> Self {
        Self(match refusal {
            Refusal::NotConnected => format!("{refusal}; try again in a moment"),
            Refusal::NoGitspace => format!("{refusal}; `gitspace list` shows yours"),
            refusal => refusal.to_string(),
        })
    }
}

/// A raw stream to the SSH server of the gitspace that `grant` is for, which `live` holds from here on; and which gitspace that is.
pub(super) async fn open(
    service: &Service,
    live: &Live,
    grant: &SshGrant,
) -> Result<(Upstream, GitspaceUuid), Shut> {
    wake_silently(service, grant).await?;
    let shared = &service.shared;
    let now = shared.clock.now();
    let token = grant.grant.expose();
    let access = authorize(&shared.known, &grant.slug, DialTarget::Ssh, token, now)?;
    let Some(target) = access.target else {
        return Err(Shut::from(&state_page(&access.route).problem));
    };
    live.hold(&access.claims);
    // It may have been revoked after it was checked and before the sweeper could see it here.
    shared.known.read().check(&access.claims, now)?;
    match tokio::time::timeout(DIAL_LIMIT, shared.ways.dial(target)).await {
        Ok(Ok(stream)) => Ok((stream, access.claims.gitspace)),
        Ok(Err(error)) => Err(Shut::from(&undialled(target.get(), &error).problem)),
        Err(_) => Err(Shut(
            "the gitspace did not answer in time; its host may be overloaded".to_owned(),
        )),
    }
}

/// Why the gitspace cannot be there, where it is known not to run.
pub(super) fn not_running(service: &Service, grant: &SshGrant) -> Option<Shut> {
    let known = service.shared.known.read();
    let route = known.routes.get(&grant.slug)?;
    (route.state != GitspaceState::Running).then(|| Shut::from(&state_page(route).problem))
}

/// Logs in at the server behind `stream`.
pub(super) async fn enter(stream: Upstream) -> Result<Leg<Upstream>, Shut> {
    let failed = |error: LegError| Shut(format!("the gitspace's SSH server is not there: {error}"));
    match tokio::time::timeout(HANDSHAKE, log_in(stream)).await {
        Ok(entered) => entered.map_err(failed),
        Err(_) => Err(Shut(
            "the gitspace's SSH server did not answer in time".to_owned(),
        )),
    }
}

async fn log_in(stream: Upstream) -> Result<Leg<Upstream>, LegError> {
    let mut leg = Leg::new(stream, Transport::client(SOFTWARE)?);
    let service = Writer::message(number::SERVICE_REQUEST).string("ssh-userauth");
    leg.send(&service.finish())?;
    let request = Writer::message(number::USERAUTH_REQUEST)
        .string(USER)
        .string("ssh-connection")
        .string("none");
    leg.send(&request.finish())?;
    loop {
        let packet = leg.packet().await?;
        match packet.number() {
            number::SERVICE_ACCEPT | number::USERAUTH_BANNER => {}
            number::USERAUTH_SUCCESS => return Ok(leg),
            number => return Err(TransportError::OutOfTurn { number }.into()),
        }
    }
}
