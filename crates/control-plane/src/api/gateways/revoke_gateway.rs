//! `DELETE /gateways/{gateway}`

use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use wire::problem::Problem;

/// Revoke a gateway's token and forget the gateway: its link is cut, and grants are made for the others. For administrators.
#[utoipa::path(delete, path = "/gateways/{gateway}", tag = "gateways",
    params(("gateway" = String, Path, description = "Id or name.")), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn revoke_gateway(
    State(state): State<AppState>,
    caller: Caller,
    Param(gateway): Param<String>,
) -> Result<StatusCode, ApiError> {
    caller.require_admin()?;
    let known = state.store.gateways().await?;
    let record = known
        .into_iter()
        .find(|known| known.name == gateway || known.id.to_string() == gateway)
        .ok_or(ApiError::NotFound { what: "gateway" })?;
    state.store.delete_gateway(record.id).await?;
    state.gateways.dismiss(record.id);
    tracing::info!(by = %caller.user.id, gateway = %record.id, name = record.name, "Gateway revoked");
    Ok(StatusCode::NO_CONTENT)
}
