//! What there is of a gitspace, as Docker and its agent say.

use super::container::agent_config;
use crate::{
    agent_client::Agent,
    board::Sighting,
    docker::ContainerFacts,
    ledger::{ContainerRecord, Record},
    shared::Shared,
    silence,
};
use jiff::Timestamp;
use std::time::Duration;
use wire::{
    failure::{Failure, FailureCode},
    gitspace::{DevContainer, GitCredential, ObservedState},
    ids::GitspaceUuid,
    text::SshPublicKey,
};

/// Before an agent is said not to answer.
const TRIES: u32 = 5;
const TRY_PAUSE: Duration = Duration::from_millis(100);
/// From the kernel's kill to the end of a container that dies of it.
const KILL_TO_END: Duration = Duration::from_secs(5);

/// Looks, and gives a running agent its configuration where it has lost it.
pub(super) async fn look(
    shared: &Shared,
    gitspace: GitspaceUuid,
    credentials: &[GitCredential],
    out_of_memory: Option<Timestamp>,
) -> Sighting {
    let record = shared
        .ledger
        .get(gitspace)
        .unwrap_or_else(|| Record::new(gitspace));
    let mut sighting = Sighting {
        gitspace,
        state: ObservedState::Absent,
        generation: record.generation,
        failure: None,
        task: None,
        dev_container: dev_container(&record),
    };
    let last = shared.board.get(gitspace);
    // One that does not run keeps its key.
    let mut host_key = last
        .as_ref()
        .and_then(|last| last.dev_container.as_ref()?.ssh_host_key.clone());
    let seen = state(shared, &record, credentials, out_of_memory, &mut host_key).await;
    let (state, failure) = match seen {
        Ok(seen) => seen,
        Err(failure) => {
            // Docker does not answer: what was last seen is the best there is.
            let last = last.map(|last| last.state);
            (last.unwrap_or_else(|| assumed(&record)), Some(failure))
        }
    };
    if let Some(dev_container) = &mut sighting.dev_container {
        dev_container.ssh_host_key = host_key;
    }
    sighting.state = state;
    sighting.failure = failure;
    sighting
}

fn assumed(record: &Record) -> ObservedState {
    match (&record.container, &record.clone) {
        (Some(_), _) => ObservedState::Stopped,
        (None, Some(_)) => ObservedState::Provisioned,
        (None, None) => ObservedState::Absent,
    }
}

pub(super) fn dev_container(record: &Record) -> Option<DevContainer> {
    let container = record.container.as_ref()?;
    container.id.as_ref()?;
    Some(DevContainer {
        image: container.image.clone(),
        remote_user: container.remote_user.clone(),
        workspace_folder: container.workspace_folder.clone(),
        forward_ports: container.forward_ports.clone(),
        initialized: container.initialized(),
        ssh_host_key: None,
    })
}

async fn state(
    shared: &Shared,
    record: &Record,
    credentials: &[GitCredential],
    out_of_memory: Option<Timestamp>,
    host_key: &mut Option<SshPublicKey>,
) -> Result<(ObservedState, Option<Failure>), Failure> {
    let docker = shared.machine.docker(record.gitspace).await?;
    let (Some(machine), Some(_)) = (&record.machine, &record.clone) else {
        return Ok((ObservedState::Absent, None));
    };
    if let Some(container) = &record.container
        && let Some(id) = &container.id
    {
        return match docker.container(id).await? {
            Some(facts) if facts.running => {
                let agent = Agent::new(&shared.names.dev_run_dir(&machine.key));
                let failure = check_agent(&agent, record, container, credentials, host_key).await;
                // It may have ended while its agent was asked.
                if failure.is_some()
                    && let Some(after) = docker.container(id).await?
                    && !after.running
                {
                    let failure = container
                        .wanted_running
                        .then(|| ended(&after, out_of_memory));
                    return Ok((ObservedState::Stopped, failure));
                }
                Ok((
                    ObservedState::Running,
                    failure.or_else(|| out_of_memory.map(process_killed)),
                ))
            }
            Some(facts) => Ok((
                ObservedState::Stopped,
                container
                    .wanted_running
                    .then(|| ended(&facts, out_of_memory)),
            )),
            None => Ok((
                ObservedState::Provisioned,
                Some(
                    Failure::new(
                        FailureCode::ContainerExited,
                        "the dev container was removed from the host",
                    )
                    .hint("start the gitspace to make it again from its workspace"),
                ),
            )),
        };
    }
    if docker
        .volume_exists(&shared.names.machine(&machine.key))
        .await?
    {
        Ok((ObservedState::Provisioned, None))
    } else {
        Ok((
            ObservedState::Absent,
            Some(
                Failure::new(
                    FailureCode::PreconditionFailed,
                    "the volume of the workspace is gone from the host",
                )
                .hint("start the gitspace to clone its repository again"),
            ),
        ))
    }
}

