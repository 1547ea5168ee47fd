//! Grants of connections that are open for longer than a grant lasts: asked for anew in time.
//!
//! A page's WebSocket or a long command would end with the hour otherwise, though nobody has taken anything away. The next grant has the id of
//! the one before, so that whoever revokes one revokes both. Where the control plane gives none, or cannot be asked until then, the connection
//! ends with its grant.

use crate::{
    ask::{AskError, ask},
    authorize::verified,
    endpoint::Endpoint,
    gateway::Shared,
    live::Due,
};
use daemon::ErrorChain;
use jiff::SignedDuration;
use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use wire::{
    gateway::{GrantClaims, RenewRequest, RenewResponse},
    secret::Secret,
};

const PATH: &str = "/api/v1/gateways/renew";
/// How long before the end of a grant the next one is asked for, of whatever is open under it.
pub(crate) const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(10);
/// How often it is looked whose turn it is.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Clone)]
enum Renewed {
    Next(Arc<GrantClaims>, Arc<str>),
    /// There is none.
    Refused,
    /// Nobody knows.
    Unknown,
}

pub(crate) async fn run(
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    drain: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = drain.cancelled() => return Ok(()),
        }
        let due = shared.census.due_for_renewal(shared.clock.now());
        let all = renew_all(&shared, &endpoint, due);
        if drain.run_until_cancelled(all).await.is_none() {
            return Ok(());
        }
    }
}

/// A browser's page has many connections under one grant, which is asked about once.
async fn renew_all(shared: &Shared, endpoint: &Endpoint, due: Vec<Due>) {
    let mut asked: HashMap<Arc<str>, Renewed> = HashMap::new();
    for Due { live, token } in due {
        let renewed = match asked.get(&token) {
            Some(renewed) => renewed.clone(),
            None => {
                let renewed = renew(shared, endpoint, &token).await;
                asked.insert(token.clone(), renewed.clone());
                renewed
            }
        };
        match renewed {
            Renewed::Next(claims, next) => live.renew(&token, &claims, next),
            Renewed::Refused => live.renew_no_more(&token),
            // The others would not be answered either, and have their turn again soon.
            Renewed::Unknown => return,
        }
    }
}

async fn renew(shared: &Shared, endpoint: &Endpoint, token: &str) -> Renewed {
    let question = RenewRequest {
        grant: Secret::new(token),
    };
    let answer = match ask::<_, RenewResponse>(endpoint, PATH, &question).await {
        Ok(answer) => answer,
        Err(AskError::Status { status, problem }) if status.is_client_error() => {
            let said = problem.map(|problem| problem.to_string());
            tracing::info!(
                said,
                "A grant is not renewed: what is open under it ends with it"
            );
            return Renewed::Refused;
        }
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "Cannot ask for the next grant of what is open");
            return Renewed::Unknown;
        }
    };
    match verified(&shared.known, answer.grant.expose(), shared.clock.now()) {
        Ok(claims) => Renewed::Next(claims, answer.grant.expose().into()),
        Err(refusal) => {
            tracing::warn!(error = %ErrorChain(&refusal), "The control plane gave a next grant that does not hold");
            Renewed::Refused
        }
    }
}
