//! `GET /gitspaces/{gitspace}/ports`, `PUT /gitspaces/{gitspace}/ports/{port}`

use super::resolve;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param},
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use store::{GitspaceRecord, SharedPortRecord};
use wire::{
    api::{PortShare, PortShares, SharePort},
    gitspace::PortVisibility,
    problem::Problem,
};

/// Of one gitspace. All of them go to every gateway.
const MAX_SHARED: usize = 64;

/// List the ports of a gitspace that others than its owner may come to.
#[utoipa::path(get, path = "/gitspaces/{gitspace}/ports", tag = "gitspaces",
    params(("gitspace" = String, Path, description = "Name, id or slug.")), responses(
    (status = 200, body = PortShares),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn list_shared_ports(
    State(state): State<AppState>,
    caller: Caller,
    Param(gitspace): Param<String>,
) -> Result<Json<PortShares>, ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    let shared = state.store.shared_ports(record.id).await?;
    Ok(Json(PortShares {
        items: shared
            .into_iter()
            .map(|shared| show(&state, &record, shared.port, shared.visibility))
            .collect(),
        max_visibility: state.max_port_visibility,
    }))
}

/// Set who may come to a port of a gitspace.
///
/// Who could come and may not any more is cut off within a second.
#[utoipa::path(put, path = "/gitspaces/{gitspace}/ports/{port}", tag = "gitspaces",
    params(
        ("gitspace" = String, Path, description = "Name, id or slug."),
        ("port" = u16, Path, description = "1 to 65535."),
    ),
    request_body = SharePort, responses(
    (status = 200, body = PortShare),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "More than this deployment allows, or too many ports.", body = Problem),
))]
pub(crate) async fn share_port(
    State(state): State<AppState>,
    caller: Caller,
    Param((gitspace, port)): Param<(String, u16)>,
    Body(body): Body<SharePort>,
) -> Result<Json<PortShare>, ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    if port == 0 {
        return Err(ApiError::invalid("the port", "1 to 65535 are taken"));
    }
    if body.visibility > state.max_port_visibility {
        return Err(ApiError::Refused {
            code: "visibility_not_allowed",
            message: format!("ports are not made {} here", body.visibility),
            why: Some(format!(
                "`max_port_visibility` of this deployment is `{}`",
                state.max_port_visibility
            )),
            hint: Some("ask who operates it".to_owned()),
        });
    }
    if body.visibility == PortVisibility::Private {
        state.store.unshare_port(record.id, port).await?;
    } else {
        let shared = state.store.shared_ports(record.id).await?;
        if shared.len() >= MAX_SHARED && shared.iter().all(|shared| shared.port != port) {
            return Err(ApiError::Refused {
                code: "too_many_ports",
                message: format!("the gitspace shares {MAX_SHARED} ports already"),
                why: None,
                hint: Some("make one of them private first".to_owned()),
            });
        }
        let shared = SharedPortRecord {
            gitspace: record.id,
            port,
            visibility: body.visibility,
            user: caller.user.id,
            created: state.now(),
        };
        state.store.share_port(&shared).await?;
    }
    state.orchestrator.announce(record.id);
    tracing::info!(user = %caller.user.id, gitspace = %record.id, port, visibility = %body.visibility, "Port's visibility set");
    Ok(Json(show(&state, &record, port, body.visibility)))
}

fn show(
    state: &AppState,
    record: &GitspaceRecord,
    port: u16,
    visibility: PortVisibility,
) -> PortShare {
    PortShare {
        port,
        visibility,
        effective: visibility.min(state.max_port_visibility),
        url: format!("{}/", state.gateway_origins.of(&record.slug, Some(port))),
    }
}
