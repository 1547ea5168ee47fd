//! Grants that gateways come back with: whether what held when they were made still holds.

use crate::{
    api::{error::ApiError, gitspaces::resolve_port},
    state::AppState,
};
use jiff::Timestamp;
use store::{GatewayRecord, GitspaceRecord, UserRecord};
use wire::gateway::{GrantClaims, PortSet};

/// One that holds, with whom and what it is for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) claims: GrantClaims,
    pub(super) gitspace: GitspaceRecord,
    pub(super) user: UserRecord,
}

/// Every reason against gives the same answer.
pub(super) async fn held(
    state: &AppState,
    gateway: &GatewayRecord,
    grant: &str,
    now: Timestamp,
) -> Result<Held, ApiError> {
    let claims = state
        .grants
        .verify(grant, now)
        .filter(|claims| claims.gateway == gateway.id)
        .ok_or(ApiError::GrantRefused)?;
    if state
        .store
        .revocations(now)
        .await?
        .iter()
        .any(|revocation| revocation.voids(&claims))
    {
        return Err(ApiError::GrantRefused);
    }
    let user = state.store.user(claims.user).await?;
    let user = user
        .filter(|user| !user.disabled)
        .ok_or(ApiError::GrantRefused)?;
    // Of a guest's there is one.
    let port = match &claims.ports {
        PortSet::Only { ports } => ports.first().copied(),
        PortSet::All {} => None,
    };
    let (gitspace, is_guest) = resolve_port(state, &user, &claims.slug, port)
        .await
        .map_err(|error| match error {
            ApiError::NotFound { .. } => ApiError::GrantRefused,
            error => error,
        })?;
    if gitspace.id != claims.gitspace || (is_guest && !claims.is_guest) {
        return Err(ApiError::GrantRefused);
    }
    Ok(Held {
        claims,
        gitspace,
        user,
    })
}
