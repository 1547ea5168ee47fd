//! What would be lost by deleting the gitspace, as git says it, asked as the remote user.

use crate::{
    agent::Agent,
    environment::{self, Environment},
    spawn::{Bond, Group, Program, Streams},
};
use http::{Response, StatusCode};
use local_rpc::server::{self, Body};
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::io::AsyncReadExt as _;
use wire::{agent::GitState, failure::FailureCode, problem::Problem};

/// For each question; a huge working tree on a slow disk takes seconds.
const DEADLINE: Duration = Duration::from_secs(20);
/// A million untracked files are counted as far as this.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;
const MAX_WORDS: u64 = 4 * 1024;

pub(crate) async fn answer(agent: &Arc<Agent>) -> Response<Body> {
    match state(agent).await {
        Ok(state) => server::json(StatusCode::OK, &state),
        Err((status, problem)) => server::problem(status, &problem),
    }
}

type Refusal = (StatusCode, Problem);

async fn state(agent: &Arc<Agent>) -> Result<GitState, Refusal> {
    let (config, account) = agent
        .remote_user()
        .map_err(|problem| (StatusCode::CONFLICT, problem))?;
    // git takes no lock, and speaks one language.
    let quiet = BTreeMap::from([
        ("GIT_OPTIONAL_LOCKS".to_owned(), Some("0".to_owned())),
        ("GIT_TERMINAL_PROMPT".to_owned(), Some("0".to_owned())),
        ("LC_ALL".to_owned(), Some("C".to_owned())),
    ]);
    let env = environment::of_user(agent, &account, Some(&config), [&quiet]);
    let ask = |arguments: &[&str]| {
        let program = Program {
            argv: ["git"]
                .iter()
                .chain(arguments)
                .map(|word| (*word).to_owned())
                .collect(),
            cwd: config.workspace_folder.clone(),
            env: Environment::clone(&env),
            account: account.clone(),
        };
        question(program)
    };
    let mut state = parse_status(&ask(&["status", "--porcelain=v2", "--branch", "-z"]).await?);
    let unpushed = ask(&["rev-list", "--count", "--branches", "--not", "--remotes"]).await?;
    state.unpushed = String::from_utf8_lossy(&unpushed)
        .trim()
        .parse()
        .unwrap_or(0);
    let stashes = ask(&["stash", "list"]).await?;
    state.stashes = count(stashes.iter().filter(|byte| **byte == b'\n').count());
    Ok(state)
}

async fn question(program: Program) -> Result<Vec<u8>, Refusal> {
    let mut child = program
        .spawn(Streams::Output, Bond::DiesWithUs)
        .map_err(|failure| {
            let (status, code) = match failure.code {
                FailureCode::ToolMissing => (StatusCode::SERVICE_UNAVAILABLE, "tool_missing"),
                _ => (StatusCode::CONFLICT, "git_failed"),
            };
            let mut problem = Problem::new(code, failure.message);
            problem.cause = failure.detail;
            problem.hint = failure.hint;
            (status, problem)
        })?;
    let group = Group::of(&child);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err((
            StatusCode::INTERNAL_SERVER_ERROR,
            Problem::new("internal", "git has no output"),
        ));
    };
    let (mut output, mut words) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (stdout.take(MAX_OUTPUT), stderr.take(MAX_WORDS));
    let asked = async {
        let (read, _) = tokio::join!(
            stdout.read_to_end(&mut output),
            stderr.read_to_end(&mut words)
        );
        read?;
        // What is over the limit is not waited for.
        drop((stdout, stderr));
        child.wait().await
    };
    let ended = tokio::time::timeout(DEADLINE, asked).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(output),
        Ok(Ok(_)) => Err((
            StatusCode::CONFLICT,
            Problem::new("git_failed", "git does not tell the state of the workspace")
                .cause(String::from_utf8_lossy(&words).trim().to_owned()),
        )),
        Ok(Err(error)) => Err((
            StatusCode::INTERNAL_SERVER_ERROR,
            Problem::new("internal", "git cannot be read").cause(error.to_string()),
        )),
        Err(_) => {
            if let Some(group) = group {
                group.signal(Signal::SIGKILL);
            }
            Err((
                StatusCode::GATEWAY_TIMEOUT,
                Problem::new(
                    "git_slow",
                    format!("git did not answer within {} s", DEADLINE.as_secs()),
                ),
            ))
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// `git status --porcelain=v2 --branch -z`.
fn parse_status(output: &[u8]) -> GitState {
    let mut state = GitState::default();
    let mut records = output.split(|byte| *byte == 0);
    while let Some(record) = records.next() {
        let record = String::from_utf8_lossy(record);
        if let Some(branch) = record.strip_prefix("# branch.head ") {
            state.branch = Some(branch.to_owned()).filter(|branch| branch != "(detached)");
        } else if let Some(commit) = record.strip_prefix("# branch.oid ") {
            state.commit = Some(commit.to_owned()).filter(|commit| commit != "(initial)");
        } else if record.starts_with("? ") {
            state.untracked = state.untracked.saturating_add(1);
        } else if record.starts_with("u ") {
            state.unstaged = state.unstaged.saturating_add(1);
        } else if let Some(change) = record
            .strip_prefix("1 ")
            .or_else(|| record.strip_prefix("2 "))
        {
            let mut kinds = change.chars();
            state.staged += u32::from(kinds.next().is_some_and(|kind| kind != '.'));
            state.unstaged += u32::from(kinds.next().is_some_and(|kind| kind != '.'));
            if record.starts_with("2 ") {
                // The old name of a renamed file is a record of its own.
                records.next();
            }
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_is_counted() {
        let output = [
            "# branch.oid 1a2b3c4d",
            "# branch.head main",
            "1 M. N... 100644 100644 100644 a a staged",
            "1 .M N... 100644 100644 100644 a a unstaged",
            "1 MM N... 100644 100644 100644 a a both",
            "2 R. N... 100644 100644 100644 a a R100 new",
            "? an old name that looks like a record",
            "u UU N... 1 2 3 4 a b c conflict",
            "? untracked",
            "",
        ]
        .join("\0");
        let state = parse_status(output.as_bytes());
        assert_eq!(
            (state.branch.as_deref(), state.commit.as_deref()),
            (Some("main"), Some("1a2b3c4d"))
        );
        assert_eq!((state.staged, state.unstaged, state.untracked), (3, 3, 1));
    }

    #[test]
    fn a_detached_head_and_a_first_commit_to_come_are_none() {
        let state = parse_status(b"# branch.oid (initial)\0# branch.head (detached)\0");
        assert_eq!((state.branch, state.commit), (None, None));
    }
}
