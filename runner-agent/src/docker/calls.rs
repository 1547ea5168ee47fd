//! The calls, and the facts they answer with.

use super::{
    CHANGE_DEADLINE, Docker, DockerError, LOOK_DEADLINE,
    create::{ContainerPlan, create_body, limits, memory, nano_cpus},
    stray,
};
use bollard::{
    models::{
        ContainerSummaryStateEnum, ContainerUpdateBody, EventMessage, NetworkCreateRequest,
        VolumeCreateRequest,
    },
    query_parameters as query,
};
use futures_util::{Stream, StreamExt as _};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use wire::gitspace::Resources;

pub(crate) type Labels = HashMap<String, String>;

/// For what Docker, or containerd, is still at.
const IN_THE_MAKING_LOOKS: u32 = 30;
const IN_THE_MAKING_PAUSE: Duration = Duration::from_millis(100);
/// A pull may take as long as its task has; without any progress it ends earlier.
const PULL_SILENCE: Duration = Duration::from_secs(120);
/// Of the output of a container that ended.
const LOG_TAIL: &str = "40";
const MAX_LOG_TAIL: usize = 8 * 1024;
/// Exit code of what SIGKILL ended.
pub(crate) const KILLED: i64 = 137;

#[derive(Clone, Debug)]
pub(crate) struct ContainerFacts {
    pub(crate) id: String,
    pub(crate) running: bool,
    pub(crate) exit_code: i64,
    pub(crate) oom_killed: bool,
    pub(crate) error: String,
    pub(crate) started_at: String,
    pub(crate) finished_at: String,
    /// What Docker holds it to.
    pub(crate) limits: Resources,
}

