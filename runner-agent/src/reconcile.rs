//! Keeps Docker and the ledger together: at start, on Docker's events, and every minute.
//!
//! What nobody wants is removed, what died is looked at and published, and what the ledger has lost is adopted ([`compare_once`]). The
//! decision is [`plan`], a plain function; here is only its shell.

mod plan;

use crate::{
    docker::Docker,
    gitspace::Gitspaces,
    ledger::{Record, Spare},
    names::{GITSPACE, KEY, RECORD, ROLE, Role},
    shared::Shared,
};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use plan::{Known, Listed, Listing, Step, plan};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use wire::{failure::Failure, ids::GitspaceUuid};

const PERIOD: Duration = Duration::from_secs(60);
/// Before the stream of events is opened again: doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Volumes and dev containers that nobody knows. They may hold somebody's work, so they are told and kept.
#[derive(Debug, Default)]
pub(crate) struct Orphans(Mutex<Kept>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) volumes: Vec<String>,
    pub(crate) containers: Vec<String>,
}

impl Orphans {
    pub(crate) fn get(&self) -> Kept {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, kept: Kept) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != kept && kept != Kept::default() {
            tracing::warn!(volumes = ?kept.volumes, containers = ?kept.containers, "What no gitspace knows is kept");
        }
        *known = kept;
    }
}

/// Watches and reconciles until the drain.
pub(crate) async fn run(
    shared: Arc<Shared>,
    docker: Docker,
    gitspaces: Gitspaces,
    orphans: Arc<Orphans>,
) -> Result<(), Infallible> {
    let drain = shared.tasks.drain_token();
    let work = async {
        tokio::join!(
            watch(&shared, &docker, &gitspaces, &orphans),
            tick(&shared, &docker, &gitspaces, &orphans),
        )
    };
    tokio::select! {
        () = drain.cancelled() => Ok(()),
        (never, _) = work => match never {},
    }
}

async fn tick(
    shared: &Shared,
    docker: &Docker,
    gitspaces: &Gitspaces,
    orphans: &Orphans,
) -> Infallible {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // At once, and the start has set up the firewall.
    ticks.tick().await;
    loop {
        pass(shared, docker, gitspaces, orphans).await;
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.compare.notified() => {}
        }
        shared.firewall.apply().await;
    }
}

