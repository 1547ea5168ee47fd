//! Machines: what gives the Docker endpoint that gitspaces run on.
//!
//! Invariant: a provider knows nothing of devcontainer.json, and whoever makes dev containers knows of a machine only the endpoint.

pub(crate) mod host;

use crate::docker::Docker;
use futures_util::future::BoxFuture;
use wire::{failure::Failure, ids::GitspaceUuid};

/// A provider of machines.
pub(crate) trait Machine: std::fmt::Debug + Send + Sync + 'static {
    /// As infra providers are called in the API.
    fn provider(&self) -> &'static str;

    /// The Docker that the gitspace runs on; makes or wakes its machine where that is needed.
    fn docker(&self, gitspace: GitspaceUuid) -> BoxFuture<'_, Result<Docker, Failure>>;
}
