//! Whether a request may reach what it names: the only place that makes an [`Authorized`] target.

use crate::{dial::Target, known::Known};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use token::TokenError;
use wire::{
    gateway::{GRANT_PURPOSE, GrantClaims, PortSet, Route},
    ids::{GrantUuid, UserUuid},
    runner::DialTarget,
    text::Slug,
};

/// Verified grants kept, in each of two generations: a token costs one signature check, not one a request.
const CACHED_GRANTS: usize = 8192;

/// Proof that a grant was checked for what is inside; only this module makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorized<T>(T);

impl<T> Authorized<T> {
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }

    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Why a request may not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the gateway has not heard from its control plane yet")]
    NotConnected,
    #[error("the request carries no grant")]
    Missing,
    #[error("the grant is not valid")]
    Invalid {
        #[source]
        source: TokenError,
    },
    #[error("the grant has expired")]
    Expired,
    #[error("the grant was revoked")]
    Revoked,
    #[error("the grant is for another gateway")]
    OtherGateway,
    #[error("the grant is for another gitspace")]
    OtherGitspace,
    #[error("the grant does not reach this port")]
    OtherPort,
    #[error("the port is not shared any more")]
    NotShared,
    #[error("the gitspace is not known here")]
    NoGitspace,
}

/// A checked grant and what it reaches.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) claims: Arc<GrantClaims>,
    pub(crate) route: Arc<Route>,
    /// `None` where the gitspace cannot be dialled.
    pub(crate) target: Option<Authorized<Target>>,
    /// Of what was known when it was checked.
    pub(crate) revision: u64,
}

/// Checks `token` for `to` in the gitspace `slug` at `now`.
pub(crate) fn authorize(
    known: &Known,
    slug: &Slug,
    to: DialTarget,
    token: &str,
    now: Timestamp,
) -> Result<Access, Refusal> {
    // Before anything is read: what changes meanwhile makes the answer old, not wrong.
    let revision = known.revision();
    let claims = verified(known, token, now)?;
    let inner = known.read();
    inner.check(&claims, now)?;
    if claims.slug != *slug {
        return Err(Refusal::OtherGitspace);
    }
    let allowed = match to {
        DialTarget::Port(port) => claims.ports.contains(port),
        // A shell is a shell, by whatever way.
        DialTarget::Workspace | DialTarget::Ssh => claims.workspace,
    };
    if !allowed {
        return Err(Refusal::OtherPort);
    }
    let route = inner.routes.get(slug).cloned().ok_or(Refusal::NoGitspace)?;
    if route.gitspace != claims.gitspace {
        return Err(Refusal::OtherGitspace);
    }
    Ok(Access::new(claims, route, to, revision))
}

/// What anybody may reach without a grant: a port that is shared with everybody.
pub(crate) fn authorize_anybody(
    known: &Known,
    slug: &Slug,
    to: DialTarget,
    now: Timestamp,
) -> Option<Access> {
    let DialTarget::Port(port) = to else {
        return None;
    };
    let revision = known.revision();
    let inner = known.read();
    let route = inner.routes.get(slug)?.clone();
    let claims = GrantClaims {
        id: GrantUuid::nil(),
        gateway: inner.gateway?,
        gitspace: route.gitspace,
        slug: slug.clone(),
        user: UserUuid::nil(),
        ports: PortSet::Only { ports: vec![port] },
        workspace: false,
        is_guest: true,
        iat: now,
        exp: Timestamp::MAX,
        until: None,
    };
    inner.check(&claims, now).ok()?;
    Some(Access::new(Arc::new(claims), route, to, revision))
}

impl Access {
    /// For claims that hold, and reach `to`.
    fn new(claims: Arc<GrantClaims>, route: Arc<Route>, to: DialTarget, revision: u64) -> Self {
        let target = route.delegate.filter(|_| route.reachable).map(|delegate| {
            Authorized(Target {
                gitspace: route.gitspace,
                delegate,
                to,
            })
        });
        Self {
            claims,
            route,
            target,
            revision,
        }
    }

    /// It was given to nobody in particular.
    pub(crate) fn is_anybodys(&self) -> bool {
        self.claims.user.is_nil()
    }
}

/// What a token that was signed for grants says. Whether it holds is asked apart.
pub(crate) fn verified(
    known: &Known,
    token: &str,
    now: Timestamp,
) -> Result<Arc<GrantClaims>, Refusal> {
    if known.read().gateway.is_none() {
        return Err(Refusal::NotConnected);
    }
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    if let Some(claims) = known.grants.get(&hash) {
        return Ok(claims);
    }
    let inner = known.read();
    let claims: GrantClaims =
        token::verify(token, &inner.keys, GRANT_PURPOSE, now).map_err(|source| match source {
            TokenError::Expired { .. } => Refusal::Expired,
            source => Refusal::Invalid { source },
        })?;
    let claims = Arc::new(claims);
    // Under the same lock as the keys, so that no grant of a withdrawn key is put in after the cache was cleared.
    known.grants.put(hash, claims.clone());
    Ok(claims)
}

/// Grants whose signature was checked. Whether they still hold is asked each time.
#[derive(Debug, Default)]
pub(crate) struct GrantCache {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<[u8; 32], Arc<GrantClaims>>,
    old: HashMap<[u8; 32], Arc<GrantClaims>>,
}

impl GrantCache {
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, hash: &[u8; 32]) -> Option<Arc<GrantClaims>> {
        let mut generations = self.lock();
        if let Some(claims) = generations.young.get(hash) {
            return Some(claims.clone());
        }
        let claims = generations.old.remove(hash)?;
        generations.insert(*hash, claims.clone());
        Some(claims)
    }

    fn put(&self, hash: [u8; 32], claims: Arc<GrantClaims>) {
        self.lock().insert(hash, claims);
    }

    pub(crate) fn clear(&self) {
        *self.lock() = Generations::default();
    }
}

impl Generations {
    /// The oldest generation goes when the young one is full.
    fn insert(&mut self, hash: [u8; 32], claims: Arc<GrantClaims>) {
        if self.young.len() >= CACHED_GRANTS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, claims);
    }
}
