//! `POST /delegates/{delegate}/probe`

use super::show_delegate::find;
use crate::{
    api::{error::ApiError, extract::Param},
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{control::ProbeReport, problem::Problem};

/// Probe the whole way through a delegate into its gitspaces: each part with its time, and where it ends, why. For administrators.
#[utoipa::path(post, path = "/delegates/{delegate}/probe", tag = "delegates",
    params(("delegate" = String, Path, description = "Id or name.")), responses(
    (status = 200, body = ProbeReport),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "The delegate is not connected.", body = Problem),
))]
pub(crate) async fn probe_delegate(
    State(state): State<AppState>,
    caller: Caller,
    Param(delegate): Param<String>,
) -> Result<Json<ProbeReport>, ApiError> {
    caller.require_admin()?;
    let record = find(&state, &delegate).await?;
    match state.hub.probe(record.id).await {
        Some(report) => Ok(Json(report)),
        None => Err(ApiError::Refused {
            code: "not_connected",
            message: format!("the delegate {} is not connected", record.name),
            why: record.last_disconnect.map(|why| why.to_string()),
            hint: Some("on its host: `delegate-agent probe`, `delegate-agent doctor`".to_owned()),
        }),
    }
}
