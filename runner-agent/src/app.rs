//! Putting the runner together: `RunnerConfig::build` opens what is on the disk and binds the sockets, `App::start` spawns the tasks.

use crate::{
    agent_copy::{self, AgentCopyError},
    api::{Access, Admin, Api},
    board::{Board, BoardError},
    config::{ConfigError, RunnerConfig, is_deployment},
    docker::Docker,
    firewall::Firewall,
    gitspace::Gitspaces,
    journal::{Journal, JournalError},
    ledger::{Ledger, LedgerError},
    machine::host::HostMachine,
    names::{Names, digest},
    probe::{ProbeTask, Prober},
    reconcile::{self, Orphans},
    sandbox::{self, Pool},
    shared::Shared,
};
use admin::{AdminSocket, BoundAdmin, DrainFile, DrainFileError};
use camino::{Utf8Path, Utf8PathBuf};
use daemon::{
    ActivationError, Clock, ErrorChain, Exit, Hint, Ids, Lifecycle, PassedSockets, Pulse,
    StateLock, StateLockError, logging::LogHandle,
};
use local_rpc::{BindError, BindOptions, Client, Listener, PeerPolicy, ServerConfig, server};
use std::{convert::Infallible, io, os::unix::fs::DirBuilderExt as _, sync::Arc};
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot make the folder `{path}`")]
    Folder {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot lock the state folder: cannot open `{path}`")]
    Lock {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another runner-agent uses the state folder `{path}`")]
    InUse { path: Utf8PathBuf },
    #[error("cannot read the deployment's name from `{path}`")]
    Deployment {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the deployment's name in `{path}` is not one")]
    BadDeployment { path: Utf8PathBuf },
    #[error("cannot write the deployment's name")]
    WriteDeployment {
        #[source]
        source: daemon::WriteError,
    },
    #[error("cannot open the ledger")]
    Ledger {
        #[source]
        source: LedgerError,
    },
    #[error("cannot open the task journal")]
    Journal {
        #[source]
        source: JournalError,
    },
    #[error("cannot open the revision counter")]
    Board {
        #[source]
        source: BoardError,
    },
    #[error("cannot install gitspace-agent")]
    Agent {
        #[source]
        source: AgentCopyError,
    },
    #[error("cannot bind a socket")]
    Bind {
        #[source]
        source: BindError,
    },
    #[error(transparent)]
    Passed(#[from] ActivationError),
    #[error("cannot watch the API socket that the service manager handed over")]
    WatchPassed {
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Drain(#[from] DrainFileError),
}

impl Hint for BuildError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Folder { .. } | Self::Lock { .. } => {
                Some("check the folder's owner and mode, and that its disk has space".to_owned())
            }
            Self::InUse { .. } => {
                Some("see `systemctl status runner-agent`; two runners need two state folders".to_owned())
            }
            Self::BadDeployment { .. } | Self::Deployment { .. } => {
                Some("set `deployment` in the configuration to the label that `docker volume inspect` shows".to_owned())
            }
            Self::Board { .. } => Some(
                "where the file is damaged, write a number into it that is higher than any revision seen".to_owned(),
            ),
            Self::Agent { .. } => {
                Some("set `agent_binary` in the configuration to the gitspace-agent of this version".to_owned())
            }
            Self::Bind { source } => source.hint(),
            Self::Passed(error) => error.hint(),
            Self::Drain(error) => error.hint(),
            Self::WatchPassed { .. } | Self::WriteDeployment { .. } | Self::Ledger { .. } | Self::Journal { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::BadDeployment { .. } => Exit::Config,
            Self::InUse { .. } | Self::Bind { .. } => Exit::Unavailable,
            Self::Passed(error) => error.exit(),
            Self::Drain(error) => error.exit(),
            Self::Folder { .. }
            | Self::Lock { .. }
            | Self::Deployment { .. }
            | Self::WriteDeployment { .. }
            | Self::Ledger { .. }
            | Self::Journal { .. }
            | Self::Board { .. }
            | Self::WatchPassed { .. }
            | Self::Agent { .. } => Exit::Failure,
        }
    }
}

/// Everything opened and bound, nothing running.
#[derive(Debug)]
pub(crate) struct App {
    shared: Arc<Shared>,
    docker: Docker,
    api: Listener,
    admin: BoundAdmin,
    api_policy: PeerPolicy,
    access: Access,
    log: LogHandle,
    config_files: Vec<Utf8PathBuf>,
    /// Held as long as the process lives: two runners on one ledger would tear it apart.
    lock: StateLock,
}

/// What the runner is given.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    /// By the service manager.
    pub(crate) sockets: PassedSockets,
    pub(crate) log: LogHandle,
    /// The files that the configuration was read from.
    pub(crate) config_files: Vec<Utf8PathBuf>,
}

impl RunnerConfig {
    pub(crate) fn build(self, lifecycle: &Lifecycle, sources: Sources) -> Result<App, BuildError> {
        let Sources {
            clock,
            ids,
            mut sockets,
            log,
            config_files,
        } = sources;
        self.check().map_err(|wrong| wrong.first)?;
        make_dir(&self.state_dir, 0o700)?;
        make_dir(&self.run_dir, 0o700)?;
        let lock = lock(&self.state_dir)?;
        let deployment = deployment(&self, Some(&*ids))?;
        let names = Names::new(&deployment, &self.run_dir);
        let docker = Docker::new(&self.docker_host);
        let agent_copy = agent_copy::install(&self.agent_binary, &self.state_dir, &*clock)
            .map_err(|source| BuildError::Agent { source })?;
        let ledger =
            Ledger::open(&self.state_dir).map_err(|source| BuildError::Ledger { source })?;
        let journal = Journal::open(&self.state_dir, Arc::clone(&clock))
            .map_err(|source| BuildError::Journal { source })?;
        let board = Board::open(&self.state_dir, Arc::clone(&clock))
            .map_err(|source| BuildError::Board { source })?;
        let drain = DrainFile::in_folder(&self.state_dir)?;
        let mut passed_group = None;
        let api = match sockets.unix("api")? {
            Some(passed) => {
                passed_group = admin::group_of(&self.api_socket);
                Listener::from_std(passed).map_err(|source| BuildError::WatchPassed { source })?
            }
            None => {
                if let Some(parent) = self.api_socket.parent() {
                    make_dir(parent, 0o755)?;
                }
                let options = BindOptions {
                    mode: 0o660,
                    gid: self.socket_gid,
                };
                Listener::bind(&self.api_socket, options)
                    .map_err(|source| BuildError::Bind { source })?
            }
        };
        let admin = AdminSocket {
            path: &self.admin_socket,
            gid: self.socket_gid,
            passed: sockets.unix("admin")?,
        }
        .bind()
        .map_err(|source| BuildError::Bind { source })?;
        sockets.finish()?;
        let mut api_policy = PeerPolicy::owner();
        // Whom the unit lets connect by the file's group gets in: the service manager is who decided it.
        if let Some(gid) = passed_group {
            api_policy = api_policy.allow_gid(gid);
        }
        for uid in &self.api_allow_uids {
            api_policy = api_policy.allow_uid(*uid);
        }
        for gid in self.api_allow_gids.iter().chain(self.socket_gid.iter()) {
            api_policy = api_policy.allow_gid(*gid);
        }
        let access = Access::new(self.dial_only_groups.clone());
        for gid in access.gids() {
            api_policy = api_policy.allow_gid(gid);
        }
        let firewall = Firewall::new(self.firewall, &names, self.host_access.clone());
        let shared = Arc::new(Shared {
            firewall,
            names,
            machine: Box::new(HostMachine::new(docker.clone())),
            ledger,
            journal,
            board,
            pool: Pool::new(),
            agent_copy,
            drain,
            clock,
            ids,
            tasks: lifecycle.tasks(),
            compared: OnceCell::new(),
            compare: Notify::new(),
            config: self,
        });
        Ok(App {
            shared,
            docker,
            api,
            admin,
            api_policy,
            access,
            log,
            config_files,
            lock,
        })
    }
}

impl App {
    /// Spawns everything. Before the API answers, the firewall was tried, what the ledger has lost is adopted (where Docker answers, else
    /// before the first task is carried out), and unfinished tasks go on.
    pub(crate) async fn start(self, lifecycle: &Lifecycle) {
        let Self {
            shared,
            docker,
            api,
            admin,
            api_policy,
            access,
            log,
            config_files,
            lock,
        } = self;
        let drain = lifecycle.drain_token();
        let orphans = Arc::new(Orphans::default());
        let gitspaces = Gitspaces::new(Arc::clone(&shared));
        // Neither depends on the other, and a start waits for both.
        let (_, compared) = tokio::join!(
            shared.firewall.apply(),
            reconcile::compare_once(&shared, &docker)
        );
        match compared {
            Ok(()) => collect_agents(&shared),
            Err(failure) => {
                tracing::warn!(%failure, detail = failure.detail, "Cannot compare the ledger with Docker yet");
            }
        }
        gitspaces.resume().await;
        lifecycle.spawn(
            "reconcile",
            reconcile::run(
                Arc::clone(&shared),
                docker.clone(),
                gitspaces.clone(),
                Arc::clone(&orphans),
            ),
        );
        lifecycle.spawn(
            "sandboxes",
            sandbox::run(Arc::clone(&shared), docker.clone()),
        );
        let (prober, questions) = Prober::new();
        let probes = ProbeTask {
            shared: Arc::clone(&shared),
            docker: docker.clone(),
            gitspaces: gitspaces.clone(),
            questions,
        };
        lifecycle.spawn("probes", probes.run());
        let subject = Admin {
            shared: Arc::clone(&shared),
            docker: docker.clone(),
            orphans,
            config_files,
        };
        admin.spawn(lifecycle, subject, log, Arc::clone(&shared.clock));
        lifecycle.spawn(
            "pulse",
            answer_by_api(
                lifecycle.tasks().pulse("api"),
                Client::new(&shared.config.api_socket),
                drain.clone(),
            ),
        );
        let handlers = Api {
            shared,
            gitspaces,
            docker,
            prober,
            access,
        };
        lifecycle.spawn("api", async move {
            let _lock = lock;
            server::serve(
                api,
                ServerConfig::new(api_policy),
                move |request, peer| handlers.clone().answer(request, peer),
                drain,
            )
            .await
        });
    }
}

/// The runner turns as long as its API answers: everything it does is asked for there.
async fn answer_by_api(
    mut pulse: Pulse,
    api: Client,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let answer = async {
        loop {
            let question = pulse.question().await;
            match api.fetch("/v1/tasks", &[]).await {
                Ok(_) => question.answer(),
                Err(error) => {
                    tracing::error!(error = %ErrorChain(&error), "The runner's own API does not answer");
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        never = answer => never,
    }
}

/// Of an adopted container too: it is in the ledger by then.
fn collect_agents(shared: &Shared) {
    let ledger = &shared.ledger;
    let used = ledger
        .records()
        .into_iter()
        .filter_map(|record| record.container)
        .map(|container| container.agent)
        .chain(ledger.spares().into_iter().map(|spare| spare.agent))
        .chain([shared.agent_copy.hash.clone()])
        .collect();
    agent_copy::collect(&shared.config.state_dir, &used);
}

fn make_dir(path: &Utf8Path, mode: u32) -> Result<(), BuildError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| BuildError::Folder {
            path: path.to_owned(),
            source,
        })
}

fn lock(state_dir: &Utf8Path) -> Result<StateLock, BuildError> {
    StateLock::take(state_dir).map_err(|error| match error {
        StateLockError::InUse { path } => BuildError::InUse { path },
        StateLockError::Open { path, source } => BuildError::Lock { path, source },
    })
}

/// The configured name, else the kept one, else (with `ids`) a new one that is kept.
fn deployment(config: &RunnerConfig, ids: Option<&dyn Ids>) -> Result<String, BuildError> {
    if let Some(deployment) = &config.deployment {
        return Ok(deployment.clone());
    }
    let path = config.state_dir.join("deployment");
    // Everything in Docker is found by this name: where the state folder is lost, the copy beside the agents' sockets still has it.
    let copy = config.run_dir.join("deployment");
    let write = |path: &Utf8Path, deployment: &str| {
        daemon::write_atomic(path, format!("{deployment}\n").as_bytes(), 0o600)
            .map_err(|source| BuildError::WriteDeployment { source })
    };
    let kept = match read_deployment(&path) {
        Ok(Some(deployment)) => deployment,
        Ok(None) | Err(BuildError::BadDeployment { .. })
            if let Ok(Some(deployment)) = read_deployment(&copy) =>
        {
            if ids.is_some() {
                tracing::error!(file = %path, deployment, "The deployment's name was lost, and is taken from its copy");
                write(&path, &deployment)?;
            }
            deployment
        }
        Ok(None) => {
            let Some(ids) = ids else {
                let source = io::ErrorKind::NotFound.into();
                return Err(BuildError::Deployment { path, source });
            };
            let deployment = digest(ids.uuid().as_bytes(), 12);
            write(&path, &deployment)?;
            deployment
        }
        Err(error) => return Err(error),
    };
    if ids.is_some() && !matches!(read_deployment(&copy), Ok(Some(same)) if same == kept) {
        write(&copy, &kept)?;
    }
    Ok(kept)
}

/// The name that a start would take, where there is one. Nothing is written.
pub(crate) fn known_deployment(config: &RunnerConfig) -> Result<Option<String>, BuildError> {
    match deployment(config, None) {
        Ok(name) => Ok(Some(name)),
        Err(BuildError::Deployment { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `None` where there is no file. One that was cut does not end with its line, and is none: another name would lose everything.
fn read_deployment(path: &Utf8Path) -> Result<Option<String>, BuildError> {
    match std::fs::read_to_string(path) {
        Ok(text) => match text.strip_suffix('\n') {
            Some(deployment) if is_deployment(deployment) => Ok(Some(deployment.to_owned())),
            _ => Err(BuildError::BadDeployment {
                path: path.to_owned(),
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BuildError::Deployment {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Removes everything that this deployment has in Docker, and the state folder.
pub(crate) async fn purge(config: &RunnerConfig) -> Result<(), PurgeError> {
    config
        .check()
        .map_err(|wrong| BuildError::from(wrong.first))?;
    let build = |source| PurgeError::Build { source };
    if !config.state_dir.is_dir() && config.deployment.is_none() {
        return Ok(());
    }
    make_dir(&config.state_dir, 0o700).map_err(build)?;
    let _lock = lock(&config.state_dir).map_err(build)?;
    let deployment = match deployment(config, None) {
        // It never came to its first start.
        Err(BuildError::Deployment { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(());
        }
        other => other.map_err(build)?,
    };
    let names = Names::new(&deployment, &config.run_dir);
    let firewall = Firewall::new(config.firewall, &names, Vec::new());
    reconcile::purge(&Docker::new(&config.docker_host), &names, &firewall)
        .await
        .map_err(|source| PurgeError::Docker { source })?;
    for path in [names.run_dir(), &config.state_dir] {
        match std::fs::remove_dir_all(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(PurgeError::Remove {
                    path: path.to_owned(),
                    source,
                });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PurgeError {
    #[error("cannot purge")]
    Build {
        #[from]
        source: BuildError,
    },
    #[error("cannot remove everything from Docker")]
    Docker {
        #[source]
        source: crate::docker::DockerError,
    },
    #[error("cannot remove `{path}`")]
    Remove {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Hint for PurgeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Build { source } => source.hint(),
            Self::Docker { source } => source.failure().hint,
            Self::Remove { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Build { source } => source.exit(),
            Self::Docker { .. } => Exit::Unavailable,
            Self::Remove { .. } => Exit::Failure,
        }
    }
}
