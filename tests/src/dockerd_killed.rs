//! SIGKILL of dockerd itself, with and without `live-restore`: what runs, what is told meanwhile, and what is done when it is back.

use crate::{
    deployment::{Daemon, Deployment, text},
    docker,
    own_docker::{OwnDocker, enter},
};
use anyhow::{Context as _, Result, bail, ensure};
use std::time::Instant;

const APP: &[(&str, &str)] = &[(
    ".devcontainer/devcontainer.json",
    r#"{ "onCreateCommand": "echo on-create >> .count", "postStartCommand": "echo post-start >> .count" }"#,
)];

/// The deployment first: it is taken down by that Docker.
struct World {
    host: Deployment,
    docker: OwnDocker,
}

impl World {
    async fn new(docker: OwnDocker) -> Result<Self> {
        let host = Deployment::start_with(&docker.config()).await?;
        let url = host.git.repository("app", APP)?;
        host.ok(&["create", &url, "--name", "app", "--wait"])?;
        host.ok(&["create", &url, "--name", "other", "--wait"])?;
        Ok(Self { host, docker })
    }

    /// Id, pid and start of the dev container of `app`.
    fn container(&self) -> Result<Vec<String>> {
        let filter = format!(
            "label=gitspaces.gitspace={}",
            text(&self.host.show("app")?, "/id")
        );
        let ids = docker::lines(&["ps", "-a", "-q", "--filter", &filter])?;
        let [id] = &ids[..] else {
            bail!("one dev container: {ids:?}");
        };
        let format = "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}";
        docker::lines(&["inspect", "-f", format, id])
    }

    /// dockerd is killed; the runner says so, and takes an order for later.
    fn kill(&mut self) -> Result<()> {
        self.docker.kill()?;
        let admin = self.host.path("runner-admin.sock");
        let readyz = ["--unix-socket", admin.as_str(), "http://localhost/readyz"];
        self.host
            .until("the runner says that Docker is gone", |host| {
                let said = host.curl(&readyz)?;
                Ok(said.code != 0 && said.out.contains("\"docker\""))
            })?;
        self.host.ok(&["stop", "other"])?;
        Ok(())
    }

    /// dockerd is started again: everything comes to be as it was wanted. The time that took.
    fn come_back(&mut self) -> Result<u128> {
        self.docker.run()?;
        let back = Instant::now();
        self.host.until_state("other", "stopped")?;
        self.host.until_state("app", "running")?;
        self.host.until("app can be entered", |host| {
            Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
        })?;
        Ok(back.elapsed().as_millis())
    }

    /// No container, network or volume is doubled or left.
    fn end(mut self) -> Result<()> {
        self.host.ok(&["delete", "app", "--wait"])?;
        self.host.ok(&["delete", "other", "--wait"])?;
        self.host.stop(Daemon::Delegate)?;
        self.host.stop(Daemon::Runner)?;
        let left = docker::left_of(&self.host.label)?;
        ensure!(left.is_empty(), "left: {left:#?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_live_restore_a_killed_dockerd_leaves_gitspaces_as_they_are() -> Result<()> {
    let test = "dockerd_killed::with_live_restore_a_killed_dockerd_leaves_gitspaces_as_they_are";
    let Some(docker) = enter(test, true)? else {
        return Ok(());
    };
    let mut world = World::new(docker).await?;
    let before = world.container()?;
    world.kill()?;
    // While dockerd is away.
    world.host.ok(&["exec", "app", "--", "true"])?;
    let took = world.come_back()?;
    eprintln!("with live-restore: converged {took} ms after Docker was back");
    let after = world.container()?;
    ensure!(before == after, "the same process: {before:?} {after:?}");
    let count = world.host.ok(&["exec", "app", "--", "cat", ".count"])?;
    ensure!(count == "on-create\npost-start\n", "{count}");
    world.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_live_restore_gitspaces_that_docker_ends_on_its_return_are_started_again()
-> Result<()> {
    let test = "dockerd_killed::without_live_restore_gitspaces_that_docker_ends_on_its_return_are_started_again";
    let Some(docker) = enter(test, false)? else {
        return Ok(());
    };
    let mut world = World::new(docker).await?;
    let before = world.container()?;
    world.kill()?;
    world.host.ok(&["exec", "app", "--", "true"])?;
    let took = world.come_back()?;
    eprintln!("without live-restore: converged {took} ms after Docker was back");
    let after = world.container()?;
    let id = |line: &[String]| {
        line.first()
            .and_then(|line| line.split(' ').next().map(str::to_owned))
    };
    ensure!(
        id(&before).context("an id")? == id(&after).context("an id")? && before != after,
        "the same container, another process: {before:?} {after:?}"
    );
    // It can be entered before its command has run.
    world.host.until(
        "its start's command has run once more, and no other",
        |host| {
            let count = host.ok(&["exec", "app", "--", "cat", ".count"])?;
            ensure!(
                !count.contains("on-create\npost-start\npost-start\npost"),
                "{count}"
            );
            Ok(count == "on-create\npost-start\npost-start\n")
        },
    )?;
    world.end()
}
