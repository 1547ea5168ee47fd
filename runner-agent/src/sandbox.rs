//! Sandboxes: network, volume and a container of our own image that clones, and the pool of those that are ready.
//!
//! A sandbox is the same for every gitspace until it has cloned, so one is made before it is needed.
//!
//! Invariants: a spare is in the ledger before anything of it is in Docker; it is refilled only while no task runs, so that nobody waits
//! for it; one of another image or agent is not used.

use crate::{
    agent_client::Agent,
    docker::{ContainerPlan, Docker},
    ledger::Spare,
    names::{Role, digest},
    shared::Shared,
    silence,
};
use camino::Utf8Path;
use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::DirBuilderExt as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use wire::{
    agent::{
        AGENT_BINARY, AGENT_DIR, AGENT_RUN_DIR, CommandJob, CommandLine, JobOutcome, JobSpec,
        WORKSPACES_DIR,
    },
    failure::{Failure, FailureCode},
    gitspace::Resources,
    ids::GitspaceUuid,
};

/// Of a sandbox; Git's own appetite for a large repository.
const SANDBOX: Resources = Resources {
    cpu_millis: 0,
    memory_bytes: 4 * 1024 * 1024 * 1024,
    pids: 1024,
};
/// From the start of a container until its agent answers.
pub(crate) const AGENT_DEADLINE: Duration = Duration::from_secs(60);
/// How often a container that does not answer is asked whether it still runs.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// After the last task, before the pool makes the next spare.
const IDLE_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Who may make spares when.
#[derive(Debug)]
pub(crate) struct Pool {
    busy: watch::Sender<u32>,
    wake: Notify,
    failure: Mutex<Option<Failure>>,
}

/// Holds the pool back while it lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0
            .pool
            .busy
            .send_modify(|count| *count = count.saturating_sub(1));
        self.0.pool.wake.notify_one();
    }
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            busy: watch::Sender::new(0),
            wake: Notify::new(),
            failure: Mutex::new(None),
        }
    }

    pub(crate) fn hold(shared: &Arc<Shared>) -> Busy {
        shared.pool.busy.send_modify(|count| *count += 1);
        Busy(Arc::clone(shared))
    }

    /// Asks for a look at the spares.
    pub(crate) fn look(&self) {
        self.wake.notify_one();
    }

    /// Why the last spare could not be made.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_failure(&self, failure: Option<Failure>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

/// A fresh name for a machine. Its first eight digits name an interface.
pub(crate) fn key(shared: &Shared) -> String {
    digest(shared.ids.uuid().as_bytes(), 12)
}

/// A private folder for an agent's socket. Somebody's leftovers in it are removed.
pub(crate) fn make_run_dir(path: &Utf8Path) -> Result<(), Failure> {
    tokio::task::block_in_place(|| {
        remove_dir(path)?;
        std::fs::DirBuilder::new().mode(0o700).create(path)
    })
    .map_err(|error| {
        Failure::new(
            FailureCode::Internal,
            format!("cannot make the agent's folder `{path}`"),
        )
        .detail(error.to_string())
    })
}

pub(crate) fn remove_run_dir(path: &Utf8Path) {
    if let Err(error) = tokio::task::block_in_place(|| remove_dir(path)) {
        tracing::warn!(%path, %error, "Cannot remove an agent's folder");
    }
}

