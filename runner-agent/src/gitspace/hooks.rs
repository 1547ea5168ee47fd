//! Lifecycle commands: twice never, and once only where the specification says so.
//!
//! A command runs as a job with an id that stays the same for one container (and, for `postStartCommand`, one start of it): a runner that
//! was killed in the middle finds the job and waits for it, and the agent keeps a mark in the container of each that ended well, so that a
//! runner whose ledger is lost finds that too. A job that failed is forgotten once its failure is told, so that the next
//! start tries again.

use super::work::Work;
use crate::{
    agent_client::Agent,
    docker::{Docker, KILLED},
    ledger::{ContainerRecord, Hook},
    names::digest,
};
use wire::{
    agent::{CommandJob, CommandLine, JobOutcome, JobSpec},
    failure::{Failure, FailureCode},
    task::Phase,
};

/// Output of a failed command that goes into its failure.
const TAIL: usize = 4 * 1024;

impl Work {
    pub(super) async fn hooks(&self, docker: &Docker, agent: &Agent) -> Result<(), Failure> {
        let Some(container) = self.record().container else {
            return Ok(());
        };
        let Some(id) = container.id.clone() else {
            return Ok(());
        };
        let short: String = id.chars().take(12).collect();
        for (hook, phase, name, command) in [
            (
                Hook::OnCreate,
                Phase::OnCreateCommand,
                "on-create",
                &container.on_create,
            ),
            (
                Hook::PostCreate,
                Phase::PostCreateCommand,
                "post-create",
                &container.post_create,
            ),
        ] {
            let Some(command) = command else { continue };
            if container.done.contains(&hook) {
                continue;
            }
            let job = format!("{name}-{short}");
            self.command(agent, &container, phase, &job, command)
                .await?;
            self.update_container(|container| {
                container.done.insert(hook);
            })?;
            agent.delete_job(&job).await;
        }
        let Some(command) = &container.post_start else {
            return Ok(());
        };
        let started_at = docker
            .container(&id)
            .await?
            .map(|facts| facts.started_at)
            .unwrap_or_default();
        if container.post_started.as_ref() == Some(&started_at) {
            return Ok(());
        }
        let job = format!("post-start-{short}-{}", digest(started_at.as_bytes(), 8));
        self.command(agent, &container, Phase::PostStartCommand, &job, command)
            .await?;
        self.update_container(|container| container.post_started = Some(started_at))?;
        agent.delete_job(&job).await;
        Ok(())
    }

    async fn command(
        &self,
        agent: &Agent,
        container: &ContainerRecord,
        phase: Phase,
        id: &str,
        command: &CommandLine,
    ) -> Result<(), Failure> {
        let key = self.machine_key()?;
        let spec = JobSpec::Command(CommandJob {
            user: container.remote_user.clone(),
            cwd: container.workspace_folder.clone(),
            env: container.remote_env.clone(),
            command: command.clone(),
            // One that is of an earlier version may not know what that is.
            once: container.agent == self.shared.agent_copy.hash,
        });
        daemon::fail_point("runner.hook.before");
        let result = self
            .phase(phase, async {
                let mut tail = String::new();
                let outcome = self
                    .job(
                        agent,
                        self.shared.names.dev_run_dir(&key),
                        id,
                        &spec,
                        |stream, text| {
                            self.journal.log(phase, stream, text);
                            keep_tail(&mut tail, text);
                        },
                    )
                    .await?;
                match outcome {
                    JobOutcome::Done { detail } => Ok(((), detail)),
                    JobOutcome::Failed { exit_code, failure } => {
                        Err(failed(phase, exit_code, failure, &tail))
                    }
                    JobOutcome::Cancelled {} => Err(Failure::new(
                        FailureCode::Cancelled,
                        "the command was cancelled",
                    )),
                }
            })
            .await;
        daemon::fail_point("runner.hook.after");
        if result.is_err() {
            agent.delete_job(id).await;
        }
        result
    }
}

fn failed(phase: Phase, exit_code: Option<i32>, failure: Failure, tail: &str) -> Failure {
    let name = match phase {
        Phase::OnCreateCommand => "onCreateCommand",
        Phase::PostCreateCommand => "postCreateCommand",
        _ => "postStartCommand",
    };
    let message = match exit_code {
        Some(code) => format!("`{name}` ended with exit code {code}"),
        None => format!("`{name}` could not be run: {failure}"),
    };
    let detail = if tail.is_empty() {
        failure.detail.unwrap_or(failure.message)
    } else {
        tail.to_owned()
    };
    if exit_code.map(i64::from) == Some(KILLED) {
        return Failure::new(FailureCode::LifecycleCommandFailed, message)
            .detail(detail)
            .hint("it was killed, most often because the memory of the gitspace was used up: run less at once or choose a machine with more memory, then start it again to run the command once more");
    }
    Failure::new(FailureCode::LifecycleCommandFailed, message)
        .detail(detail)
        .hint("the gitspace runs and can be entered: mend what is wrong there, then start it again to run the command once more")
}

fn keep_tail(tail: &mut String, text: &str) {
    tail.push_str(text);
    if tail.len() > TAIL {
        let mut from = tail.len() - TAIL;
        while !tail.is_char_boundary(from) {
            from += 1;
        }
        tail.drain(..from);
    }
}
