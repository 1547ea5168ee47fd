//! A part of the way into gitspaces stops to answer: the probe names it, nothing else is touched, and it heals by itself.

use crate::{
    deployment::{Daemon, Deployment, text},
    docker,
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// What each part of the host's is said to be, as `gitspace delegate probe` prints it as JSON.
fn failed(report: &Value) -> Vec<String> {
    let hops = report.pointer("/hops").and_then(Value::as_array);
    hops.into_iter()
        .flatten()
        .filter(|hop| text(hop, "/problem/kind") == "failed")
        .map(|hop| text(hop, "/hop"))
        .collect()
}

/// A delegate whose runner has come back makes its link anew: that is waited for.
fn probe(host: &Deployment) -> Result<Value> {
    let mut report = Value::Null;
    host.until("the delegate is probed", |host| {
        let said = host.gitspace(&["-o", "json", "delegate", "probe", "host"])?;
        if said.err.contains("is not connected") {
            return Ok(false);
        }
        report = serde_json::from_str(&said.out).with_context(|| format!("{said:#?}"))?;
        Ok(true)
    })?;
    Ok(report)
}

/// And the link is not about to be made anew for a runner that has come.
fn until_whole(host: &Deployment) -> Result<()> {
    host.until("the way is whole", |host| {
        let shown = host.json(&["delegate", "show", "host"])?;
        let is_ready = shown.pointer("/runner_ready") == Some(&Value::Bool(true));
        Ok(is_ready && failed(&probe(host)?).is_empty())
    })
}

/// Of the delegate, from its own host.
fn probe_from_the_host(host: &Deployment) -> Result<(i32, Value)> {
    let said = host.daemon(Daemon::Delegate, &["probe", "-o", "json"])?;
    let report = serde_json::from_str(&said.out).with_context(|| format!("{said:#?}"))?;
    Ok((said.code, report))
}

fn is_broken_at(host: &Deployment, hop: Option<&str>) -> Result<bool> {
    let shown = host.json(&["delegate", "show", "host"])?;
    let known = shown.pointer("/data_path").is_some();
    let at = shown
        .pointer("/data_path/broken_at")
        .and_then(Value::as_str);
    Ok(known && at == hop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_goes_the_whole_way_and_prints_each_part_with_its_time() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let report = probe(&host)?;
    ensure!(failed(&report).is_empty(), "{report:#}");
    let hops: Vec<String> = report
        .pointer("/hops")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|hop| text(hop, "/hop"))
        .collect();
    ensure!(
        hops == ["link", "delegate", "runner", "docker", "agent"],
        "{report:#}"
    );
    ensure!(
        text(&report, "/hops/4/gitspace") == text(&host.show("app")?, "/id"),
        "{report:#}"
    );
    let (code, report) = probe_from_the_host(&host)?;
    ensure!(code == 0 && failed(&report).is_empty(), "{report:#}");
    let printed = host.ok(&["delegate", "probe", "host"])?;
    ensure!(
        printed.contains("link ") && printed.contains("1 of 1 agents answer"),
        "{printed}"
    );
    host.until("the delegate shows it", |host| is_broken_at(host, None))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_hangs_is_named_on_both_sides_and_comes_back() -> Result<()> {
    let host = Deployment::start().await?;
    until_whole(&host)?;
    host.signal(Daemon::Runner, Signal::SIGSTOP)?;
    let found = (probe(&host), probe_from_the_host(&host));
    host.signal(Daemon::Runner, Signal::SIGCONT)?;
    let (from_control_plane, (code, from_host)) = (found.0?, found.1?);
    ensure!(
        failed(&from_control_plane) == ["runner"],
        "{from_control_plane:#}"
    );
    ensure!(
        code == 75 && failed(&from_host) == ["runner"],
        "{code} {from_host:#}"
    );
    until_whole(&host)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegate_that_hangs_breaks_the_link_and_comes_back() -> Result<()> {
    let host = Deployment::start_apart().await?;
    until_whole(&host)?;
    host.signal(Daemon::Delegate, Signal::SIGSTOP)?;
    let found = probe(&host);
    host.signal(Daemon::Delegate, Signal::SIGCONT)?;
    let report = found?;
    ensure!(failed(&report) == ["link"], "{report:#}");
    until_whole(&host)
}

/// The socket that the runner is told of is a link; Docker itself is not touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_docker_that_does_not_answer_is_named_and_takes_its_host_out_of_the_rotation()
-> Result<()> {
    let dir = tempfile::tempdir()?;
    let link = dir.path().join("docker.sock");
    let real = Path::new("/var/run/docker.sock");
    std::os::unix::fs::symlink(real, &link)?;
    let config = format!("docker_host = \"unix://{}\"", link.display());
    let host = Deployment::start_with(&config).await?;
    until_whole(&host)?;

    std::fs::remove_file(&link)?;
    let report = probe(&host)?;
    ensure!(failed(&report) == ["docker"], "{report:#}");
    let shown = host.json(&["delegate", "show", "host"])?;
    ensure!(
        text(&shown, "/out_of_rotation").contains("`docker`")
            && text(&shown, "/data_path/broken_at") == "docker",
        "{shown:#}"
    );
    let listed = host.ok(&["delegate", "list"])?;
    ensure!(listed.contains("out of the rotation"), "{listed}");

    std::os::unix::fs::symlink(real, &link)?;
    host.until("the host is back", |host| {
        probe(host)?;
        let shown = host.json(&["delegate", "show", "host"])?;
        Ok(text(&shown, "/out_of_rotation").is_empty() && is_broken_at(host, None)?)
    })
}

/// The serving process of the agent in each of the deployment's dev containers, by its number on this host.
fn agents(host: &Deployment) -> Result<BTreeMap<String, Pid>> {
    let filter = format!("label=gitspaces.deployment={}", host.label);
    let mut found = BTreeMap::new();
    for container in docker::lines(&["ps", "-q", "--filter", &filter])? {
        let label = "{{index .Config.Labels \"gitspaces.gitspace\"}}";
        let (Ok(gitspace), Ok(processes)) = (
            docker::lines(&["inspect", "--format", label, &container]),
            docker::lines(&["top", &container, "-eo", "pid,args"]),
        ) else {
            // A sandbox that was removed meanwhile.
            continue;
        };
        let serve = processes
            .iter()
            .find(|line| line.contains("gitspace-agent serve"))
            .and_then(|line| line.split_whitespace().next()?.parse().ok());
        if let Some(serve) = serve {
            found.insert(gitspace.concat(), Pid::from_raw(serve));
        }
    }
    Ok(found)
}

fn agent(host: &Deployment, name: &str) -> Result<Pid> {
    let id = text(&host.show(name)?, "/id");
    agents(host)?
        .remove(&id)
        .with_context(|| format!("no agent of {name}"))
}

fn is_silent(host: &Deployment, name: &str) -> Result<bool> {
    Ok(text(&host.show(name)?, "/trouble/code") == "agent_silent")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_is_its_gitspaces_matter_alone_and_heals_when_it_answers() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    for name in ["one", "two"] {
        host.ok(&["create", &url, "--name", name, "--wait"])?;
    }
    let (stopped, other) = (agent(&host, "one")?, agent(&host, "two")?);
    kill(stopped, Signal::SIGSTOP)?;
    let report = probe(&host)?;
    ensure!(failed(&report) == ["agent"], "{report:#}");
    ensure!(
        text(&report, "/hops/4/gitspace") == text(&host.show("one")?, "/id"),
        "the silent one first: {report:#}"
    );
    // Their host is not blamed for it, by neither command.
    ensure!(is_broken_at(&host, None)?, "{report:#}");
    let shown = host.ok(&["delegate", "probe", "host"])?;
    ensure!(shown.contains("1 of 2 agents answer"), "{shown}");
    let (code, from_host) = probe_from_the_host(&host)?;
    ensure!(
        code == 0 && failed(&from_host) == ["agent"],
        "{code} {from_host:#}"
    );
    host.until("the gitspace says so", |host| is_silent(host, "one"))?;
    ensure!(!is_silent(&host, "two")?, "{:#}", host.show("two")?);
    ensure!(host.state("one")? == "running", "{:#}", host.show("one")?);
    let said = host.ok(&["exec", "two", "--", "echo", "fine"])?;
    ensure!(said == "fine\n", "{said}");
    let told = |host: &Deployment, words: &str| -> Result<bool> {
        let events = host.events("one")?;
        Ok(events
            .iter()
            .any(|event| text(event, "/message").contains(words)))
    };
    ensure!(
        told(&host, "its agent does not answer")?,
        "{:#?}",
        host.events("one")?
    );

    kill(stopped, Signal::SIGCONT)?;
    host.until("it is healed", |host| {
        // Whoever probes finds it out; by itself that is twice a minute.
        ensure!(failed(&probe(host)?).len() < 2, "only ever the agent");
        Ok(!is_silent(host, "one")? && told(host, "answers again")?)
    })?;
    ensure!(
        (agent(&host, "one")?, agent(&host, "two")?) == (stopped, other),
        "the same processes as before"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_for_long_is_replaced_and_what_runs_beside_it_is_not() -> Result<()> {
    let host = Deployment::start_with("agent_silence_limit_s = 10").await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let app = host.ok(&["exec", "app", "--", "pgrep", "-f", "app.py"])?;
    let terminal = host.terminal("app")?;
    let hangs = agent(&host, "app")?;
    kill(hangs, Signal::SIGSTOP)?;
    host.until("another agent serves", |host| {
        ensure!(failed(&probe(host)?).len() < 2, "only ever the agent");
        Ok(agent(host, "app").is_ok_and(|agent| agent != hangs))
    })?;
    host.until("it can be entered", |host| {
        Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
    })?;
    let after = host.ok(&["exec", "app", "--", "pgrep", "-f", "app.py"])?;
    ensure!(app == after, "what ran goes on: {app} is {after}");
    let terminals = host.terminals("app", &[])?;
    ensure!(
        terminals.contains(&terminal),
        "the same terminal: {terminals}"
    );
    host.until("it is healed", |host| {
        Ok(failed(&probe(host)?).is_empty() && !is_silent(host, "app")?)
    })
}

/// The control plane is in the delegate's process, which stands still.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_is_replaced_also_where_nobody_probes() -> Result<()> {
    let host = Deployment::start_with("agent_silence_limit_s = 10").await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let id = text(&host.show("app")?, "/id");
    let hangs = agent(&host, "app")?;
    host.signal(Daemon::Delegate, Signal::SIGSTOP)?;
    kill(hangs, Signal::SIGSTOP)?;
    let noticed = host.until("the runner says so", |host| {
        let said = host.daemon(Daemon::Runner, &["health"])?;
        Ok(said.out.contains("without an agent that answers"))
    });
    let replaced = host.until("another agent serves", |host| {
        Ok(agents(host)?.get(&id).is_some_and(|agent| *agent != hangs))
    });
    host.signal(Daemon::Delegate, Signal::SIGCONT)?;
    noticed?;
    replaced?;
    host.until("it is healed", |host| Ok(!is_silent(host, "app")?))
}
