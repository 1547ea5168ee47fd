//! What a gitspace cannot reach.

use crate::deployment::Deployment;
use anyhow::{Context as _, Result, ensure};

#[tokio::test(flavor = "multi_thread")]
async fn a_gitspace_reaches_neither_the_hosts_ports_nor_metadata_nor_another_gitspace() -> Result<()>
{
    let host = Deployment::start().await?;
    let url = host.git.repository("app", &[("README.md", "x")])?;
    host.ok(&["create", &url, "--name", "one", "--wait"])?;
    host.ok(&["create", &url, "--name", "two", "--wait"])?;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
    let open_port = listener.local_addr()?.port();
    let address = crate::docker::host_address()?;
    let dial = |target: &str, port: u16| {
        host.gitspace(&[
            "exec",
            "one",
            "--",
            "curl",
            "--silent",
            "--max-time",
            "2",
            "--output",
            "/dev/null",
            &format!("telnet://{target}:{port}"),
        ])
    };
    // What is allowed shows that the test can fail.
    let (git_host, git_port) = host.git.address().split_once(':').unwrap_or_default();
    let said = host.gitspace(&[
        "exec",
        "one",
        "--",
        "curl",
        "--silent",
        "--max-time",
        "5",
        &format!("http://{git_host}:{git_port}/app.git/HEAD"),
    ])?;
    ensure!(
        said.out.contains("refs/heads/main"),
        "the allowed port is reached: {said:#?}"
    );
    for (target, port) in [
        (address.as_str(), open_port),
        (address.as_str(), 22),
        ("169.254.169.254", 80),
    ] {
        let said = dial(target, port)?;
        ensure!(
            matches!(said.code, 7 | 28),
            "{target}:{port} is refused: {said:#?}"
        );
    }
    // Something listens there, and is reached from inside.
    let two = host.ok(&["exec", "two", "--", "hostname", "-I"])?;
    let two = two.split_whitespace().next().context("an address")?;
    host.ok(&[
        "exec", "two", "--", "sh", "-c",
        "setsid -f python3 -m http.server 9000 >/dev/null 2>&1; until curl --silent --fail localhost:9000 >/dev/null; do :; done",
    ])?;
    let fetch = |from: &str| {
        let url = format!("http://{two}:9000/");
        host.gitspace(&[
            "exec",
            from,
            "--",
            "curl",
            "--silent",
            "--max-time",
            "3",
            &url,
        ])
    };
    let said = fetch("two")?;
    ensure!(said.code == 0, "it is reached by its address: {said:#?}");
    let said = fetch("one")?;
    ensure!(
        matches!(said.code, 7 | 28),
        "another gitspace is not reached: {said:#?}"
    );
    let sockets = host.ok(&[
        "exec",
        "one",
        "--",
        "sh",
        "-c",
        "ls /var/run/docker.sock /run/gitspaces 2>/dev/null; true",
    ])?;
    ensure!(sockets.is_empty(), "no socket of the host: {sockets}");
    let caps = host.ok(&[
        "exec",
        "one",
        "--",
        "sh",
        "-c",
        "sudo grep CapBnd /proc/1/status",
    ])?;
    let bounding = caps
        .split_whitespace()
        .last()
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .unwrap_or(u64::MAX);
    for dropped in [12, 13, 16, 17, 19, 21, 27] {
        ensure!(
            bounding & (1 << dropped) == 0,
            "capability {dropped} is dropped: {caps}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitspace_whose_root_replaced_the_agents_socket_starts_again() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", &[("README.md", "x")])?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let trap =
        "cd /.gitspaces/run && mv control.sock moved && ln -s /var/run/docker.sock control.sock";
    host.ok(&["exec", "app", "--", "sudo", "sh", "-c", trap])?;
    host.ok(&["stop", "app", "--wait"])?;
    host.ok(&["start", "app", "--wait"])?;
    host.ok(&["exec", "app", "--", "true"])?;
    Ok(())
}
