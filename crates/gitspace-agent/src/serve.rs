//! `serve`: the process behind the sockets.
//!
//! | socket | who | what |
//! |---|---|---|
//! | `control.sock` | root: the runner | [`crate::control`] |
//! | `user.sock` | the remote user | [`crate::credential`] |
//!
//! The workspace service has no socket: the runner dials it. It may be killed at any time: `init` starts it again, terminals live on in
//! their holders, and running jobs die with it.

use crate::{agent::Agent, command_line::ServeOptions, control, credential, ssh, terminal};
use camino::{Utf8Path, Utf8PathBuf};
use local_rpc::{BindError, BindOptions, Listener, PeerPolicy, ServerConfig, server::ServeError};
use nix::sys::signal::SigSet;
use std::{
    fs::Permissions, io, os::unix::fs::PermissionsExt as _, process::ExitCode, sync::Arc,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use wire::agent::CONTROL_SOCKET;

/// The runner's calls, and dials under way.
const MAX_CONTROL: usize = 1024;
/// Helpers of git ask one question each.
const MAX_USERS: usize = 64;
const DRAIN: Duration = Duration::from_millis(500);
const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
enum ServeFailure {
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot find the own binary: {0}")]
    Binary(#[source] io::Error),
    #[error("cannot prepare `{path}`: {source}")]
    RunDir {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Bind(#[from] BindError),
    #[error("{0}")]
    Serve(#[from] ServeError),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
}

pub(crate) fn run(options: ServeOptions) -> ExitCode {
    // PID 1 blocks its signals, and children inherit that.
    if let Err(error) = SigSet::all().thread_unblock() {
        tracing::warn!(%error, "Cannot unblock signals");
    }
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "Cannot serve");
            ExitCode::FAILURE
        }
    }
}

fn start(options: ServeOptions) -> Result<(), ServeFailure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(ServeFailure::Runtime)?;
    let done = runtime.block_on(serve(options));
    // Reading /proc or a clone's leftovers must not hold up the stop.
    runtime.shutdown_background();
    done
}

async fn serve(options: ServeOptions) -> Result<(), ServeFailure> {
    let run_dir = options.run_dir;
    prepare(&run_dir).map_err(|source| ServeFailure::RunDir {
        path: run_dir.clone(),
        source,
    })?;
    let control = Listener::bind(
        &run_dir.join(CONTROL_SOCKET),
        BindOptions {
            mode: 0o600,
            gid: None,
        },
    )?;
    let user = Listener::bind(
        &run_dir.join(credential::USER_SOCKET),
        BindOptions {
            mode: 0o666,
            gid: None,
        },
    )?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeFailure::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeFailure::Signals)?;

    let binary = std::env::current_exe()
        .and_then(|path| Utf8PathBuf::try_from(path).map_err(io::Error::other))
        .map_err(ServeFailure::Binary)?;
    let agent = Arc::new(Agent::new(run_dir.clone(), options.volume, binary));
    let stop = agent.stopping.clone();
    tracing::info!(%run_dir, "Serving");

    let mut config = ServerConfig::new(PeerPolicy::owner());
    config.max_connections = MAX_CONTROL;
    config.drain = DRAIN;
    let for_control = Arc::clone(&agent);
    let control = local_rpc::server::serve(
        control,
        config,
        move |request, _| control::handle(Arc::clone(&for_control), request),
        stop.clone(),
    );
    // Who may ask is decided by the question, as the remote user changes with the config.
    let mut config = ServerConfig::new(PeerPolicy::anyone());
    config.max_connections = MAX_USERS;
    config.drain = DRAIN;
    let for_users = Arc::clone(&agent);
    let user = local_rpc::server::serve(
        user,
        config,
        move |request, peer| credential::handle(Arc::clone(&for_users), request, peer),
        stop.clone(),
    );
    agent.tasks.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("Stopping");
        stop.cancel();
    });
    // A socket that breaks ends both servers, and `init` starts anew.
    tokio::try_join!(control, user)?;
    agent.ssh_sessions.close();
    // Whoever does not take the goodbye is left without it.
    drop(tokio::time::timeout(DRAIN, agent.ssh_sessions.wait()).await);
    Ok(())
}

/// Users may pass through the run folder to their socket, and see nothing else in it.
fn prepare(run_dir: &Utf8Path) -> io::Result<()> {
    std::fs::create_dir_all(run_dir)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the agent is not root; start the container as root (`User: 0`): the remote user is switched to later",
        ));
    }
    std::fs::set_permissions(run_dir, Permissions::from_mode(0o711))?;
    ssh::sweep(run_dir);
    terminal::prepare(run_dir)
}
