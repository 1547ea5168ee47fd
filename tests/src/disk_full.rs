//! A state folder whose disk is full: the daemon stays up and says so, nothing that was acknowledged is lost, and it goes on by itself
//! when there is room.

use crate::{
    deployment::{Daemon, Deployment, text},
    small_disk::SmallDisk,
};
use anyhow::{Result, ensure};

/// Above what `readyz` calls too little, with a copy of the agent in it.
const DISK_MIB: u64 = 160;
/// Enough for some writes and not for many.
const A_FEW_WRITES: u64 = 256 * 1024;
/// More than fit into that.
const MANY_WRITES: usize = 400;

fn readyz(host: &Deployment, socket: &str) -> Result<String> {
    let said = host.curl(&[
        "--unix-socket",
        host.path(socket).as_str(),
        "http://localhost/readyz",
    ])?;
    Ok(said.out)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_whose_disk_is_full_says_so_and_does_what_it_was_asked_when_there_is_room()
-> Result<()> {
    let mut host = Deployment::prepare_embedded("").await?;
    let disk = SmallDisk::mount(&host.path("runner"), DISK_MIB)?;
    host.run(Daemon::Runner)?;
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    host.log_in()?;
    let url = host.git.repository("app", crate::lifecycle::APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    host.ok(&["create", &url, "--name", "gone", "--wait"])?;

    disk.fill(0)?;
    let said = readyz(&host, "runner-admin.sock")?;
    ensure!(
        said.contains("0 MiB free for"),
        "the operator is told: {said}"
    );
    host.ok(&["stop", "app"])?;
    host.ok(&["delete", "gone"])?;
    for name in ["app", "gone"] {
        host.until("the timeline has the cause", |host| {
            Ok(host.events(name)?.iter().any(|event| {
                text(event, "/failure/detail")
                    .to_lowercase()
                    .contains("no space left")
            }))
        })?;
    }
    host.ok(&["exec", "app", "--", "true"])?;
    ensure!(!host.has_ended(Daemon::Runner)?, "{}", host.logs());

    // Nor does a full disk keep it from starting.
    host.kill(Daemon::Runner)?;
    host.run(Daemon::Runner)?;
    host.until("it can be entered again", |host| {
        Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
    })?;
    ensure!(!host.has_ended(Daemon::Runner)?, "{}", host.logs());

    disk.free()?;
    host.until_state("app", "stopped")?;
    host.until("what was deleted is gone", |host| {
        Ok(host.gitspace(&["show", "gone"])?.code != 0)
    })?;
    host.ok(&["start", "app", "--wait"])?;
    let count = host.ok(&["exec", "app", "--", "cat", ".count"])?;
    ensure!(
        count == "created\npost-created\nstarted\nstarted\n",
        "{count}"
    );
    host.ok(&["delete", "app", "--wait"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_whose_disk_is_full_refuses_with_the_cause_and_keeps_what_it_acknowledged()
-> Result<()> {
    let mut host = Deployment::prepare_embedded("").await?;
    let disk = SmallDisk::mount(&host.path("control-plane"), DISK_MIB)?;
    let delegate_disk = SmallDisk::mount(&host.path("delegate"), DISK_MIB)?;
    host.run(Daemon::Runner)?;
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    host.log_in()?;
    let url = host.git.repository("app", crate::lifecycle::APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;

    disk.fill(A_FEW_WRITES)?;
    delegate_disk.fill(0)?;
    let mut acknowledged = Vec::new();
    let refused = loop {
        let name = format!("t{}", acknowledged.len());
        let said = host.gitspace(&["token", "create", "--name", &name])?;
        if said.code != 0 {
            break said;
        }
        acknowledged.push(name);
        ensure!(acknowledged.len() < MANY_WRITES, "the disk is never full");
    };
    ensure!(
        refused.err.contains("disk is full"),
        "the cause is told: {refused:#?}"
    );
    ensure!(!acknowledged.is_empty(), "some were taken");
    let said = readyz(&host, "delegate-admin.sock")?;
    ensure!(
        said.contains("0 MiB free for"),
        "the operator is told: {said}"
    );
    ensure!(!host.has_ended(Daemon::Delegate)?, "{}", host.logs());

    // Killed on a full disk, and started there: it serves, or ends with the cause for its service manager to start it again.
    host.kill(Daemon::Delegate)?;
    host.run(Daemon::Delegate)?;
    let mut ended = false;
    host.until_mut("it serves what can be read, or has ended", |host| {
        ended = host.has_ended(Daemon::Delegate)?;
        Ok(ended || host.gitspace(&["list"])?.code == 0)
    })?;
    ensure!(
        !ended || host.logs().contains("disk is full"),
        "{}",
        host.logs()
    );

    disk.free()?;
    delegate_disk.free()?;
    if host.has_ended(Daemon::Delegate)? {
        host.run(Daemon::Delegate)?;
    }
    host.until("it is connected", Deployment::is_ready)?;
    let listed = host.ok(&["token", "list"])?;
    for name in &acknowledged {
        let there = listed
            .lines()
            .any(|line| line.split_whitespace().any(|word| word == name));
        ensure!(there, "{name} of {acknowledged:?} was lost: {listed}");
    }
    host.ok(&["stop", "app", "--wait"])?;
    host.ok(&["delete", "app", "--wait"])?;
    Ok(())
}
