//! Command jobs: a lifecycle command, as its user, with its output streamed.

use super::{
    Job,
    output::{self, Tail},
};
use crate::{
    account::Account,
    agent::{self, Agent},
    environment,
    spawn::{Bond, Group, Program, Streams, exit_code},
};
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, process::ExitStatus, sync::Arc, time::Duration};
use tokio::{process::Child, task::JoinSet};
use wire::{
    agent::{CommandJob, CommandLine, JobOutcome},
    failure::{Failure, FailureCode},
    task::LogStream,
};

/// From SIGTERM to SIGKILL.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// For output that is still in the pipes; only a daemon left behind makes us wait for the whole of it.
const DRAIN: Duration = Duration::from_millis(250);
const SHELL: &str = "/bin/sh";
/// In one parallel command.
const MAX_PARALLEL: usize = 64;

/// How a process ended.
pub(super) enum Ended {
    Exited(ExitStatus),
    Cancelled,
}

pub(super) async fn run(agent: &Arc<Agent>, job: &Arc<Job>, command: CommandJob) -> JobOutcome {
    let account = match agent::resolve(&command.user) {
        Ok(account) => account,
        Err(problem) => {
            let mut failure = Failure::new(FailureCode::PreconditionFailed, problem.message);
            failure.hint = problem.hint;
            return JobOutcome::Failed {
                exit_code: None,
                failure,
            };
        }
    };
    let config = agent.config();
    let env = environment::of_user(agent, &account, config.as_deref(), [&command.env]);
    let starter = Starter {
        job: Arc::clone(job),
        account,
        cwd: command.cwd,
        env,
    };
    match command.command {
        CommandLine::Parallel { commands } => parallel(agent, &starter, commands).await,
        simple => starter.run(agent, simple, None).await,
    }
}

#[derive(Clone)]
struct Starter {
    job: Arc<Job>,
    account: Account,
    cwd: String,
    env: environment::Environment,
}

async fn parallel(
    agent: &Arc<Agent>,
    starter: &Starter,
    commands: BTreeMap<String, CommandLine>,
) -> JobOutcome {
    if commands.len() > MAX_PARALLEL {
        return failed(Failure::new(
            FailureCode::DevcontainerUnsupported,
            format!(
                "{} parallel commands are more than {MAX_PARALLEL}",
                commands.len()
            ),
        ));
    }
    let mut running = JoinSet::new();
    for (name, command) in commands {
        let (agent, starter) = (Arc::clone(agent), starter.clone());
        running.spawn(async move { starter.run(&agent, command, Some(name)).await });
    }
    let mut first_failure = None;
    let mut cancelled = false;
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(JobOutcome::Done { .. }) => {}
            Ok(JobOutcome::Cancelled {}) => cancelled = true,
            Ok(failure @ JobOutcome::Failed { .. }) => {
                first_failure.get_or_insert(failure);
            }
            Err(error) => {
                first_failure.get_or_insert(failed(Failure::new(
                    FailureCode::Internal,
                    error.to_string(),
                )));
            }
        }
    }
    match first_failure {
        _ if cancelled => JobOutcome::Cancelled {},
        Some(failure) => failure,
        None => JobOutcome::Done { detail: None },
    }
}

fn failed(failure: Failure) -> JobOutcome {
    JobOutcome::Failed {
        exit_code: None,
        failure,
    }
}

impl Starter {
    async fn run(
        &self,
        agent: &Arc<Agent>,
        command: CommandLine,
        name: Option<String>,
    ) -> JobOutcome {
        let argv = match command {
            CommandLine::Shell { script } => vec![SHELL.to_owned(), "-c".to_owned(), script],
            CommandLine::Exec { argv } => argv,
            CommandLine::Parallel { .. } => {
                return failed(Failure::new(
                    FailureCode::DevcontainerInvalid,
                    "a parallel command holds another parallel command",
                ));
            }
        };
        let program = Program {
            argv,
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            account: self.account.clone(),
        };
        let child = match program.spawn(Streams::Output, Bond::DiesWithUs) {
            Ok(child) => child,
            Err(failure) => return failed(failure),
        };
        let tail = Tail::default();
        let what = name.as_ref().map_or_else(
            || "the command".to_owned(),
            |name| format!("the command `{name}`"),
        );
        let prefix = name.map(|name| format!("[{name}] "));
        match follow(agent, &self.job, child, prefix, &tail).await {
            Ended::Cancelled => JobOutcome::Cancelled {},
            Ended::Exited(status) if status.success() => JobOutcome::Done { detail: None },
            Ended::Exited(status) => {
                let code = exit_code(status);
                JobOutcome::Failed {
                    exit_code: Some(code),
                    failure: describe(&what, code, &tail),
                }
            }
        }
    }
}

fn describe(what: &str, code: i32, tail: &Tail) -> Failure {
    let (message, hint) = match code {
        137 => (
            format!("{what} was killed (SIGKILL)"),
            "it may have needed more memory than the gitspace has; choose a larger machine",
        ),
        129..=192 => (
            format!("{what} was ended by signal {}", code - 128),
            "see its output",
        ),
        127 => (
            format!("{what} ended with exit code 127: something it calls was not found"),
            "see its output; install what is missing in the image",
        ),
        _ => (
            format!("{what} ended with exit code {code}"),
            "see its output; open the gitspace to mend it",
        ),
    };
    let failure = Failure::new(FailureCode::LifecycleCommandFailed, message).hint(hint);
    match tail.text() {
        text if text.is_empty() => failure,
        text => failure.detail(text),
    }
}

/// Streams a child's output to the log until it has ended, or the job is cancelled.
pub(super) async fn follow(
    agent: &Arc<Agent>,
    job: &Arc<Job>,
    mut child: Child,
    prefix: Option<String>,
    tail: &Tail,
) -> Ended {
    let copies = [
        child.stdout.take().map(|pipe| {
            let copy = output::copy(
                pipe,
                LogStream::Stdout,
                prefix.clone(),
                Arc::clone(job),
                tail.clone(),
            );
            agent.tasks.spawn(copy)
        }),
        child.stderr.take().map(|pipe| {
            let copy = output::copy(
                pipe,
                LogStream::Stderr,
                prefix,
                Arc::clone(job),
                tail.clone(),
            );
            agent.tasks.spawn(copy)
        }),
    ];
    let group = Group::of(&child);
    let ended = tokio::select! {
        status = child.wait() => status,
        () = job.cancelled() => {
            if let Some(group) = group {
                group.signal(Signal::SIGTERM);
            }
            match tokio::time::timeout(CANCEL_GRACE, child.wait()).await {
                Ok(status) => {
                    // What ignored the SIGTERM, but lost its leader.
                    if let Some(group) = group {
                        group.signal(Signal::SIGKILL);
                    }
                    status
                }
                Err(_) => {
                    if let Some(group) = group {
                        group.signal(Signal::SIGKILL);
                    }
                    child.wait().await
                }
            }
        }
    };
    let drain = async {
        for copy in copies.into_iter().flatten() {
            if let Err(error) = copy.await {
                tracing::error!(%error, "Output was lost");
            }
        }
    };
    if tokio::time::timeout(DRAIN, drain).await.is_err() {
        tracing::debug!(job = %job.id, "Something the command left behind keeps its output open");
    }
    if job.is_cancelled() {
        return Ended::Cancelled;
    }
    match ended {
        Ok(status) => Ended::Exited(status),
        Err(error) => {
            tracing::error!(%error, "Cannot wait for a child");
            Ended::Cancelled
        }
    }
}
