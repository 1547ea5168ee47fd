//! SSH at the gateway's port, with a registered key and a client that knows nothing of us.

use crate::{
    deployment::{Deployment, Said, text},
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// OpenSSH's `program` with the user's key, and what the control plane publishes as all that it trusts.
fn openssh(host: &Deployment, program: &str, port: u16) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-F", "/dev/null", "-oBatchMode=yes", "-oIdentitiesOnly=yes"])
        .arg(format!("-oUserKnownHostsFile={}", host.path("known_hosts")))
        .args([
            "-oGlobalKnownHostsFile=/dev/null",
            "-oStrictHostKeyChecking=yes",
        ])
        .arg(format!("-oIdentityFile={}", host.path("id")))
        .arg(format!("-oPort={port}"))
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::null());
    command
}

fn run(host: &Deployment, args: &[&str]) -> Result<Said> {
    let mut ssh = openssh(host, "ssh", host.ssh_port);
    Ok(ssh.args(args).output()?.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_key_opens_its_users_gitspaces_until_it_is_deleted() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "demo", "--wait"])?;
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "laptop", "-f"])
        .arg(host.path("id"))
        .status()?;
    ensure!(made.success(), "a key is made");

    let private = host.gitspace(&["ssh-key", "add", host.path("id").as_str()])?;
    ensure!(
        private.code != 0 && private.err.contains("private key"),
        "{private:#?}"
    );
    let before = run(&host, &["demo@localhost", "true"])?;
    ensure!(
        before.code == 255,
        "nothing is known or registered: {before:#?}"
    );
    let key = host.json(&["ssh-key", "add", host.path("id.pub").as_str()])?;
    ensure!(text(&key, "/name") == "laptop", "{key}");
    let published = host.curl(&[
        "--silent",
        "--header",
        &format!("Authorization: Bearer {}", host.token()?),
        &format!(
            "http://localhost:{}/api/v1/ssh/known-hosts",
            host.control_port
        ),
    ])?;
    fs::write(host.path("known_hosts"), published.out)?;

    let user = text(&host.show("demo")?, "/dev_container/remote_user");
    let command = "id -un; pwd; echo oops >&2; exit 7";
    let said = run(&host, &["demo@localhost", command])?;
    ensure!(
        (said.code, said.out.as_str(), said.err.as_str())
            == (7, format!("{user}\n/workspaces/app\n").as_str(), "oops\n"),
        "{said:#?}"
    );
    // What `ssh -J` does, with other settings than the own user's for the first step, too.
    let first_step: Vec<String> = openssh(&host, "ssh", host.ssh_port)
        .get_args()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let proxy = format!(
        "-oProxyCommand=ssh {} -W %h:%p ada@localhost",
        first_step.join(" ")
    );
    let through: Said = openssh(&host, "ssh", 22)
        .args([proxy.as_str(), "demo", "pwd"])
        .output()?
        .into();
    ensure!(through.out == "/workspaces/app\n", "{through:#?}");

    let bytes: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (there, back) = (host.path("big"), host.path("back"));
    fs::write(&there, &bytes)?;
    for (from, to) in [
        (there.as_str(), "demo@localhost:there"),
        ("demo@localhost:there", back.as_str()),
    ] {
        let copied = openssh(&host, "scp", host.ssh_port)
            .args(["-q", from, to])
            .status()?;
        ensure!(copied.success(), "{from} to {to}");
    }
    ensure!(fs::read(&back)? == bytes, "it comes back as it went");

    let mut session = openssh(&host, "ssh", host.ssh_port)
        .args(["demo@localhost", "echo up; exec sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = session.stdout.take().context("it is piped")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "up\n", "{line}");
    let begun = Instant::now();
    host.ok(&["ssh-key", "delete", &text(&key, "/id")])?;
    let mut why = String::new();
    session
        .stderr
        .take()
        .context("it is piped")?
        .read_to_string(&mut why)?;
    ensure!(session.wait()?.code() == Some(255), "{why}");
    ensure!(why.contains("the grant was revoked"), "{why}");
    // The command that deletes it takes its time, too.
    ensure!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let after = run(&host, &["demo@localhost", "true"])?;
    ensure!(after.err.contains("Permission denied"), "{after:#?}");
    Ok(())
}
