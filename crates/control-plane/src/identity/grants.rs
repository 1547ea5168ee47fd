//! Grants: signed here, verified by gateways offline. One-time codes, which become grants at the gateway a browser is at.

use super::seal::{Label, SealError, SealKey};
use crate::{api::error::ApiError, origins::ReturnPath, state::AppState};
use jiff::Timestamp;
use std::time::Duration;
use store::{CodeRecord, GitspaceRecord, Store, StoreError};
use token::{KeyError, OpaqueToken, SigningKey, TokenKind};
use wire::{
    gateway::{GRANT_PURPOSE, GrantClaims, PortSet, Revocation, RevokedSubject},
    ids::{GatewayUuid, GrantUuid, UserUuid},
    secret::Secret,
    text::Slug,
};

/// A browser or the CLI gets another one without its user noticing.
const GRANT_LIFE: Duration = Duration::from_secs(3600);
/// What is open longer than a grant lasts goes on under the next ones for a working day; then whoever opened it has to come again.
const RENEWED_LIFE: Duration = Duration::from_hours(12);
/// Grants that are older than this are refused by every gateway anyway (life and leeway).
const REVOCATION_LIFE: Duration = Duration::from_secs(3600 + 300);
/// From one redirect to the next.
const REDIRECT_CODE_LIFE: Duration = Duration::from_secs(60);
/// From a terminal to a browser, by hand.
const LINK_CODE_LIFE: Duration = Duration::from_secs(600);

const KEY_SETTING: &str = "grant_signing_key";
const KEY_LABEL: Label<'static> = Label {
    what: "the grant signing key",
    owner: "control plane",
    name: KEY_SETTING,
};

#[derive(Debug, thiserror::Error)]
pub enum GrantKeyError {
    #[error("cannot keep the grant signing key in the store")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error(
        "cannot open the grant signing key: is `seal.key` the one that belongs to this database?"
    )]
    Sealed {
        #[source]
        source: SealError,
    },
    #[error("the grant signing key is damaged")]
    Key {
        #[source]
        source: KeyError,
    },
}

/// Signs grants.
#[derive(Debug)]
pub(crate) struct GrantIssuer {
    key: SigningKey,
}

impl GrantIssuer {
    /// With the key in the store; of several first starts at once, one makes it.
    pub(crate) async fn open_or_make(
        store: &dyn Store,
        seal: &SealKey,
    ) -> Result<Self, GrantKeyError> {
        let fresh = SigningKey::generate().map_err(|source| GrantKeyError::Key { source })?;
        let sealed = seal
            .seal(KEY_LABEL, fresh.to_bytes())
            .map_err(|source| GrantKeyError::Sealed { source })?;
        let kept = store
            .setting_or(KEY_SETTING, &sealed)
            .await
            .map_err(|source| GrantKeyError::Store { source })?;
        let bytes = seal
            .open(KEY_LABEL, &kept)
            .map_err(|source| GrantKeyError::Sealed { source })?;
        let key = SigningKey::from_bytes(&bytes).map_err(|source| GrantKeyError::Key { source })?;
        Ok(Self { key })
    }

    /// What gateways verify with.
    pub(crate) fn public_keys(&self) -> Vec<String> {
        vec![self.key.public().to_string()]
    }

    /// What a grant says that was signed here; `None` where it was not, or holds no longer.
    pub(crate) fn verify(&self, grant: &str, now: Timestamp) -> Option<GrantClaims> {
        token::verify(grant, [self.key.public()], GRANT_PURPOSE, now).ok()
    }

    /// The control plane's own, for what it alone reads again.
    pub(super) const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Something else that gateways verify.
    pub(crate) fn sign<T: serde::Serialize + token::Timed>(
        &self,
        claims: &T,
        purpose: &'static str,
    ) -> Result<String, token::SignError> {
        token::sign(claims, &self.key, purpose)
    }

    /// A grant of `user` for `gitspace` through one gateway, of the moment `now`: what was looked at for it was looked at later.
    pub(crate) fn issue(
        &self,
        id: GrantUuid,
        now: Timestamp,
        holder: Holder,
        gitspace: &GitspaceRecord,
        scope: Scope,
    ) -> Result<(GrantClaims, Secret), ApiError> {
        let until = holder
            .until
            .unwrap_or_else(|| now.checked_add(RENEWED_LIFE).unwrap_or(Timestamp::MAX));
        // Revocations are kept to the microsecond: a grant of the same instant must not be after one.
        let iat = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        let claims = GrantClaims {
            id,
            gateway: holder.gateway,
            gitspace: gitspace.id,
            slug: gitspace.slug.clone(),
            user: holder.user,
            ports: scope.ports,
            workspace: scope.workspace,
            is_guest: scope.is_guest,
            iat,
            exp: iat
                .checked_add(GRANT_LIFE)
                .unwrap_or(Timestamp::MAX)
                .min(until),
            until: Some(until),
        };
        let signed = token::sign(&claims, &self.key, GRANT_PURPOSE)
            .map_err(|error| ApiError::internal("signing a grant", error))?;
        Ok((claims, Secret::new(signed)))
    }
}

/// Who may use a grant, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) gateway: GatewayUuid,
    pub(crate) user: UserUuid,
    /// Of the grant before this one: neither it nor any after it lasts longer.
    pub(crate) until: Option<Timestamp>,
}

/// What a grant reaches.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) ports: PortSet,
    pub(crate) workspace: bool,
    /// The gitspace is somebody else's, who shares the port.
    pub(crate) is_guest: bool,
}

impl Scope {
    /// What a browser at an origin needs: that origin's port, or the workspace.
    pub(crate) fn of_origin(port: Option<u16>, is_guest: bool) -> Self {
        Self {
            ports: PortSet::Only {
                ports: port.into_iter().collect(),
            },
            workspace: port.is_none() && !is_guest,
            is_guest,
        }
    }
}

/// How long a one-time code has to last.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CodeUse {
    Redirect,
    Link,
}

/// Makes a one-time code and the URL that hands it in.
pub(crate) async fn make_code(
    state: &AppState,
    user: UserUuid,
    gitspace: &GitspaceRecord,
    port: Option<u16>,
    path: &ReturnPath,
    life: CodeUse,
) -> Result<(Secret, Timestamp), ApiError> {
    let code = OpaqueToken::generate(TokenKind::OneTimeCode)
        .map_err(|error| ApiError::internal("making a one-time code", error))?;
    let now = state.now();
    let life = match life {
        CodeUse::Redirect => REDIRECT_CODE_LIFE,
        CodeUse::Link => LINK_CODE_LIFE,
    };
    let exp = now.checked_add(life).unwrap_or(Timestamp::MAX);
    state
        .store
        .create_code(&CodeRecord {
            hash: *code.hash().as_bytes(),
            gitspace: gitspace.id,
            port,
            user,
            return_to: path.as_str().to_owned(),
            exp,
            created: now,
        })
        .await?;
    let slug: &Slug = &gitspace.slug;
    Ok((
        Secret::new(state.gateway_origins.open_url(slug, port, code.expose())),
        exp,
    ))
}

/// Makes every grant of `subject` void, in the store and at the gateways that are connected.
pub(crate) async fn revoke(state: &AppState, subject: RevokedSubject) -> Result<(), ApiError> {
    let now = state.now();
    let revocation = Revocation {
        subject,
        before: state.now_as_stored(),
    };
    state
        .store
        .revoke_grants(
            &revocation,
            now.checked_add(REVOCATION_LIFE).unwrap_or(Timestamp::MAX),
        )
        .await?;
    state.gateways.revoked(revocation);
    Ok(())
}
