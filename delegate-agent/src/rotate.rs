//! Rotation of the key: made here, accepted by the control plane, and only then in force.
//!
//! ```text
//! identity.json     old ─────────────────────────── new ──────────
//! identity.next.json      new ───────────────────────── (removed)
//! control plane     old ──────── old, new ─────────────────── new
//! ```
//!
//! Invariant: the key in `identity.json` is one that the control plane takes, at every instant. Whoever is killed in the middle gets in with
//! it, and `rotate` goes on where it was. The running link is left alone: it outlives the key that it was opened with.

use crate::{
    ask::{CallError, call},
    identity::{Identity, IdentityError, IdentityFile, KeyInUse},
    transport::Transport,
};
use daemon::{Clock, Exit, Hint};
use http::Method;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use token::{SignError, SigningKey, Validity};
use wire::{
    control::{
        Epoch, KEY_CHECK_PURPOSE, KEY_PROPOSAL_PURPOSE, KEY_USE_PURPOSE, KeyChallenge, KeyClaims,
        KeyProof, KeyProposal, KeyState,
    },
    ids::DelegateUuid,
};

const PROOF_LIFE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this host is not enrolled")]
    NotEnrolled,
    #[error("this host is enrolled at `{enrolled}`, and `control_plane_url` is `{configured}`")]
    OtherControlPlane {
        enrolled: String,
        configured: String,
    },
    #[error("cannot sign the request")]
    Sign {
        #[source]
        source: SignError,
    },
    #[error("the control plane does not take the next key; the one before stays in force")]
    NotAccepted {
        #[source]
        source: CallError,
    },
    #[error("the next key is in force here, and the control plane could not be told")]
    NotTold {
        #[source]
        source: CallError,
    },
}

impl Hint for RotateError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::NotEnrolled => Some("run `delegate-agent enroll` first".to_owned()),
            Self::OtherControlPlane { .. } => Some("set `control_plane_url` back".to_owned()),
            Self::Sign { .. } => None,
            Self::NotAccepted { source } => source.hint(),
            Self::NotTold { .. } => Some(
                "nothing is lost: the next connection tells it; `delegate-agent reconnect` makes one".to_owned(),
            ),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Identity(error) => error.exit(),
            Self::NotEnrolled | Self::OtherControlPlane { .. } => Exit::Config,
            Self::Sign { .. } => Exit::Failure,
            Self::NotAccepted { source } => source.exit(),
            Self::NotTold { .. } => Exit::TryAgain,
        }
    }
}

/// What a rotation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    pub delegate: DelegateUuid,
    /// Fingerprint of the key that has ended.
    pub ended: String,
    pub key: KeyState,
}

/// What to rotate.
#[derive(Debug)]
pub struct Rotation<'a> {
    pub transport: &'a Transport,
    pub file: &'a IdentityFile,
    /// Of the running delegate.
    pub in_use: Option<&'a KeyInUse>,
    /// The running delegate's own.
    pub link: Option<Epoch>,
}

impl Rotation<'_> {
    /// Rotates the key, or ends a rotation that was begun. `step` hears of each step as it is begun.
    ///
    /// # Errors
    /// See [`RotateError`]. The delegate gets in with the key that its file holds, whatever failed.
    pub async fn run(
        &self,
        clock: &dyn Clock,
        mut step: impl FnMut(&str) + Send,
    ) -> Result<Rotated, RotateError> {
        let file = self.file;
        let identity = file.load()?.ok_or(RotateError::NotEnrolled)?;
        let delegate = identity.delegate.ok_or(RotateError::NotEnrolled)?;
        let configured = self.transport.origin().ascii();
        if identity.control_plane != configured {
            return Err(RotateError::OtherControlPlane {
                enrolled: identity.control_plane,
                configured,
            });
        }
        file.tidy(&identity)?;
        let (next, is_fresh) = match file.load_next()? {
            Some(next) if next.delegate == identity.delegate => {
                step("using the key that an unfinished rotation made");
                (next, false)
            }
            Some(_) | None => {
                step("making a key");
                let next = Identity {
                    delegate: identity.delegate,
                    ..Identity::generate(&identity.name, &identity.control_plane)?
                };
                step(&format!("keeping the key in {}", file.next_path()));
                file.save_next(&next)?;
                (next, true)
            }
        };
        step(&format!("proposing the key to {configured}"));
        let prover = Prover {
            transport: self.transport,
            delegate,
            clock,
        };
        if let Err(error) = prover.propose(&identity.key, &next.key).await {
            // A control plane that knows no rotation has heard of no key, and one that refuses has not taken the one made here: nothing
            // was begun.
            if matches!(&error, RotateError::NotAccepted { source }
                if source.is_unknown_call() || (is_fresh && source.is_without_effect()))
            {
                file.forget_next()?;
            }
            return Err(error);
        }
        step(&format!("putting the key in force in {}", file.path()));
        file.save(&next)?;
        if let Some(in_use) = self.in_use {
            in_use.set(next.key.clone());
        }
        file.forget_next()?;
        step("telling the control plane that the key before has ended");
        let key = prover
            .call(&next.key, KEY_USE_PURPOSE, "use", self.link)
            .await
            .map_err(|error| match error {
                ProveError::Call(source) => RotateError::NotTold { source },
                ProveError::Sign(source) => RotateError::Sign { source },
            })?;
        Ok(Rotated {
            delegate,
            ended: identity.key.public().kid().to_string(),
            key,
        })
    }
}

