//! Delegates and join tokens.

pub(crate) mod challenge_key;
pub(crate) mod check_key;
pub(crate) mod create_join_token;
pub(crate) mod enroll;
mod key;
pub(crate) mod list_delegates;
pub(crate) mod list_join_tokens;
pub(crate) mod probe_delegate;
pub(crate) mod propose_key;
pub(crate) mod remove_unaccounted;
pub(crate) mod revoke_delegate;
pub(crate) mod revoke_join_token;
pub(crate) mod show_delegate;
pub(crate) mod use_key;

use super::error::ApiError;
use crate::{identity::delegate_keys, orchestrator::TaskSink as _, state::AppState};
use std::collections::BTreeMap;
use store::{DelegateRecord, JoinTokenRecord};
use wire::{
    api::{DataPath, Delegate, JoinToken, UnaccountedGitspace},
    ids::DelegateUuid,
};

const MAX_TAGS: usize = 64;
const MAX_TAG: usize = 64;

/// Tags of a delegate, or selectors that are compared with them.
pub(crate) fn check_tags(what: &str, tags: &[String]) -> Result<(), ApiError> {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '=' | '/');
    if tags.len() > MAX_TAGS {
        return Err(ApiError::invalid(
            format!("`{what}`"),
            format!("there are {}; {MAX_TAGS} are the most", tags.len()),
        ));
    }
    match tags
        .iter()
        .position(|tag| tag.is_empty() || tag.len() > MAX_TAG || !tag.chars().all(plain))
    {
        None => Ok(()),
        Some(index) => Err(ApiError::invalid(
            format!("`{what}[{index}]`"),
            format!("1 to {MAX_TAG} letters, digits and `.`, `_`, `-`, `:`, `=`, `/` are taken"),
        )),
    }
}

fn show_join_token(record: JoinTokenRecord) -> JoinToken {
    JoinToken {
        id: record.id,
        token: None,
        comment: record.comment,
        delegate: record.delegate,
        uses_left: record.uses_left,
        exp: record.exp,
        revoked: record.revoked,
        created: record.created,
    }
}

/// Gitspaces placed on each delegate.
async fn placed(state: &AppState) -> Result<BTreeMap<DelegateUuid, u32>, ApiError> {
    let mut counts = BTreeMap::new();
    for gitspace in state.store.live_gitspaces().await? {
        if let Some(delegate) = gitspace.delegate {
            *counts.entry(delegate).or_default() += 1;
        }
    }
    Ok(counts)
}

/// `data_path` is the caller's: of one delegate with all its parts, of many without.
fn show(
    state: &AppState,
    record: DelegateRecord,
    gitspaces: u32,
    data_path: Option<DataPath>,
) -> Delegate {
    let view = state.orchestrator.delegate(record.id);
    Delegate {
        last_refused: state.hub.refused(record.id),
        cloned: state.hub.cloned(record.id, state.now()),
        connected: view.as_ref().is_some_and(|view| view.connected),
        draining: view.as_ref().is_some_and(|view| view.draining),
        runner_ready: view.as_ref().is_some_and(|view| view.runner_ready),
        failed_starts: view
            .as_ref()
            .map_or(0, |view| view.starts.failed_in_a_row()),
        suspect_until: view
            .as_ref()
            .and_then(|view| view.starts.suspect_until())
            .filter(|until| state.now() < *until),
        key: Some(delegate_keys::state(&record)),
        out_of_rotation: view
            .as_ref()
            .and_then(|view| {
                view.starts
                    .out_because(state.hub.probed(record.id), state.now())
            })
            .map(|because| because.to_string()),
        data_path,
        id: record.id,
        name: record.name,
        tags: record.tags,
        revoked: record.revoked,
        version: record.version,
        inventory: record.inventory,
        gitspaces,
        last_seen: record.last_seen,
        last_disconnect: record.last_disconnect,
        unaccounted_gitspaces: view
            .iter()
            .flat_map(|view| &view.unaccounted)
            .map(|(id, held)| UnaccountedGitspace {
                id: *id,
                state: held.state,
                since: held.since,
                removing: held.removing,
            })
            .collect(),
        created: record.created,
    }
}
