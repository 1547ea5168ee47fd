//! `POST /gateways`

use super::show;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, check_name},
        idempotency::ShownOnce,
    },
    app::EMBEDDED_GATEWAY,
    identity::caller::Caller,
    state::AppState,
};
use axum::{Extension, Json, extract::State};
use daemon::IdsExt as _;
use http::StatusCode;
use store::{GatewayRecord, StoreError};
use token::{OpaqueToken, TokenKind};
use wire::{
    api::{Gateway, RegisterGateway},
    problem::Problem,
};

/// Register a gateway. The token with which it connects is shown once. For administrators.
#[utoipa::path(post, path = "/gateways", tag = "gateways", request_body = RegisterGateway, responses(
    (status = 201, body = Gateway),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 409, description = "The name is taken.", body = Problem),
))]
pub(crate) async fn register_gateway(
    State(state): State<AppState>,
    caller: Caller,
    Body(body): Body<RegisterGateway>,
) -> Result<(StatusCode, Extension<ShownOnce>, Json<Gateway>), ApiError> {
    caller.require_admin()?;
    check_name("name", &body.name, 64)?;
    if body.name == EMBEDDED_GATEWAY {
        return Err(ApiError::invalid(
            "`name`",
            "it is kept for the gateway in a delegate's process",
        ));
    }
    let token = OpaqueToken::generate(TokenKind::Gateway)
        .map_err(|error| ApiError::internal("making a gateway's token", error))?;
    let record = GatewayRecord {
        id: state.ids.typed(),
        name: body.name,
        token_hash: *token.hash().as_bytes(),
        created: state.now(),
    };
    match state.store.create_gateway(&record).await {
        Ok(()) => {}
        Err(StoreError::Conflict { .. }) => {
            return Err(ApiError::Taken {
                what: format!("the name `{}`", record.name),
                hint: Some("revoke that gateway first, or take another name".to_owned()),
            });
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(by = %caller.user.id, gateway = %record.id, name = record.name, "Gateway registered");
    Ok((
        StatusCode::CREATED,
        Extension(ShownOnce),
        Json(Gateway {
            token: Some(token.to_secret()),
            ..show(&state, record)
        }),
    ))
}