fn remove_dir(path: &Utf8Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is the same for a sandbox and a dev container.
pub(crate) fn base_plan(
    shared: &Shared,
    key: &str,
    role: Role,
    run_dir: &Utf8Path,
    resources: &Resources,
) -> ContainerPlan {
    let machine = shared.names.machine(key);
    ContainerPlan {
        name: String::new(),
        hostname: String::new(),
        image: String::new(),
        env: BTreeMap::new(),
        entrypoint: vec![AGENT_BINARY.to_owned(), "init".to_owned()],
        working_dir: WORKSPACES_DIR.to_owned(),
        labels: shared.names.labels(role, key),
        network: machine.clone(),
        volume: (machine, WORKSPACES_DIR.to_owned()),
        binds: vec![
            (
                shared.agent_copy.dir.to_string(),
                format!("{AGENT_DIR}/bin"),
                true,
            ),
            (run_dir.to_string(), AGENT_RUN_DIR.to_owned(), false),
        ],
        cpu_millis: resources.cpu_millis,
        memory_bytes: resources.memory_bytes,
        pids: resources.pids,
    }
}

/// Network, volume and a sandbox whose agent answers; what of it is there stays.
pub(crate) async fn ensure(
    shared: &Shared,
    docker: &Docker,
    key: &str,
    gitspace: Option<GitspaceUuid>,
) -> Result<Agent, Failure> {
    let run_dir = shared.names.sandbox_run_dir(key);
    let agent = Agent::new(&run_dir);
    let name = shared.names.sandbox(key);
    // The usual case, a claimed spare, costs one call.
    if agent.health().await.is_ok() {
        return Ok(agent);
    }
    ensure_machine(shared, docker, key, gitspace).await?;
    docker.remove_container(&name).await?;
    make_run_dir(&run_dir)?;
    let image = shared.config.sandbox_image();
    if docker.image(image).await?.is_none() {
        return Err(default_image_missing(image));
    }
    let mut plan = base_plan(shared, key, Role::Sandbox, &run_dir, &SANDBOX);
    plan.name.clone_from(&name);
    plan.hostname = "sandbox".to_owned();
    plan.image = image.to_owned();
    docker.create_container(plan).await?;
    docker.start_container(&name).await?;
    wait_for_agent(docker, &name, &agent).await?;
    Ok(agent)
}

/// Network and volume alone.
pub(crate) async fn ensure_machine(
    shared: &Shared,
    docker: &Docker,
    key: &str,
    gitspace: Option<GitspaceUuid>,
) -> Result<(), Failure> {
    shared.firewall.ready()?;
    let name = shared.names.machine(key);
    let bridge = shared.names.bridge(key);
    let mut labels = shared.names.labels(Role::Machine, key);
    if let Some(gitspace) = gitspace {
        labels.insert(crate::names::GITSPACE.to_owned(), gitspace.to_string());
    }
    tokio::try_join!(
        docker.ensure_network(&name, &bridge, &labels),
        docker.ensure_volume(&name, &shared.config.volume_options, &labels),
    )?;
    Ok(())
}

pub(crate) fn default_image_missing(image: &str) -> Failure {
    Failure::new(
        FailureCode::ImageMissing,
        format!("the default image `{image}` is not on the host"),
    )
    .hint("build it on the host with `packaging/default-image`, or name another one as `default_image` in the runner's configuration")
}

/// Until the agent of a container that was just started answers; says why where the container ended instead.
pub(crate) async fn wait_for_agent(
    docker: &Docker,
    container: &str,
    agent: &Agent,
) -> Result<wire::agent::Health, Failure> {
    let watch_container = async {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            match docker.container(container).await {
                Ok(Some(facts)) if facts.running => {}
                Ok(Some(facts)) => {
                    let log = docker.log_tail(container).await;
                    return silence::ended_early(&facts, &log);
                }
                Ok(None) => {
                    return Failure::new(
                        FailureCode::ContainerExited,
                        "the container was removed while it started",
                    )
                    .hint("start the gitspace again");
                }
                Err(error) => return error.failure(),
            }
        }
    };
    tokio::select! {
        health = agent.wait() => Ok(health),
        failure = watch_container => Err(failure),
        () = tokio::time::sleep(AGENT_DEADLINE) => {
            let log = docker.log_tail(container).await;
            Err(Failure::new(
                FailureCode::AgentUnreachable,
                format!("the agent did not answer within {} s", AGENT_DEADLINE.as_secs()),
            )
            .detail(log)
            .hint("the host may be overloaded: stop the gitspace and start it again; if it stays so, reset it, which makes its container anew"))
        }
    }
}

/// Removes everything of a machine from Docker, and its folders.
pub(crate) async fn remove_machine(
    shared: &Shared,
    docker: &Docker,
    key: &str,
) -> Result<(), Failure> {
    docker.remove_container(&shared.names.sandbox(key)).await?;
    let machine = shared.names.machine(key);
    docker.remove_network(&machine).await?;
    docker.remove_volume(&machine).await?;
    remove_run_dir(&shared.names.sandbox_run_dir(key));
    remove_run_dir(&shared.names.dev_run_dir(key));
    Ok(())
}

/// Keeps the pool full until the drain; then removes the spares, so that nothing runs for nobody.
pub(crate) async fn run(
    shared: Arc<Shared>,
    docker: Docker,
) -> Result<(), std::convert::Infallible> {
    let drain = shared.tasks.drain_token();
    let work = async {
        loop {
            let pause = match refill(&shared, &docker).await {
                Ok(()) => {
                    shared.pool.set_failure(None);
                    None
                }
                Err(failure) => {
                    tracing::warn!(%failure, detail = failure.detail, "Cannot keep a sandbox ready");
                    shared.pool.set_failure(Some(failure));
                    Some(RETRY_PAUSE)
                }
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => shared.pool.wake.notified().await,
            }
        }
    };
    tokio::select! {
        () = drain.cancelled() => {}
        never = work => match never {},
    }
    for spare in shared.ledger.spares() {
        if let Err(failure) = remove_spare(&shared, &docker, &spare.key).await {
            tracing::warn!(key = spare.key, %failure, "A spare sandbox stays behind until the next start");
        }
    }
    Ok(())
}

