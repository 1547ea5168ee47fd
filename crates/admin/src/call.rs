//! Single calls to a running daemon that only some daemons answer.

use crate::{CommandError, RunAdmin};
use camino::Utf8PathBuf;
use local_rpc::Client;
use serde::{Deserialize, de::DeserializeOwned};
use std::time::Duration;
use wire::control::ProbeReport;

/// Asks the running daemon; the answer is its own.
///
/// # Errors
/// See [`CommandError`].
pub(crate) async fn post<T: DeserializeOwned>(
    at: RunAdmin<'_>,
    path: &str,
    limit: Duration,
) -> Result<T, CommandError> {
    Client::new(at.socket)
        .with_deadline(limit)
        .post(path, &())
        .await
        .map_err(|source| CommandError::of_call(at.daemon, source))
}

/// A token is written to disk before it is answered; a probe waits for what may not answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What `POST /admin-token` answers.
#[derive(Debug, Deserialize)]
struct AdminTokenFile {
    file: Utf8PathBuf,
}

/// Probes the way from a running daemon in both directions.
///
/// # Errors
/// See [`CommandError`].
pub(crate) async fn probe(at: RunAdmin<'_>) -> Result<ProbeReport, CommandError> {
    Client::new(at.socket)
        .with_deadline(ANSWER_LIMIT)
        .post("/probe", &())
        .await
        .map_err(|source| CommandError::of_call(at.daemon, source))
}

/// Makes a token for the first administrator; the answer is the file it lies in.
///
/// # Errors
/// See [`CommandError`].
pub(crate) async fn admin_token(at: RunAdmin<'_>) -> Result<Utf8PathBuf, CommandError> {
    let made: AdminTokenFile = post(at, "/admin-token", ANSWER_LIMIT).await?;
    Ok(made.file)
}
