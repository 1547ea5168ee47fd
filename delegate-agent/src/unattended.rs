//! The first start of a host that nobody sits at: with a join token among its credentials it enrols itself.
//!
//! It tries for ever while the control plane cannot be reached or cannot answer, and says so in its status. A join token that is refused
//! ends it: another try would be refused too. The credential is not its own, and stays where it is; an identity that is there is never replaced.

use crate::{
    ask::CallError,
    enrol::{EnrolError, Enrolment, enrol},
    identity::{Identity, IdentityFile},
    status::{Board, LastError},
    transport::Transport,
};
use daemon::{Clock, ErrorChain, Hint as _};
use http::StatusCode;
use link::{
    backoff::{Rng, delay},
    limits::BACKOFF_CAP,
};
use std::sync::Arc;
use wire::{control::DisconnectCode, secret::Secret};

/// What the first start needs.
#[derive(Debug)]
pub(crate) struct FirstStart {
    pub(crate) transport: Transport,
    pub(crate) file: IdentityFile,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) join_token: Secret,
    pub(crate) board: Board,
    pub(crate) clock: Arc<dyn Clock>,
    /// Spreads the tries of many hosts.
    pub(crate) seed: u64,
}

impl FirstStart {
    /// Until this host is enrolled.
    ///
    /// # Errors
    /// The control plane refuses, or the identity cannot be kept: a person has to act.
    pub(crate) async fn run(self) -> Result<Identity, EnrolError> {
        let mut rng = Rng::new(self.seed);
        let mut attempt = 0_u32;
        loop {
            self.board.update_link(|status| {
                status.is_enrolling = true;
                status.attempt = attempt;
                status.next_try = None;
            });
            let enrolment = Enrolment {
                transport: &self.transport,
                file: &self.file,
                name: &self.name,
                tags: &self.tags,
                join_token: self.join_token.clone(),
                again: false,
            };
            let step = |step: &str| tracing::info!(step, "Enrolling");
            let error = match enrol(enrolment, &*self.clock, step).await {
                Ok(identity) => {
                    self.board.update_link(|status| status.is_enrolling = false);
                    return Ok(identity);
                }
                Err(error) if !may_pass(&error) => return Err(error),
                Err(error) => error,
            };
            attempt = attempt.saturating_add(1);
            let pause = delay(attempt, BACKOFF_CAP, &mut rng);
            let now = self.clock.now();
            tracing::warn!(error = %ErrorChain(&error), hint = error.hint(), retry_in_ms = pause.as_millis(), "Not enrolled yet");
            self.board.update_link(|status| {
                status.attempt = attempt;
                status.next_try = now.checked_add(pause).ok();
                status.last_error = Some(LastError {
                    code: None,
                    message: ErrorChain(&error).to_string(),
                    hint: error.hint(),
                    at: now,
                });
            });
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether the same may succeed later: nobody answered, or something else did, or a clock is wrong, which time mends on a young host.
fn may_pass(error: &EnrolError) -> bool {
    match error {
        EnrolError::Call(CallError::Ask(_) | CallError::NotAControlPlane { .. }) => true,
        EnrolError::Call(CallError::Refused { status, problem }) => {
            status.is_server_error()
                || *status == StatusCode::TOO_MANY_REQUESTS
                || problem.code == DisconnectCode::ClockSkew.as_str()
        }
        EnrolError::Call(CallError::Request { .. })
        | EnrolError::Identity(_)
        | EnrolError::AlreadyEnrolled { .. }
        | EnrolError::NoDelegate
        | EnrolError::Sign { .. } => false,
    }
}
