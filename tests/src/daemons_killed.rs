//! SIGKILL in the middle of an action: on restart the gitspace reaches what was desired, once.

use crate::{
    deployment::{Daemon, Deployment, text},
    docker,
};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};

/// Sooner than any wait for somebody who may come back.
const SOON: Duration = Duration::from_secs(6);

/// A repository whose creation takes long enough to be killed in the middle, and counts how often it was done.
const SLOW: &[(&str, &str)] = &[(
    ".devcontainer/devcontainer.json",
    r#"{ "onCreateCommand": "echo on-create >> .count; for n in $(seq 30); do test -e .go && break; sleep 0.1; done", "postCreateCommand": "echo post-create >> .count" }"#,
)];

async fn killed_in_the_middle(victims: &[Daemon], phase: &str) -> Result<()> {
    let mut host = Deployment::start().await?;
    let url = host.git.repository("slow", SLOW)?;
    host.ok(&["create", &url, "--name", "slow", "--no-wait"])?;
    host.until(&format!("phase {phase} has begun"), |host| {
        Ok(host
            .events("slow")?
            .iter()
            .any(|event| text(event, "/phase") == phase))
    })?;
    for victim in victims {
        host.kill(*victim)?;
    }
    for victim in victims {
        host.run(*victim)?;
    }
    host.until("the control plane answers", |host| {
        Ok(host.gitspace(&["show", "slow"])?.code == 0)
    })?;
    host.until_state("slow", "running")?;
    host.until("it can be entered", |host| {
        Ok(host.gitspace(&["exec", "slow", "--", "true"])?.code == 0)
    })?;
    let count = host.ok(&["exec", "slow", "--", "cat", ".count"])?;
    ensure!(
        count == "on-create\npost-create\n",
        "once each: {count}\n{}",
        host.logs()
    );
    let filter = format!("label=gitspaces.deployment={}", host.label);
    // Its own sandbox is removed behind everybody's back.
    host.until("one dev container and at most the spare", |_| {
        Ok(docker::lines(&["ps", "-aq", "--filter", &filter])?.len() <= 2)
    })?;
    host.ok(&["delete", "slow", "--wait"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runner_goes_on_where_it_was() -> Result<()> {
    killed_in_the_middle(&[Daemon::Runner], "on_create_command").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_killed_while_cloning_begins_again() -> Result<()> {
    killed_in_the_middle(&[Daemon::Runner], "clone").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_delegate_with_control_plane_and_gateway_goes_on_where_it_was() -> Result<()> {
    killed_in_the_middle(&[Daemon::Delegate], "on_create_command").await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_daemons_killed_at_once_go_on_where_they_were() -> Result<()> {
    killed_in_the_middle(&[Daemon::Delegate, Daemon::Runner], "machine").await
}

/// Everything that the runner had written down of gitspaces is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_whose_ledger_was_deleted_finds_what_runs_and_its_user_sees_nothing_of_it()
-> Result<()> {
    let mut host = Deployment::start().await?;
    let url = host.git.repository("app", crate::lifecycle::APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let before = host.ok(&["exec", "app", "--", "pgrep", "-f", "app.py"])?;
    let timeline = host.events("app")?.len();
    host.kill(Daemon::Runner)?;
    for lost in ["gitspaces", "spares", "deleted", "tasks"] {
        std::fs::remove_dir_all(host.path("runner").join(lost))?;
    }
    std::fs::remove_file(host.path("runner/revision"))?;
    host.run(Daemon::Runner)?;
    // The link is made anew once the runner is back: for a moment the host is away.
    let mut after = String::new();
    host.until("the process is seen again", |host| {
        after = host
            .gitspace(&["exec", "app", "--", "pgrep", "-f", "app.py"])?
            .out;
        Ok(host.is_ready()? && !after.is_empty())
    })?;
    ensure!(before == after, "the same process: {before} {after}");
    ensure!(host.state("app")? == "running");
    let events = host.events("app")?;
    ensure!(
        events.len() == timeline,
        "nothing had to be done: {events:#?}"
    );
    let status = host.curl(&[
        "--unix-socket",
        host.path("runner-admin.sock").as_str(),
        "http://localhost/readyz",
    ])?;
    ensure!(
        status.out.contains("were adopted by their labels"),
        "the operator is told: {status:#?}"
    );
    host.ok(&["stop", "app", "--wait"])?;
    host.ok(&["start", "app", "--wait"])?;
    let count = host.ok(&["exec", "app", "--", "cat", ".count"])?;
    ensure!(
        count == "created\npost-created\nstarted\nstarted\n",
        "{count}"
    );
    host.ok(&["delete", "app", "--wait"])?;
    host.until("nothing of it is left but the spare", |host| {
        Ok(docker::left_of(&host.label)?.len() == 3)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dev_container_that_died_is_in_the_timeline_with_its_cause_and_comes_back() -> Result<()>
{
    let host = Deployment::start().await?;
    let url = host.git.repository("app", &[("README.md", "x")])?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let filter = format!(
        "label=gitspaces.gitspace={}",
        text(&host.show("app")?, "/id")
    );
    let containers = docker::lines(&["ps", "-q", "--filter", &filter])?;
    ensure!(containers.len() == 1, "one container: {containers:?}");
    docker::lines(&["kill", &containers[0]])?;
    host.until("its death is in the timeline", |host| {
        Ok(host.events("app")?.iter().any(|event| {
            matches!(
                text(event, "/failure/code").as_str(),
                "container_exited" | "out_of_memory"
            )
        }))
    })?;
    host.until("it can be entered again", |host| {
        Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
    })
}

/// An agent that broke off is waited for, ten seconds and more; not where its container is what has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_dev_container_that_dies_in_its_creation_is_missed_at_once_and_goes_on() -> Result<()> {
    let host = Deployment::start().await?;
    let command = "echo on-create >> .count; test $(wc -l < .count) -gt 1 || tail -f /dev/null";
    let config = format!(r#"{{ "onCreateCommand": "{command}" }}"#);
    let url = host
        .git
        .repository("app", &[(".devcontainer/devcontainer.json", &config)])?;
    host.ok(&["create", &url, "--name", "app", "--no-wait"])?;
    host.until("its command runs", |host| {
        Ok(host
            .events("app")?
            .iter()
            .any(|event| text(event, "/phase") == "on_create_command"))
    })?;
    let id = text(&host.show("app")?, "/id");
    let filter = format!("label=gitspaces.gitspace={id}");
    let role = "label=gitspaces.role=dev-container";
    let found = docker::lines(&["ps", "-q", "--filter", &filter, "--filter", role])?;
    let [container] = &found[..] else {
        bail!("one dev container: {found:?}");
    };
    docker::lines(&["kill", container])?;
    let killed = Instant::now();
    host.until("its death is in the timeline", |host| {
        let events = host.events("app")?;
        let told = |event: &_| text(event, "/failure/message").contains("its container ended");
        Ok(events.iter().any(told))
    })?;
    let missed = killed.elapsed();
    ensure!(missed < SOON, "missed after {missed:?}");
    host.until_state("app", "running")?;
    let count = host.ok(&["exec", "app", "--", "cat", ".count"])?;
    ensure!(count == "on-create\non-create\n", "{count}");
    host.ok(&["delete", "app", "--wait"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_gitspace_refuses_a_second_action_but_takes_cancel_and_delete() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository(
        "stuck",
        &[(
            ".devcontainer/devcontainer.json",
            r#"{ "onCreateCommand": "tail -f /dev/null" }"#,
        )],
    )?;
    host.ok(&["create", &url, "--name", "stuck", "--no-wait"])?;
    host.until("its command runs", |host| {
        Ok(host
            .events("stuck")?
            .iter()
            .any(|event| text(event, "/phase") == "on_create_command"))
    })?;
    let said = host.gitspace(&["stop", "stuck"])?;
    ensure!(
        said.code == 75 && said.err.contains("starting"),
        "busy, with its reason: {said:#?}"
    );
    host.ok(&["cancel", "stuck"])?;
    host.until("it rests", |host| {
        Ok(!matches!(
            host.state("stuck")?.as_str(),
            "starting" | "stopping"
        ))
    })?;
    host.ok(&["start", "stuck"])?;
    host.ok(&["delete", "stuck", "--wait"])?;
    Ok(())
}
