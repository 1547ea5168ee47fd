//! From a hello to a welcome, or to a refusal with its reason.

use super::{
    HubDeps,
    lives::Life,
    proof::{self, ENROL_AGAIN, Refusal},
    registry::{Memory, Published, Registry, Slot},
};
use daemon::{ErrorChain, IdsExt as _};
use link::{inbox::Inbox, server::Acceptance};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;
use wire::{
    control::{Disconnect, DisconnectCode, Epoch, Hello, Welcome},
    ids::{DelegateUuid, StreamUuid},
};

/// Of a hello.
const MAX_TAGS: usize = 64;
const MAX_LABEL: usize = 64;
const MAX_TEXT: usize = 256;

/// A delegate that is in. Whoever holds it has the delegate's turn, and has to give it up by [`Admitted::leave`].
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) delegate: DelegateUuid,
    pub(super) name: String,
    pub(super) epoch: Epoch,
    pub(super) stream: StreamUuid,
    pub(super) published: Published,
    pub(super) acceptance: Option<Acceptance>,
    /// It answers probes.
    pub(super) probes: bool,
    pub(super) version: String,
    pub(super) slot: Arc<Slot>,
    memory: OwnedMutexGuard<Memory>,
}

/// What came with the connection.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) proof: String,
    pub(super) stream: StreamUuid,
    pub(super) nonce: String,
    pub(super) host: Option<String>,
}

/// A delegate whose proof is good for this connection.
#[derive(Debug)]
pub(super) struct Proved {
    delegate: DelegateUuid,
    name: String,
    stream: StreamUuid,
}

/// Checks whose connection it is. Nothing is changed by that.
pub(super) async fn prove(deps: Arc<HubDeps>, claim: Claim) -> Result<Proved, Refusal> {
    let delegate = proof::claimed_delegate(&claim.proof).ok_or_else(|| {
        Refusal::new(
            DisconnectCode::BadProof,
            "the proof is not a signed token",
            None,
        )
    })?;
    let record = deps
        .store
        .delegate(delegate)
        .await
        .map_err(|error| unavailable(&error))?
        .ok_or_else(|| {
            Refusal::new(
                DisconnectCode::UnknownDelegate,
                "this control plane does not know the delegate",
                Some(ENROL_AGAIN),
            )
        })?;
    proof::check(
        &claim.proof,
        &record,
        &claim.nonce,
        &deps.public,
        claim.host.as_deref(),
        deps.clock.now(),
    )?;
    if record.revoked {
        return Err(revoked());
    }
    Ok(Proved {
        delegate,
        name: record.name,
        stream: claim.stream,
    })
}

/// Runs to its end once begun, also where the connection is gone meanwhile: it may have taken a turn.
pub(super) async fn admit(
    registry: Arc<Registry>,
    deps: Arc<HubDeps>,
    proved: Proved,
    hello: Box<Hello>,
) -> Result<Admitted, Refusal> {
    check(&hello)?;
    let (probes, version) = (hello.probes, hello.version.clone());
    let Proved {
        delegate,
        name,
        stream,
    } = proved;
    let epoch = registry
        .epochs
        .next(&*deps.store, delegate)
        .await
        .map_err(|error| unavailable(&error))?
        .ok_or_else(revoked)?;
    let slot = registry.slot(delegate);
    let life = Life {
        stream,
        host: hello.inventory.hostname.clone(),
    };
    let memory = slot.take_turn(epoch, life, deps.clock.now()).await;
    let mut turn = Turn {
        deps: &deps,
        delegate,
        epoch,
        slot,
        memory,
    };
    if !turn.slot.is_latest(epoch) {
        // The newest one tells the orchestrator.
        return Err(Refusal::new(
            DisconnectCode::Superseded,
            "another connection of this delegate came in",
            None,
        ));
    }
    match turn.reconcile(*hello).await {
        Ok((welcome, published)) => {
            let inbox = match &turn.memory.inbox {
                Some((known, inbox)) if *known == stream => inbox.clone(),
                Some(_) | None => Inbox::resumed(stream, 0),
            };
            Ok(Admitted {
                delegate,
                name,
                epoch,
                stream,
                published,
                acceptance: Some(Acceptance {
                    epoch,
                    stream: deps.ids.typed(),
                    inbox,
                    welcome: Box::new(welcome),
                }),
                probes,
                version,
                slot: turn.slot,
                memory: turn.memory,
            })
        }
        Err(refusal) => {
            turn.slot.withdraw(epoch);
            if turn.memory.told && turn.slot.is_latest(epoch) {
                turn.memory.told = false;
                let disconnect = Disconnect {
                    code: refusal.code,
                    reason: refusal.reason.clone(),
                };
                gone(&deps, delegate, disconnect).await;
            }
            Err(refusal)
        }
    }
}

