//! `DELETE /delegates/{delegate}`

use super::show_delegate::find;
use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use wire::{
    gateway::{Revocation, RevokedSubject},
    problem::Problem,
};

/// Revoke a delegate's key: its connection is cut and it is given nothing more. For administrators.
#[utoipa::path(delete, path = "/delegates/{delegate}", tag = "delegates",
    params(("delegate" = String, Path, description = "Id or name.")), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn revoke_delegate(
    State(state): State<AppState>,
    caller: Caller,
    Param(delegate): Param<String>,
) -> Result<StatusCode, ApiError> {
    caller.require_admin()?;
    let record = find(&state, &delegate).await?;
    state.store.revoke_delegate(record.id).await?;
    state.hub.revoke(record.id);
    // That it is revoked is a state, of which gateways that are away hear when they are back.
    state.gateways.revoked(Revocation {
        subject: RevokedSubject::Delegate {
            delegate: record.id,
        },
        before: state.now_as_stored(),
    });
    state.orchestrator.delegate_changed(record.id).await?;
    tracing::info!(by = %caller.user.id, delegate = %record.id, "Delegate revoked");
    Ok(StatusCode::NO_CONTENT)
}
