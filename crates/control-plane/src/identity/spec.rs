//! What a task needs to know of a gitspace: its record with the owner's opened Git credentials.

use super::credentials::CredentialVault;
use crate::{orchestrator::SpecSource, state::SharedStore};
use daemon::ErrorChain;
use std::pin::Pin;
use store::GitspaceRecord;
use wire::{
    failure::{Failure, FailureCode},
    gitspace::{GitIdentity, GitspaceSpec},
};

/// Makes specifications for the orchestrator.
#[derive(Clone, Debug)]
pub(crate) struct Specs {
    store: SharedStore,
    vault: CredentialVault,
}

impl Specs {
    pub(crate) fn new(store: SharedStore, vault: CredentialVault) -> Self {
        Self { store, vault }
    }

    async fn make(&self, gitspace: &GitspaceRecord) -> Result<GitspaceSpec, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(
                FailureCode::Internal,
                "the control plane cannot read what the gitspace is made of",
            )
            .detail(ErrorChain(error).to_string())
        };
        let owner = self
            .store
            .user(gitspace.owner)
            .await
            .map_err(|error| failed(&error))?;
        let git_credentials = self.vault.of(gitspace.owner).await.map_err(|error| {
            failed(&error).hint("store the Git credential again with `gitspace`, or the control plane's `seal.key` as it was")
        })?;
        Ok(GitspaceSpec {
            name: gitspace.name.clone(),
            slug: gitspace.slug.clone(),
            repo: gitspace.repo.clone(),
            resources: gitspace.machine.resources,
            git_credentials,
            git_identity: owner.and_then(|owner| {
                owner.email.map(|email| GitIdentity {
                    name: owner.name,
                    email,
                })
            }),
        })
    }
}

impl SpecSource for Specs {
    fn spec<'a>(
        &'a self,
        gitspace: &'a GitspaceRecord,
    ) -> Pin<Box<dyn Future<Output = Result<GitspaceSpec, Failure>> + Send + 'a>> {
        Box::pin(self.make(gitspace))
    }
}