/// Follows Docker's events. Whatever was missed while it could not is found by the pass after each reconnect.
async fn watch(
    shared: &Shared,
    docker: &Docker,
    gitspaces: &Gitspaces,
    orphans: &Orphans,
) -> Infallible {
    let mut pause = FIRST_PAUSE;
    let mut first = true;
    loop {
        match docker.events(&shared.names.filter()).await {
            Ok(events) => {
                let mut events = Box::pin(events);
                if !first {
                    // Docker was away: its chains may be too.
                    shared.firewall.apply().await;
                    pass(shared, docker, gitspaces, orphans).await;
                }
                while let Some(event) = events.next().await {
                    match event {
                        Ok(event) => {
                            pause = FIRST_PAUSE;
                            let action = event.action.unwrap_or_default();
                            if !matches!(
                                action.as_str(),
                                "die" | "oom" | "destroy" | "start" | "pause" | "unpause"
                            ) {
                                continue;
                            }
                            let gitspace = event
                                .actor
                                .and_then(|actor| actor.attributes)
                                .and_then(|labels| labels.get(GITSPACE)?.parse().ok());
                            match gitspace {
                                Some(gitspace) if action == "oom" => {
                                    let at = event
                                        .time_nano
                                        .and_then(|nanos| {
                                            Timestamp::from_nanosecond(nanos.into()).ok()
                                        })
                                        .unwrap_or_else(|| shared.clock.now());
                                    gitspaces.out_of_memory(gitspace, at);
                                }
                                Some(gitspace) => gitspaces.look(gitspace),
                                None => {}
                            }
                        }
                        Err(error) => {
                            tracing::warn!(error = %daemon::ErrorChain(&error), "Docker's events broke off");
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %daemon::ErrorChain(&error), "Cannot watch Docker");
            }
        }
        first = false;
        look_at_all(shared, gitspaces);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn look_at_all(shared: &Shared, gitspaces: &Gitspaces) {
    for record in shared.ledger.records() {
        gitspaces.look(record.gitspace);
    }
}

/// Takes into the ledger what it has lost of the dev containers that are there: once, before anything is done to any of them, so that
/// nothing that is being made or removed is taken for lost.
pub(crate) async fn compare_once(shared: &Shared, docker: &Docker) -> Result<(), Failure> {
    shared
        .compared
        .get_or_try_init(|| async {
            let listing = listing(shared, docker).await?;
            let (records, spares) = shared.ledger.snapshot();
            let known = Known {
                whole: shared.ledger.damaged().is_empty(),
                records: &records,
                spares: &spares,
                deleted: &shared.ledger.deleted(),
            };
            for step in plan(&shared.names, known, &listing) {
                let Step::Adopt { id } = step else { continue };
                let lost = listing.containers.iter().find(|one| one.id == id);
                let Some((container, label)) =
                    lost.and_then(|one| Some((one, one.record.as_deref()?.clone())))
                else {
                    continue;
                };
                let name = (id.as_str(), container.name.as_str());
                shared
                    .ledger
                    .adopt(label, name, container.running, shared.clock.now())?;
            }
            Ok(())
        })
        .await
        .copied()
}

async fn pass(shared: &Shared, docker: &Docker, gitspaces: &Gitspaces, orphans: &Orphans) {
    if let Err(failure) = compare_once(shared, docker).await {
        tracing::warn!(%failure, "Cannot compare with Docker");
        return;
    }
    match listing(shared, docker).await {
        Ok(listing) => {
            // After the listing: what was made since is in neither, what was written down since is in this one.
            let (records, spares) = shared.ledger.snapshot();
            let mut kept = Kept::default();
            let known = Known {
                whole: shared.ledger.damaged().is_empty(),
                records: &records,
                spares: &spares,
                deleted: &shared.ledger.deleted(),
            };
            for step in plan(&shared.names, known, &listing) {
                tracing::info!(?step, "Reconciling");
                let done = match &step {
                    Step::RemoveContainer { id, key, .. } => {
                        let removed = docker.remove_container(id).await;
                        if removed.is_ok()
                            && matches!(step, Step::RemoveContainer { sandbox: true, .. })
                        {
                            crate::sandbox::remove_run_dir(&shared.names.sandbox_run_dir(key));
                        }
                        removed
                    }
                    Step::AdoptSpare { key } => {
                        adopt_spare(shared, key);
                        Ok(())
                    }
                    Step::RemoveNetwork { name } => docker.remove_network(name).await,
                    Step::KeepVolume { name } => {
                        kept.volumes.push(name.clone());
                        Ok(())
                    }
                    // It came from elsewhere, or was removed since it was listed.
                    Step::Adopt { id } | Step::KeepContainer { id, .. } => {
                        docker.container(id).await.map(|facts| {
                            kept.containers.extend(facts.map(|facts| facts.id));
                        })
                    }
                };
                if let Err(error) = done {
                    tracing::warn!(?step, error = %daemon::ErrorChain(&error), "A step waits for the next pass");
                }
            }
            orphans.set(kept);
        }
        Err(failure) => tracing::warn!(%failure, "Cannot compare with Docker"),
    }
    look_at_all(shared, gitspaces);
}

/// In the ledger first, so that whoever is killed while removing it finds it again.
fn adopt_spare(shared: &Shared, key: &str) {
    let spare = Spare::new(key.to_owned(), String::new(), String::new());
    match shared.ledger.put_spare(&spare) {
        Ok(()) => shared.pool.look(),
        Err(error) => {
            tracing::warn!(key, error = %daemon::ErrorChain(&error), "A sandbox that nobody knows waits for the next pass");
        }
    }
}

async fn listing(shared: &Shared, docker: &Docker) -> Result<Listing, Failure> {
    let filter = shared.names.filter();
    let (containers, networks, volumes) = tokio::try_join!(
        docker.list_containers(&filter),
        docker.list_networks(&filter),
        docker.list_volumes(&filter),
    )?;
    Ok(Listing {
        containers: containers
            .into_iter()
            .map(|container| {
                let label = |name: &str| container.labels.get(name).cloned();
                let key = label(KEY).unwrap_or_default();
                let gitspace = label(GITSPACE).and_then(|id| id.parse::<GitspaceUuid>().ok());
                let record = gitspace.zip(label(RECORD)).and_then(|(gitspace, text)| {
                    Record::from_label(&text, gitspace, &key)
                        .inspect_err(|error| {
                            tracing::warn!(container = container.name, error = %daemon::ErrorChain(error), "The record in the label of a container cannot be used");
                        })
                        .ok()
                });
                Listed {
                    gitspace,
                    sandbox: label(ROLE).as_deref() == Some(Role::Sandbox.as_str()),
                    key,
                    started: container.started,
                    running: container.running,
                    record: record.map(Box::new),
                    id: container.id,
                    name: container.name,
                }
            })
            .collect(),
        networks,
        volumes: volumes.into_iter().map(|volume| volume.name).collect(),
    })
}

/// Everything of this deployment out of Docker and the packet filter, for good.
pub(crate) async fn purge(
    docker: &Docker,
    names: &crate::names::Names,
    firewall: &crate::firewall::Firewall,
) -> Result<(), crate::docker::DockerError> {
    let filter = names.filter();
    for container in docker.list_containers(&filter).await? {
        tracing::info!(
            name = container.name,
            running = container.running,
            "Removing a container"
        );
        docker.remove_container(&container.id).await?;
    }
    for network in docker.list_networks(&filter).await? {
        tracing::info!(name = network, "Removing a network");
        docker.remove_network(&network).await?;
    }
    for volume in docker.list_volumes(&filter).await? {
        tracing::info!(name = volume.name, labels = ?volume.labels, "Removing a volume");
        docker.remove_volume(&volume.name).await?;
    }
    firewall.remove().await;
    Ok(())
}
