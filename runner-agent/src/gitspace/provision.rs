//! Machine and clone, and what the clone says of its dev container.

use super::work::Work;
use crate::{
    agent_client::Agent,
    devcontainer::{
        DevContainerFile,
        locate::{self, Located},
        parse::parse,
        substitute::Variables,
    },
    docker::Docker,
    ledger::{CloneRecord, MachineRecord},
    names::devcontainer_id,
    sandbox,
};
use wire::{
    agent::{CloneJob, CommandJob, CommandLine, JobOutcome, JobSpec, WORKSPACES_DIR},
    failure::{Failure, FailureCode},
    gitspace::GitspaceSpec,
    task::{LogStream, Phase},
};

/// Root, in the sandbox and for what the platform itself does in a dev container.
pub(super) const ROOT: &str = "0:0";

impl Work {
    /// A whole clone in the gitspace's volume, and a sandbox that can look at it.
    pub(super) async fn clone_repository(
        &self,
        docker: &Docker,
        spec: &GitspaceSpec,
    ) -> Result<Agent, Failure> {
        let agent = self
            .phase(Phase::Machine, self.ensure_machine(docker))
            .await?;
        if self.record().clone.is_none() {
            self.phase(Phase::Clone, self.run_clone(&agent, spec))
                .await?;
        }
        Ok(agent)
    }

    async fn ensure_machine(&self, docker: &Docker) -> Result<(Agent, Option<String>), Failure> {
        let shared = &self.shared;
        shared.firewall.ready()?;
        let id = self.task.gitspace;
        let known = self.record().machine;
        if let Some(machine) = &known
            && self.record().clone.is_some()
            && !docker
                .volume_exists(&shared.names.machine(&machine.key))
                .await?
        {
            self.say(
                Phase::Machine,
                "the volume of the workspace is gone from the host; the repository is cloned again\n",
            );
            self.update(|record| record.clone = None)?;
        }
        let mut detail = None;
        let key = match known {
            Some(machine) => {
                if !machine.sandbox {
                    self.update(|record| {
                        if let Some(machine) = &mut record.machine {
                            machine.sandbox = true;
                        }
                    })?;
                }
                machine.key
            }
            None => {
                let hash = &shared.agent_copy.hash;
                let claimed = shared
                    .ledger
                    .claim_spare(id, |spare| spare.agent == *hash)?
                    .and_then(|record| record.machine);
                if let Some(machine) = claimed {
                    detail = Some("took a sandbox that was ready".to_owned());
                    machine.key
                } else {
                    let key = sandbox::key(shared);
                    let machine = MachineRecord {
                        key: key.clone(),
                        sandbox: true,
                    };
                    self.update(|record| record.machine = Some(machine))?;
                    key
                }
            }
        };
        let agent = sandbox::ensure(shared, docker, &key, Some(id)).await?;
        Ok((agent, detail))
    }

    async fn run_clone(
        &self,
        agent: &Agent,
        spec: &GitspaceSpec,
    ) -> Result<((), Option<String>), Failure> {
        self.secrets()?;
        let key = self.machine_key()?;
        let folder = format!(
            "{WORKSPACES_DIR}/{}",
            folder_name(spec.repo.url.repository_name())
        );
        let job = JobSpec::Clone(CloneJob {
            repo: spec.repo.clone(),
            destination: folder.clone(),
            credentials: spec.git_credentials.clone(),
            ssh: self.shared.config.ssh_trust(),
        });
        // Of this task: a later one may come with another ref or other credentials.
        let id = format!("clone-{}", self.task.id);
        let outcome = self
            .job(
                agent,
                self.shared.names.sandbox_run_dir(&key),
                &id,
                &job,
                |stream, text| self.journal.log(Phase::Clone, stream, text),
            )
            .await?;
        match outcome {
            JobOutcome::Done { detail } => {
                self.update(|record| {
                    record.clone = Some(CloneRecord {
                        folder,
                        owner: None,
                    });
                })?;
                Ok(((), detail))
            }
            JobOutcome::Failed { failure, .. } => {
                agent.delete_job(&id).await;
                Err(failure)
            }
            JobOutcome::Cancelled {} => {
                agent.delete_job(&id).await;
                Err(Failure::new(
                    FailureCode::Cancelled,
                    "the clone was cancelled",
                ))
            }
        }
    }

