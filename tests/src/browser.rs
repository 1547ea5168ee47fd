//! The terminal page in a real browser.

use crate::{
    deployment::{Daemon, Deployment},
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_survives_a_reload_and_the_restart_of_every_daemon() -> Result<()> {
    let mut host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let page = |host: &Deployment| -> Result<()> {
        let link = host.ok(&["url", "app", "--login"])?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/browser/terminal.mjs");
        let output = Command::new("node")
            .args([script, link.trim()])
            .output()
            .context("node does not start")?;
        ensure!(
            output.status.success(),
            "{}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            host.logs()
        );
        Ok(())
    };
    page(&host)?;
    let id = host.terminal("app")?;
    host.kill(Daemon::Delegate)?;
    host.kill(Daemon::Runner)?;
    host.run(Daemon::Runner)?;
    host.run(Daemon::Delegate)?;
    host.until("it is reachable again", |host| {
        Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
    })?;
    let listed = host.terminals("app", &[])?;
    ensure!(listed.contains(&id), "the same terminal is there: {listed}");
    page(&host)
}
