//! `POST /gateways/wake`

use super::{
    Gateway,
    held::{Held, held},
};
use crate::{
    api::{error::ApiError, extract::Body, guard::Trace},
    orchestrator::{self, ActionDenied},
    state::AppState,
};
use axum::{Json, extract::State};
use wire::{
    api::GitspaceAction,
    gateway::{WakeRequest, WakeResponse},
    gitspace::GitspaceState,
    problem::Problem,
};

/// Start a gitspace that somebody came to, with the grant that they came with.
///
/// One that runs, or starts already, is left as it is. One that failed is not started for somebody who only came: they have to see why.
#[utoipa::path(post, path = "/gateways/wake", tag = "gateways", request_body = Object, responses(
    (status = 200, description = "`{\"state\"}`: it runs, or is being started.", body = Object),
    (status = 401, body = Problem),
    (status = 404, description = "The grant is not taken.", body = Problem),
    (status = 409, description = "It is not started: from its state, or because `wake_on_connect` is off.", body = Problem),
), security(("gateway_token" = [])))]
pub(crate) async fn wake_gitspace(
    State(state): State<AppState>,
    Gateway(gateway): Gateway,
    trace: Trace,
    Body(body): Body<WakeRequest>,
) -> Result<Json<WakeResponse>, ApiError> {
    if !state.wakes && !body.is_asked_for {
        return Err(ApiError::NotWoken {
            why: "gitspaces are not started by coming to them here (`wake_on_connect`)".to_owned(),
        });
    }
    let Held {
        claims,
        gitspace: record,
        user,
    } = held(&state, &gateway, body.grant.expose(), state.now()).await?;
    // A guest comes to what runs, and starts nothing.
    if claims.is_guest {
        return Err(ApiError::GrantRefused);
    }
    let found = orchestrator::visible_state(&record);
    let woken = match found {
        GitspaceState::Running | GitspaceState::Starting => record,
        GitspaceState::Error if !body.is_asked_for => return Err(not_woken(found)),
        GitspaceState::Stopped | GitspaceState::Uninitialized | GitspaceState::Error => {
            let started = state
                .orchestrator
                .act(record.id, GitspaceAction::Start, &user.name, trace.0)
                .await;
            match started {
                Ok(started) => started,
                // Somebody else was faster.
                Err(ActionDenied::Busy {
                    state: GitspaceState::Starting,
                    ..
                }) => record,
                Err(denied) => return Err(denied.into()),
            }
        }
        GitspaceState::Stopping
        | GitspaceState::Resetting
        | GitspaceState::Deleting
        | GitspaceState::Deleted => return Err(not_woken(found)),
    };
    tracing::info!(user = %user.id, gitspace = %woken.id, is_asked_for = body.is_asked_for, "Gitspace started at a gateway");
    let state = match orchestrator::visible_state(&woken) {
        GitspaceState::Running => GitspaceState::Running,
        _ => GitspaceState::Starting,
    };
    Ok(Json(WakeResponse { state }))
}

fn not_woken(state: GitspaceState) -> ApiError {
    ApiError::NotWoken {
        why: format!("the gitspace is {state}"),
    }
}
