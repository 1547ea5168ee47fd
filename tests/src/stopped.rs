//! SIGSTOP: a process hangs with its sockets open. The others notice where they have to, and stay well; SIGCONT heals it.
//!
//! Outside of systemd, whose watchdog replaces a daemon that hangs (`tests/packages`).

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
use std::time::{Duration, Instant};

const HEARTBEAT: Duration = Duration::from_millis(1000);
/// Of a process that runs it on a busy host.
const SLACK: Duration = Duration::from_millis(1500);

async fn start() -> Result<Deployment> {
    let config = format!("delegate_heartbeat_ms = {}", HEARTBEAT.as_millis());
    let host = Deployment::start_apart_with(&config).await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    Ok(host)
}

fn is_connected(host: &Deployment) -> Result<bool> {
    let delegates = host.json(&["delegate", "list"])?;
    let connected = delegates
        .pointer("/0/connected")
        .and_then(|value| value.as_bool());
    connected.context("one delegate")
}

fn can_be_entered(host: &Deployment) -> Result<bool> {
    Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
}

/// The app in the gitspace, with a grant of before.
struct App {
    host: String,
    grant: String,
}

impl App {
    fn of(host: &Deployment) -> Result<Self> {
        Ok(Self {
            host: format!("8000--{}.localhost", text(&host.show("app")?, "/slug")),
            grant: format!("gitspaces-grant: {}", text(&host.grant("app")?, "/grant")),
        })
    }

    fn answers(&self, host: &Deployment) -> Result<bool> {
        let said = host.gateway(&self.host, "/hello", &["--header", &self.grant])?;
        Ok(said.contains("app /hello"))
    }
}

/// Id of the dev container.
fn container(host: &Deployment) -> Result<String> {
    let filter = format!(
        "label=gitspaces.gitspace={}",
        text(&host.show("app")?, "/id")
    );
    let mut ids = docker::lines(&["ps", "-q", "--filter", &filter])?;
    ensure!(ids.len() == 1, "one dev container: {ids:?}");
    ids.pop().context("an id")
}

/// Pids and start times of all processes in it.
fn processes(host: &Deployment) -> Result<Vec<String>> {
    docker::lines(&["top", &container(host)?, "-eo", "pid,lstart,args"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegate_that_hangs_is_away_within_two_and_a_half_heartbeats_and_back_within_two()
-> Result<()> {
    let host = start().await?;
    let before = processes(&host)?;
    host.signal(Daemon::Delegate, Signal::SIGSTOP)?;
    let hung = Instant::now();
    host.until("it is away", |host| Ok(!is_connected(host)?))?;
    let away = hung.elapsed();
    ensure!(away <= HEARTBEAT * 5 / 2 + SLACK, "away after {away:?}");
    ensure!(before == processes(&host)?, "they keep running: {before:?}");
    host.ok(&["stop", "app"])?;

    host.signal(Daemon::Delegate, Signal::SIGCONT)?;
    let healed = Instant::now();
    host.until("it is back", is_connected)?;
    let back = healed.elapsed();
    ensure!(back <= HEARTBEAT * 2 + SLACK, "back after {back:?}");
    eprintln!("a delegate that hung: away after {away:?}, back {back:?} after it went on");
    host.until_state("app", "stopped")?;
    host.ok(&["start", "app", "--wait"])?;
    ensure!(before != processes(&host)?, "it was stopped meanwhile");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_hangs_is_told_by_its_delegate_and_goes_on_where_it_was() -> Result<()> {
    let host = start().await?;
    let before = processes(&host)?;
    host.signal(Daemon::Runner, Signal::SIGSTOP)?;
    let socket = host.path("delegate-admin.sock");
    let readyz = ["--unix-socket", socket.as_str(), "http://localhost/readyz"];
    host.until("its delegate says so", |host| {
        let said = host.curl(&readyz)?;
        Ok(said.code != 0 && said.out.contains("runner_socket"))
    })?;
    ensure!(is_connected(&host)?, "the delegate itself is well");
    let named = host.ok(&["list"])?;
    ensure!(named.contains("app"), "the control plane answers: {named}");
    // Taken while nobody can do it.
    host.ok(&["stop", "app"])?;

    host.signal(Daemon::Runner, Signal::SIGCONT)?;
    host.until_ready()?;
    host.until_state("app", "stopped")?;
    host.ok(&["start", "app", "--wait"])?;
    ensure!(before != processes(&host)?, "it was stopped meanwhile");
    let count = host.ok(&["exec", "app", "--", "cat", ".count"])?;
    ensure!(
        count == "created\npost-created\nstarted\nstarted\n",
        "{count}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_holds_nobody_else_up_and_its_gitspace_goes_on_where_it_was()
-> Result<()> {
    let host = start().await?;
    let url = host.git.repository("other", &[("README.md", "x")])?;
    let before = processes(&host)?;
    let id = container(&host)?;
    let pids = docker::lines(&["inspect", "-f", "{{.State.Pid}}", &id])?;
    let agent = Pid::from_raw(pids.first().context("a pid")?.parse()?);
    kill(agent, Signal::SIGSTOP)?;
    let mut entering = host.command(&["exec", "app", "--", "true"])?.spawn()?;
    host.ok(&["create", &url, "--name", "other", "--wait"])?;
    host.ok(&["exec", "other", "--", "true"])?;
    host.until_ready()?;
    kill(agent, Signal::SIGCONT)?;
    let entered = entering.wait()?;
    ensure!(entered.success(), "who was entering got in: {entered}");
    ensure!(
        processes(&host)? == before,
        "the same processes: {before:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_leaves_actions_alone_and_answers_those_who_waited() -> Result<()> {
    let host = start().await?;
    host.signal(Daemon::Gateway, Signal::SIGSTOP)?;
    let mut entering = host.command(&["exec", "app", "--", "true"])?.spawn()?;
    host.until_ready()?;
    host.ok(&["stop", "app", "--wait"])?;
    host.ok(&["start", "app", "--wait"])?;
    host.signal(Daemon::Gateway, Signal::SIGCONT)?;
    let entered = entering.wait()?;
    ensure!(entered.success(), "who was entering got in: {entered}");
    host.until("it can be entered", can_be_entered)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_hangs_is_dialled_again_and_gitspaces_are_entered_meanwhile()
-> Result<()> {
    let host = start().await?;
    let app = App::of(&host)?;
    host.until("the app answers", |host| app.answers(host))?;
    host.signal(Daemon::ControlPlane, Signal::SIGSTOP)?;
    host.until("the delegate says so", |host| Ok(!host.is_ready()?))?;
    ensure!(
        app.answers(&host)?,
        "the gateway knows enough: {}",
        host.logs()
    );
    host.signal(Daemon::ControlPlane, Signal::SIGCONT)?;
    host.until_ready()?;
    host.until("the delegate is back", is_connected)?;
    host.ok(&["stop", "app", "--wait"])?;
    Ok(())
}
