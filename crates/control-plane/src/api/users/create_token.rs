//! `POST /tokens`

use super::show_token;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, check_label},
        idempotency::ShownOnce,
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Extension, Json, extract::State};
use daemon::IdsExt as _;
use http::StatusCode;
use jiff::Timestamp;
use std::time::Duration;
use store::AccessTokenRecord;
use token::{OpaqueToken, TokenKind};
use wire::{
    api::{AccessToken, CreateAccessToken},
    ids::UserUuid,
    problem::Problem,
};

const DAY: u32 = 24 * 3600;
const DEFAULT_LIFE: u32 = 90 * DAY;
const MAX_LIFE: u32 = 366 * DAY;
/// Valid ones of one user.
const MAX_TOKENS: usize = 100;

/// Make a personal access token of one's own. It is shown once.
#[utoipa::path(post, path = "/tokens", tag = "users", request_body = CreateAccessToken, responses(
    (status = 201, body = AccessToken),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
))]
pub(crate) async fn create_token(
    State(state): State<AppState>,
    caller: Caller,
    Body(body): Body<CreateAccessToken>,
) -> Result<(StatusCode, Extension<ShownOnce>, Json<AccessToken>), ApiError> {
    make(&state, caller.user.id, body).await
}

pub(super) async fn make(
    state: &AppState,
    user: UserUuid,
    body: CreateAccessToken,
) -> Result<(StatusCode, Extension<ShownOnce>, Json<AccessToken>), ApiError> {
    check_label("name", &body.name, 100)?;
    let life = body.expires_in.unwrap_or(DEFAULT_LIFE);
    if !(1..=MAX_LIFE).contains(&life) {
        return Err(ApiError::invalid(
            "`expires_in`",
            format!("it is {life}; 1 to {MAX_LIFE} seconds are taken"),
        ));
    }
    let now = state.now();
    let tokens = state.store.access_tokens(user).await?;
    let valid = tokens
        .iter()
        .filter(|token| !token.revoked && token.exp > now)
        .count();
    if valid >= MAX_TOKENS {
        return Err(ApiError::Refused {
            code: "too_many_tokens",
            message: format!("the user has {valid} valid tokens"),
            why: Some(format!("{MAX_TOKENS} are the most")),
            hint: Some("revoke those that are not used".to_owned()),
        });
    }
    let token = OpaqueToken::generate(TokenKind::PersonalAccess)
        .map_err(|error| ApiError::internal("making a token", error))?;
    let record = AccessTokenRecord {
        id: state.ids.typed(),
        user,
        name: body.name,
        hash: *token.hash().as_bytes(),
        exp: now
            .checked_add(Duration::from_secs(life.into()))
            .unwrap_or(Timestamp::MAX),
        revoked: false,
        last_used: None,
        created: now,
    };
    state.store.create_access_token(&record).await?;
    tracing::info!(%user, token = %record.id, "Personal access token made");
    let shown = AccessToken {
        token: Some(token.to_secret()),
        ..show_token(record)
    };
    Ok((StatusCode::CREATED, Extension(ShownOnce), Json(shown)))
}