    pub(super) fn machine_key(&self) -> Result<String, Failure> {
        self.record()
            .machine
            .map(|machine| machine.key)
            .ok_or_else(|| Failure::new(FailureCode::Internal, "the gitspace has no machine"))
    }

    pub(super) fn clone_record(&self) -> Result<CloneRecord, Failure> {
        self.record()
            .clone
            .ok_or_else(|| Failure::new(FailureCode::Internal, "the gitspace has no clone"))
    }

    pub(super) async fn volume_is_there(&self, docker: &Docker) -> Result<bool, Failure> {
        let key = self.machine_key()?;
        Ok(docker
            .volume_exists(&self.shared.names.machine(&key))
            .await?)
    }

    /// What the repository says of its dev container, and its variables.
    pub(super) async fn devcontainer(
        &self,
        _docker: &Docker,
        agent: &Agent,
    ) -> Result<(DevContainerFile, Variables), Failure> {
        self.phase(Phase::Devcontainer, async {
            let key = self.machine_key()?;
            let folder = self.clone_record()?.folder;
            let job = JobSpec::Command(CommandJob {
                user: ROOT.to_owned(),
                cwd: "/".to_owned(),
                env: [("LC_ALL".to_owned(), Some("C".to_owned()))].into(),
                command: CommandLine::Exec {
                    argv: locate::argv(&folder),
                },
                once: false,
            });
            let id = format!("devcontainer-{}", self.task.id);
            let mut output = String::new();
            let mut errors = String::new();
            let outcome = self
                .job(
                    agent,
                    self.shared.names.sandbox_run_dir(&key),
                    &id,
                    &job,
                    |stream, text| {
                        let into = match stream {
                            LogStream::Stdout => &mut output,
                            LogStream::Stderr | LogStream::System => &mut errors,
                        };
                        if into.len() + text.len() <= locate::MAX_OUTPUT {
                            into.push_str(text);
                        }
                    },
                )
                .await?;
            agent.delete_job(&id).await;
            if !matches!(outcome, JobOutcome::Done { .. }) {
                return Err(Failure::new(
                    FailureCode::Internal,
                    "cannot look for devcontainer.json in the clone",
                )
                .detail(errors)
                .hint("the sandbox image needs `sh`, `readlink`, `stat` and `base64`"));
            }
            let variables = Variables {
                workspace_folder: folder.clone(),
                local_workspace_folder: folder,
                devcontainer_id: devcontainer_id(self.task.gitspace),
                container_env: std::collections::BTreeMap::new(),
            };
            let (file, detail) = match locate::read(&output)? {
                Located::Found { path, text } => {
                    let parsed = {
                        let path = path.clone();
                        tokio::task::spawn_blocking(move || parse(&path, &text))
                            .await
                            .map_err(|error| {
                                Failure::new(
                                    FailureCode::Internal,
                                    "reading devcontainer.json broke off",
                                )
                                .detail(error.to_string())
                            })?
                    };
                    (parsed?, format!("read {path}"))
                }
                Located::None => (
                    DevContainerFile::default(),
                    "the repository has none".to_owned(),
                ),
            };
            if !file.ignored.is_empty() {
                self.say(
                    Phase::Devcontainer,
                    &format!("not used by this version: {}\n", file.ignored.join(", ")),
                );
            }
            Ok(((file, variables), Some(detail)))
        })
        .await
    }
}

/// A folder's name from a repository's: plain characters, never `.` or `..`.
pub(super) fn folder_name(repository: &str) -> String {
    let name: String = repository
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .take(100)
        .collect();
    if name.chars().all(|c| c == '.') {
        "workspace".to_owned()
    } else if name.starts_with('-') {
        format!("repository{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_cannot_name_a_folder_that_is_not_its_own() {
        for (repository, folder) in [
            ("app", "app"),
            (".github", ".github"),
            ("..", "workspace"),
            ("", "workspace"),
            ("%2e%2e%2fetc", "-2e-2e-2fetc"),
            ("-rf", "repository-rf"),
        ] {
            let found = folder_name(repository);
            if repository.starts_with('%') {
                assert_eq!(found, format!("repository{folder}"));
            } else {
                assert_eq!(found, folder);
            }
        }
    }
}
