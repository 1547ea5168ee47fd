//! `POST /gateways/ssh`
//!
//! A gateway asks twice: whether a key that a client offers is anybody's, and, once the client has proven that it has it, for a grant.
//!
//! The first answer depends on the key alone, so that whoever has somebody's public key (they are published) finds out nothing about their
//! gitspaces. The second one is the same for a gitspace that does not exist and for one of somebody else.

use super::Gateway;
use crate::{
    api::{error::ApiError, extract::Body, ssh_keys::fingerprint},
    identity::{
        caller::{TOUCH_EVERY, by_token},
        grants::{Holder, Scope},
    },
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::IdsExt as _;
use jiff::Timestamp;
use newtype_uuid::{GenericUuid as _, TypedUuid};
use store::{GitspaceRecord, UserRecord};
use wire::{
    api::Role,
    gateway::{PortSet, SshCredential, SshGrant, SshQuestion, SshVerdict},
    ids::{GrantUuid, SshKeyUuid},
    problem::Problem,
    text::{GitspaceName, Slug, SshPublicKey},
};

/// Whether an SSH credential is somebody's, and what it reaches.
///
/// Of a credential that is `proven`, the answer names its user, and has a grant where `gitspace` is one that this user may reach.
/// Every reason against a credential gives the same answer.
#[utoipa::path(post, path = "/gateways/ssh", tag = "gateways", request_body = Object, responses(
    (status = 200, description = "`{\"user\", \"grant\"}`; `{}` where the key is not proven", body = Object),
    (status = 401, body = Problem),
    (status = 404, description = "The credential is not taken.", body = Problem),
), security(("gateway_token" = [])))]
pub(crate) async fn ask_ssh(
    State(state): State<AppState>,
    Gateway(gateway): Gateway,
    Body(question): Body<SshQuestion>,
) -> Result<Json<SshVerdict>, ApiError> {
    // The grant is of this moment: what is taken away while it is made, is taken away after it.
    let now = state.now();
    let holder = match &question.credential {
        SshCredential::Key { key } => of_key(&state, key).await?,
        SshCredential::Token { token } => by_token(&state, token.expose(), now)
            .await?
            .map(|caller| (caller.user, None)),
    };
    // Looked for in any case, for the time that it takes.
    let gitspace = find(&state, holder.as_ref().map(|(user, _)| user), &question).await?;
    let Some((user, key)) = holder else {
        return Err(ApiError::SshRefused);
    };
    if !question.proven {
        return Ok(Json(SshVerdict::default()));
    }
    if let Some((key, last_used)) = key
        && last_used.is_none_or(|used| now.duration_since(used) >= TOUCH_EVERY)
        && let Err(error) = state.store.touch_ssh_key(key, now).await
    {
        // Nobody should be kept out because a statistic cannot be written.
        tracing::warn!(error = %daemon::ErrorChain(&error), "Cannot note the use of an SSH key");
    }
    let grant = match gitspace {
        None => None,
        Some(gitspace) => {
            // All grants of a key have its id, so that they end with it.
            let id: GrantUuid = key.map_or_else(
                || state.ids.typed(),
                |(key, _)| TypedUuid::from_untyped_uuid(key.into_untyped_uuid()),
            );
            let holder = Holder {
                gateway: gateway.id,
                user: user.id,
                until: None,
            };
            let scope = Scope {
                ports: PortSet::Only { ports: Vec::new() },
                workspace: true,
                is_guest: false,
            };
            let (claims, grant) = state.grants.issue(id, now, holder, &gitspace, scope)?;
            tracing::debug!(user = %user.id, gitspace = %gitspace.id, grant = %claims.id, "SSH access granted");
            Some(SshGrant {
                grant,
                exp: claims.exp,
                slug: claims.slug,
            })
        }
    };
    Ok(Json(SshVerdict {
        user: Some(user.id),
        user_name: Some(user.name),
        grant,
    }))
}

type Holds = (UserRecord, Option<(SshKeyUuid, Option<Timestamp>)>);

async fn of_key(state: &AppState, key: &SshPublicKey) -> Result<Option<Holds>, ApiError> {
    let found = state
        .store
        .ssh_key_by_fingerprint(&fingerprint(key))
        .await?;
    Ok(found
        .filter(|(record, user)| record.key == *key && !user.disabled)
        .map(|(record, user)| (user, Some((record.id, record.last_used)))))
}

/// The gitspace that `user` means: an own one by its name, or one by its slug.
async fn find(
    state: &AppState,
    user: Option<&UserRecord>,
    question: &SshQuestion,
) -> Result<Option<GitspaceRecord>, ApiError> {
    let Some(text) = &question.gitspace else {
        return Ok(None);
    };
    let mut found = None;
    if let (Ok(name), Some(user)) = (text.parse::<GitspaceName>(), user) {
        found = state.store.gitspace_by_name(user.id, &name).await?;
    }
    if found.is_none()
        && let Ok(slug) = text.parse::<Slug>()
    {
        found = state.store.gitspace_by_slug(&slug).await?;
    }
    Ok(found
        .filter(|record| record.deleted.is_none())
        .filter(|record| {
            user.is_some_and(|user| record.owner == user.id || user.role == Role::Admin)
        }))
}
