//! The work of one task: its verb, its phases in the journal, and what has to be undone when it is broken off.

use super::look;
use crate::{
    agent_client::Agent, board::Sighting, docker::Docker, journal::TaskJournal, ledger::Record,
    reconcile, shared::Shared,
};
use camino::{Utf8Path, Utf8PathBuf};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use wire::{
    agent::{JobOutcome, JobSpec},
    failure::{Failure, FailureCode},
    gitspace::{GitspaceSpec, ObservedState},
    task::{LogStream, Phase, Task, TaskEventKind, TaskVerb},
};

/// Where a job that the work waits for runs.
#[derive(Clone, Debug)]
struct RunningJob {
    run_dir: Utf8PathBuf,
    id: String,
}

#[derive(Debug)]
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Arc<TaskJournal>,
    pub(super) task: Task,
    /// From the journal, after a restart: without secrets.
    resumed: bool,
    phase: Mutex<Option<(Phase, Instant)>>,
    job: Mutex<Option<RunningJob>>,
    /// Containers to remove once the task has ended, with their folders.
    retired: Mutex<Vec<(String, Utf8PathBuf)>>,
}

impl Work {
    pub(super) fn new(
        shared: Arc<Shared>,
        journal: Arc<TaskJournal>,
        task: Task,
        resumed: bool,
    ) -> Self {
        Self {
            shared,
            journal,
            task,
            resumed,
            phase: Mutex::default(),
            job: Mutex::default(),
            retired: Mutex::default(),
        }
    }

    pub(super) async fn run(&self) -> Result<(), Failure> {
        match &self.task.verb {
            TaskVerb::Provision { spec } => self.provision(spec).await,
            TaskVerb::Start { spec } => self.start(spec).await,
            TaskVerb::Stop {} => self.phase(Phase::Stop, self.stop()).await.map(|_| ()),
            TaskVerb::Reset {} => self.phase(Phase::Reset, self.reset()).await.map(|_| ()),
            TaskVerb::Delete {} => self.phase(Phase::Delete, self.delete()).await.map(|_| ()),
            // The look that follows every task is the work.
            TaskVerb::Observe {} => {
                self.phase(Phase::Observe, std::future::ready(Ok(((), None))))
                    .await
            }
        }
    }

    async fn provision(&self, spec: &GitspaceSpec) -> Result<(), Failure> {
        let docker = self.docker().await?;
        if self.record().clone.is_some() && self.volume_is_there(&docker).await? {
            return Ok(());
        }
        self.clone_repository(&docker, spec).await?;
        self.retire_sandbox()
    }

    async fn start(&self, spec: &GitspaceSpec) -> Result<(), Failure> {
        let docker = self.docker().await?;
        let agent = match self.restart(&docker, spec).await? {
            Some(agent) => {
                // From a start that was killed right after it had made the container.
                if self.record().machine.is_some_and(|machine| machine.sandbox) {
                    self.retire_sandbox()?;
                }
                agent
            }
            None => self.create(&docker, spec).await?,
        };
        self.publish_running();
        self.hooks(&docker, &agent).await
    }

    /// A whole dev container from nothing, or from the volume alone.
    async fn create(&self, docker: &Docker, spec: &GitspaceSpec) -> Result<Agent, Failure> {
        let sandbox = self.clone_repository(docker, spec).await?;
        let settled = self.devcontainer(docker, &sandbox).await?;
        let agent = self.make_container(docker, spec, settled).await?;
        self.retire_sandbox()?;
        Ok(agent)
    }

    pub(super) async fn docker(&self) -> Result<Docker, Failure> {
        let docker = self.shared.machine.docker(self.task.gitspace).await?;
        reconcile::compare_once(&self.shared, &docker).await?;
        Ok(docker)
    }

