//! Lines that were cut, opened again.

use crate::{api::Entry, cmd::Context, error::CliError};
use std::time::Duration;
use tokio::time::sleep;

pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How the gateway says that a gitspace is down: what ran in it is gone.
const NOT_RUNNING: &str = "gitspace_not_running";

pub(crate) fn longer(wait: Duration) -> Duration {
    (wait * 2).min(LONGEST_WAIT)
}

/// Opens a line of the gitspace `name` anew, after `wait`. Goes on trying until there is no sense in it.
pub(crate) async fn again<T>(
    context: &Context,
    name: &str,
    mut wait: Duration,
    open: impl AsyncFn(&Entry) -> Result<T, CliError>,
) -> Result<T, CliError> {
    loop {
        sleep(wait.mul_f64(0.5 + context.api.client().chance() / 2.0)).await;
        wait = longer(wait);
        // The old grant may have expired meanwhile.
        let opened = async {
            let entry = context.api.grant(name).await?;
            open(&entry).await
        };
        match opened.await {
            Err(CliError::Request(error)) if error.code() == Some(NOT_RUNNING) => {
                return Err(CliError::Request(error));
            }
            Err(CliError::Request(error)) if error.is_passing() => {}
            opened => return opened,
        }
    }
}