struct Turn<'a> {
    deps: &'a HubDeps,
    delegate: DelegateUuid,
    epoch: Epoch,
    slot: Arc<Slot>,
    memory: OwnedMutexGuard<Memory>,
}

impl Turn<'_> {
    async fn reconcile(&mut self, hello: Hello) -> Result<(Welcome, Published), Refusal> {
        let Self { deps, delegate, .. } = self;
        let tasks = deps
            .orchestrator
            .hello(*delegate, hello)
            .await
            .map_err(|error| unavailable(&error))?;
        let published = self.slot.publish(self.epoch);
        // A revocation before this found no connection to close.
        let still = deps
            .store
            .delegate(*delegate)
            .await
            .map_err(|error| unavailable(&error))?;
        if still.is_none_or(|record| record.revoked) {
            return Err(revoked());
        }
        self.memory.told = true;
        deps.orchestrator
            .delegate_connected(*delegate)
            .await
            .map_err(|error| unavailable(&error))?;
        let welcome = Welcome {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // The link puts in what it holds to.
            heartbeat_ms: 0,
            silence_limit_ms: 0,
            tasks,
        };
        Ok((welcome, published))
    }
}

impl Admitted {
    /// The connection ended, and `inbox` is what was stored of it.
    pub(super) async fn leave(mut self, deps: &HubDeps, inbox: Inbox, disconnect: Disconnect) {
        self.slot.withdraw(self.epoch);
        self.memory.inbox = Some((self.stream, inbox));
        // A later connection, which waits for its turn, tells the orchestrator.
        if self.slot.is_latest(self.epoch) {
            self.memory.told = false;
            gone(deps, self.delegate, disconnect).await;
        }
    }
}

async fn gone(deps: &HubDeps, delegate: DelegateUuid, disconnect: Disconnect) {
    if let Err(error) = deps.orchestrator.delegate_gone(delegate, disconnect).await {
        tracing::debug!(%delegate, error = %ErrorChain(&error), "Nobody hears that a delegate is gone");
    }
}

/// What is kept of a hello is small, whoever wrote it.
fn check(hello: &Hello) -> Result<(), Refusal> {
    let label = |text: &String| {
        !text.is_empty() && text.len() <= MAX_LABEL && text.chars().all(|c| c.is_ascii_graphic())
    };
    let inventory = &hello.inventory;
    let texts = [
        &inventory.hostname,
        &inventory.os,
        &inventory.kernel,
        &inventory.arch,
    ];
    let wrong = if hello.tags.len() > MAX_TAGS || !hello.tags.iter().all(label) {
        "tags"
    } else if !label(&hello.version) {
        "version"
    } else if texts.iter().any(|text| text.len() > MAX_TEXT) {
        "inventory"
    } else {
        return Ok(());
    };
    Err(Refusal::new(
        DisconnectCode::Protocol,
        format!("the hello's {wrong} are not taken"),
        None,
    ))
}

fn revoked() -> Refusal {
    Refusal::new(
        DisconnectCode::Revoked,
        "the delegate was revoked",
        Some(ENROL_AGAIN),
    )
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Refusal {
    tracing::warn!(error = %ErrorChain(error), "Cannot greet a delegate");
    Refusal::new(
        DisconnectCode::Overloaded,
        format!("the control plane cannot greet now: {}", ErrorChain(error)),
        None,
    )
}
