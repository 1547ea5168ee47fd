//! What the parts of `serve` share.
//!
//! Invariant: credentials are in memory alone. The rest of the config is also kept in a file of the run folder, so that terminals and
//! exec go on working when `serve` is killed and started again.

use crate::{
    account::{Account, AccountError, Accounts},
    clock,
    dial::Dialled,
    environment::{self, Environment},
    job::Jobs,
    ssh::{self, HostKeyError},
};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ssh_transport::HostKey;
use std::{
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{
    agent::{AGENT_RUN_DIR, AgentConfig},
    problem::Problem,
};

/// The config without credentials, for the next `serve` of the same container.
const CONFIG_FILE: &str = "config.json";

/// Locks a mutex whose data stays whole when a holder panics: nothing here is changed in more than one step.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) run_dir: Utf8PathBuf,
    volume: Utf8PathBuf,
    /// This binary, as processes of this container can call it.
    pub(crate) binary: Utf8PathBuf,
    pub(crate) started: Instant,
    /// Of the container, as PID 1 got it.
    pub(crate) inherited: Environment,
    pub(crate) jobs: Jobs,
    pub(crate) dialled: Dialled,
    pub(crate) tasks: TaskTracker,
    /// Those of SSH, which say goodbye when `stopping` is cancelled.
    pub(crate) ssh_sessions: TaskTracker,
    /// Those of them whose lines may be cut.
    pub(crate) ssh_lines: ssh::Sessions,
    pub(crate) stopping: CancellationToken,
    config: Mutex<Configured>,
    last_exec: Mutex<Option<Timestamp>>,
    host_key: tokio::sync::OnceCell<Arc<HostKey>>,
}

#[derive(Debug, Default)]
struct Configured {
    config: Option<Arc<AgentConfig>>,
    /// False after a restart that lost credentials: the runner has to put the config again.
    complete: bool,
}

#[derive(Serialize, Deserialize)]
struct KeptConfig {
    format: u32,
    had_credentials: bool,
    config: AgentConfig,
}

const KEPT_FORMAT: u32 = 1;

impl Agent {
    pub(crate) fn new(run_dir: Utf8PathBuf, volume: Utf8PathBuf, binary: Utf8PathBuf) -> Self {
        let config = read_kept(&run_dir).unwrap_or_default();
        Self {
            run_dir,
            volume,
            binary,
            started: Instant::now(),
            inherited: environment::inherited(std::env::vars_os()),
            jobs: Jobs::default(),
            dialled: Dialled::default(),
            tasks: TaskTracker::new(),
            ssh_sessions: TaskTracker::new(),
            ssh_lines: ssh::Sessions::default(),
            stopping: CancellationToken::new(),
            config: Mutex::new(config),
            last_exec: Mutex::new(None),
            host_key: tokio::sync::OnceCell::new(),
        }
    }

    pub(crate) fn config(&self) -> Option<Arc<AgentConfig>> {
        lock(&self.config).config.clone()
    }

    pub(crate) fn is_configured(&self) -> bool {
        let configured = lock(&self.config);
        configured.config.is_some() && configured.complete
    }

    pub(crate) fn configure(&self, config: AgentConfig) {
        keep(&self.run_dir, &config);
        *lock(&self.config) = Configured {
            config: Some(Arc::new(config)),
            complete: true,
        };
    }

    /// The user of terminals and exec, with the config that names it.
    pub(crate) fn remote_user(&self) -> Result<(Arc<AgentConfig>, Account), Problem> {
        let config = self.config().ok_or_else(|| {
            Problem::new("not_configured", "the gitspace is not set up yet")
                .hint("wait until it is running")
        })?;
        let account = resolve(&config.remote_user)?;
        Ok((config, account))
    }

    /// The command of git's credential helper.
    pub(crate) fn credential_helper(&self, job: Option<&str>) -> String {
        let mut helper = format!("{} credential", self.binary);
        if self.run_dir != AGENT_RUN_DIR {
            helper.push_str(" --run-dir ");
            helper.push_str(self.run_dir.as_str());
        }
        if let Some(job) = job {
            helper.push_str(" --job ");
            helper.push_str(job);
        }
        helper
    }

    /// Of the gitspace's SSH server.
    pub(crate) async fn host_key(&self) -> Result<Arc<HostKey>, HostKeyError> {
        let volume = self.volume.clone();
        let made = self.host_key.get_or_try_init(|| async {
            tokio::task::spawn_blocking(move || ssh::open_or_make(&volume))
                .await
                .map_err(|_| HostKeyError::Interrupted)?
                .map(Arc::new)
        });
        made.await.cloned()
    }

    pub(crate) fn note_exec(&self) {
        *lock(&self.last_exec) = Some(clock::now());
    }

    pub(crate) fn last_exec(&self) -> Option<Timestamp> {
        *lock(&self.last_exec)
    }
}

pub(crate) fn resolve(user: &str) -> Result<Account, Problem> {
    Accounts::read()
        .resolve(user)
        .map_err(|error: AccountError| {
            Problem::new("user_missing", error.to_string())
                .hint("check the remoteUser of devcontainer.json against the image")
        })
}

/// Forgets the config of an earlier life of the container.
pub(crate) fn forget_config(run_dir: &Utf8Path) {
    match std::fs::remove_file(run_dir.join(CONFIG_FILE)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "An old config stays"),
    }
}

fn read_kept(run_dir: &Utf8Path) -> Option<Configured> {
    let bytes = std::fs::read(run_dir.join(CONFIG_FILE)).ok()?;
    match serde_json::from_slice::<KeptConfig>(&bytes) {
        Ok(kept) if kept.format == KEPT_FORMAT => Some(Configured {
            complete: !kept.had_credentials,
            config: Some(Arc::new(kept.config)),
        }),
        Ok(kept) => {
            tracing::warn!(
                format = kept.format,
                "The kept config has another format and is left"
            );
            None
        }
        Err(error) => {
            tracing::warn!(%error, "The kept config cannot be read and is left");
            None
        }
    }
}

fn keep(run_dir: &Utf8Path, config: &AgentConfig) {
    let kept = KeptConfig {
        format: KEPT_FORMAT,
        had_credentials: !config.git_credentials.is_empty(),
        config: AgentConfig {
            git_credentials: Vec::new(),
            ..config.clone()
        },
    };
    if let Err(error) = write_private(&run_dir.join(CONFIG_FILE), &kept) {
        // A full disk costs the config at the next restart of `serve` only; the runner puts it again.
        tracing::warn!(%error, "The config cannot be kept");
    }
}

fn write_private(path: &Utf8Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("json.partial");
    let bytes = serde_json::to_vec(value)?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&bytes)?;
    std::fs::rename(&temporary, path)
}
