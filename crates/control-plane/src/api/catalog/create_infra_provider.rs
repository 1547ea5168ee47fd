//! `POST /infra-providers`

use super::show_infra_provider;
use crate::{
    api::{
        delegates::check_tags,
        error::ApiError,
        extract::{Body, check_name},
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::IdsExt as _;
use http::StatusCode;
use store::{InfraProviderRecord, StoreError};
use wire::{
    api::{CreateInfraProvider, InfraProvider},
    problem::Problem,
};

/// Make an infra provider. For administrators.
#[utoipa::path(post, path = "/infra-providers", tag = "catalog", request_body = CreateInfraProvider, responses(
    (status = 201, body = InfraProvider),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 409, description = "The name is taken.", body = Problem),
))]
pub(crate) async fn create_infra_provider(
    State(state): State<AppState>,
    caller: Caller,
    Body(body): Body<CreateInfraProvider>,
) -> Result<(StatusCode, Json<InfraProvider>), ApiError> {
    caller.require_admin()?;
    check_name("name", &body.name, 64)?;
    check_tags("selectors", &body.selectors)?;
    let record = InfraProviderRecord {
        id: state.ids.typed(),
        name: body.name,
        kind: body.kind,
        selectors: body.selectors,
        created: state.now(),
    };
    match state.store.create_infra_provider(&record).await {
        Ok(()) => Ok((StatusCode::CREATED, Json(show_infra_provider(record)))),
        Err(StoreError::Conflict { .. }) => Err(ApiError::Taken {
            what: format!("the name `{}`", record.name),
            hint: None,
        }),
        Err(error) => Err(error.into()),
    }
}
