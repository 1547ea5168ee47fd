//! Jobs: work that outlives the connection that asked for it, by the caller's id.
//!
//! A job is one task of the tracker and one [`JobLog`]. The same id again changes nothing. An ended job is kept until it is deleted, or
//! until too many others have ended after it.
//!
//! Invariant: the last event of every log is `exited`, whatever happened.

mod clone;
mod command;
mod destination;
mod git_error;
mod log;
mod once;
mod output;
mod ssh;

pub(crate) use log::JobLog;

use crate::agent::{Agent, lock};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};
use tokio_util::sync::CancellationToken;
use wire::{
    agent::{JobOutcome, JobSpec},
    failure::{Failure, FailureCode},
    gitspace::GitCredential,
    problem::Problem,
};

/// Running at once. The runner has one or two at a time.
const MAX_RUNNING: usize = 32;
/// Ended ones that nobody has deleted.
const MAX_ENDED: usize = 64;
const MAX_ID: usize = 128;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) log: JobLog,
    cancel: CancellationToken,
    /// A clone's own, given to its git alone.
    pub(crate) credentials: Vec<GitCredential>,
}

/// All jobs, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: Mutex<VecDeque<Arc<Job>>>,
}

impl Jobs {
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Job>> {
        lock(&self.jobs).iter().find(|job| job.id == id).cloned()
    }

    /// Starts a job, unless the id is known.
    pub(crate) fn put(agent: &Arc<Agent>, id: &str, spec: JobSpec) -> Result<(), Problem> {
        check_id(id)?;
        let credentials = match &spec {
            JobSpec::Clone(clone) => clone.credentials.clone(),
            JobSpec::Command(_) => Vec::new(),
        };
        let job = Arc::new(Job {
            id: id.to_owned(),
            log: JobLog::default(),
            cancel: CancellationToken::new(),
            credentials,
        });
        {
            let mut jobs = lock(&agent.jobs.jobs);
            if jobs.iter().any(|job| job.id == id) {
                return Ok(());
            }
            let running = jobs.iter().filter(|job| !job.log.is_ended()).count();
            if running >= MAX_RUNNING {
                return Err(Problem::new(
                    "too_many_jobs",
                    format!("{running} jobs are running already"),
                ));
            }
            if jobs.len() - running >= MAX_ENDED
                && let Some(oldest) = jobs.iter().position(|job| job.log.is_ended())
            {
                jobs.remove(oldest);
            }
            jobs.push_back(Arc::clone(&job));
        }
        // Ends the log even where the task panics.
        let guard = EndOfLog(Arc::clone(&job));
        let shared = Arc::clone(agent);
        agent.tasks.spawn(async move {
            let outcome = match spec {
                JobSpec::Clone(clone) => clone::run(&shared, &job, clone).await,
                JobSpec::Command(command) => once::run(&shared, &job, command).await,
            };
            guard.0.log.end(outcome);
        });
        Ok(())
    }

    /// Cancels a running job, forgets an ended one.
    pub(crate) fn delete(&self, id: &str) {
        let mut jobs = lock(&self.jobs);
        let Some(index) = jobs.iter().position(|job| job.id == id) else {
            return;
        };
        let ended = jobs.get(index).is_some_and(|job| {
            job.cancel.cancel();
            job.log.is_ended()
        });
        if ended {
            jobs.remove(index);
        }
    }
}

impl Job {
    pub(crate) fn cancelled(&self) -> impl Future<Output = ()> + '_ {
        self.cancel.cancelled()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

struct EndOfLog(Arc<Job>);

impl Drop for EndOfLog {
    fn drop(&mut self) {
        // Does nothing to a log that has ended.
        self.0.log.end(JobOutcome::Failed {
            exit_code: None,
            failure: Failure::new(FailureCode::Internal, "the job broke off")
                .hint("see the log of the gitspace's container"),
        });
    }
}

/// The id goes onto a command line (the credential helper's), so it is held to plain characters.
fn check_id(id: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !id.is_empty() && id.len() <= MAX_ID && !id.starts_with('-') && id.bytes().all(plain) {
        Ok(())
    } else {
        Err(Problem::new(
            "invalid_job",
            format!("a job id has 1 to {MAX_ID} letters, digits, `-`, `_` or `.`"),
        ))
    }
}
