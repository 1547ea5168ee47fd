//! Putting the delegate together, and starting it.

use crate::{
    admin::{Admin, Keys},
    certificates::Certificates,
    checks::Checks,
    config::Config,
    drain::{Drain, DrainEnds},
    embedded::{EmbeddedControlPlane, EmbeddedError},
    identity::{Identity, IdentityError, IdentityFile, KeyInUse, Rotating},
    link_task::{LinkTask, Who},
    probe::Prober,
    runner::Runner,
    state_folder::{self, StateFolderError},
    status::Board,
    tasks::TasksTask,
    transport::{ProxyEnv, Transport, TransportError},
    tunnels::{TunnelParts, TunnelsTask, WayOut},
    unattended::FirstStart,
    uplink::{HelloSource, LinkHandle, Uplink, UplinkEnds},
    watch::WatchTask,
};
use ::admin::{AdminSocket, DrainFile, DrainFileError};
use camino::Utf8PathBuf;
use daemon::{
    ActivationError, Clock, Exit, Hint, Ids, IdsExt as _, Lifecycle, PassedSockets, StateLock,
    logging::LogHandle,
};
use local_rpc::BindError;
use runner_dial::RunnerDial;
use std::{convert::Infallible, sync::Arc};
use tls_server::ServedCertificate;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use wire::{ids::DelegateUuid, secret::Secret};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    StateFolder(#[from] StateFolderError),
    #[error("this host is not enrolled: `{path}` holds no delegate")]
    NotEnrolled { path: Utf8PathBuf },
    #[error("this host is enrolled at `{enrolled}`, and `control_plane_url` is `{configured}`")]
    OtherControlPlane {
        enrolled: String,
        configured: String,
    },
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("cannot serve the admin socket")]
    Admin {
        #[source]
        source: BindError,
    },
    #[error(transparent)]
    Passed(#[from] ActivationError),
    #[error(transparent)]
    Drain(#[from] DrainFileError),
    #[error("cannot get randomness from the operating system")]
    Random {
        #[source]
        source: getrandom::Error,
    },
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

impl Hint for StartError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::StateFolder(error) => error.hint(),
            Self::NotEnrolled { .. } => Some(
                "make a join token with `gitspace join-token create`, and run `delegate-agent enroll --url URL --join-token-file FILE`; or put the token into the credential `join-token`, and the host enrols itself".to_owned(),
            ),
            Self::OtherControlPlane { .. } => Some(
                "set `control_plane_url` back, or enrol anew with `delegate-agent enroll --again`".to_owned(),
            ),
            Self::Transport(error) => error.hint(),
            Self::Admin { source } => source.hint(),
            Self::Passed(error) => error.hint(),
            Self::Drain(error) => error.hint(),
            Self::Random { .. } => None,
            Self::Embedded(error) => error.hint(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Identity(error) => error.exit(),
            Self::StateFolder(error) => error.exit(),
            Self::NotEnrolled { .. } | Self::OtherControlPlane { .. } => Exit::Config,
            Self::Transport(error) => error.exit(),
            Self::Admin { .. } => Exit::Unavailable,
            Self::Passed(error) => error.exit(),
            Self::Drain(error) => error.exit(),
            Self::Random { .. } => Exit::Failure,
            Self::Embedded(error) => error.exit(),
        }
    }
}

/// What the delegate is given.
#[derive(Debug)]
pub struct Sources {
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub proxy_env: ProxyEnv,
    /// For a first start without a person.
    pub join_token: Option<Secret>,
    /// By the service manager.
    pub sockets: PassedSockets,
    pub log: LogHandle,
    /// The files that the configuration was read from.
    pub config_files: Vec<Utf8PathBuf>,
}

/// What was started. To be kept until the lifecycle has run.
#[derive(Debug)]
#[must_use = "the state folder is another's to take once it is dropped"]
pub struct Started {
    pub board: Board,
    pub link: LinkHandle,
    /// Two delegates in one folder would take the identity from each other.
    pub state_lock: StateLock,
    /// Where TLS ends in this process; SIGHUP has it read anew.
    pub certificate: Option<ServedCertificate>,
}

