//! A dockerd of a test's own, which it may kill: in network, mount and process namespaces of its own, because a second dockerd in the
//! host's network takes the first one's bridge and rules away.
//!
//! The test runs there too: [`enter`] starts this binary again for that one test, and everything below it ends with its first process.

use crate::deployment::{PATIENCE, pause};
use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::Instant,
};

/// Set inside: the folder of that Docker.
const INSIDE: &str = "GITSPACES_TEST_OWN_DOCKER";
const IMAGE: &str = "gitspaces/default:latest";
/// bash stays the first process: it buries what the killed leave behind. `/run` hides the host's sockets, also those that are found by
/// their usual place.
const FIRST: &str =
    r#"mount -t tmpfs tmpfs /run && ip link set lo up || exit; "$@"; code=$?; exit $code"#;
const CONTAINERD: &str = "/run/containerd/containerd.sock";

pub(crate) struct OwnDocker {
    dir: Utf8PathBuf,
    live_restore: bool,
    dockerd: Option<Child>,
    containerd: Child,
}

/// Runs `test`, the whole name of the test that calls this, inside. `None`: it ran there, and held.
pub(crate) fn enter(test: &str, live_restore: bool) -> Result<Option<OwnDocker>> {
    if let Ok(dir) = std::env::var(INSIDE) {
        return OwnDocker::start(dir.into(), live_restore).map(Some);
    }
    // Short: a Unix socket lies in it.
    let dir = tempfile::Builder::new().prefix("gd").tempdir_in("/tmp")?;
    let path = Utf8Path::from_path(dir.path()).context("a path in UTF-8")?;
    crate::docker::lines(&["save", "-o", path.join("image.tar").as_str(), IMAGE])?;
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc"])
        .args(["--kill-child", "--propagation", "private", "--"])
        .args(["bash", "-c", FIRST, "bash"])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, path.as_str())
        .env("DOCKER_HOST", format!("unix://{path}/docker.sock"))
        .stdin(Stdio::null())
        .output()
        .context("unshare does not start")?;
    let (out, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    eprint!("{said}");
    ensure!(
        output.status.success() && out.contains("1 passed"),
        "inside, {test} failed: {out}\n{said}"
    );
    Ok(None)
}

impl OwnDocker {
    fn start(dir: Utf8PathBuf, live_restore: bool) -> Result<Self> {
        let log = File::create(dir.join("containerd.log"))?;
        let containerd = Command::new("containerd")
            .args(["--address", CONTAINERD, "--state", "/run/containerd"])
            .args(["--root", dir.join("containerd").as_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("containerd does not start")?;
        let mut docker = Self {
            dir,
            live_restore,
            dockerd: None,
            containerd,
        };
        until("containerd listens", || {
            Ok(Utf8Path::new(CONTAINERD).exists())
        })?;
        docker.run()?;
        let image = docker.dir.join("image.tar");
        crate::docker::lines(&["load", "-i", image.as_str()])?;
        std::fs::remove_file(image)?;
        Ok(docker)
    }

    /// More lines for the runner's config.
    pub(crate) fn config(&self) -> String {
        format!("docker_host = \"unix://{}/docker.sock\"", self.dir)
    }

    /// Starts dockerd, and waits until it answers.
    pub(crate) fn run(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("dockerd.log"))?;
        // Its own look at the file of a dead one takes the number for one that runs: a pid is used again.
        let pid_file = Utf8Path::new("/run/docker.pid");
        if pid_file.exists() {
            std::fs::remove_file(pid_file)?;
        }
        let mut child = Command::new("dockerd")
            .args(["--host", &format!("unix://{}/docker.sock", self.dir)])
            .args(["--containerd", CONTAINERD, "--pidfile", pid_file.as_str()])
            .args(["--data-root", self.dir.join("data").as_str()])
            .arg(format!("--live-restore={}", self.live_restore))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("dockerd does not start")?;
        until("Docker answers", || {
            ensure!(child.try_wait()?.is_none(), "dockerd ended: {}", self.log());
            Ok(crate::docker::lines(&["version"]).is_ok())
        })?;
        self.dockerd = Some(child);
        Ok(())
    }

    /// SIGKILL, and wait until it is gone. containerd and the containers stay.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut dockerd = self.dockerd.take().context("dockerd does not run")?;
        dockerd.kill()?;
        dockerd.wait()?;
        Ok(())
    }

    /// The end of dockerd's log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("dockerd.log")).unwrap_or_default();
        let skipped = text.lines().count().saturating_sub(40);
        let lines: Vec<&str> = text.lines().skip(skipped).collect();
        lines.join("\n")
    }
}

impl Drop for OwnDocker {
    fn drop(&mut self) {
        for child in self.dockerd.iter_mut().chain([&mut self.containerd]) {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("a Docker of its own was not stopped: {error}");
            }
        }
    }
}

fn until(what: &str, mut truth: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    while !truth()? {
        if Instant::now() > limit {
            bail!("not within {PATIENCE:?}: {what}");
        }
        pause();
    }
    Ok(())
}
