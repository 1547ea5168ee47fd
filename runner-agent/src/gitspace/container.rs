//! The dev container: its image, making it, and starting it again.

use super::{provision::ROOT, work::Work};
use crate::{
    agent_client::Agent,
    devcontainer::{DevContainerFile, substitute::Variables},
    docker::{ContainerFacts, Docker, ImageFacts},
    ledger::ContainerRecord,
    names::{GITSPACE, RECORD, Role},
    sandbox,
};
use std::collections::BTreeSet;
use wire::{
    agent::{AgentConfig, CommandJob, CommandLine, JobOutcome, JobSpec},
    failure::{Failure, FailureCode},
    gitspace::{GitspaceSpec, Resources},
    task::{LogStream, Phase},
};

impl Work {
    /// The agent of the container that is there, running; `None` where one has to be made.
    pub(super) async fn restart(
        &self,
        docker: &Docker,
        spec: &GitspaceSpec,
    ) -> Result<Option<Agent>, Failure> {
        let record = self.record();
        let (Some(container), Some(machine)) = (record.container, record.machine) else {
            return Ok(None);
        };
        let facts = match &container.id {
            Some(id) => docker.container(id).await?,
            None => None,
        };
        let Some(facts) = facts else {
            if container.id.is_some() {
                self.say(
                    Phase::Container,
                    "the dev container is gone from the host; it is made again from the workspace\n",
                );
            }
            docker.remove_container(&container.name).await?;
            self.update(|record| record.container = None)?;
            return Ok(None);
        };
        self.phase(Phase::Container, async {
            self.shared.firewall.ready()?;
            let run_dir = self.shared.names.dev_run_dir(&machine.key);
            let agent = Agent::new(&run_dir);
            if !container.wanted_running {
                self.update_container(|container| container.wanted_running = true)?;
            }
            self.limit(docker, &facts, &spec.resources).await?;
            if !facts.running {
                // Made anew: root in the gitspace may have put anything in place of its sockets, and a reboot may have emptied it.
                sandbox::make_run_dir(&run_dir)?;
                docker.start_container(&facts.id).await?;
            }
            let health = sandbox::wait_for_agent(docker, &facts.id, &agent).await?;
            tokio::try_join!(
                self.configure(&agent, &container, spec, health.configured),
                self.give_workspace(&agent, &container.remote_user),
            )?;
            let detail = if facts.running {
                "it was running"
            } else {
                "started it again"
            };
            Ok((Some(agent), Some(detail.to_owned())))
        })
        .await
    }

    /// Holds the container to the limits of its machine, which may be another one than at its last start.
    async fn limit(
        &self,
        docker: &Docker,
        facts: &ContainerFacts,
        wanted: &Resources,
    ) -> Result<(), Failure> {
        if facts.limits == *wanted {
            return Ok(());
        }
        docker
            .limit_container(&facts.id, wanted)
            .await
            .map_err(|error| {
                let failure = error.failure();
                if facts.running && failure.hint.is_none() {
                    failure.hint("what runs in the gitspace may use more memory than its machine has: stop it and start it again")
                } else {
                    failure
                }
            })?;
        self.say(
            Phase::Container,
            &format!(
                "the limits are those of another machine: {} thousandths of a CPU, {} MiB of memory, {} processes\n",
                wanted.cpu_millis,
                wanted.memory_bytes >> 20,
                wanted.pids
            ),
        );
        Ok(())
    }

    /// Image and container, up to an agent that answers and knows who works here.
    pub(super) async fn make_container(
        &self,
        docker: &Docker,
        spec: &GitspaceSpec,
        (file, variables): (DevContainerFile, Variables),
    ) -> Result<Agent, Failure> {
        let (name, image) = self
            .phase(Phase::Image, self.image(docker, &file, &variables))
            .await?;
        self.phase(
            Phase::Container,
            self.create_container(docker, spec, &file, variables, (name, image)),
        )
        .await
    }

    async fn image(
        &self,
        docker: &Docker,
        file: &DevContainerFile,
        variables: &Variables,
    ) -> Result<((String, ImageFacts), Option<String>), Failure> {
        let Some(name) = file.image_with(variables)? else {
            let default = self.shared.config.default_image.clone();
            let found = docker.image(&default).await?;
            let image = found.ok_or_else(|| sandbox::default_image_missing(&default))?;
            let detail = format!("the default image {default}");
            return Ok(((default, image), Some(detail)));
        };
        if let Some(image) = docker.image(&name).await? {
            return Ok(((name, image), None));
        }
        self.say(
            Phase::Image,
            &format!("the image {name} is not on the host; pulling it\n"),
        );
        let pulled = docker
            .pull(&name, |words| {
                self.journal.log(Phase::Image, LogStream::Stdout, &words);
            })
            .await;
        let missing = |cause: String| {
            Failure::new(
                FailureCode::ImageMissing,
                format!("the image `{name}` is not on the host and cannot be pulled"),
            )
            .detail(cause)
            .hint("check the name in devcontainer.json and whether the host reaches the registry, or load the image on the host: `docker load`")
        };
        if let Err(error) = pulled {
            let failure = error.failure();
            return Err(match failure.code {
                FailureCode::DockerUnavailable | FailureCode::DiskFull => failure,
                _ => missing(error.cause()),
            });
        }
        let image = docker
            .image(&name)
            .await?
            .ok_or_else(|| missing("the registry gave another image".to_owned()))?;
        Ok(((name, image), Some("pulled".to_owned())))
    }

