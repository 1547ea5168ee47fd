//! A client's SSH agent, as a socket of the remote user.

use super::{channels::Channels, listen::ACCEPT_PAUSE};
use crate::agent::Agent;
use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::Uid;
use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// In the run folder.
const FOLDER: &str = "ssh-agents";
/// Questions asked at once.
const MAX_QUESTIONS: usize = 32;

static LAST: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, thiserror::Error)]
pub(super) enum AuthAgentError {
    #[error("cannot find out who works here: {0}")]
    NoUser(String),
    #[error("cannot make the socket `{path}`: {source}")]
    Socket {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One client's. It ends, and the socket goes, when nobody has it any more.
#[derive(Debug)]
pub(super) struct AuthAgent {
    path: Utf8PathBuf,
    _stop: DropGuard,
}

impl AuthAgent {
    pub(super) fn open(
        agent: &Arc<Agent>,
        channels: Channels,
    ) -> Result<Arc<Self>, AuthAgentError> {
        let (_, account) = agent
            .remote_user()
            .map_err(|problem| AuthAgentError::NoUser(problem.message))?;
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let folder = agent.run_dir.join(FOLDER);
        let path = folder.join(format!("{}-{number}.sock", std::process::id()));
        let listener =
            bind(&folder, &path, account.uid).map_err(|source| AuthAgentError::Socket {
                path: path.clone(),
                source,
            })?;
        let stop = CancellationToken::new();
        let (tasks, stopped) = (agent.tasks.clone(), stop.clone());
        agent.tasks.spawn(async move {
            let serving = async {
                let places = Arc::new(tokio::sync::Semaphore::new(MAX_QUESTIONS));
                loop {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                        return;
                    };
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let channels = channels.clone();
                            tasks.spawn(async move {
                                carry(stream, &channels).await;
                                drop(place);
                            });
                        }
                        Err(error) => {
                            tracing::warn!(%error, "A forwarded SSH agent took no question");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = serving => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Arc::new(Self {
            path,
            _stop: stop.drop_guard(),
        }))
    }

    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }
}

impl Drop for AuthAgent {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path, "The socket of an SSH agent stays");
        }
    }
}

/// In a folder that is root's: no user can put something else in the socket's place.
fn bind(folder: &Utf8Path, path: &Utf8Path, uid: u32) -> io::Result<UnixListener> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(0o711))?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    nix::unistd::chown(path.as_std_path(), Some(Uid::from_raw(uid)), None)?;
    Ok(listener)
}

/// What an earlier `serve` left.
pub(crate) fn sweep(run_dir: &Utf8Path) {
    match std::fs::remove_dir_all(run_dir.join(FOLDER)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "Sockets of SSH agents stay"),
    }
}

async fn carry(mut stream: UnixStream, channels: &Channels) {
    let opened = channels
        .open("auth-agent@openssh.com", |message| message)
        .await;
    let channel = match opened {
        Ok(channel) => channel,
        Err(error) => {
            tracing::debug!(%error, "A client does not let its SSH agent be asked");
            return;
        }
    };
    let (from, to) = stream.split();
    if let Err(error) = channel.join(from, to).await {
        tracing::debug!(%error, "A question to a client's SSH agent broke off");
    }
}