/// Starts everything the configuration asks for on `lifecycle`.
///
/// # Errors
/// See [`StartError`].
pub async fn start(
    config: Config,
    sources: Sources,
    lifecycle: &Lifecycle,
) -> Result<Started, StartError> {
    let Sources {
        clock,
        ids,
        proxy_env,
        join_token,
        mut sockets,
        log,
        config_files,
    } = sources;
    let runner = Runner::new(&config.runner_socket);
    let file = IdentityFile::new(config.state_dir.clone());
    // Early: another delegate-agent on this socket is found before anything is changed.
    let admin_socket = AdminSocket {
        path: &config.admin_socket,
        gid: config.socket_gid,
        passed: sockets.unix("admin")?,
    }
    .bind()
    .map_err(|source| StartError::Admin { source })?;
    sockets.finish()?;
    let state_lock = state_folder::take(&config.state_dir)?;
    let drain_file = DrainFile::in_folder(&config.state_dir)?;

    let embedded = match config.embedded.clone() {
        Some(embedded) => Some(
            Box::pin(EmbeddedControlPlane::start(
                embedded,
                Arc::clone(&clock),
                Arc::clone(&ids),
                lifecycle,
            ))
            .await?,
        ),
        None => None,
    };
    let own = embedded
        .as_ref()
        .filter(|embedded| embedded.is(&config.control_plane_url));
    let transport = match own {
        Some(embedded) => embedded.transport()?,
        None => Transport::new(
            config.control_plane_url.clone(),
            config.proxy.clone(),
            &proxy_env,
            config.ca_file.as_deref(),
        )?,
    };
    let known = match own {
        Some(embedded) => {
            let known = embedded.identity(&file, &transport, &config.name, &config.tags);
            Some(Box::pin(known).await?)
        }
        None => enrolled(&file)?,
    };
    let configured = config.control_plane_url.ascii();
    let seed = getrandom::u64().map_err(|source| StartError::Random { source })?;
    let board = Board::default();
    let in_use = KeyInUse::default();
    let who = match (known, join_token) {
        (Some((identity, _)), _) if identity.control_plane != configured && own.is_none() => {
            return Err(StartError::OtherControlPlane {
                enrolled: identity.control_plane,
                configured,
            });
        }
        (Some((identity, delegate)), _) => {
            if identity.control_plane != configured {
                // The same control plane under another name or port.
                let moved = Identity {
                    control_plane: configured,
                    ..identity.clone()
                };
                file.save(&moved)?;
            }
            if file.tidy(&identity)? == Rotating::Begun {
                tracing::warn!(
                    "A rotation of the key was begun and not finished: `delegate-agent rotate` finishes it"
                );
            }
            in_use.set(identity.key.clone());
            Who::Known(identity.name, delegate)
        }
        // A gateway in this process has to know whose gitspaces it reaches before it starts.
        (None, Some(join_token)) if embedded.is_none() => Who::Enrolling(Box::new(FirstStart {
            transport: transport.clone(),
            file: file.clone(),
            name: config.name.clone(),
            tags: config.tags.clone(),
            join_token,
            board: board.clone(),
            clock: Arc::clone(&clock),
            seed,
        })),
        (None, _) => return Err(StartError::NotEnrolled { path: file.path() }),
    };
    let own_gateway = match (&embedded, &who) {
        (Some(embedded), Who::Known(_, delegate)) => {
            let started = embedded.start_gateway(runner.clone(), *delegate, lifecycle);
            started.await?
        }
        (_, _) => None,
    };

    let served = embedded
        .as_ref()
        .and_then(EmbeddedControlPlane::certificate)
        .cloned();
    let way_out = WayOut {
        proxy: config.proxy.clone(),
        env: proxy_env,
        ca_file: config.ca_file.clone(),
    };
    let certificates = Certificates {
        served: served.clone(),
        transport: transport.clone(),
        ca_file: config.ca_file,
        warn_days: config.certificate_warn_days,
        clock: Arc::clone(&clock),
    };
    let keys = Keys {
        transport: transport.clone(),
        file: file.clone(),
        in_use: in_use.clone(),
        clock: Arc::clone(&clock),
        turn: Arc::new(Mutex::new(())),
    };
    let hello = HelloSource {
        key: in_use.clone(),
        audience: transport.origin().ascii(),
        tags: config.tags,
        capacity: config.capacity,
        runner: runner.clone(),
        drain: drain_file.clone(),
        clock: Arc::clone(&clock),
    };
    let (uplink, ends) = Uplink::new(
        transport,
        hello,
        Arc::clone(&clock),
        board.clone(),
        (ids.typed(), seed),
        lifecycle.tasks().pulse("uplink"),
    );
    let UplinkEnds {
        handle,
        events,
        live,
    } = ends;
    let stop = lifecycle.drain_token();
    let pulse = lifecycle.tasks().pulse("tasks");
    let prober = Prober {
        runner: runner.clone(),
        board: board.clone(),
        clock: Arc::clone(&clock),
    };
    let (offers, offered) = watch::channel(None);
    let tasks = TasksTask::new(
        runner.clone(),
        handle.clone(),
        events,
        prober.clone(),
        offers,
        pulse,
    );
    let tunnels = TunnelsTask::new(TunnelParts {
        offers: offered,
        way_out,
        runner: RunnerDial::new(runner.client().clone()),
        prober: prober.clone(),
        board: board.clone(),
        process: ids.typed(),
        seed,
        own: own_gateway,
        control_plane: config.control_plane_url.clone(),
    });
    let drain = Drain::new(drain_file, board.clone(), Arc::clone(&clock));
    let drain_ends = DrainEnds {
        runner: runner.clone(),
        link: handle.clone(),
        live: live.clone(),
    };
    let watch = WatchTask {
        runner: runner.clone(),
        link: handle.clone(),
        live,
        board: board.clone(),
        capacity: config.capacity,
        clock: Arc::clone(&clock),
    };
    let started = Started {
        board: board.clone(),
        link: handle.clone(),
        state_lock,
        certificate: served,
    };
    let admin = Admin {
        name: who.name().to_owned(),
        board: board.clone(),
        link: handle,
        prober,
        bootstrap: embedded.as_ref().map(EmbeddedControlPlane::bootstrap),
        checks: Checks {
            board: board.clone(),
            runner,
            identity: file,
            certificates,
            state_dir: config.state_dir,
        },
        drain: drain.clone(),
        config_files,
        keys,
    };
    lifecycle.spawn("tasks", tasks.run(stop.clone()));
    lifecycle.spawn("tunnels", tunnels.run(stop.clone()));
    lifecycle.spawn("watch", watch.run(stop.clone()));
    lifecycle.spawn("drain", drain.run(drain_ends, stop.clone()));
    lifecycle.spawn("words", tell_status(board, lifecycle.tasks(), stop.clone()));
    admin_socket.spawn(lifecycle, admin, log, clock);
    let link = LinkTask {
        who,
        uplink,
        in_use,
        tasks: lifecycle.tasks(),
    };
    lifecycle.spawn("uplink", link.run(stop));
    Ok(started)
}

/// Keeps the line that `systemctl status` shows true.
async fn tell_status(
    board: Board,
    tasks: daemon::Tasks,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut link = board.link.subscribe();
    let mut told = String::new();
    let tell = async {
        loop {
            let words = {
                let link = link.borrow_and_update();
                match (link.connected_since, &link.last_error) {
                    (Some(since), _) => {
                        format!("connected to {} since {since}", link.control_plane)
                    }
                    (None, Some(error)) if link.is_enrolling => format!(
                        "cannot enrol at {}, trying again: {}",
                        link.control_plane, error.message
                    ),
                    (None, Some(error)) => {
                        format!("not connected to {}: {}", link.control_plane, error.message)
                    }
                    (None, None) if link.is_enrolling => {
                        format!("enrolling at {}", link.control_plane)
                    }
                    (None, None) => format!("connecting to {}", link.control_plane),
                }
            };
            if words != told {
                tasks.status(&words);
                told = words;
            }
            if link.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        never = tell => never,
    }
}

fn enrolled(file: &IdentityFile) -> Result<Option<(Identity, DelegateUuid)>, IdentityError> {
    let identity = file.load()?;
    Ok(identity.and_then(|identity| identity.delegate.map(|delegate| (identity, delegate))))
}