    async fn create_container(
        &self,
        docker: &Docker,
        spec: &GitspaceSpec,
        file: &DevContainerFile,
        variables: Variables,
        (image_name, image): (String, ImageFacts),
    ) -> Result<(Agent, Option<String>), Failure> {
        let shared = &self.shared;
        let key = self.machine_key()?;
        let (settled, variables) = file.settle(variables, &image.env)?;
        let remote_user = [&settled.remote_user, &settled.container_user]
            .into_iter()
            .flatten()
            .next()
            .cloned()
            .or_else(|| Some(image.user.clone()).filter(|user| !user.is_empty()))
            .unwrap_or_else(|| "root".to_owned());
        if !crate::devcontainer::is_user(&remote_user) {
            return Err(Failure::new(
                FailureCode::DevcontainerInvalid,
                format!("the image `{image_name}` names a user that cannot be one"),
            )
            .hint("name a user as `remoteUser` in devcontainer.json"));
        }
        let name = shared.names.dev_container(&spec.slug, &key);
        let container = ContainerRecord {
            name: name.clone(),
            id: None,
            agent: shared.agent_copy.hash.clone(),
            image: image_name.clone(),
            remote_user,
            workspace_folder: variables.workspace_folder.clone(),
            remote_env: settled.remote_env.clone(),
            forward_ports: settled.forward_ports.clone(),
            on_create: settled.on_create.clone(),
            post_create: settled.post_create.clone(),
            post_start: settled.post_start.clone(),
            done: BTreeSet::new(),
            post_started: None,
            wanted_running: true,
        };
        let record = self.update(|record| record.container = Some(container.clone()))?;
        let run_dir = shared.names.dev_run_dir(&key);
        sandbox::make_run_dir(&run_dir)?;
        let mut plan =
            sandbox::base_plan(shared, &key, Role::DevContainer, &run_dir, &spec.resources);
        plan.name.clone_from(&name);
        plan.hostname = spec.name.to_string();
        plan.image = image.id;
        plan.env = settled.container_env;
        plan.labels
            .insert(GITSPACE.to_owned(), self.task.gitspace.to_string());
        // Where the ledger is lost, it is made again from this.
        plan.labels.insert(RECORD.to_owned(), record.to_label()?);
        let id = match docker.create_container(plan.clone()).await {
            // Left over from an attempt that was killed before its id was written down: nothing in it has run.
            Err(error) if error.is_conflict() => {
                docker.remove_container(&name).await?;
                docker.create_container(plan).await?
            }
            other => other?,
        };
        self.update_container(|container| container.id = Some(id.clone()))?;
        docker.start_container(&id).await?;
        let agent = Agent::new(&run_dir);
        sandbox::wait_for_agent(docker, &id, &agent).await?;
        tokio::try_join!(
            self.configure(&agent, &container, spec, false),
            self.give_workspace(&agent, &container.remote_user),
        )?;
        Ok((agent, Some(format!("from {image_name}"))))
    }

    /// Tells the agent who works here.
    async fn configure(
        &self,
        agent: &Agent,
        container: &ContainerRecord,
        spec: &GitspaceSpec,
        configured: bool,
    ) -> Result<(), Failure> {
        if let Err(failure) = self.secrets() {
            // The agent has what an earlier run of this very task gave it.
            return if configured { Ok(()) } else { Err(failure) };
        }
        agent.configure(&agent_config(container, spec)).await
    }

    /// The files of the clone are root's; whoever works here gets them, once.
    async fn give_workspace(&self, agent: &Agent, user: &str) -> Result<(), Failure> {
        let clone = self.clone_record()?;
        let root = matches!(user, "root" | "0" | "0:0");
        if clone.owner.as_deref() == Some(user) || (root && clone.owner.is_none()) {
            return Ok(());
        }
        let job = JobSpec::Command(CommandJob {
            user: ROOT.to_owned(),
            cwd: "/".to_owned(),
            env: std::collections::BTreeMap::new(),
            command: CommandLine::Exec {
                argv: ["chown", "-R", user, &clone.folder]
                    .iter()
                    .map(|&argument| argument.to_owned())
                    .collect(),
            },
            once: false,
        });
        let key = self.machine_key()?;
        let id = format!("give-{}", self.task.id);
        let mut output = String::new();
        let outcome = agent
            .run_job(&id, &job, |_, text| {
                if output.len() < 4096 {
                    output.push_str(text);
                }
            })
            .await?;
        agent.delete_job(&id).await;
        tracing::debug!(key, user, "The workspace has an owner");
        match outcome {
            JobOutcome::Done { .. } => self
                .update(|record| {
                    if let Some(clone) = &mut record.clone {
                        clone.owner = Some(user.to_owned());
                    }
                })
                .map(|_| ()),
            JobOutcome::Failed {
                exit_code: None,
                failure,
            } => Err(failure),
            JobOutcome::Failed { .. } | JobOutcome::Cancelled {} => Err(Failure::new(
                FailureCode::DevcontainerInvalid,
                format!("cannot give the workspace to the user `{user}`"),
            )
            .detail(output)
            .hint(
                "check that the image has the user that devcontainer.json names as `remoteUser`",
            )),
        }
    }

    pub(super) fn update_container(
        &self,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<ContainerRecord, Failure> {
        self.update(|record| {
            if let Some(container) = &mut record.container {
                change(container);
            }
        })?
        .container
        .ok_or_else(|| Failure::new(FailureCode::Internal, "the gitspace has no dev container"))
    }
}

pub(super) fn agent_config(container: &ContainerRecord, spec: &GitspaceSpec) -> AgentConfig {
    AgentConfig {
        name: spec.name.clone(),
        slug: spec.slug.clone(),
        remote_user: container.remote_user.clone(),
        workspace_folder: container.workspace_folder.clone(),
        remote_env: container.remote_env.clone(),
        forward_ports: container.forward_ports.clone(),
        git_credentials: spec.git_credentials.clone(),
        git_identity: spec.git_identity.clone(),
    }
}