/// The container goes on, and something in it is gone.
fn process_killed(at: Timestamp) -> Failure {
    Failure::new(
        FailureCode::OutOfMemory,
        "the memory of the gitspace was used up, and the kernel killed a process in it",
    )
    .detail(format!("at {at}; the gitspace itself runs"))
    .hint("start what is missing again; choose a machine with more memory where it happens again")
}

/// Why a container ended that was meant to run. `out_of_memory`: when something in it was last killed for want of memory, where that was
/// seen.
fn ended(facts: &ContainerFacts, out_of_memory: Option<Timestamp>) -> Failure {
    // Docker's mark may be of a process that was killed long before.
    let earlier = out_of_memory.filter(|killed| {
        facts
            .finished_at
            .parse::<Timestamp>()
            .is_ok_and(|ended| ended.duration_since(*killed).unsigned_abs() > KILL_TO_END)
    });
    if facts.ended_for_memory() && earlier.is_none() {
        return Failure::new(
            FailureCode::OutOfMemory,
            "the dev container ended because its memory was used up",
        )
        .detail(format!(
            "exit code {}, at {}",
            facts.exit_code, facts.finished_at
        ))
        .hint(
            "start the gitspace again; choose a machine with more memory where it happens again",
        );
    }
    let mut detail = format!("at {}", facts.finished_at);
    if !facts.error.is_empty() {
        detail = format!("{detail}: {}", facts.error);
    }
    if let Some(killed) = earlier {
        detail = format!("{detail}; its memory was used up before, at {killed}");
    }
    Failure::new(
        FailureCode::ContainerExited,
        format!("the dev container ended with exit code {}", facts.exit_code),
    )
    .detail(detail)
    .hint("start the gitspace again")
}

async fn check_agent(
    agent: &Agent,
    record: &Record,
    container: &ContainerRecord,
    credentials: &[GitCredential],
    host_key: &mut Option<SshPublicKey>,
) -> Option<Failure> {
    let mut last = None;
    for _ in 0..TRIES {
        match agent.health().await {
            Ok(health) => {
                // What it says goes into files of users: it is a key, or nothing.
                if let Some(key) = health.ssh_host_key.and_then(|key| key.parse().ok()) {
                    *host_key = Some(key);
                }
                if !health.configured
                    && let Some(spec) = &record.spec
                {
                    let mut config = agent_config(container, spec);
                    config.git_credentials = credentials.to_vec();
                    if let Err(failure) = agent.configure(&config).await {
                        return Some(failure);
                    }
                    tracing::info!(gitspace = %record.gitspace, "The agent got its configuration again");
                }
                return None;
            }
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
    last.map(|error| {
        Failure::new(
            FailureCode::AgentSilent,
            "the dev container runs, but its agent does not answer",
        )
        .detail(daemon::ErrorChain(&error).to_string())
        .hint(silence::hint(&error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_put_down_to_memory_only_where_the_kill_was_its_cause() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        for (marked, exit_code, killed, code) in [
            (
                true,
                137,
                at("2026-01-01T00:00:10Z"),
                FailureCode::OutOfMemory,
            ),
            // The event was missed: Docker's mark is all there is.
            (true, 137, None, FailureCode::OutOfMemory),
            (
                true,
                137,
                at("2026-01-01T00:00:01Z"),
                FailureCode::ContainerExited,
            ),
            (
                true,
                1,
                at("2026-01-01T00:00:10Z"),
                FailureCode::ContainerExited,
            ),
            (false, 137, None, FailureCode::ContainerExited),
        ] {
            let failure = ended(&silence::facts(false, marked, exit_code), killed);
            assert_eq!(failure.code, code, "{marked} {exit_code} {killed:?}");
            assert!(failure.hint.is_some());
        }
    }
}
