//! A credential that was proven, and the grants that it is good for.

use super::{board::Live, listener::Service};
use crate::{
    ask::{AskError, ask},
    authorize::authorize,
    renewal::RENEW_BEFORE,
};
use daemon::ErrorChain;
use hyper::StatusCode;
use jiff::SignedDuration;
use std::{convert::Infallible, time::Duration};
use wire::{
    gateway::{GrantClaims, SshCredential, SshGrant, SshQuestion, SshVerdict},
    ids::UserUuid,
    runner::DialTarget,
};

const PATH: &str = "/api/v1/gateways/ssh";
/// How often it is looked whether one is due, and asked again where the control plane did not answer: more often as the end comes near.
const LOOK_MOST: Duration = Duration::from_secs(1);
const LOOK_LEAST: Duration = Duration::from_secs(30);

/// Whether the holder of a credential that is not proven yet may go on to prove it.
pub(super) async fn may_go_on(
    service: &Service,
    credential: SshCredential,
) -> Result<bool, AskError> {
    let question = SshQuestion {
        credential,
        proven: false,
        gitspace: None,
    };
    match ask::<_, SshVerdict>(&service.endpoint, PATH, &question).await {
        Ok(_) => Ok(true),
        Err(error) if is_refusal(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_refusal(error: &AskError) -> bool {
    matches!(error, AskError::Status { status: StatusCode::NOT_FOUND, problem: Some(problem) }
        if problem.code == "ssh_refused")
}

#[derive(Debug)]
pub(super) struct Permit {
    credential: SshCredential,
    pub(super) user: UserUuid,
    pub(super) user_name: String,
}

impl Permit {
    /// For a credential that was proven: who has it, and a grant where `gitspace` is one of theirs. `None` where it is nobody's.
    pub(super) async fn get(
        service: &Service,
        credential: SshCredential,
        gitspace: &str,
    ) -> Result<Option<(Self, Option<SshGrant>)>, AskError> {
        let Some(verdict) = verdict(service, &credential, gitspace).await? else {
            return Ok(None);
        };
        let Some(user) = verdict.user else {
            return Ok(None);
        };
        let permit = Self {
            credential,
            user,
            user_name: verdict.user_name.unwrap_or_default(),
        };
        Ok(Some((permit, verdict.grant)))
    }

    /// `None` where there is no such gitspace for this user, or nothing for this credential any more.
    pub(super) async fn grant(
        &self,
        service: &Service,
        gitspace: &str,
    ) -> Result<Option<SshGrant>, AskError> {
        let verdict = verdict(service, &self.credential, gitspace).await?;
        Ok(verdict.and_then(|verdict| verdict.grant))
    }

    /// Has the next grant in time, for everything that `live` holds; ends it where there is none. Where the control plane cannot be asked,
    /// the end of the grant ends it.
    pub(super) async fn renew(&self, service: &Service, live: &Live) -> Infallible {
        loop {
            let now = service.shared.clock.now();
            let mut wait = LOOK_LEAST;
            for claims in live.grants() {
                let left = claims.exp.duration_since(now);
                wait = wait.min(look_after(left));
                if left < RENEW_BEFORE {
                    self.renew_one(service, live, &claims).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = live.more() => {}
            }
        }
    }

    async fn renew_one(&self, service: &Service, live: &Live, claims: &GrantClaims) {
        match self.grant(service, claims.slug.as_str()).await {
            Ok(Some(grant)) => {
                let now = service.shared.clock.now();
                let token = grant.grant.expose();
                match authorize(
                    &service.shared.known,
                    &claims.slug,
                    DialTarget::Ssh,
                    token,
                    now,
                ) {
                    Ok(access) => live.replace(&access.claims),
                    Err(refusal) => live.end(refusal.to_string()),
                }
            }
            Ok(None) => live.end("access to the gitspace was taken away"),
            Err(error) => {
                tracing::warn!(user = %self.user, gitspace = %claims.gitspace, error = %ErrorChain(&error), "Cannot renew an SSH session's grant");
            }
        }
    }
}

/// A quarter of what is left.
fn look_after(left: SignedDuration) -> Duration {
    let left = Duration::try_from(left).unwrap_or_default();
    (left / 4).clamp(LOOK_MOST, LOOK_LEAST)
}

async fn verdict(
    service: &Service,
    credential: &SshCredential,
    gitspace: &str,
) -> Result<Option<SshVerdict>, AskError> {
    let question = SshQuestion {
        credential: credential.clone(),
        proven: true,
        gitspace: Some(gitspace.to_owned()),
    };
    match ask(&service.endpoint, PATH, &question).await {
        Ok(verdict) => Ok(Some(verdict)),
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
