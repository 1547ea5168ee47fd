//! PID 1, in a PID namespace of its own.

use crate::harness::{BINARY, within};
use camino::Utf8Path;
use local_rpc::Client;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::{process::Command, time::interval};
use wire::agent::{CommandJob, CommandLine, Health, JobSpec};

/// The process with this argument vector's start, found by the run folder that only this test has.
async fn find(sub_command: &str, run_dir: &Utf8Path) -> Pid {
    within("the process is there", async {
        let mut ticks = interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
                    continue;
                };
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut words = line.split('\0');
                if words.next() == Some(BINARY)
                    && words.next() == Some(sub_command)
                    && words.any(|word| word == run_dir)
                {
                    return Pid::from_raw(pid);
                }
            }
        }
    })
    .await
}

async fn until_up(client: &Client) {
    let mut ticks = interval(Duration::from_millis(5));
    within("it is up", async {
        while client.get::<Health>("/v1/health").await.is_err() {
            ticks.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn serve_is_started_again_orphans_are_reaped_and_a_stop_ends_all() {
    let folder = TempDir::new().unwrap();
    let run_dir = Utf8Path::from_path(folder.path()).unwrap().join("run");
    let mut namespace = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", BINARY])
        .args(["init", "--", "--run-dir", run_dir.as_str()])
        .env("GITSPACES_LOG", "error")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let client = Client::new(run_dir.join("control.sock"));
    until_up(&client).await;
    let init = find("init", &run_dir).await;

    // A job that leaves an orphan behind, which ends at once and has to be reaped.
    let job = JobSpec::Command(CommandJob {
        user: "root".to_owned(),
        cwd: "/".to_owned(),
        env: [].into(),
        command: CommandLine::Shell {
            script: "(true &) ; (sleep 1000 &)".to_owned(),
        },
        once: false,
    });
    client.put::<_, ()>("/v1/jobs/1", &job).await.unwrap();

    let first = find("serve", &run_dir).await;
    kill(first, Signal::SIGKILL).unwrap();
    within("the killed one is reaped", async {
        let mut ticks = interval(Duration::from_millis(5));
        while fs::exists(format!("/proc/{first}")).unwrap() {
            ticks.tick().await;
        }
    })
    .await;
    until_up(&client).await;
    let second = find("serve", &run_dir).await;
    assert_ne!(first, second);
    within("no zombie stays", async {
        let mut ticks = interval(Duration::from_millis(5));
        let children = format!("/proc/{init}/task/{init}/children");
        loop {
            ticks.tick().await;
            let zombies = fs::read_to_string(&children)
                .unwrap_or_default()
                .split_whitespace()
                .filter(|pid| {
                    fs::read_to_string(format!("/proc/{pid}/stat"))
                        .is_ok_and(|stat| stat.contains(") Z "))
                })
                .count();
            if zombies == 0 {
                return;
            }
        }
    })
    .await;

    kill(init, Signal::SIGTERM).unwrap();
    let status = within("it stops", namespace.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn init_is_nothing_but_pid_1() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().to_str().unwrap();
    let status = Command::new(BINARY)
        .args(["init", "--", "--run-dir", run_dir])
        .env("GITSPACES_LOG", "off")
        .status()
        .await
        .unwrap();
    assert_eq!(status.code(), Some(64));
}
