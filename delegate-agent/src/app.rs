//! Putting the delegate together, and starting it.

use crate::{
    admin::Admin,
    checks::Checks,
    config::Config,
    drain::{Drain, DrainEnds},
    embedded::{EmbeddedControlPlane, EmbeddedError},
    identity::{Identity, IdentityError, IdentityFile},
    probe::Prober,
    runner::Runner,
    status::Board,
    tasks::TasksTask,
    transport::{ProxyEnv, Transport, TransportError},
    uplink::{HelloSource, LinkHandle, Uplink, UplinkEnds},
    watch::WatchTask,
};
use ::admin::{AdminSocket, DrainFile, DrainFileError};
use camino::Utf8PathBuf;
use daemon::{
    ActivationError, Clock, Exit, Hint, Ids, IdsExt as _, Lifecycle, PassedSockets,
    logging::LogHandle,
};
use local_rpc::BindError;
use std::{convert::Infallible, sync::Arc};
use tokio_util::sync::CancellationToken;
use wire::ids::DelegateUuid;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
            Self::NotEnrolled { .. } => Some(
                "make a join token with `gitspace join-token create`, and run `delegate-agent enroll --url URL --join-token-file FILE`".to_owned(),
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
    /// By the service manager.
    pub sockets: PassedSockets,
    pub log: LogHandle,
    /// The files that the configuration was read from.
    pub config_files: Vec<Utf8PathBuf>,
}

/// What was started.
#[derive(Debug)]
pub struct Started {
    pub board: Board,
    pub link: LinkHandle,
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
    let drain_file = DrainFile::open(config.state_dir.join("drain.json"))?;

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
        Some(embedded) => Transport::embedded(config.control_plane_url.clone(), embedded.address()),
        None => Transport::new(
            config.control_plane_url.clone(),
            config.proxy.clone(),
            &proxy_env,
            config.ca_file.as_deref(),
        )?,
    };
    let (identity, delegate) = match own {
        Some(embedded) => {
            Box::pin(embedded.identity(&file, &transport, &config.name, &config.tags)).await?
        }
        None => enrolled(&file)?,
    };
    let configured = config.control_plane_url.ascii();
    if identity.control_plane != configured {
        if own.is_none() {
            return Err(StartError::OtherControlPlane {
                enrolled: identity.control_plane,
                configured,
            });
        }
        // The same control plane under another name or port.
        let moved = Identity {
            control_plane: configured,
            ..identity.clone()
        };
        file.save(&moved)?;
    }
    if let Some(embedded) = &embedded {
        embedded
            .start_gateway(runner.clone(), delegate, lifecycle)
            .await?;
    }

    let board = Board::default();
    let hello = HelloSource {
        delegate,
        key: identity.key,
        audience: transport.origin().ascii(),
        tags: config.tags,
        capacity: config.capacity,
        runner: runner.clone(),
        drain: drain_file.clone(),
        clock: Arc::clone(&clock),
    };
    let seed = getrandom::u64().map_err(|source| StartError::Random { source })?;
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
    let tasks = TasksTask::new(
        runner.clone(),
        handle.clone(),
        events,
        prober.clone(),
        pulse,
    );
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
    };
    let admin = Admin {
        name: identity.name,
        board: board.clone(),
        link: handle,
        prober,
        bootstrap: embedded.as_ref().map(EmbeddedControlPlane::bootstrap),
        checks: Checks {
            board: board.clone(),
            runner,
            state_dir: config.state_dir,
        },
        drain: drain.clone(),
        config_files,
    };
    let pulses = lifecycle.tasks().pulses();
    lifecycle.spawn("tasks", tasks.run(stop.clone()));
    lifecycle.spawn("watch", watch.run(stop.clone()));
    lifecycle.spawn("drain", drain.run(drain_ends, stop.clone()));
    lifecycle.spawn("words", tell_status(board, lifecycle.tasks(), stop.clone()));
    lifecycle.spawn(
        "admin",
        admin_socket.serve(admin, log, pulses, clock, stop.clone()),
    );
    lifecycle.spawn("uplink", uplink.run(stop));
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
                    (None, Some(error)) => {
                        format!("not connected to {}: {}", link.control_plane, error.message)
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

fn enrolled(file: &IdentityFile) -> Result<(Identity, DelegateUuid), StartError> {
    let not_enrolled = || StartError::NotEnrolled { path: file.path() };
    let identity = file.load()?.ok_or_else(not_enrolled)?;
    let delegate = identity.delegate.ok_or_else(not_enrolled)?;
    Ok((identity, delegate))
}
