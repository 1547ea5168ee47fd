//! The ledger deleted, or put back from an older copy, under gitspaces that run.

use crate::harness::{GitServer, Runner, gitspace, spec, task};
use camino::Utf8Path;
use local_rpc::fd::PassedStream;
use std::process::Command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{
    gitspace::{Observed, ObservedState},
    ids::GitspaceUuid,
    task::TaskVerb,
};

const HOOKS: &[(&str, &str)] = &[(
    ".devcontainer/devcontainer.json",
    r#"{
      "onCreateCommand": "echo created >> .count",
      "postCreateCommand": "echo post-created >> .count",
      "postStartCommand": "echo started >> .count; nohup perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(Listen=>5,LocalAddr=>\"127.0.0.1\",LocalPort=>8000) or die; while($c=$s->accept){if(!fork){while(<$c>){print $c $_}exit}close $c}' >/dev/null 2>&1 &",
      "forwardPorts": [8000],
    }"#,
)];

fn copy(from: &Utf8Path, to: &Utf8Path) {
    let copied = Command::new("cp")
        .args(["-a", from.as_str(), to.as_str()])
        .status();
    assert!(copied.unwrap().success());
}

/// Pid and start time of every process but the one that looks.
fn processes(runner: &Runner, id: GitspaceUuid) -> Vec<String> {
    let listed = runner.docker(&["top", &runner.container(id), "-eo", "pid,lstart,args"]);
    listed.lines().skip(1).map(str::to_owned).collect()
}

/// The app answers on a connection that is open.
async fn say(open: &mut PassedStream) {
    let mut answer = [0; 6];
    open.write_all(b"hello\n").await.unwrap();
    open.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello\n");
}

async fn observed(runner: &Runner, id: GitspaceUuid) -> Option<Observed> {
    let all: Vec<Observed> = runner.client.get("/v1/gitspaces").await.unwrap();
    all.into_iter().find(|observed| observed.gitspace == id)
}

async fn status(runner: &Runner) -> serde_json::Value {
    let told: serde_json::Value = runner.admin.get("/status").await.unwrap();
    told.get("is").cloned().unwrap_or_default()
}

