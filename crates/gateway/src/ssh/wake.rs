//! Whoever logs in to a gitspace that does not run waits for it, and is told how it goes: by banners, which come before the login's success.

use super::{
    door::Shut,
    leg::{Leg, LegError},
    listener::Service,
};
use crate::wake::By;
use ssh_transport::{TransportError, Writer, number};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use wire::{
    gateway::{Route, SshGrant},
    gitspace::GitspaceState,
};

/// Words on their way to the client.
const MAX_WORDS: usize = 16;

/// Why nobody waits any longer.
#[derive(Debug)]
pub(super) enum Unwoken {
    Shut(Shut),
    Leg(LegError),
}

impl From<LegError> for Unwoken {
    fn from(error: LegError) -> Self {
        Self::Leg(error)
    }
}

/// Waits until the gitspace of `grant` can be reached, where the control plane starts what somebody comes to.
pub(super) async fn wake<S: AsyncRead + AsyncWrite + Unpin>(
    service: &Service,
    leg: &mut Leg<S>,
    grant: &SshGrant,
) -> Result<(), Unwoken> {
    if !sleeps(service, grant) {
        return Ok(());
    }
    let (say, mut said) = mpsc::channel(MAX_WORDS);
    let mut last = String::new();
    let tell = |route: &Route| {
        let words = words(route);
        if words != last {
            last.clone_from(&words);
            // Where they come faster than they are sent, some are left out.
            drop(say.try_send(words));
        }
    };
    let by = By::Grant(grant.grant.expose());
    let waiting = service
        .shared
        .waking
        .until_reachable(&service.shared, &grant.slug, by, tell);
    let mut waiting = Box::pin(waiting);
    loop {
        tokio::select! {
            biased;
            Some(words) = said.recv() => {
                let banner = Writer::message(number::USERAUTH_BANNER);
                leg.send(&banner.string(format!("{words}\r\n")).string("en").finish())?;
            }
            done = &mut waiting => {
                return done.map_err(|notice| Unwoken::Shut(Shut::from(&notice.problem)));
            }
            // It has nothing to say before its answer; this sends the banners, and sees it go.
            packet = leg.packet() => {
                let number = packet?.number();
                return Err(LegError::from(TransportError::OutOfTurn { number }).into());
            }
        }
    }
}

/// The same where nobody can be told.
pub(super) async fn wake_silently(service: &Service, grant: &SshGrant) -> Result<(), Shut> {
    if !sleeps(service, grant) {
        return Ok(());
    }
    let by = By::Grant(grant.grant.expose());
    service
        .shared
        .waking
        .until_reachable(&service.shared, &grant.slug, by, |_| {})
        .await
        .map_err(|notice| Shut::from(&notice.problem))
}

fn sleeps(service: &Service, grant: &SshGrant) -> bool {
    let known = service.shared.known.read();
    known.wakes
        && known.routes.get(&grant.slug).is_some_and(|route| {
            matches!(
                route.state,
                GitspaceState::Stopped | GitspaceState::Uninitialized | GitspaceState::Starting
            )
        })
}

fn words(route: &Route) -> String {
    let name = &route.name;
    match (route.state, route.phase) {
        (GitspaceState::Starting, Some(phase)) => {
            format!("gitspace {name} is starting: {}", phase.as_str())
        }
        (GitspaceState::Starting, None) => format!("gitspace {name} is starting"),
        (state, _) => format!("gitspace {name} is {state}; it is being started"),
    }
}
