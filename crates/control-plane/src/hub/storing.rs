//! What a delegate says, to the orchestrator.

use super::HubDeps;
use crate::{identity::delegate_keys::Refusal, orchestrator::OrchestratorError};
use daemon::ErrorChain;
use std::sync::Arc;
use wire::{
    control::{DisconnectCode, Down, Up},
    ids::DelegateUuid,
};

/// What came of bodies that were handed over.
pub(super) struct Stored {
    /// One for each that is stored, in order: what the delegate is told of it, where anything.
    pub(super) answers: Vec<Option<Down>>,
    /// Why the rest is not, and the connection ends.
    pub(super) refused: Option<Refusal>,
}

/// Bodies to the orchestrator, in order.
pub(super) async fn store(deps: Arc<HubDeps>, delegate: DelegateUuid, said: Vec<Up>) -> Stored {
    let (answers, refused) = match deps.orchestrator.said(delegate, said).await {
        Ok(heard) => (heard.answers, heard.refused),
        Err(error) => (Vec::new(), Some(error)),
    };
    let refused = refused.map(|error| {
        let code = match &error {
            OrchestratorError::Stopping => DisconnectCode::GoingAway,
            OrchestratorError::Store { .. } => DisconnectCode::NotStored,
            OrchestratorError::Gap { .. } => DisconnectCode::Protocol,
            OrchestratorError::UnknownDelegate => DisconnectCode::UnknownDelegate,
        };
        tracing::warn!(%delegate, error = %ErrorChain(&error), "Cannot store what a delegate said");
        Refusal::new(code, ErrorChain(&error).to_string(), None)
    });
    Stored { answers, refused }
}