    pub(super) fn record(&self) -> Record {
        self.shared
            .ledger
            .get(self.task.gitspace)
            .unwrap_or_else(|| Record::new(self.task.gitspace))
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Record)) -> Result<Record, Failure> {
        Ok(self.shared.ledger.update(self.task.gitspace, change)?)
    }

    /// Fails where the task came with credentials, and a restart of the runner has lost them: sent again, it has them.
    pub(super) fn secrets(&self) -> Result<(), Failure> {
        if self.resumed && self.journal.had_secrets() {
            return Err(Failure::new(
                FailureCode::RunnerUnavailable,
                "the runner was started again, and the Git credentials of the task are not kept on a disk",
            )
            .hint("it is tried again by itself"));
        }
        Ok(())
    }

    /// One phase of the timeline. `work` says what came of it in words.
    pub(super) async fn phase<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<(T, Option<String>), Failure>> + Send,
    ) -> Result<T, Failure> {
        let started = self.shared.clock.instant();
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Some((phase, started));
        self.journal.add(TaskEventKind::PhaseStarted { phase });
        let result = Box::pin(work).await;
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let duration_ms = self.since(started);
        match result {
            Ok((value, detail)) => {
                self.journal.add(TaskEventKind::PhaseCompleted {
                    phase,
                    duration_ms,
                    detail,
                });
                Ok(value)
            }
            Err(failure) => {
                self.journal.add(TaskEventKind::PhaseFailed {
                    phase,
                    duration_ms,
                    failure: failure.clone(),
                });
                Err(failure)
            }
        }
    }

    fn since(&self, started: Instant) -> u64 {
        let passed = self
            .shared
            .clock
            .instant()
            .saturating_duration_since(started);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn say(&self, phase: Phase, words: &str) {
        self.journal.log(phase, LogStream::System, words);
    }

    /// Runs a job to its end, with its output in the log; while it runs, a break of the work ends it.
    pub(super) async fn job(
        &self,
        agent: &Agent,
        run_dir: Utf8PathBuf,
        id: &str,
        spec: &JobSpec,
        output: impl FnMut(LogStream, &str) + Send,
    ) -> Result<JobOutcome, Failure> {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(RunningJob {
            run_dir: run_dir.clone(),
            id: id.to_owned(),
        });
        let outcome = agent
            .run_job_unless(id, spec, output, || self.has_ended(&run_dir))
            .await;
        let job = self
            .job
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (outcome, job) {
            (Err(failure), Some(job)) if failure.code == FailureCode::AgentUnreachable => {
                Err(self.explain(failure, &job.run_dir).await)
            }
            (outcome, _) => outcome,
        }
    }

    /// An agent may be silent because its container has ended.
    async fn explain(&self, failure: Failure, run_dir: &Utf8Path) -> Failure {
        let (Some(container), Ok(docker)) = (self.container_of(run_dir), self.docker().await)
        else {
            return failure;
        };
        match docker.container(&container).await {
            Ok(facts) => crate::silence::with_container(failure, facts.as_ref()),
            // Then that is the cause.
            Err(error) => error.failure(),
        }
    }

    /// Name of the container whose agent has this folder.
    fn container_of(&self, run_dir: &Utf8Path) -> Option<String> {
        let record = self.record();
        let machine = record.machine?;
        if *run_dir == self.shared.names.sandbox_run_dir(&machine.key) {
            return Some(self.shared.names.sandbox(&machine.key));
        }
        record.container.map(|container| container.name)
    }

    /// Whether Docker says that it is gone, or does not run.
    async fn has_ended(&self, run_dir: &Utf8Path) -> bool {
        let (Some(container), Ok(docker)) = (self.container_of(run_dir), self.docker().await)
        else {
            return false;
        };
        docker
            .container(&container)
            .await
            .is_ok_and(|facts| facts.is_none_or(|facts| !facts.running))
    }

    /// After the work was dropped: says so in the timeline, and ends the job it waited for.
    pub(super) async fn abandon(&self, failure: Option<&Failure>) {
        let job = self
            .job
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(job) = job {
            let agent = Agent::new(&job.run_dir);
            // The first ends it, the second forgets it.
            agent.delete_job(&job.id).await;
            agent.delete_job(&job.id).await;
        }
        let phase = self
            .phase
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((phase, started)) = phase {
            self.journal.add(TaskEventKind::PhaseFailed {
                phase,
                duration_ms: self.since(started),
                failure: failure.cloned().unwrap_or_else(|| {
                    Failure::new(
                        FailureCode::Cancelled,
                        "the task was cancelled by a later action",
                    )
                }),
            });
        }
    }

    /// The sandbox has done its work: it is struck from the ledger, and removed when nobody waits any more.
    pub(super) fn retire_sandbox(&self) -> Result<(), Failure> {
        let record = self.update(|record| {
            if let Some(machine) = &mut record.machine {
                machine.sandbox = false;
            }
        })?;
        if let Some(machine) = record.machine {
            self.retired
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((
                    self.shared.names.sandbox(&machine.key),
                    self.shared.names.sandbox_run_dir(&machine.key),
                ));
        }
        Ok(())
    }

    /// Removes what was retired, behind everybody's back. What a crash leaves of it is found by the reconciler.
    pub(super) fn sweep(&self) {
        let retired =
            std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        if retired.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let gitspace = self.task.gitspace;
        self.shared.tasks.spawn_job("sweep", async move {
            let Ok(docker) = shared.machine.docker(gitspace).await else {
                return;
            };
            for (container, run_dir) in retired {
                match docker.remove_container(&container).await {
                    Ok(()) => crate::sandbox::remove_run_dir(&run_dir),
                    Err(error) => {
                        tracing::warn!(container, error = %daemon::ErrorChain(&error), "Cannot remove a sandbox yet");
                    }
                }
            }
        });
    }

    /// The container can be entered while its commands still run.
    fn publish_running(&self) {
        let record = self.record();
        self.shared.board.publish(Sighting {
            gitspace: self.task.gitspace,
            state: ObservedState::Running,
            generation: record.generation,
            failure: None,
            task: Some(self.task.id),
            dev_container: look::dev_container(&record),
        });
    }
}
