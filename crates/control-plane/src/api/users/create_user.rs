//! `POST /users`

use super::show_user;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, check_label, check_name},
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::IdsExt as _;
use http::StatusCode;
use store::{StoreError, UserRecord};
use wire::{
    api::{CreateUser, User},
    problem::Problem,
};

/// Make a user. For administrators.
#[utoipa::path(post, path = "/users", tag = "users", request_body = CreateUser, responses(
    (status = 201, body = User),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 403, body = Problem),
    (status = 409, description = "The name is taken.", body = Problem),
))]
pub(crate) async fn create_user(
    State(state): State<AppState>,
    caller: Caller,
    Body(body): Body<CreateUser>,
) -> Result<(StatusCode, Json<User>), ApiError> {
    caller.require_admin()?;
    check_name("name", &body.name, 64)?;
    if let Some(email) = &body.email {
        check_label("email", email, 254)?;
        if !email.contains('@') || email.contains(char::is_whitespace) {
            return Err(ApiError::invalid("`email`", "it is not an address"));
        }
    }
    let user = UserRecord {
        id: state.ids.typed(),
        name: body.name,
        email: body.email,
        role: body.role,
        disabled: false,
        created: state.now(),
    };
    match state.store.create_user(&user).await {
        Ok(()) => {
            tracing::info!(by = %caller.user.id, user = %user.id, "User made");
            Ok((StatusCode::CREATED, Json(show_user(user))))
        }
        Err(StoreError::Conflict { .. }) => Err(ApiError::Taken {
            what: format!("the name `{}`", user.name),
            hint: None,
        }),
        Err(error) => Err(error.into()),
    }
}