/// Whether the control plane would let `identity` in. Nothing is changed by the question.
///
/// # Errors
/// It would not, or cannot be asked.
pub async fn check(
    transport: &Transport,
    delegate: DelegateUuid,
    key: &SigningKey,
    clock: &dyn Clock,
) -> Result<KeyState, ProveError> {
    let prover = Prover {
        transport,
        delegate,
        clock,
    };
    prover.call(key, KEY_CHECK_PURPOSE, "check", None).await
}

/// Why a key is not proved.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error(transparent)]
    Call(CallError),
    #[error("cannot sign the request")]
    Sign(#[source] SignError),
}

/// Speaks to the control plane about a delegate's keys.
#[derive(Debug)]
pub struct Prover<'a> {
    pub transport: &'a Transport,
    pub delegate: DelegateUuid,
    pub clock: &'a dyn Clock,
}

impl Prover<'_> {
    fn path(&self, rest: &str) -> String {
        format!("/api/v1/delegates/{}/key{rest}", self.delegate)
    }

    /// Over a fresh nonce.
    async fn claims(&self, key: &SigningKey, link: Option<Epoch>) -> Result<KeyClaims, CallError> {
        let path = self.path("/challenge");
        let KeyChallenge { nonce, .. } =
            call(self.transport, Method::POST, &path, &(), || {}).await?;
        let Validity { iat, exp } = Validity::starting(self.clock.now(), PROOF_LIFE);
        Ok(KeyClaims {
            delegate: self.delegate,
            audience: self.transport.origin().ascii(),
            nonce,
            public_key: key.public().to_string(),
            link,
            iat,
            exp,
        })
    }

    /// Both keys get in from there on.
    ///
    /// # Errors
    /// The key before stays the only one.
    pub async fn propose(
        &self,
        current: &SigningKey,
        next: &SigningKey,
    ) -> Result<(), RotateError> {
        let refused = |source| RotateError::NotAccepted { source };
        let claims = self.claims(next, None).await.map_err(refused)?;
        let sign = |key| {
            token::sign(&claims, key, KEY_PROPOSAL_PURPOSE)
                .map_err(|source| RotateError::Sign { source })
        };
        let proposal = KeyProposal {
            by_current: sign(current)?,
            by_next: sign(next)?,
        };
        let _: KeyState = call(
            self.transport,
            Method::PUT,
            &self.path(""),
            &proposal,
            || {},
        )
        .await
        .map_err(refused)?;
        Ok(())
    }

    async fn call(
        &self,
        key: &SigningKey,
        purpose: &str,
        what: &str,
        link: Option<Epoch>,
    ) -> Result<KeyState, ProveError> {
        let claims = self.claims(key, link).await.map_err(ProveError::Call)?;
        let proof = token::sign(&claims, key, purpose).map_err(ProveError::Sign)?;
        let path = self.path(&format!("/{what}"));
        call(
            self.transport,
            Method::POST,
            &path,
            &KeyProof { proof },
            || {},
        )
        .await
        .map_err(ProveError::Call)
    }
}
