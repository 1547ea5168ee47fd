//! `POST /gateways/renew`

use super::{Gateway, held::held};
use crate::{
    api::{error::ApiError, extract::Body},
    identity::grants::{Holder, Scope},
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    gateway::{RenewRequest, RenewResponse},
    problem::Problem,
};

/// Renew the grant of a connection that is still open, so that it does not end with the hour.
///
/// The next one has the same id, so that whoever revokes the first revokes both, and the same last moment, twelve hours after the first.
#[utoipa::path(post, path = "/gateways/renew", tag = "gateways", request_body = Object, responses(
    (status = 200, description = "`{\"grant\"}`", body = Object),
    (status = 401, body = Problem),
    (status = 404, description = "The grant is not taken.", body = Problem),
), security(("gateway_token" = [])))]
pub(crate) async fn renew_grant(
    State(state): State<AppState>,
    Gateway(gateway): Gateway,
    Body(body): Body<RenewRequest>,
) -> Result<Json<RenewResponse>, ApiError> {
    // Before anything is looked at: a revocation meanwhile is of a later moment, and voids the next grant too.
    let now = state.now();
    let held = held(&state, &gateway, body.grant.expose(), now).await?;
    let until = held.claims.until.ok_or(ApiError::GrantRefused)?;
    let (_, grant) = state.grants.issue(
        held.claims.id,
        now,
        Holder {
            gateway: gateway.id,
            user: held.user.id,
            until: Some(until),
        },
        &held.gitspace,
        Scope {
            ports: held.claims.ports,
            workspace: held.claims.workspace,
            is_guest: held.claims.is_guest,
        },
    )?;
    Ok(Json(RenewResponse { grant }))
}
