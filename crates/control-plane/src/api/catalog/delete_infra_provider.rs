//! `DELETE /infra-providers/{infra_provider}`

use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::extract::State;
use http::StatusCode;
use store::StoreError;
use wire::{ids::InfraProviderUuid, problem::Problem};

/// Delete an infra provider that nothing was made of. For administrators.
#[utoipa::path(delete, path = "/infra-providers/{infra_provider}", tag = "catalog",
    params(("infra_provider" = uuid::Uuid, Path)), responses(
    (status = 204),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "Machines or gitspaces refer to it.", body = Problem),
))]
pub(crate) async fn delete_infra_provider(
    State(state): State<AppState>,
    caller: Caller,
    Param(infra_provider): Param<InfraProviderUuid>,
) -> Result<StatusCode, ApiError> {
    caller.require_admin()?;
    match state.store.delete_infra_provider(infra_provider).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(ApiError::NotFound {
            what: "infra provider",
        }),
        Err(StoreError::Conflict { .. }) => Err(ApiError::InUse {
            what: "the infra provider".to_owned(),
            why: "machines or gitspaces were made of it".to_owned(),
        }),
        Err(error) => Err(error.into()),
    }
}
