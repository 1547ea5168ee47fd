//! `GET /ssh/known-hosts`

use super::error::ApiError;
use crate::{identity::caller::Caller, state::AppState};
use axum::extract::State;
use http::{HeaderName, header};
use std::collections::BTreeSet;
use wire::problem::Problem;

/// The host keys of what takes SSH here, as lines of a `known_hosts` file: those of the gateways that are connected.
#[utoipa::path(get, path = "/ssh/known-hosts", tag = "users", responses(
    (status = 200, description = "One line a key.", body = String, content_type = "text/plain"),
    (status = 401, body = Problem),
))]
pub(crate) async fn ssh_known_hosts(
    State(state): State<AppState>,
    _caller: Caller,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let lines: BTreeSet<String> = state
        .gateways
        .ssh_endpoints()
        .iter()
        .filter_map(wire::gateway::SshEndpoint::known_hosts_line)
        .collect();
    let text = lines.into_iter().map(|line| line + "\n").collect();
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text))
}