impl ContainerFacts {
    /// Docker's mark is there as soon as any process in it was killed for want of memory: only the exit code says that its first was.
    pub(crate) const fn ended_for_memory(&self) -> bool {
        !self.running && self.oom_killed && self.exit_code == KILLED
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ImageFacts {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) env: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ListedContainer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) running: bool,
    /// Whether it has ever run, and is not being removed.
    pub(crate) started: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ListedVolume {
    pub(crate) name: String,
    pub(crate) labels: Labels,
}

/// A call that changes something, between its two places to be killed at: Docker has done nothing yet, or all of it and nobody knows.
macro_rules! changing {
    ($name:literal, $call:expr) => {{
        daemon::fail_point(concat!("runner.docker.", $name, ".before"));
        let answer = $call;
        daemon::fail_point(concat!("runner.docker.", $name, ".after"));
        answer
    }};
}

fn label_filter(label: &str) -> Option<HashMap<String, Vec<String>>> {
    Some(HashMap::from([(
        "label".to_owned(),
        vec![label.to_owned()],
    )]))
}

/// A thing that is not there is `None`.
fn optional<T>(result: Result<T, DockerError>) -> Result<Option<T>, DockerError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Docker {
    /// Version, as `20.10.24`, and the folder of Docker's data.
    pub(crate) async fn about(&self, deadline: Duration) -> Result<(String, String), DockerError> {
        let info = self
            .call(
                "ask Docker for its version",
                deadline,
                |docker| async move { docker.info().await },
            )
            .await?;
        Ok((
            info.server_version.unwrap_or_default(),
            info.docker_root_dir.unwrap_or_default(),
        ))
    }

    /// Whether it answers at all; costs it nothing.
    pub(crate) async fn ping(&self, deadline: Duration) -> Result<(), DockerError> {
        self.call(
            "ask whether Docker is there",
            deadline,
            |docker| async move { docker.ping().await.map(drop) },
        )
        .await
    }

    pub(crate) async fn image(&self, name: &str) -> Result<Option<ImageFacts>, DockerError> {
        let what = format!("look for the image `{name}`");
        let found = optional(
            self.call(&what, LOOK_DEADLINE, |docker| async move {
                docker.inspect_image(name).await
            })
            .await,
        )?;
        Ok(found.map(|image| {
            let config = image.config.unwrap_or_default();
            ImageFacts {
                id: image.id.unwrap_or_default(),
                user: config.user.unwrap_or_default(),
                env: config
                    .env
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            }
        }))
    }

    /// Pulls an image, and says how far it is.
    pub(crate) async fn pull(
        &self,
        name: &str,
        mut progress: impl FnMut(String) + Send,
    ) -> Result<(), DockerError> {
        let what = format!("pull the image `{name}`");
        // Without a tag Docker would pull every tag there is.
        let tagged = name.contains('@')
            || name
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':'));
        let reference = if tagged {
            name.to_owned()
        } else {
            format!("{name}:latest")
        };
        let options = query::CreateImageOptions {
            from_image: Some(reference),
            ..Default::default()
        };
        let client = self.client().await?;
        let mut stream = Box::pin(client.create_image(Some(options), None, None));
        loop {
            let item = tokio::time::timeout(PULL_SILENCE, stream.next())
                .await
                .map_err(|_| DockerError::timeout(&what, PULL_SILENCE))?;
            match item {
                None => return Ok(()),
                Some(Err(source)) => return Err(DockerError::new(&what, source)),
                Some(Ok(info)) => {
                    if let Some(status) = info.status {
                        // Bars are drawn many times a second; what begins and ends is enough.
                        if !matches!(status.as_str(), "Downloading" | "Extracting" | "Waiting") {
                            progress(match info.id {
                                Some(id) => format!("{id}: {status}\n"),
                                None => format!("{status}\n"),
                            });
                        }
                    }
                }
            }
        }
    }

    /// Makes the network, or keeps the one of this name.
    pub(crate) async fn ensure_network(
        &self,
        name: &str,
        bridge: &str,
        labels: &Labels,
    ) -> Result<(), DockerError> {
        if self.network_exists(name).await? {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            options: Some(HashMap::from([
                (
                    "com.docker.network.bridge.name".to_owned(),
                    bridge.to_owned(),
                ),
                // Neighbours on one bridge do not exist but for a sandbox; they have nothing to say to each other.
                (
                    "com.docker.network.bridge.enable_icc".to_owned(),
                    "false".to_owned(),
                ),
            ])),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        let created = self
            .call(
                &format!("create the network `{name}`"),
                CHANGE_DEADLINE,
                |docker| async move {
                    changing!("create-network", docker.create_network(request).await)
                },
            )
            .await;
        match created {
            // Docker is at the same still: the runner that asked for it was killed, and Docker goes on.
            Err(error) if error.is_same_bridge() => {
                for _ in 0..IN_THE_MAKING_LOOKS {
                    if self.network_exists(name).await? {
                        return Ok(());
                    }
                    tokio::time::sleep(IN_THE_MAKING_PAUSE).await;
                }
                Err(error)
            }
            created => created.map(|_| ()),
        }
    }

    async fn network_exists(&self, name: &str) -> Result<bool, DockerError> {
        let what = format!("look for the network `{name}`");
        let found = self
            .call(&what, LOOK_DEADLINE, |docker| async move {
                docker
                    .inspect_network(name, None::<query::InspectNetworkOptions>)
                    .await
            })
            .await;
        optional(found).map(|network| network.is_some())
    }

    /// Makes the volume, or keeps the one of this name.
    pub(crate) async fn ensure_volume(
        &self,
        name: &str,
        options: &BTreeMap<String, String>,
        labels: &Labels,
    ) -> Result<(), DockerError> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            driver: Some("local".to_owned()),
            driver_opts: Some(options.clone().into_iter().collect()),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        self.call(
            &format!("create the volume `{name}`"),
            CHANGE_DEADLINE,
            |docker| async move { changing!("create-volume", docker.create_volume(request).await) },
        )
        .await
        .map(|_| ())
    }

    pub(crate) async fn volume_exists(&self, name: &str) -> Result<bool, DockerError> {
        let what = format!("look for the volume `{name}`");
        let found = self
            .call(&what, LOOK_DEADLINE, |docker| async move {
                docker.inspect_volume(name).await
            })
            .await;
        optional(found).map(|volume| volume.is_some())
    }

    /// The new container's id.
    pub(crate) async fn create_container(
        &self,
        plan: ContainerPlan,
    ) -> Result<String, DockerError> {
        let what = format!("create the container `{}`", plan.name);
        let options = query::CreateContainerOptions {
            name: Some(plan.name.clone()),
            ..Default::default()
        };
        let body = create_body(plan);
        self.call(&what, CHANGE_DEADLINE, |docker| async move {
            changing!(
                "create-container",
                docker.create_container(Some(options), body).await
            )
        })
        .await
        .map(|created| created.id)
    }

    pub(crate) async fn start_container(&self, name: &str) -> Result<(), DockerError> {
        let mut result = self.try_start(name).await;
        for _ in 0..IN_THE_MAKING_LOOKS {
            let Err(error) = &result else { break };
            if !error.is_stray() {
                break;
            }
            let Some(facts) = self.container(name).await?.filter(|facts| !facts.running) else {
                break;
            };
            let ended = stray::end(&facts.id);
            tracing::warn!(
                container = name,
                ended,
                "Docker does not know that the container was started: what runs in it is ended"
            );
            // containerd hears of their end a moment later.
            tokio::time::sleep(IN_THE_MAKING_PAUSE).await;
            result = self.try_start(name).await;
        }
        result
    }

    async fn try_start(&self, name: &str) -> Result<(), DockerError> {
        let what = format!("start the container `{name}`");
        self.call(&what, CHANGE_DEADLINE, |docker| async move {
            changing!(
                "start-container",
                docker
                    .start_container(name, None::<query::StartContainerOptions>)
                    .await
            )
        })
        .await
    }

    /// Holds a container, running or not, to other limits.
    pub(crate) async fn limit_container(
        &self,
        name: &str,
        limits: &Resources,
    ) -> Result<(), DockerError> {
        let what = format!("change the limits of the container `{name}`");
        let memory = memory(limits.memory_bytes);
        let body = ContainerUpdateBody {
            nano_cpus: Some(nano_cpus(limits.cpu_millis)),
            memory: Some(memory),
            memory_swap: Some(memory),
            pids_limit: Some(i64::from(limits.pids)),
            ..Default::default()
        };
        self.call(&what, CHANGE_DEADLINE, |docker| async move {
            docker.update_container(name, body).await
        })
        .await
    }

    /// A container that does not run, or is not there, is stopped.
    pub(crate) async fn stop_container(
        &self,
        name: &str,
        grace: Duration,
    ) -> Result<(), DockerError> {
        let what = format!("stop the container `{name}`");
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let stopped = self
            .call(&what, CHANGE_DEADLINE + grace, |docker| async move {
                changing!(
                    "stop-container",
                    docker
                        .stop_container(
                            name,
                            Some(query::StopContainerOptions {
                                signal: None,
                                t: Some(seconds),
                            }),
                        )
                        .await
                )
            })
            .await;
        optional(stopped).map(|_| ())
    }

    /// To the container's first process.
    pub(crate) async fn signal_container(
        &self,
        name: &str,
        signal: &str,
    ) -> Result<(), DockerError> {
        let what = format!("send {signal} to the container `{name}`");
        self.call(&what, LOOK_DEADLINE, |docker| async move {
            let options = query::KillContainerOptions {
                signal: signal.to_owned(),
            };
            docker.kill_container(name, Some(options)).await
        })
        .await
    }

    /// Kills and removes; one that is not there, or is being removed already, is fine.
    pub(crate) async fn remove_container(&self, name: &str) -> Result<(), DockerError> {
        let what = format!("remove the container `{name}`");
        let removed = self
            .call(&what, CHANGE_DEADLINE, |docker| async move {
                changing!(
                    "remove-container",
                    docker
                        .remove_container(
                            name,
                            Some(query::RemoveContainerOptions {
                                v: true,
                                force: true,
                                link: false,
                            }),
                        )
                        .await
                )
            })
            .await;
        match optional(removed) {
            Err(error) if error.is_conflict() && error.cause().contains("already in progress") => {
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    pub(crate) async fn remove_network(&self, name: &str) -> Result<(), DockerError> {
        let what = format!("remove the network `{name}`");
        self.retry_in_use(|| async {
            optional(
                self.call(&what, CHANGE_DEADLINE, |docker| async move {
                    changing!("remove-network", docker.remove_network(name).await)
                })
                .await,
            )
        })
        .await
    }

    pub(crate) async fn remove_volume(&self, name: &str) -> Result<(), DockerError> {
        let what = format!("remove the volume `{name}`");
        self.retry_in_use(|| async {
            optional(
                self.call(&what, CHANGE_DEADLINE, |docker| async move {
                    changing!(
                        "remove-volume",
                        docker
                            .remove_volume(name, None::<query::RemoveVolumeOptions>)
                            .await
                    )
                })
                .await,
            )
        })
        .await
    }

    /// A container that is being removed elsewhere holds its network and volume for a moment longer.
    async fn retry_in_use<F>(&self, remove: impl Fn() -> F) -> Result<(), DockerError>
    where
        F: Future<Output = Result<Option<()>, DockerError>>,
    {
        let mut pause = Duration::from_millis(20);
        loop {
            match remove().await {
                Err(error)
                    if matches!(error.status(), Some(403 | 409))
                        && pause < Duration::from_secs(2) =>
                {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other.map(|_| ()),
            }
        }
    }

    pub(crate) async fn container(
        &self,
        name: &str,
    ) -> Result<Option<ContainerFacts>, DockerError> {
        let what = format!("look at the container `{name}`");
        let found = self
            .call(&what, LOOK_DEADLINE, |docker| async move {
                docker
                    .inspect_container(name, None::<query::InspectContainerOptions>)
                    .await
            })
            .await;
        Ok(optional(found)?.map(|container| {
            let state = container.state.unwrap_or_default();
            ContainerFacts {
                limits: limits(&container.host_config.unwrap_or_default()),
                id: container.id.unwrap_or_default(),
                running: state.running.unwrap_or(false) && !state.paused.unwrap_or(false),
                exit_code: state.exit_code.unwrap_or(0),
                oom_killed: state.oom_killed.unwrap_or(false),
                error: state.error.unwrap_or_default(),
                started_at: state.started_at.unwrap_or_default(),
                finished_at: state.finished_at.unwrap_or_default(),
            }
        }))
    }

    /// The end of what a container's first process wrote; empty where Docker does not tell.
    pub(crate) async fn log_tail(&self, name: &str) -> String {
        let Ok(client) = self.client().await else {
            return String::new();
        };
        let options = query::LogsOptions {
            stdout: true,
            stderr: true,
            tail: LOG_TAIL.to_owned(),
            ..Default::default()
        };
        let mut text = Vec::new();
        let read = async {
            let mut stream = Box::pin(client.logs(name, Some(options)));
            while let Some(Ok(output)) = stream.next().await {
                text.extend_from_slice(&output.into_bytes());
                if text.len() > MAX_LOG_TAIL {
                    break;
                }
            }
        };
        if tokio::time::timeout(LOOK_DEADLINE, read).await.is_err() {
            tracing::debug!(container = name, "Docker does not give the log in time");
        }
        text.truncate(MAX_LOG_TAIL);
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) async fn list_containers(
        &self,
        label: &str,
    ) -> Result<Vec<ListedContainer>, DockerError> {
        let options = query::ListContainersOptions {
            all: true,
            filters: label_filter(label),
            ..Default::default()
        };
        let listed = self
            .call("list containers", LOOK_DEADLINE, |docker| async move {
                docker.list_containers(Some(options)).await
            })
            .await?;
        Ok(listed
            .into_iter()
            .map(|container| ListedContainer {
                id: container.id.unwrap_or_default(),
                name: container
                    .names
                    .unwrap_or_default()
                    .first()
                    .map(|name| name.trim_start_matches('/').to_owned())
                    .unwrap_or_default(),
                labels: container.labels.unwrap_or_default(),
                running: container.state == Some(ContainerSummaryStateEnum::RUNNING),
                started: matches!(
                    container.state,
                    Some(
                        ContainerSummaryStateEnum::RUNNING
                            | ContainerSummaryStateEnum::PAUSED
                            | ContainerSummaryStateEnum::RESTARTING
                            | ContainerSummaryStateEnum::EXITED
                    )
                ),
            })
            .collect())
    }

    /// Names of networks.
    pub(crate) async fn list_networks(&self, label: &str) -> Result<Vec<String>, DockerError> {
        let options = query::ListNetworksOptions {
            filters: label_filter(label),
        };
        let listed = self
            .call("list networks", LOOK_DEADLINE, |docker| async move {
                docker.list_networks(Some(options)).await
            })
            .await?;
        Ok(listed
            .into_iter()
            .filter_map(|network| network.name)
            .collect())
    }

    pub(crate) async fn list_volumes(&self, label: &str) -> Result<Vec<ListedVolume>, DockerError> {
        let options = query::ListVolumesOptions {
            filters: label_filter(label),
        };
        let listed = self
            .call("list volumes", LOOK_DEADLINE, |docker| async move {
                docker.list_volumes(Some(options)).await
            })
            .await?;
        Ok(listed
            .volumes
            .unwrap_or_default()
            .into_iter()
            .map(|volume| ListedVolume {
                name: volume.name,
                labels: volume.labels,
            })
            .collect())
    }

    /// What happens to containers with this label, until Docker goes away.
    pub(crate) async fn events(
        &self,
        label: &str,
    ) -> Result<impl Stream<Item = Result<EventMessage, DockerError>> + use<>, DockerError> {
        let client = self.client().await?;
        let mut filters = label_filter(label).unwrap_or_default();
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let options = query::EventsOptions {
            since: None,
            until: None,
            filters: Some(filters),
        };
        let stream = client.events(Some(options));
        Ok(stream.map(|item| item.map_err(|source| DockerError::new("watch Docker", source))))
    }
}
