//! `POST /join-tokens`

use super::show_join_token;
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
use store::JoinTokenRecord;
use token::{OpaqueToken, TokenKind};
use wire::{
    api::{CreateJoinToken, JoinToken},
    ids::DelegateUuid,
    problem::Problem,
    shown,
};

const DAY: u32 = 24 * 3600;
const MAX_LIFE: u32 = 30 * DAY;
const MAX_USES: u32 = 10_000;

/// Make a join token, with which delegates enrol. It is shown once. For administrators.
#[utoipa::path(post, path = "/join-tokens", tag = "delegates", request_body = CreateJoinToken, responses(
    (status = 201, body = JoinToken),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
))]
pub(crate) async fn create_join_token(
    State(state): State<AppState>,
    caller: Caller,
    Body(body): Body<CreateJoinToken>,
) -> Result<(StatusCode, Extension<ShownOnce>, Json<JoinToken>), ApiError> {
    caller.require_admin()?;
    let shown = make(&state, body).await?;
    tracing::info!(by = %caller.user.id, join_token = %shown.id, "Join token made");
    Ok((StatusCode::CREATED, Extension(ShownOnce), Json(shown)))
}

/// Also for the delegate that embeds this control plane.
pub(crate) async fn make(state: &AppState, body: CreateJoinToken) -> Result<JoinToken, ApiError> {
    if let Some(comment) = &body.comment {
        check_label("comment", comment, 200)?;
    }
    let life = body.expires_in.unwrap_or(DAY);
    if !(1..=MAX_LIFE).contains(&life) {
        return Err(ApiError::invalid(
            "`expires_in`",
            format!("it is {life}; 1 to {MAX_LIFE} seconds are taken"),
        ));
    }
    let uses = body.uses.unwrap_or(1);
    if !(1..=MAX_USES).contains(&uses) {
        return Err(ApiError::invalid(
            "`uses`",
            format!("it is {uses}; 1 to {MAX_USES} are taken"),
        ));
    }
    let delegate = match &body.delegate {
        Some(name) => Some(returning(state, name, uses).await?),
        None => None,
    };
    let token = OpaqueToken::generate(TokenKind::Join)
        .map_err(|error| ApiError::internal("making a join token", error))?;
    let now = state.now();
    let record = JoinTokenRecord {
        id: state.ids.typed(),
        comment: body.comment,
        delegate,
        hash: *token.hash().as_bytes(),
        uses_left: uses,
        exp: now
            .checked_add(Duration::from_secs(life.into()))
            .unwrap_or(Timestamp::MAX),
        revoked: false,
        created: now,
    };
    state.store.create_join_token(&record).await?;
    Ok(JoinToken {
        token: Some(token.to_secret()),
        ..show_join_token(record)
    })
}

/// The delegate of this name, which can come back.
async fn returning(state: &AppState, name: &str, uses: u32) -> Result<DelegateUuid, ApiError> {
    let wrong = |why: String| ApiError::invalid("`delegate`", why);
    let Some(record) = state.store.delegate_by_name(name).await? else {
        return Err(wrong(format!(
            "there is no delegate `{}`",
            shown::line(name)
        )));
    };
    if !record.revoked {
        return Err(wrong(format!(
            "`{}` is not revoked; run `gitspace delegate revoke` first",
            record.name
        )));
    }
    if uses != 1 {
        return Err(ApiError::invalid(
            "`uses`",
            "a delegate comes back once by a token",
        ));
    }
    Ok(record.id)
}