/// Removes a spare, but not what somebody may have worked at: a ledger put back from an older copy knows a gitspace's volume as a spare's.
async fn remove_spare(shared: &Shared, docker: &Docker, key: &str) -> Result<(), Failure> {
    if docker.volume_exists(&shared.names.machine(key)).await? {
        let agent = ensure(shared, docker, key, None).await?;
        if !is_empty(shared, &agent).await? {
            tracing::error!(
                key,
                "The volume of a spare sandbox is not empty: it is kept"
            );
            docker.remove_container(&shared.names.sandbox(key)).await?;
            remove_run_dir(&shared.names.sandbox_run_dir(key));
            shared.ledger.remove_spare(key)?;
            shared.compare.notify_one();
            return Ok(());
        }
    }
    remove_machine(shared, docker, key).await?;
    shared.ledger.remove_spare(key)?;
    Ok(())
}

/// Makes a spare of an earlier run, or one that has ended, ready again; `false` where it cannot be given to anybody.
async fn revive(shared: &Shared, docker: &Docker, spare: &Spare) -> Result<bool, Failure> {
    idle(shared).await;
    let agent = ensure(shared, docker, &spare.key, None).await?;
    if !is_empty(shared, &agent).await? {
        return Ok(false);
    }
    let mut spare = spare.clone();
    spare.ready = true;
    shared.ledger.put_spare(&spare)?;
    Ok(true)
}

/// Whether nothing lies in the workspace of a sandbox.
async fn is_empty(shared: &Shared, agent: &Agent) -> Result<bool, Failure> {
    let job = JobSpec::Command(CommandJob {
        user: "0:0".to_owned(),
        cwd: "/".to_owned(),
        env: BTreeMap::new(),
        command: CommandLine::Shell {
            script: format!("test -z \"$(ls -A {WORKSPACES_DIR})\""),
        },
        once: false,
    });
    let id = format!("empty-{}", key(shared));
    let outcome = agent.run_job(&id, &job, |_, _| {}).await?;
    agent.delete_job(&id).await;
    match outcome {
        JobOutcome::Done { .. } => Ok(true),
        JobOutcome::Failed {
            exit_code: Some(1), ..
        } => Ok(false),
        JobOutcome::Failed { failure, .. } => Err(failure),
        JobOutcome::Cancelled {} => Err(Failure::new(
            FailureCode::Cancelled,
            "the look into a sandbox was cancelled",
        )),
    }
}

/// Removes what cannot be used, and makes what is missing.
async fn refill(shared: &Arc<Shared>, docker: &Docker) -> Result<(), Failure> {
    let wanted = usize::try_from(shared.config.sandbox_pool).unwrap_or(0);
    let image = match docker.image(shared.config.sandbox_image()).await? {
        Some(image) => image.id,
        None => return Err(default_image_missing(shared.config.sandbox_image())),
    };
    let mut good = 0;
    for spare in shared.ledger.spares() {
        let fits = good < wanted && spare.image == image && spare.agent == shared.agent_copy.hash;
        let agent = Agent::new(&shared.names.sandbox_run_dir(&spare.key));
        let usable = fits
            && ((spare.ready && agent.health().await.is_ok())
                || revive(shared, docker, &spare).await?);
        if usable {
            good += 1;
        } else if shared.ledger.take_spare(&spare.key) {
            remove_spare(shared, docker, &spare.key).await?;
        }
    }
    while good < wanted {
        idle(shared).await;
        let mut spare = Spare::new(key(shared), image.clone(), shared.agent_copy.hash.clone());
        shared.ledger.put_spare(&spare)?;
        ensure(shared, docker, &spare.key, None).await?;
        spare.ready = true;
        shared.ledger.put_spare(&spare)?;
        good += 1;
        tracing::debug!(key = spare.key, "A sandbox is ready");
    }
    Ok(())
}

/// Returns after a moment without any task.
async fn idle(shared: &Shared) {
    let mut busy = shared.pool.busy.subscribe();
    loop {
        if busy.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(IDLE_PAUSE) => return,
            changed = busy.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
