//! `GET /delegates/{delegate}`

use super::{placed, show};
use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use newtype_uuid::GenericUuid as _;
use store::DelegateRecord;
use uuid::Uuid;
use wire::{api::Delegate, ids::DelegateUuid, problem::Problem};

/// By id or name.
pub(super) async fn find(state: &AppState, text: &str) -> Result<DelegateRecord, ApiError> {
    let found = match Uuid::try_parse(text) {
        Ok(id) => {
            state
                .store
                .delegate(DelegateUuid::from_untyped_uuid(id))
                .await?
        }
        Err(_) => state.store.delegate_by_name(text).await?,
    };
    found.ok_or(ApiError::NotFound { what: "delegate" })
}

/// Show a delegate. For administrators.
#[utoipa::path(get, path = "/delegates/{delegate}", tag = "delegates",
    params(("delegate" = String, Path, description = "Id or name.")), responses(
    (status = 200, body = Delegate),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn show_delegate(
    State(state): State<AppState>,
    caller: Caller,
    Param(delegate): Param<String>,
) -> Result<Json<Delegate>, ApiError> {
    caller.require_admin()?;
    let record = find(&state, &delegate).await?;
    let gitspaces = placed(&state).await?.remove(&record.id).unwrap_or_default();
    let data_path = state.hub.data_path(record.id);
    Ok(Json(show(&state, record, gitspaces, data_path)))
}
