//! From a hello to a welcome, or to a refusal with its reason.

use super::{
    HubDeps,
    lives::Life,
    proof,
    registry::{Memory, Published, Registry, Slot},
};
use crate::identity::delegate_keys::{self, Refusal, Signed};
use daemon::{ErrorChain, IdsExt as _, fail_point};
use link::{inbox::Inbox, server::Acceptance};
use std::sync::Arc;
use store::Hash;
use tokio::sync::OwnedMutexGuard;
use wire::{
    control::{Disconnect, DisconnectCode, Epoch, Hello, PROOF_PURPOSE, ProofClaims, Welcome},
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
    /// It opens tunnels.
    pub(super) tunnels: bool,
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
    /// The key that it was proved with.
    key: Hash,
    /// That was proposed, and is used for the first time.
    is_first_use: bool,
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
        .map_err(|error| Refusal::unavailable(&error))?
        .ok_or_else(Refusal::unknown)?;
    let now = deps.clock.now();
    let Signed { claims, by } = delegate_keys::signed::<ProofClaims>(
        &*deps.store,
        &record,
        &claim.proof,
        PROOF_PURPOSE,
        now,
    )
    .await
    .inspect_err(|refusal| {
        if refusal.code == DisconnectCode::SupersededKey {
            tracing::warn!(%delegate, name = record.name, "Somebody has an old copy of a delegate's identity");
        }
    })?;
    proof::check(
        &claims,
        delegate,
        &claim.nonce,
        &deps.public,
        claim.host.as_deref(),
    )?;
    Ok(Proved {
        delegate,
        name: record.name,
        stream: claim.stream,
        key: by,
        is_first_use: record.next_key == Some(by),
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
    let (probes, tunnels, version) = (hello.probes, hello.tunnels, hello.version.clone());
    let Proved {
        delegate,
        name,
        stream,
        key,
        is_first_use,
    } = proved;
    if is_first_use {
        fail_point("control-plane.use-key.before");
        deps.store
            .use_key(delegate, &key, deps.clock.now())
            .await
            .map_err(|error| Refusal::unavailable(&error))?;
        fail_point("control-plane.use-key.after");
        tracing::info!(%delegate, "A delegate's next key is in use; the one before has ended");
    }
    let epoch = registry
        .epochs
        .next(&*deps.store, delegate)
        .await
        .map_err(|error| Refusal::unavailable(&error))?
        .ok_or_else(Refusal::revoked)?;
    let slot = registry.slot(delegate);
    let life = Life {
        stream,
        host: hello.inventory.hostname.clone(),
    };
    let memory = slot.take_turn(epoch, life, deps.clock.now()).await;
    let mut turn = Turn {
        deps: &deps,
        delegate,
        key,
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
                tunnels,
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
    key: Hash,
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
            .map_err(|error| Refusal::unavailable(&error))?;
        let published = self.slot.publish(self.epoch);
        // A revocation, or the end of its key, before this found no connection to close.
        let still = deps
            .store
            .delegate(*delegate)
            .await
            .map_err(|error| Refusal::unavailable(&error))?;
        match still {
            Some(record) if record.revoked => return Err(Refusal::revoked()),
            Some(record) if record.public_key == self.key || record.next_key == Some(self.key) => {}
            Some(_) => return Err(Refusal::key_rotated()),
            None => return Err(Refusal::unknown()),
        }
        self.memory.told = true;
        deps.orchestrator
            .delegate_connected(*delegate)
            .await
            .map_err(|error| Refusal::unavailable(&error))?;
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
