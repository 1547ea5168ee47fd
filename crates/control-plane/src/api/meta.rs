//! `GET /healthz`, `GET /version`, `GET /openapi.json`

use super::error::ApiError;
use crate::state::AppState;
use axum::{Json, extract::State};
use serde::Serialize;
use wire::problem::Problem;

#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    /// `ok`
    status: &'static str,
}

/// Whether this process answers and its database does.
#[utoipa::path(get, path = "/healthz", tag = "meta", responses(
    (status = 200, body = Health),
    (status = 503, body = Problem),
), security(()))]
pub(crate) async fn healthz(State(state): State<AppState>) -> Result<Json<Health>, ApiError> {
    state.store.ping().await?;
    Ok(Json(Health { status: "ok" }))
}

#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Version {
    version: &'static str,
}

/// Version of this control plane.
#[utoipa::path(get, path = "/version", tag = "meta", responses((status = 200, body = Version)), security(()))]
pub(crate) async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
    })
}
