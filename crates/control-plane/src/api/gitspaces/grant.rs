//! `POST /gitspaces/{gitspace}/grants`

use super::resolve;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param},
    },
    identity::{
        caller::Caller,
        grants::{Holder, Scope},
    },
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::IdsExt as _;
use http::StatusCode;
use wire::{
    api::{CreateGrant, Grant},
    gateway::PortSet,
    problem::Problem,
};

/// A grant has to fit a header.
const MAX_PORTS: usize = 64;

/// Make a grant, with which a program reaches a gitspace through the gateway for an hour.
#[utoipa::path(post, path = "/gitspaces/{gitspace}/grants", tag = "gitspaces",
    params(("gitspace" = String, Path, description = "Name, id or slug.")),
    request_body = CreateGrant, responses(
    (status = 201, body = Grant),
    (status = 401, body = Problem),
    (status = 404, body = Problem),
    (status = 503, description = "No gateway is known.", body = Problem),
))]
pub(crate) async fn create_grant(
    State(state): State<AppState>,
    caller: Caller,
    Param(gitspace): Param<String>,
    Body(body): Body<CreateGrant>,
) -> Result<(StatusCode, Json<Grant>), ApiError> {
    let record = resolve(&state, &caller, &gitspace).await?;
    let ports = match body.ports {
        None => PortSet::All {},
        Some(ports) if ports.len() > MAX_PORTS || ports.contains(&0) => {
            return Err(ApiError::invalid(
                "`ports`",
                format!("up to {MAX_PORTS} ports from 1 to 65535 are taken"),
            ));
        }
        Some(ports) => PortSet::Only { ports },
    };
    let gateway = state.gateways.choose(&state).await?;
    let (claims, grant) = state.grants.issue(
        state.ids.typed(),
        state.now(),
        Holder {
            gateway,
            user: caller.user.id,
            until: None,
        },
        &record,
        Scope {
            ports,
            workspace: true,
            is_guest: false,
        },
    )?;
    Ok((
        StatusCode::CREATED,
        Json(Grant {
            id: claims.id,
            grant,
            ports: claims.ports,
            exp: claims.exp,
            url: state.gateway_origins.of(&record.slug, None),
            ssh_host_key: record
                .observed
                .and_then(|observed| observed.dev_container?.ssh_host_key),
        }),
    ))
}
