//! `PATCH /users/{user}`

use super::show_user;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, Param},
    },
    identity::{caller::Caller, grants},
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::{Role, UpdateUser, User},
    gateway::RevokedSubject,
    ids::UserUuid,
    problem::Problem,
};

/// Disable or enable a user, or change the role. For administrators.
#[utoipa::path(patch, path = "/users/{user}", tag = "users",
    params(("user" = uuid::Uuid, Path)), request_body = UpdateUser, responses(
    (status = 200, body = User),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "An administrator cannot lock himself out.", body = Problem),
))]
pub(crate) async fn update_user(
    State(state): State<AppState>,
    caller: Caller,
    Param(user): Param<UserUuid>,
    Body(body): Body<UpdateUser>,
) -> Result<Json<User>, ApiError> {
    caller.require_admin()?;
    let locks_out =
        body.disabled == Some(true) || body.role.is_some_and(|role| role != Role::Admin);
    if user == caller.user.id && locks_out {
        return Err(ApiError::Refused {
            code: "own_account",
            message: "an administrator does not disable or demote the own account".to_owned(),
            why: Some("nobody might be left who can undo it".to_owned()),
            hint: Some("let another administrator do it".to_owned()),
        });
    }
    let record = state
        .store
        .update_user(user, body.role, body.disabled)
        .await?;
    if locks_out {
        // A former administrator's grants can be for other people's gitspaces.
        grants::revoke(&state, RevokedSubject::User { user }).await?;
    }
    if record.disabled {
        state.store.delete_sessions_of(user).await?;
    }
    tracing::info!(by = %caller.user.id, %user, disabled = record.disabled, role = ?record.role, "User changed");
    Ok(Json(show_user(record)))
}
