//! Putting the delegate together, and starting it.

use crate::{
    admin::{self, Admin},
    config::Config,
    embedded::{EmbeddedControlPlane, EmbeddedError},
    identity::{Identity, IdentityError, IdentityFile},
    runner::Runner,
    status::Board,
    tasks::TasksTask,
    transport::{ProxyEnv, Transport, TransportError},
    uplink::{HelloSource, LinkHandle, Uplink, UplinkEnds},
    watch::WatchTask,
};
use camino::Utf8PathBuf;
use daemon::{Clock, Exit, Hint, Ids, IdsExt as _, Lifecycle};
use local_rpc::BindError;
use std::sync::Arc;
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
    } = sources;
    let runner = Runner::new(&config.runner_socket);
    let file = IdentityFile::new(config.state_dir.clone());
    // Early: another delegate-agent on this socket is found before anything is changed.
    let admin_socket = admin::bind(&config.admin_socket, config.socket_gid)
        .map_err(|source| StartError::Admin { source })?;

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
        clock: Arc::clone(&clock),
    };
    let seed = getrandom::u64().map_err(|source| StartError::Random { source })?;
    let (uplink, ends) = Uplink::new(
        transport,
        hello,
        Arc::clone(&clock),
        board.clone(),
        (ids.typed(), seed),
    );
    let UplinkEnds {
        handle,
        events,
        live,
    } = ends;
    let drain = lifecycle.drain_token();
    let tasks = TasksTask::new(runner.clone(), handle.clone(), events, board.clone());
    let watch = WatchTask {
        runner: runner.clone(),
        link: handle.clone(),
        live,
        board: board.clone(),
        capacity: config.capacity,
        clock,
    };
    let started = Started {
        board: board.clone(),
        link: handle.clone(),
    };
    let admin = Admin {
        name: identity.name,
        board,
        runner,
        link: handle,
        bootstrap: embedded.as_ref().map(EmbeddedControlPlane::bootstrap),
    };
    lifecycle.spawn("tasks", tasks.run(drain.clone()));
    lifecycle.spawn("watch", watch.run(drain.clone()));
    lifecycle.spawn("admin", admin.serve(admin_socket, drain.clone()));
    lifecycle.spawn("uplink", uplink.run(drain));
    Ok(started)
}

fn enrolled(file: &IdentityFile) -> Result<(Identity, DelegateUuid), StartError> {
    let not_enrolled = || StartError::NotEnrolled { path: file.path() };
    let identity = file.load()?.ok_or_else(not_enrolled)?;
    let delegate = identity.delegate.ok_or_else(not_enrolled)?;
    Ok((identity, delegate))
}
