//! What it means that gitspace-agent does not answer, and what to do about it.
//!
//! The hints are for a user who cannot see the host. They name actions that change something: a `start` of a gitspace that runs does
//! nothing, a stop and a start make the container's processes and the agent's folder anew, a reset makes the container anew.

use crate::docker::{ContainerFacts, KILLED};
use local_rpc::ClientError;
use std::io::ErrorKind;
use wire::failure::{Failure, FailureCode};

const MAKE_ANEW: &str = "stop the gitspace and start it again: that makes its agent's folder anew";
const COMES_BACK: &str = "the agent is started again by itself; where it stays away, the memory of the gitspace may be used up: stop it and \
     start it again, on a machine with more memory";
const BUSY: &str =
    "the gitspace may be out of CPU or memory: end something in it, or stop it and start it again";
const REPLACED: &str = "something in the gitspace has taken the place of its agent: stop it and start it again; if it stays so, reset it";
const REFUSED: &str = "the runner and the agent do not understand each other: reset the gitspace, which gives it the runner's own agent";

/// Why `what` did not work: the agent could not be reached, or said no.
pub(crate) fn failure_of(what: &str, error: &ClientError) -> Failure {
    let message = format!("cannot {what}");
    let chain = daemon::ErrorChain(error).to_string();
    if error.is_unreachable() {
        return Failure::new(FailureCode::AgentUnreachable, message)
            .detail(chain)
            .hint(hint(error));
    }
    let problem = error.problem();
    let detail = problem
        .and_then(|problem| problem.cause.as_ref())
        .map_or_else(|| chain.clone(), |cause| format!("{chain}: {cause}"));
    let told = problem.and_then(|problem| problem.hint.clone());
    Failure::new(FailureCode::Internal, message)
        .detail(detail)
        .hint(told.unwrap_or_else(|| hint(error).to_owned()))
}

/// What a user can do about it.
pub(crate) fn hint(error: &ClientError) -> &'static str {
    match error {
        ClientError::Connect { source, .. } => match source.kind() {
            ErrorKind::NotFound => MAKE_ANEW,
            ErrorKind::ConnectionRefused => COMES_BACK,
            // Its queue is full of callers that it does not take.
            ErrorKind::WouldBlock => BUSY,
            _ => REPLACED,
        },
        ClientError::Timeout { .. } | ClientError::Protocol { .. } => BUSY,
        ClientError::Status { .. } if error.is_unreachable() => COMES_BACK,
        ClientError::Status { .. } => REFUSED,
        ClientError::TooLarge { .. } | ClientError::Decode { .. } => REPLACED,
    }
}

/// A container that ended before its agent answered.
pub(crate) fn ended_early(facts: &ContainerFacts, log: &str) -> Failure {
    let detail = format!("{}{log}", facts.error);
    if facts.ended_for_memory() {
        return Failure::new(
            FailureCode::OutOfMemory,
            "the container's memory was used up before its agent answered",
        )
        .detail(detail)
        .hint("choose a machine with more memory, then start the gitspace again");
    }
    let lower = detail.to_lowercase();
    let hint = if lower.contains("exec format error") {
        "the runner's `agent_binary` is not for this host's kind of processor: install the gitspace-agent of the runner's package"
    } else if matches!(facts.exit_code, 0 | KILLED | 143) {
        "it was ended from outside: start the gitspace again"
    } else {
        "the detail has the last words of its first process; if it stays so, reset the gitspace"
    };
    Failure::new(
        FailureCode::ContainerExited,
        format!(
            "the container ended with code {} before its agent answered",
            facts.exit_code
        ),
    )
    .detail(detail)
    .hint(hint)
}

/// What a silence is where the container is not there, or does not run, any more.
pub(crate) fn with_container(failure: Failure, facts: Option<&ContainerFacts>) -> Failure {
    let Some(facts) = facts else {
        return Failure::new(
            failure.code,
            format!(
                "{}: its container was removed from the host",
                failure.message
            ),
        )
        .detail(failure.detail.unwrap_or_default())
        .hint("start the gitspace again: the container is made again from its workspace");
    };
    if facts.running {
        return failure;
    }
    if facts.ended_for_memory() {
        return Failure::new(
            FailureCode::OutOfMemory,
            format!(
                "{}: the container ended because its memory was used up",
                failure.message
            ),
        )
        .detail(failure.detail.unwrap_or_default())
        .hint("choose a machine with more memory, then start the gitspace again");
    }
    Failure::new(
        failure.code,
        format!(
            "{}: its container ended with exit code {}",
            failure.message, facts.exit_code
        ),
    )
    .detail(failure.detail.unwrap_or_default())
    .hint("start the gitspace again")
}

