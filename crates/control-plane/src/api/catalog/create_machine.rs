//! `POST /infra-providers/{infra_provider}/machines`

use super::show_machine;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param, check_name},
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::IdsExt as _;
use http::StatusCode;
use store::{MachineRecord, StoreError};
use wire::{
    api::{CreateMachine, Machine},
    gitspace::Resources,
    ids::InfraProviderUuid,
    problem::Problem,
};

const MIB: u64 = 1024 * 1024;

/// Make a machine. For administrators.
#[utoipa::path(post, path = "/infra-providers/{infra_provider}/machines", tag = "catalog",
    params(("infra_provider" = uuid::Uuid, Path)), request_body = CreateMachine, responses(
    (status = 201, body = Machine),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "The name is taken.", body = Problem),
))]
pub(crate) async fn create_machine(
    State(state): State<AppState>,
    caller: Caller,
    Param(infra_provider): Param<InfraProviderUuid>,
    Body(body): Body<CreateMachine>,
) -> Result<(StatusCode, Json<Machine>), ApiError> {
    caller.require_admin()?;
    check_name("name", &body.name, 64)?;
    check_resources(&body.resources)?;
    let provider = state.store.infra_provider(infra_provider).await?;
    let provider = provider.ok_or(ApiError::NotFound {
        what: "infra provider",
    })?;
    let record = MachineRecord {
        id: state.ids.typed(),
        name: body.name,
        infra_provider: provider.id,
        infra_provider_name: provider.name,
        resources: body.resources,
        is_default: body.is_default,
        created: state.now(),
    };
    match state.store.create_machine(&record).await {
        Ok(()) => Ok((StatusCode::CREATED, Json(show_machine(record)))),
        Err(StoreError::Conflict { .. }) => Err(ApiError::Taken {
            what: format!("the name `{}`", record.name),
            hint: None,
        }),
        Err(error) => Err(error.into()),
    }
}

/// What a dev container can run in at all, and what no host has more of.
fn check_resources(resources: &Resources) -> Result<(), ApiError> {
    let out_of =
        |what: &str, range: &str| Err(ApiError::invalid(what, format!("{range} are taken")));
    if !(100..=1_024_000).contains(&resources.cpu_millis) {
        return out_of("`resources.cpu_millis`", "100 to 1024000");
    }
    if !(64 * MIB..=64 * 1024 * 1024 * MIB).contains(&resources.memory_bytes) {
        return out_of("`resources.memory_bytes`", "64 MiB to 64 TiB");
    }
    if !(32..=4_194_304).contains(&resources.pids) {
        return out_of("`resources.pids`", "32 to 4194304");
    }
    Ok(())
}
