//! `GET /ssh/known-hosts`

use super::error::ApiError;
use crate::{identity::caller::Caller, state::AppState};
use axum::extract::State;
use http::{HeaderName, header};
use std::collections::BTreeSet;
use store::GitspaceRecord;
use wire::{gateway::SshEndpoint, problem::Problem};

/// The host keys of what takes SSH here, as lines of a `known_hosts` file: those of the gateways that are connected, and of own gitspaces by name
/// and slug, as `ssh -J` reaches them.
#[utoipa::path(get, path = "/ssh/known-hosts", tag = "users", responses(
    (status = 200, description = "One line a key.", body = String, content_type = "text/plain"),
    (status = 401, body = Problem),
))]
pub(crate) async fn ssh_known_hosts(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let gateways = state.gateways.ssh_endpoints();
    let mut lines: BTreeSet<String> = gateways
        .iter()
        .filter_map(SshEndpoint::known_hosts_line)
        .collect();
    let records = state.store.live_gitspaces().await?;
    let own = records
        .into_iter()
        .filter(|record| record.owner == caller.user.id);
    lines.extend(own.filter_map(gitspace_line));
    let text = lines.into_iter().map(|line| line + "\n").collect();
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text))
}

fn gitspace_line(record: GitspaceRecord) -> Option<String> {
    let key = record.observed?.dev_container?.ssh_host_key?;
    Some(format!("{},{} {key}", record.name, record.slug))
}
