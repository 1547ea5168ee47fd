//! What the gateway knows: the keys, routes and revocations that the control plane has sent.
//!
//! One lock, held for look-ups and small changes only, never over an await. Every change raises `revision`, so that a
//! connection which remembers an answer can see without a lock whether it still holds. When the link is cut, what is
//! known stays.

use crate::authorize::{GrantCache, Refusal};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};
use token::VerifyingKey;
use tokio::sync::watch;
use wire::{
    gateway::{GrantClaims, PortSet, Revocation, RevokedSubject, Route, ToGateway},
    gitspace::PortVisibility,
    ids::{GatewayUuid, GitspaceUuid},
    text::Slug,
    tunnel::TunnelClaims,
};

#[derive(Debug)]
pub(crate) struct Known {
    revision: AtomicU64,
    inner: RwLock<Inner>,
    pub(crate) grants: GrantCache,
    /// Told when grants may have lost their force.
    voided: watch::Sender<()>,
    /// Told of everything.
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// `None` until the first snapshot.
    pub(crate) gateway: Option<GatewayUuid>,
    pub(crate) keys: Vec<VerifyingKey>,
    pub(crate) authorize_url: String,
    /// The control plane starts what somebody comes to.
    pub(crate) wakes: bool,
    /// The control plane starts what somebody asks it for here.
    pub(crate) starts: bool,
    pub(crate) routes: HashMap<Slug, Arc<Route>>,
    revoked: HashMap<RevokedSubject, Timestamp>,
}

#[derive(Debug, thiserror::Error)]
#[error("the control plane sent a key that is none")]
pub(crate) struct BadKey {
    #[source]
    source: token::KeyError,
}

/// Something of it has to be done elsewhere.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Consequence {
    /// Connections kept to it lead nowhere.
    pub(crate) unreachable: Option<GitspaceUuid>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            revision: AtomicU64::new(1),
            inner: RwLock::default(),
            grants: GrantCache::default(),
            voided: watch::Sender::new(()),
            changes: watch::Sender::new(()),
        }
    }
}

impl Known {
    /// Changes with everything that could change an answer.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn voided(&self) -> watch::Receiver<()> {
        self.voided.subscribe()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Every change below is whole before anything that could panic.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn apply(&self, message: ToGateway) -> Result<Consequence, BadKey> {
        let mut consequence = Consequence::default();
        let mut voids = false;
        match message {
            ToGateway::Snapshot {
                gateway,
                keys,
                authorize_url,
                routes,
                revocations,
                probes: _,
                wakes,
                starts,
            } => {
                let keys = parse_keys(&keys)?;
                let mut revoked = HashMap::new();
                for revocation in revocations {
                    revoke(&mut revoked, revocation);
                }
                let routes = routes
                    .into_iter()
                    .map(|route| (route.slug.clone(), Arc::new(route)))
                    .collect();
                *self.write() = Inner {
                    gateway: Some(gateway),
                    keys,
                    authorize_url,
                    wakes,
                    starts,
                    routes,
                    revoked,
                };
                self.grants.clear();
                voids = true;
            }
            ToGateway::Route { route } => {
                if !route.reachable {
                    consequence.unreachable = Some(route.gitspace);
                }
                let shared = route.shared.clone();
                let before = self
                    .write()
                    .routes
                    .insert(route.slug.clone(), Arc::new(route));
                voids = before.is_some_and(|before| before.shared != shared);
            }
            ToGateway::RouteGone { slug } => {
                let gone = self.write().routes.remove(&slug);
                voids = gone.as_ref().is_some_and(|gone| !gone.shared.is_empty());
                consequence.unreachable = gone.map(|route| route.gitspace);
            }
            ToGateway::Revoked { revocation } => {
                revoke(&mut self.write().revoked, revocation);
                voids = true;
            }
            ToGateway::Keys { keys } => {
                self.write().keys = parse_keys(&keys)?;
                self.grants.clear();
            }
        }
        self.revision.fetch_add(1, Ordering::AcqRel);
        self.changes.send_replace(());
        if voids {
            self.voided.send_replace(());
        }
        Ok(consequence)
    }
}

fn parse_keys(keys: &[String]) -> Result<Vec<VerifyingKey>, BadKey> {
    keys.iter()
        .map(|key| key.parse().map_err(|source| BadKey { source }))
        .collect()
}

fn revoke(revoked: &mut HashMap<RevokedSubject, Timestamp>, revocation: Revocation) {
    let before = revoked
        .entry(revocation.subject)
        .or_insert(revocation.before);
    *before = (*before).max(revocation.before);
}

impl Inner {
    /// Whether the delegate was revoked after this ticket was made.
    pub(crate) fn is_revoked(&self, ticket: &TunnelClaims) -> bool {
        let delegate = ticket.delegate;
        self.revoked
            .get(&RevokedSubject::Delegate { delegate })
            .is_some_and(|before| ticket.iat <= *before)
    }

    /// Whether a grant with a good signature holds at `now`, whatever it is used for.
    ///
    /// Its end is taken to the letter: the leeway that `token` gives is for clocks apart at the beginning.
    pub(crate) fn check(&self, claims: &GrantClaims, now: Timestamp) -> Result<(), Refusal> {
        if self.gateway != Some(claims.gateway) {
            return Err(Refusal::OtherGateway);
        }
        if now >= claims.exp {
            return Err(Refusal::Expired);
        }
        let revoked = RevokedSubject::of(claims).iter().any(|subject| {
            self.revoked
                .get(subject)
                .is_some_and(|before| claims.iat <= *before)
        });
        if revoked {
            return Err(Refusal::Revoked);
        }
        if claims.is_guest && !self.is_shared(claims) {
            return Err(Refusal::NotShared);
        }
        Ok(())
    }

    /// Whether all that a guest's claims reach is shared with them.
    fn is_shared(&self, claims: &GrantClaims) -> bool {
        let (Some(route), PortSet::Only { ports }) = (self.routes.get(&claims.slug), &claims.ports)
        else {
            return false;
        };
        let needed = if claims.user.is_nil() {
            PortVisibility::Public
        } else {
            PortVisibility::Project
        };
        !claims.workspace && ports.iter().all(|port| route.visibility(*port) >= needed)
    }
}
