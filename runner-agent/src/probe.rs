//! The runner's part of a probe: Docker, and the agents of all gitspaces that run, at the same time.
//!
//! What it finds of an agent that is otherwise than what the board says is looked at by the gitspace's own task, which tries longer and
//! publishes. An agent that stays silent for as long as the configuration says is replaced by the first process of its container, on a signal:
//! terminals are in processes of their own. The container itself is never stopped or killed for it.

use crate::{agent_client::Agent, docker::Docker, gitspace::Gitspaces, shared::Shared, silence};
use daemon::ErrorChain;
use futures_util::{StreamExt as _, stream};
use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use wire::{
    control::{Hop, HopReport, MAX_PROBE_AGENTS, ProbeReport},
    failure::FailureCode,
    gitspace::{Observed, ObservedState},
    ids::GitspaceUuid,
};

const DOCKER_LIMIT: Duration = Duration::from_secs(2);
/// For all of them: a delegate waits little longer. Who had no turn by then comes first the next time.
const AGENTS_LIMIT: Duration = Duration::from_secs(3);
/// What gitspace-agent's `init` takes for it.
const REPLACE: &str = "SIGUSR1";
/// Asked at once.
const AGENTS_AT_ONCE: usize = 64;

/// What is remembered between probes.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    /// Where the next one begins among the agents.
    turn: AtomicUsize,
    /// Since when an agent is silent, or was last replaced for it.
    silent: Mutex<HashMap<GitspaceUuid, Instant>>,
}

impl Probes {
    /// Whether it is silent for long enough to be replaced; the time for that begins again then.
    fn note(&self, gitspace: GitspaceUuid, is_silent: bool, limit: Duration, now: Instant) -> bool {
        // Entries are put in and taken out whole.
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_silent {
            silent.remove(&gitspace);
            return false;
        }
        let since = silent.entry(gitspace).or_insert(now);
        let is_long = now.duration_since(*since) >= limit;
        if is_long {
            *since = now;
        }
        is_long
    }

    fn keep_only(&self, running: &[Observed]) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|id, _| running.iter().any(|observed| observed.gitspace == *id));
    }
}

pub(crate) async fn probe(
    shared: &Shared,
    docker: &Docker,
    gitspaces: &Gitspaces,
    all: bool,
) -> ProbeReport {
    let begun = Instant::now();
    let (docker, agents) = tokio::join!(ask_docker(docker), ask_agents(shared, gitspaces));
    let silent = agents.iter().filter(|agent| agent.is_failed()).count();
    let mut report = ProbeReport {
        agents: count(agents.len()),
        silent_agents: count(silent),
        hops: vec![docker],
        took_us: 0,
    };
    // The silent ones first: they are what a bounded report has room for.
    let (silent, good): (Vec<_>, Vec<_>) = agents.into_iter().partition(HopReport::is_failed);
    let good = good.into_iter().filter(|_| all);
    let told = silent.into_iter().chain(good).take(MAX_PROBE_AGENTS);
    report.hops.extend(told);
    report.took_us = micros(begun);
    report
}

async fn ask_docker(docker: &Docker) -> HopReport {
    let begun = Instant::now();
    let answer = docker.ping(DOCKER_LIMIT).await;
    let took = micros(begun);
    match answer {
        Ok(()) => HopReport::good(Hop::Docker, took),
        Err(error) => HopReport::failed(
            Hop::Docker,
            took,
            &ErrorChain(&error).to_string(),
            error.failure().hint.as_deref(),
        ),
    }
}

async fn ask_agents(shared: &Shared, gitspaces: &Gitspaces) -> Vec<HopReport> {
    let mut running: Vec<Observed> = shared.board.after(0);
    running.retain(|observed| observed.state == ObservedState::Running);
    running.sort_by_key(|observed| observed.gitspace);
    shared.probes.keep_only(&running);
    if running.is_empty() {
        return Vec::new();
    }
    let begin = shared.probes.turn.load(Ordering::Relaxed) % running.len();
    running.rotate_left(begin);
    let deadline = Instant::now() + AGENTS_LIMIT;
    let total = running.len();
    let mut asked = stream::iter(running)
        .map(|observed| ask_agent(shared, gitspaces, observed))
        .buffer_unordered(AGENTS_AT_ONCE);
    let mut reports = Vec::with_capacity(total);
    while let Ok(Some(report)) = timeout_at(deadline, asked.next()).await {
        reports.extend(report);
    }
    drop(asked);
    let next = begin.saturating_add(reports.len());
    shared.probes.turn.store(next, Ordering::Relaxed);
    reports
}

/// `None` where it stopped to run, or is not in the ledger.
async fn ask_agent(
    shared: &Shared,
    gitspaces: &Gitspaces,
    observed: Observed,
) -> Option<HopReport> {
    let id = observed.gitspace;
    let record = shared.ledger.get(id)?;
    let machine = record.machine?;
    let agent = Agent::new(&shared.names.dev_run_dir(&machine.key));
    let begun = Instant::now();
    let answer = agent.health().await;
    let took = micros(begun);
    let known = observed
        .failure
        .as_ref()
        .is_some_and(|failure| failure.code == FailureCode::AgentSilent);
    let report = match answer {
        Ok(_) => HopReport::good(Hop::Agent, took),
        Err(error) => HopReport::failed(
            Hop::Agent,
            took,
            &ErrorChain(&error).to_string(),
            Some(silence::hint(&error)),
        ),
    };
    // While a task is carried out on it, that one sees to it.
    let is_silent = report.is_failed() && observed.task.is_none();
    if report.is_failed() != known && observed.task.is_none() {
        gitspaces.look(id);
    }
    let limit = Duration::from_secs(shared.config.agent_silence_limit_s);
    if shared.probes.note(id, is_silent, limit, Instant::now())
        && let Some(container) = record.container.and_then(|container| container.id)
    {
        replace(shared, id, &container).await;
    }
    Some(report.of(id))
}

/// Its container's first process starts it again. An agent of an older version goes on as it is.
async fn replace(shared: &Shared, gitspace: GitspaceUuid, container: &str) {
    tracing::warn!(%gitspace, "The agent of a gitspace is silent for long, and is replaced; its terminals stay");
    let signalled = match shared.machine.docker(gitspace).await {
        Ok(docker) => docker
            .signal_container(container, REPLACE)
            .await
            .map_err(|error| error.failure()),
        Err(failure) => Err(failure),
    };
    if let Err(failure) = signalled {
        tracing::warn!(%gitspace, %failure, detail = failure.detail, "A silent agent cannot be replaced");
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::{IdsExt as _, SequentialIds};

    #[test]
    fn only_an_agent_that_is_silent_for_long_is_replaced_and_not_again_at_once() {
        let (probes, id) = (Probes::default(), SequentialIds::default().typed());
        let (limit, begun) = (Duration::from_secs(120), Instant::now());
        let note = |second, is_silent| {
            probes.note(id, is_silent, limit, begun + Duration::from_secs(second))
        };
        assert!(!note(0, true));
        assert!(!note(119, true), "not yet");
        assert!(!note(119, false), "it answered once");
        assert!(!note(121, true), "it begins again");
        assert!(note(241, true));
        assert!(!note(242, true), "the new one needs a while to start");
    }
}
