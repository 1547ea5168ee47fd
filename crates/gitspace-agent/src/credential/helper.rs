//! The helper that git starts: reads git's question, asks `serve`, writes the answer.
//!
//! It runs as the user. Where it has nothing to say it says nothing, and git goes on to its next helper.

use super::{CredentialAnswer, CredentialQuery, USER_SOCKET};
use crate::command_line::CredentialRequest;
use local_rpc::{Client, ClientError};
use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(10);
const MAX_INPUT: u64 = 64 * 1024;

pub(crate) fn run(request: &CredentialRequest) -> ExitCode {
    // Credentials come from the platform: there is nothing to store or erase here.
    if request.operation != "get" {
        return ExitCode::SUCCESS;
    }
    match get(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::say(
                &mut io::stderr(),
                &format!("gitspace-agent: cannot ask for a credential: {error}\n"),
            );
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum HelperError {
    #[error("cannot talk to git: {0}")]
    Git(#[source] io::Error),
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    #[error("{0}")]
    Ask(#[source] ClientError),
}

fn get(request: &CredentialRequest) -> Result<(), HelperError> {
    let mut input = String::new();
    io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut input)
        .map_err(HelperError::Git)?;
    let mut asked: HashMap<&str, &str> = input
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let (Some(protocol), Some(host)) = (asked.remove("protocol"), asked.remove("host")) else {
        return Ok(());
    };
    let query = CredentialQuery {
        protocol: protocol.to_owned(),
        host: host.to_owned(),
        job: request.job.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(HelperError::Start)?;
    let client = Client::new(request.run_dir.join(USER_SOCKET)).with_deadline(DEADLINE);
    let answer: CredentialAnswer = match runtime.block_on(client.post("/v1/git-credential", &query))
    {
        Ok(answer) => answer,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(HelperError::Ask(error)),
    };
    // A line end would be another line of the protocol.
    let plain = |text: &str| !text.contains(['\n', '\r', '\0']);
    if !plain(&answer.username) || !plain(answer.password.expose()) {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    write!(
        stdout,
        "username={}\npassword={}\n",
        answer.username,
        answer.password.expose()
    )
    .and_then(|()| stdout.flush())
    .map_err(HelperError::Git)
}