#[cfg(test)]
pub(crate) fn facts(running: bool, oom_killed: bool, exit_code: i64) -> ContainerFacts {
    ContainerFacts {
        id: "c".to_owned(),
        running,
        exit_code,
        oom_killed,
        error: String::new(),
        started_at: String::new(),
        finished_at: "2026-01-01T00:00:10.123456789Z".to_owned(),
        limits: wire::gitspace::Resources {
            cpu_millis: 0,
            memory_bytes: 0,
            pids: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io, sync::Arc, time::Duration};
    use wire::problem::Problem;

    fn connect(kind: ErrorKind) -> ClientError {
        ClientError::Connect {
            target: Arc::from("control.sock"),
            source: io::Error::from(kind),
        }
    }

    fn status(code: u16, hint: Option<&str>) -> ClientError {
        let problem = Problem::new("code", "words");
        ClientError::Status {
            target: Arc::from("control.sock"),
            what: Arc::from("GET /"),
            status: http::StatusCode::from_u16(code).unwrap(),
            problem: Box::new(match hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            }),
        }
    }

    #[test]
    fn each_silence_of_an_agent_has_the_hint_that_helps() {
        let timeout = ClientError::Timeout {
            target: Arc::from("control.sock"),
            what: Arc::from("GET /"),
            limit: Duration::from_secs(1),
        };
        for (error, code, hint) in [
            (
                connect(ErrorKind::NotFound),
                FailureCode::AgentUnreachable,
                MAKE_ANEW,
            ),
            (
                connect(ErrorKind::ConnectionRefused),
                FailureCode::AgentUnreachable,
                COMES_BACK,
            ),
            (
                connect(ErrorKind::PermissionDenied),
                FailureCode::AgentUnreachable,
                REPLACED,
            ),
            (timeout, FailureCode::AgentUnreachable, BUSY),
            (status(503, None), FailureCode::AgentUnreachable, COMES_BACK),
            // It answered: it is not unreachable, and another try is the same.
            (status(400, None), FailureCode::Internal, REFUSED),
            (
                status(400, Some("its own")),
                FailureCode::Internal,
                "its own",
            ),
        ] {
            let failure = failure_of("do it", &error);
            assert_eq!(failure.code, code, "{error:?}");
            assert_eq!(failure.hint.as_deref(), Some(hint), "{error:?}");
            assert!(failure.detail.is_some());
        }
    }

    #[test]
    fn a_container_that_ended_is_the_cause_and_not_its_silent_agent() {
        let silent = || failure_of("do it", &connect(ErrorKind::ConnectionRefused));
        assert_eq!(
            with_container(silent(), Some(&facts(true, false, 0))),
            silent()
        );
        let gone = with_container(silent(), None);
        assert!(gone.message.contains("removed"), "{gone:?}");
        let ended = with_container(silent(), Some(&facts(false, false, 1)));
        assert!(ended.message.contains("exit code 1"), "{ended:?}");
        let memory = with_container(silent(), Some(&facts(false, true, KILLED)));
        assert_eq!(memory.code, FailureCode::OutOfMemory);
        for failure in [gone, ended, memory] {
            assert_ne!(failure.hint.as_deref(), Some(COMES_BACK), "{failure:?}");
        }
    }

    #[test]
    fn a_container_that_ended_before_its_agent_answered_says_why() {
        let hint = |facts: &ContainerFacts, log: &str| ended_early(facts, log).hint.unwrap();
        assert!(hint(&facts(false, true, KILLED), "").contains("more memory"));
        assert!(hint(&facts(false, false, 1), "exec format error").contains("agent_binary"));
        assert!(hint(&facts(false, false, 143), "").contains("from outside"));
        assert!(hint(&facts(false, false, 1), "panicked").contains("detail"));
    }
}
