//! SSH sessions whose lines are cut by what they go through: they go on, and lose no byte.

use crate::{
    deployment::{Daemon, Deployment, Said},
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use camino::Utf8PathBuf;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
};

/// Lines of `seq` while daemons are killed: more than sockets and windows hold.
const LINES: u32 = 3_000_000;

struct Ssh {
    host: Deployment,
    config: Utf8PathBuf,
}

impl Ssh {
    /// With the gitspace `demo`.
    async fn start() -> Result<Self> {
        let host = Deployment::start().await?;
        let url = host.git.repository("app", APP)?;
        host.ok(&["create", &url, "--name", "demo", "--wait"])?;
        let config = host.path("ssh/config");
        host.ok(&["config-ssh", "--file", config.as_str()])?;
        Ok(Self { host, config })
    }

    /// Whatever is read of it ends in time: what is lost is an error, and no test that hangs.
    fn bounded(&self, command: &str) -> Result<Child> {
        let mut bounded = Command::new("timeout");
        bounded.args(["90", "ssh"]);
        self.start_with(bounded, command)
    }

    fn spawn(&self, command: &str) -> Result<Child> {
        self.start_with(Command::new("ssh"), command)
    }

    fn start_with(&self, mut ssh: Command, command: &str) -> Result<Child> {
        Ok(ssh
            .args(["-F", self.config.as_str(), "-oBatchMode=yes"])
            .args(["demo.gitspace", command])
            .env("XDG_CONFIG_HOME", self.host.path("cli"))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }

    /// Killed, and started again as its service manager does.
    fn again(&mut self, daemons: &[Daemon]) -> Result<()> {
        for &daemon in daemons {
            self.host.kill(daemon)?;
        }
        for &daemon in daemons {
            self.host.run(daemon)?;
        }
        Ok(())
    }

    fn is_running(&self, marker: &str) -> Result<bool> {
        // Which does not find itself.
        let pattern = format!("^{marker}");
        let found = self
            .host
            .gitspace(&["exec", "demo", "--", "pgrep", "-f", &pattern])?;
        Ok(found.code == 0)
    }
}

fn ends_well(child: Child) -> Result<()> {
    let said: Said = child.wait_with_output()?.into();
    ensure!(said.code == 0, "{said:#?}");
    Ok(())
}

fn say(stdin: &mut ChildStdin, line: &str) -> Result<()> {
    writeln!(stdin, "{line}")?;
    Ok(stdin.flush()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_when_gateway_delegate_and_runner_are_killed_under_it() -> Result<()> {
    let mut ssh = Ssh::start().await?;
    // The gateway is inside the delegate here.
    let mut child = ssh.bounded("cat")?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    let mut stdout = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut heard = |wanted: &str| -> Result<()> {
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line.trim_end() == wanted, "{line} for {wanted}");
        Ok(())
    };
    say(&mut stdin, "before")?;
    heard("before")?;
    for (number, daemons) in [
        &[Daemon::Delegate][..],
        &[Daemon::Runner],
        &[Daemon::Delegate, Daemon::Runner],
    ]
    .into_iter()
    .enumerate()
    {
        for &daemon in daemons {
            ssh.host.kill(daemon)?;
        }
        // On its way while nobody is there to carry it.
        let line = format!("meanwhile {number}");
        say(&mut stdin, &line)?;
        for &daemon in daemons {
            ssh.host.run(daemon)?;
        }
        heard(&line)?;
    }
    drop(stdin);
    ends_well(child)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_whole_and_in_order_though_the_gateway_is_killed_under_it() -> Result<()> {
    let mut ssh = Ssh::start().await?;
    let mut child = ssh.bounded(&format!("seq 1 {LINES}"))?;
    let mut stdout = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut line = String::new();
    for wanted in 1..=LINES {
        line.clear();
        stdout.read_line(&mut line)?;
        ensure!(line.trim_end().parse() == Ok(wanted), "{line} for {wanted}");
        if wanted % (LINES / 4) == 0 && wanted < LINES {
            ssh.again(&[Daemon::Delegate])?;
        }
    }
    ends_well(child)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_whole_though_the_gateway_is_killed_under_it() -> Result<()> {
    let mut ssh = Ssh::start().await?;
    let mut child = ssh.bounded("sha256sum")?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    let piece = vec![b'x'; 1024 * 1024];
    for number in 0..24 {
        stdin.write_all(&piece)?;
        if number == 12 {
            ssh.again(&[Daemon::Delegate])?;
        }
    }
    drop(stdin);
    let said: Said = child.wait_with_output()?.into();
    let whole = Command::new("sh")
        .args(["-c", "head -c 25165824 /dev/zero | tr '\\0' x | sha256sum"])
        .output()?;
    ensure!(
        said.code == 0 && said.out.as_bytes() == whole.stdout,
        "{said:#?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_leaves_nothing_behind_and_one_whose_gitspace_stops_is_told()
-> Result<()> {
    let ssh = Ssh::start().await?;
    let mut cases = Vec::new();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGKILL] {
        // One that waits for its client, and one that is never done talking to it.
        for (what, command) in [("silent", "cat"), ("chatty", "yes")] {
            cases.push((signal, format!("{what}-left-by-{signal}"), command));
        }
    }
    for (signal, marker, command) in cases {
        let mut child = ssh.spawn(&format!("echo up; exec -a {marker} {command}"))?;
        let mut up = [0; 3];
        child
            .stdout
            .as_mut()
            .context("a pipe")?
            .read_exact(&mut up)?;
        ensure!(ssh.is_running(&marker)?, "{marker}");
        kill(Pid::from_raw(child.id().try_into()?), signal)?;
        // Its last output is taken: ssh does not end before.
        child.wait_with_output()?;
        ssh.host.until(&format!("{marker} is gone"), |_| {
            Ok(!ssh.is_running(&marker)?)
        })?;
    }
    let mut child = ssh.spawn("echo up; exec sleep 3600")?;
    let mut up = [0; 3];
    child
        .stdout
        .as_mut()
        .context("a pipe")?
        .read_exact(&mut up)?;
    ssh.host.ok(&["stop", "demo", "--wait"])?;
    let said: Said = child.wait_with_output()?.into();
    ensure!(said.code == 255, "{said:#?}");
    Ok(())
}
