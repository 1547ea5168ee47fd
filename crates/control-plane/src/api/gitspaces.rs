//! Gitspaces.

pub(crate) mod act;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod grant;
pub(crate) mod link;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod ports;
pub(crate) mod show;

use super::error::ApiError;
use crate::{
    identity::caller::Caller,
    orchestrator::{self, ActionDenied, OrchestratorError},
    state::AppState,
};
use newtype_uuid::GenericUuid as _;
use store::{GitspaceRecord, UserRecord};
use uuid::Uuid;
use wire::{
    api::{Gitspace, Role},
    failure::Failure,
    gitspace::{Observed, ObservedState, PortVisibility},
    ids::GitspaceUuid,
    text::{GitspaceName, Slug},
};

const NOT_FOUND: ApiError = ApiError::NotFound { what: "gitspace" };

/// The gitspace that `caller` means by `text`: the name of an own one, an id, or a slug. Another user's does not exist, but for administrators.
pub(crate) async fn resolve(
    state: &AppState,
    caller: &Caller,
    text: &str,
) -> Result<GitspaceRecord, ApiError> {
    if let Ok(id) = Uuid::try_parse(text) {
        let found = state
            .store
            .gitspace(GitspaceUuid::from_untyped_uuid(id))
            .await?;
        return visible(caller, found);
    }
    if let Ok(name) = text.parse::<GitspaceName>() {
        let found = state.store.gitspace_by_name(caller.user.id, &name).await?;
        if found.is_some() {
            return visible(caller, found);
        }
    }
    let Ok(slug) = text.parse::<Slug>() else {
        return Err(NOT_FOUND);
    };
    visible(caller, state.store.gitspace_by_slug(&slug).await?)
}

/// The gitspace of `slug`, for whoever comes to `port` of it, and whether they come as a guest: it is somebody else's, who shares that port.
pub(crate) async fn resolve_port(
    state: &AppState,
    user: &UserRecord,
    slug: &Slug,
    port: Option<u16>,
) -> Result<(GitspaceRecord, bool), ApiError> {
    let found = state.store.gitspace_by_slug(slug).await?;
    let record = found
        .filter(|record| record.deleted.is_none())
        .ok_or(NOT_FOUND)?;
    if record.owner == user.id || user.role == Role::Admin {
        return Ok((record, false));
    }
    let shared = state.store.shared_ports(record.id).await?;
    let is_shared = shared.iter().any(|shared| {
        let effective = shared.visibility.min(state.max_port_visibility);
        Some(shared.port) == port && effective >= PortVisibility::Project
    });
    if is_shared {
        Ok((record, true))
    } else {
        Err(NOT_FOUND)
    }
}

fn visible(caller: &Caller, found: Option<GitspaceRecord>) -> Result<GitspaceRecord, ApiError> {
    found
        .filter(|record| record.deleted.is_none())
        .filter(|record| record.owner == caller.user.id || caller.is_admin())
        .ok_or(NOT_FOUND)
}

/// It runs, and something in it is wrong.
fn trouble(observed: Option<&Observed>) -> Option<Failure> {
    observed
        .filter(|observed| observed.state == ObservedState::Running)
        .and_then(|observed| observed.failure.clone())
}

/// As the API shows it.
pub(crate) fn show_record(state: &AppState, record: GitspaceRecord) -> Gitspace {
    let delegate = record
        .delegate
        .and_then(|id| state.orchestrator.delegate(id));
    let delegate_connected = delegate.as_ref().is_some_and(|delegate| delegate.connected);
    Gitspace {
        id: record.id,
        state: orchestrator::visible_state(&record),
        actions: orchestrator::actions(&record),
        reachable: orchestrator::is_reachable(&record, delegate_connected),
        url: format!("{}/", state.gateway_origins.of(&record.slug, None)),
        name: record.name,
        slug: record.slug,
        owner: record.owner_name,
        repo: record.repo,
        machine: record.machine.name,
        resources: record.machine.resources,
        desired: record.desired,
        generation: record.generation,
        phase: record.phase,
        error: record.error.or(record.waiting),
        trouble: trouble(record.observed.as_ref()),
        delegate: delegate.map(|delegate| delegate.name.clone()),
        delegate_connected,
        dev_container: record.observed.and_then(|observed| observed.dev_container),
        created: record.created,
        updated: record.updated,
    }
}

impl From<OrchestratorError> for ApiError {
    fn from(error: OrchestratorError) -> Self {
        match error {
            OrchestratorError::Stopping => Self::Unavailable {
                what: "the control plane",
                why: "it is stopping".to_owned(),
                hint: Some("try again in a moment".to_owned()),
            },
            OrchestratorError::Store { source } => Self::Store(source),
            OrchestratorError::UnknownDelegate => Self::NotFound { what: "delegate" },
            gap @ OrchestratorError::Gap { .. } => Self::internal("asking the orchestrator", gap),
        }
    }
}

impl From<ActionDenied> for ApiError {
    fn from(denied: ActionDenied) -> Self {
        let message = denied.to_string();
        match denied {
            ActionDenied::NotFound => NOT_FOUND,
            ActionDenied::Busy { phase, .. } => Self::Refused {
                code: "busy",
                message,
                why: phase.map(|phase| format!("it is at `{}`", phase.as_str())),
                hint: Some("wait until it is done, or cancel it".to_owned()),
            },
            ActionDenied::Deleting => Self::Refused {
                code: "deleting",
                message,
                why: None,
                hint: None,
            },
            ActionDenied::Orchestrator(error) => error.into(),
        }
    }
}
