//! The terminal page in a real browser.

use crate::{
    deployment::{Daemon, Deployment},
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use std::process::Command;

/// Works in a terminal of `app` in Chromium, with these variables for it.
fn page(host: &Deployment, variables: &[(&str, &str)]) -> Result<()> {
    let link = host.ok(&["url", "app", "--login"])?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/browser/terminal.mjs");
    let output = Command::new("node")
        .args([script, link.trim()])
        .envs(variables.iter().copied())
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
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_survives_a_reload_and_the_restart_of_every_daemon() -> Result<()> {
    let mut host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    page(&host, &[])?;
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
    page(&host, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_opens_over_https_for_who_trusts_the_deployments_authority() -> Result<()> {
    let authority = "@/control-plane/tls/authority.pem";
    let mut host = Deployment::prepare_tls("private_ca = true", authority).await?;
    host.run_hosts_own()?;
    host.log_in()?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;

    let home = host.path("home");
    std::fs::create_dir_all(home.join(".pki/nssdb"))?;
    let certutil = |arguments: &[&str]| -> Result<()> {
        let output = Command::new("certutil")
            .args(["-d", &format!("sql:{home}/.pki/nssdb")])
            .args(arguments)
            .output()
            .context("certutil does not start")?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "certutil {arguments:?}: {words}");
        Ok(())
    };
    // Before Chromium makes one itself, which certutil then asks a password for.
    certutil(&["-N", "--empty-password"])?;
    let untrusted = page(&host, &[("HOME", home.as_str())]);
    let told = format!("{:#}", untrusted.err().context("nobody is trusted yet")?);
    ensure!(told.contains("ERR_CERT_AUTHORITY_INVALID"), "{told}");

    let authority = host.path("control-plane/tls/authority.pem");
    certutil(&[
        "-A",
        "-t",
        "C,,",
        "-n",
        "deployment",
        "-i",
        authority.as_str(),
    ])?;
    page(&host, &[("HOME", home.as_str())])
}
