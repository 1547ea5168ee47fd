//! What is left in Docker, as its own client says it.

use anyhow::{Context as _, Result, ensure};
use std::process::Command;

/// Standard output of `docker ARGS`, a line each.
pub(crate) fn lines(args: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("docker")
        .args(args)
        .output()
        .context("docker does not start")?;
    ensure!(
        output.status.success(),
        "docker {args:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

/// Everything of a deployment: containers, networks, volumes.
pub(crate) fn left_of(deployment: &str) -> Result<Vec<String>> {
    let filter = format!("label=gitspaces.deployment={deployment}");
    let mut left = lines(&[
        "ps",
        "-a",
        "--filter",
        &filter,
        "--format",
        "container {{.Names}}",
    ])?;
    left.extend(lines(&[
        "network",
        "ls",
        "--filter",
        &filter,
        "--format",
        "network {{.Name}}",
    ])?);
    left.extend(lines(&[
        "volume",
        "ls",
        "--filter",
        &filter,
        "--format",
        "volume {{.Name}}",
    ])?);
    Ok(left)
}

/// Removes everything of a deployment, in the order in which Docker lets go of it.
pub(crate) fn remove(deployment: &str) -> Result<()> {
    let filter = format!("label=gitspaces.deployment={deployment}");
    for container in lines(&["ps", "-aq", "--filter", &filter])? {
        lines(&["rm", "--force", "--volumes", &container])?;
    }
    for network in lines(&["network", "ls", "-q", "--filter", &filter])? {
        lines(&["network", "rm", &network])?;
    }
    for volume in lines(&["volume", "ls", "-q", "--filter", &filter])? {
        lines(&["volume", "rm", "--force", &volume])?;
    }
    Ok(())
}

/// Address at which containers reach this host. Asked of the interface: Docker tells its own only after a restart.
pub(crate) fn host_address() -> Result<String> {
    let output = Command::new("ip")
        .args(["-4", "-o", "address", "show", "docker0"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let address = text
        .split_whitespace()
        .nth(3)
        .and_then(|cidr| cidr.split_once('/'));
    address
        .map(|(address, _)| address.to_owned())
        .context("docker0 has no IPv4 address")
}