/// Waits until there are so many networks and volumes and nothing else of the deployment than dev containers and one spare sandbox, which is
/// ready: one that was adopted is removed first, and who is killed while the ledger that knows that is lost leaves its volume, which might be somebody's.
async fn settled(runner: &Runner, wanted: usize) {
    let label = format!("gitspaces.deployment={}", runner.deployment);
    crate::harness::until("networks, volumes and containers are one each", || async {
        let found = [
            runner.listed(&["network", "ls"], &label).len(),
            runner.listed(&["volume", "ls"], &label).len(),
            runner.listed(&["ps", "-a"], &label).len(),
        ];
        let spares = status(runner).await.get("spares").cloned();
        if found == [wanted; 3] && spares == Some(1.into()) {
            Ok(())
        } else {
            let log = std::fs::read_to_string(runner.dir.join("runner.log")).unwrap();
            let log: Vec<&str> = log.lines().rev().take(100).collect();
            Err(format!(
                "networks, volumes, containers: {found:?}, wanted {wanted} each; the log, latest first: {log:#?}"
            ))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gitspace_is_adopted_whole_after_its_ledger_was_deleted() {
    let git = GitServer::start().await;
    let url = git.repository("app", HOOKS);
    let mut runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let spec = spec(&url);
    let start = |generation| task(id, generation, TaskVerb::Start { spec: spec.clone() });
    runner.done(&start(1)).await;
    let container = runner.container(id);
    let mut open = crate::harness::until("the app listens", || async {
        let dialled = runner.dial(id, "8000").await;
        dialled.map_err(|error| format!("{error:?}"))
    })
    .await;
    say(&mut open).await;
    let before = processes(&runner, id);
    settled(&runner, 2).await;

    runner.kill();
    for lost in ["gitspaces", "spares", "deleted", "tasks"] {
        std::fs::remove_dir_all(runner.dir.join("state").join(lost)).unwrap();
    }
    std::fs::remove_file(runner.dir.join("state/revision")).unwrap();
    runner.start_again().await;

    // Whoever asks first hears of it as it is, and why it had to be found again.
    let seen = observed(&runner, id).await.unwrap();
    assert_eq!((seen.state, seen.failure), (ObservedState::Running, None));
    assert_eq!(seen.dev_container.unwrap().forward_ports, [8000]);
    let told = status(&runner).await;
    assert_eq!(
        told.pointer("/adopted/0/lack").unwrap(),
        "no_record",
        "{told:#}"
    );
    say(&mut open).await;

    // A start finds it as it is: the same container and processes, no command twice.
    let seen = runner.done(&start(2)).await;
    assert!(seen.dev_container.unwrap().initialized);
    assert_eq!(runner.container(id), container);
    assert_eq!(processes(&runner, id), before);
    let count = runner.exec(id, "cat /workspaces/app/.count").stdout;
    assert_eq!(
        String::from_utf8_lossy(&count),
        "created\npost-created\nstarted\n"
    );
    settled(&runner, 2).await;

    // And it ends as any other does.
    runner.done(&task(id, 3, TaskVerb::Stop {})).await;
    runner.done(&start(4)).await;
    let count = runner.exec(id, "cat /workspaces/app/.count").stdout;
    assert_eq!(
        String::from_utf8_lossy(&count),
        "created\npost-created\nstarted\nstarted\n"
    );
    runner.done(&task(id, 5, TaskVerb::Delete {})).await;
    settled(&runner, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gitspace_is_adopted_whole_after_an_older_ledger_was_put_back() {
    let git = GitServer::start().await;
    let url = git.repository("app", HOOKS);
    let mut runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let spec = spec(&url);
    let start = |generation| task(id, generation, TaskVerb::Start { spec: spec.clone() });
    let state = runner.dir.join("state");
    let copies = runner.dir.join("copies");
    std::fs::create_dir(&copies).unwrap();
    // A ledger in which nothing is, one in which the container is another one, and one in which there is none.
    copy(&state, &copies.join("empty"));
    runner.done(&start(1)).await;
    copy(&state, &copies.join("first"));
    runner.done(&task(id, 2, TaskVerb::Reset {})).await;
    copy(&state, &copies.join("reset"));
    runner.done(&start(3)).await;
    let container = runner.container(id);
    let before = processes(&runner, id);
    settled(&runner, 2).await;

    let mut generation = 3;
    for (older, lack) in [
        ("empty", "no_record"),
        ("first", "older_record"),
        ("reset", "older_record"),
    ] {
        runner.kill();
        std::fs::remove_dir_all(&state).unwrap();
        copy(&copies.join(older), &state);
        runner.start_again().await;
        let seen = observed(&runner, id).await.unwrap();
        assert_eq!(
            (seen.state, seen.failure),
            (ObservedState::Running, None),
            "{older}"
        );
        let told = status(&runner).await;
        assert_eq!(
            told.pointer("/adopted/0/lack").unwrap(),
            lack,
            "{older}: {told:#}"
        );
        generation += 1;
        runner.done(&start(generation)).await;
        assert_eq!(runner.container(id), container, "{older}");
        assert_eq!(processes(&runner, id), before, "{older}");
        settled(&runner, 2).await;
    }
    let count = runner.exec(id, "cat /workspaces/app/.count").stdout;
    let twice = "created\npost-created\nstarted\n".repeat(2);
    assert_eq!(
        String::from_utf8_lossy(&count),
        twice,
        "one reset, and no more"
    );
    runner
        .done(&task(id, generation + 1, TaskVerb::Delete {}))
        .await;
    settled(&runner, 1).await;
}

/// A ledger of before the gitspace was made knows its volume as a spare's, and spares are given away, or removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_an_older_ledger_takes_for_a_spare_is_neither_given_away_nor_removed() {
    let git = GitServer::start().await;
    let url = git.repository("app", HOOKS);
    let mut runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let spec = spec(&url);
    let start = |generation| task(id, generation, TaskVerb::Start { spec: spec.clone() });
    crate::harness::until("there is a spare", || async {
        match status(&runner).await.pointer("/spares") {
            Some(spares) if spares == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let state = runner.dir.join("state");
    copy(&state, &runner.dir.join("copy"));
    runner.done(&start(1)).await;
    assert!(
        runner
            .exec(id, "echo work > /workspaces/app/mine")
            .status
            .success()
    );
    let key = "{{index .Config.Labels \"gitspaces.key\"}}";
    let key = runner.docker(&["inspect", "-f", key, &runner.container(id)]);
    let volume = format!("gitspaces-{key}");
    runner.done(&task(id, 2, TaskVerb::Reset {})).await;
    let volume = &volume;

    runner.kill();
    std::fs::remove_dir_all(&state).unwrap();
    copy(&runner.dir.join("copy"), &state);
    runner.start_again().await;
    let other = gitspace();
    runner
        .done(&task(
            other,
            1,
            TaskVerb::Start {
                spec: crate::harness::spec(&url),
            },
        ))
        .await;
    let found = runner.exec(other, "ls /workspaces/app/mine; exit 0").stdout;
    assert_eq!(String::from_utf8_lossy(&found), "");
    runner.kill_and_start().await;
    crate::harness::until("the volume is told as an orphan", || async {
        match status(&runner).await.pointer("/orphan_volumes/0") {
            Some(orphan) if orphan == volume => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let work = runner.docker(&[
        "run",
        "--rm",
        "--volume",
        &format!("{volume}:/w"),
        crate::harness::IMAGE,
        "cat",
        "/w/app/mine",
    ]);
    assert_eq!(work, "work");
    runner.docker(&["volume", "rm", volume]);
}
