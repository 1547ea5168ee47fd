//! `POST /gateways/exchange`

use super::Gateway;
use crate::{
    api::{error::ApiError, extract::Body, gitspaces::resolve_port},
    identity::grants::{Holder, Scope},
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::IdsExt as _;
use token::{OpaqueToken, TokenKind};
use wire::{
    gateway::{ExchangeRequest, ExchangeResponse},
    problem::Problem,
};

/// Exchange a one-time code for a grant, at the origin that the code is for.
///
/// A code presented at another origin is void. Every reason against gives the same answer.
#[utoipa::path(post, path = "/gateways/exchange", tag = "gateways", request_body = Object, responses(
    (status = 200, description = "`{\"grant\", \"exp\", \"return_to\"}`", body = Object),
    (status = 401, body = Problem),
    (status = 404, description = "The code is not taken.", body = Problem),
), security(("gateway_token" = [])))]
pub(crate) async fn exchange_code(
    State(state): State<AppState>,
    Gateway(gateway): Gateway,
    Body(body): Body<ExchangeRequest>,
) -> Result<Json<ExchangeResponse>, ApiError> {
    let code = OpaqueToken::parse(body.code.expose(), TokenKind::OneTimeCode)
        .map_err(|_| ApiError::CodeRefused)?;
    let gitspace = state.store.gitspace_by_slug(&body.slug).await?;
    let gitspace = gitspace.ok_or(ApiError::CodeRefused)?;
    let now = state.now();
    let found = state
        .store
        .consume_code(code.hash().as_bytes(), gitspace.id, body.port, now)
        .await?
        .ok_or(ApiError::CodeRefused)?;
    // What held when the code was made may not hold any more.
    let user = state.store.user(found.user).await?;
    let user = user
        .filter(|user| !user.disabled)
        .ok_or(ApiError::CodeRefused)?;
    let (_, is_guest) = resolve_port(&state, &user, &body.slug, body.port)
        .await
        .map_err(|error| match error {
            ApiError::NotFound { .. } => ApiError::CodeRefused,
            error => error,
        })?;
    let (claims, grant) = state.grants.issue(
        state.ids.typed(),
        now,
        Holder {
            gateway: gateway.id,
            user: user.id,
            until: None,
        },
        &gitspace,
        Scope::of_origin(body.port, is_guest),
    )?;
    tracing::debug!(user = %user.id, gitspace = %gitspace.id, grant = %claims.id, "One-time code exchanged");
    Ok(Json(ExchangeResponse {
        grant,
        exp: claims.exp,
        return_to: found.return_to,
    }))
}
