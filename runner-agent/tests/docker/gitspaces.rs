//! What a user does with a gitspace, and what may happen to it.

use crate::harness::{GitServer, LIMIT, Runner, gitspace, log_of, spec, task, until, uuid};
use futures_util::StreamExt as _;
use std::{collections::BTreeMap, time::Duration};
use tokio::io::AsyncReadExt as _;
use wire::{
    control::TaskStatus,
    failure::FailureCode,
    gitspace::{Generation, Observed, ObservedState},
    runner::HostReport,
    task::{Phase, TaskEvent, TaskEventKind, TaskOutcome, TaskVerb},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_gitspace_lives_from_start_to_delete() {
    let git = GitServer::start().await;
    let url = git.repository(
        "app",
        &[(
            ".devcontainer/devcontainer.json",
            r#"{
              "containerEnv": {"ONE": "1"},
              "remoteEnv": {"TWO": "${containerEnv:ONE}2"},
              "onCreateCommand": "echo created $TWO in $PWD as $(id -un); date +%s%N >> created",
              "postCreateCommand": ["sh", "-c", "echo post-created"],
              "postStartCommand": "echo started; echo x >> starts",
              "forwardPorts": [8000],
            }"#,
        )],
    );
    let runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let spec = spec(&url);
    let start = |generation| task(id, generation, TaskVerb::Start { spec: spec.clone() });

    let first = start(1);
    let (events, outcome, observed) = runner.run(&first).await;
    assert_eq!(outcome, TaskOutcome::Done {}, "{events:#?}");
    assert_eq!(observed.state, ObservedState::Running);
    assert_eq!(observed.generation, Generation(1));
    assert_eq!(observed.failure, None);
    let dev = observed.dev_container.unwrap();
    assert!(dev.initialized);
    assert_eq!(dev.workspace_folder, "/workspaces/app");
    assert_eq!(dev.forward_ports, [8000]);
    let created = log_of(&events, Phase::OnCreateCommand);
    assert!(
        created.contains("created 12 in /workspaces/app as developer"),
        "{created}"
    );

    // The same task again changes nothing, and an acknowledged one is gone.
    assert!(runner.put(&first).await.unwrap().finished);
    runner
        .client
        .delete::<()>(&format!("/v1/tasks/{}", first.id))
        .await
        .unwrap();
    let tasks: Vec<TaskStatus> = runner.client.get("/v1/tasks").await.unwrap();
    assert!(tasks.is_empty());

    // An app that listens on the loopback address only is reached, and nothing is copied on the way.
    let server = runner.exec(
        id,
        "nohup perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(Listen=>5,LocalAddr=>\"127.0.0.1\",LocalPort=>8000) or die; while($c=$s->accept){print $c \"hello\";close $c}' >/dev/null 2>&1 &",
    );
    assert!(server.status.success(), "{server:?}");
    let told = until("the app answers", || async {
        let mut stream = runner
            .dial(id, "8000")
            .await
            .map_err(|error| format!("{error:?}"))?;
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .await
            .map_err(|error| error.to_string())?;
        Ok(text)
    })
    .await;
    assert_eq!(told, "hello");
    runner.dial(id, "workspace").await.unwrap();
    assert!(runner.dial(id, "9").await.is_err());
    let git_state: wire::agent::GitState = runner
        .client
        .get(&format!("/v1/gitspaces/{id}/git"))
        .await
        .unwrap();
    assert_eq!(git_state.branch.as_deref(), Some("main"));
    let ports: Vec<wire::agent::ListeningPort> = runner
        .client
        .get(&format!("/v1/gitspaces/{id}/ports"))
        .await
        .unwrap();
    assert!(
        ports.iter().any(|port| port.port == 8000 && port.forwarded),
        "{ports:?}"
    );

    // Limits and the drop of capabilities are Docker's to say.
    let limits = runner.docker(&[
        "inspect", "-f",
        "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}} {{.HostConfig.CapDrop}}",
        &runner.container(id),
    ]);
    assert!(
        limits.starts_with("536870912 256 1000000000 [NET_RAW"),
        "{limits}"
    );

    // Stop keeps the files, and another start runs neither of the once-only commands again.
    assert!(
        runner
            .exec(id, "echo kept > /workspaces/kept")
            .status
            .success()
    );
    let observed = runner.done(&task(id, 2, TaskVerb::Stop {})).await;
    assert_eq!(
        (observed.state, observed.failure),
        (ObservedState::Stopped, None)
    );
    assert_eq!(runner.done(&start(3)).await.state, ObservedState::Running);
    let kept = runner.exec(
        id,
        "cat /workspaces/kept; wc -l < /workspaces/app/created; wc -l < /workspaces/app/starts",
    );
    assert_eq!(
        String::from_utf8_lossy(&kept.stdout)
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["kept", "1", "2"]
    );

    // Reset keeps the volume and makes a new container.
    let before = runner.container(id);
    assert_eq!(
        runner.done(&task(id, 4, TaskVerb::Reset {})).await.state,
        ObservedState::Provisioned
    );
    assert_eq!(runner.done(&start(5)).await.state, ObservedState::Running);
    assert_ne!(runner.container(id), before);
    let kept = runner.exec(id, "cat /workspaces/kept; wc -l < /workspaces/app/created");
    assert_eq!(
        String::from_utf8_lossy(&kept.stdout)
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["kept", "2"]
    );

    // Delete leaves nothing of it.
    let observed = runner.done(&task(id, 6, TaskVerb::Delete {})).await;
    assert_eq!(observed.state, ObservedState::Absent);
    assert!(
        runner
            .listed(&["ps", "-a"], &format!("gitspaces.gitspace={id}"))
            .is_empty()
    );
    assert_eq!(
        runner.done(&task(id, 7, TaskVerb::Delete {})).await.state,
        ObservedState::Absent
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_says_what_to_do_and_a_later_start_goes_on() {
    let git = GitServer::start().await;
    let runner = Runner::start(&[git.port]).await;

    let missing = git.repository(
        "missing",
        &[(".devcontainer.json", r#"{"image": "no.example/none:1"}"#)],
    );
    let id = gitspace();
    let (_, failure, observed) = runner
        .failed(&task(
            id,
            1,
            TaskVerb::Start {
                spec: spec(&missing),
            },
        ))
        .await;
    assert_eq!(failure.code, FailureCode::ImageMissing, "{failure:?}");
    assert!(
        failure.hint.is_some() && failure.detail.is_some(),
        "{failure:?}"
    );
    assert_eq!(observed.state, ObservedState::Provisioned);

    let broken = git.repository(
        "broken",
        &[(".devcontainer.json", "{\n  \"image\": \"a\"\n  \"x\": 1\n}")],
    );
    let (_, failure, _) = runner
        .failed(&task(
            gitspace(),
            1,
            TaskVerb::Start {
                spec: spec(&broken),
            },
        ))
        .await;
    assert_eq!(failure.code, FailureCode::DevcontainerInvalid);
    assert!(
        failure.message.contains("`.devcontainer.json`")
            && failure.message.contains("line 2, column 15"),
        "{failure:?}"
    );

    let unsupported = git.repository(
        "unsupported",
        &[(
            ".devcontainer.json",
            r#"{"build": {"dockerfile": "x"}, "features": {"a": {}}}"#,
        )],
    );
    let (_, failure, _) = runner
        .failed(&task(
            gitspace(),
            1,
            TaskVerb::Start {
                spec: spec(&unsupported),
            },
        ))
        .await;
    assert_eq!(failure.code, FailureCode::DevcontainerUnsupported);

    let nowhere = format!("http://172.17.0.1:{}/nowhere.git", git.port);
    let (_, failure, observed) = runner
        .failed(&task(
            gitspace(),
            1,
            TaskVerb::Start {
                spec: spec(&nowhere),
            },
        ))
        .await;
    assert_eq!(
        failure.code,
        FailureCode::GitRepositoryNotFound,
        "{failure:?}"
    );
    assert_eq!(observed.state, ObservedState::Absent);

    let failing = git.repository(
        "failing",
        &[(
            ".devcontainer.json",
            r#"{"postCreateCommand": "test -e ../mended || { echo it is broken; exit 7; }"}"#,
        )],
    );
    let id = gitspace();
    let spec = spec(&failing);
    let (_, failure, observed) = runner
        .failed(&task(id, 1, TaskVerb::Start { spec: spec.clone() }))
        .await;
    assert_eq!(failure.code, FailureCode::LifecycleCommandFailed);
    assert!(failure.message.contains('7') && failure.detail.unwrap().contains("it is broken"));
    assert_eq!(observed.state, ObservedState::Running);
    assert!(!observed.dev_container.unwrap().initialized);
    assert!(runner.exec(id, "touch /workspaces/mended").status.success());
    let observed = runner.done(&task(id, 2, TaskVerb::Start { spec })).await;
    assert!(observed.dev_container.unwrap().initialized);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_gitspace_refuses_a_second_task_and_a_cancel_ends_the_first() {
    let git = GitServer::start().await;
    let url = git.repository(
        "slow",
        &[(
            ".devcontainer.json",
            r#"{"onCreateCommand": "echo begun; sleep 600"}"#,
        )],
    );
    let runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let first = task(id, 1, TaskVerb::Start { spec: spec(&url) });
    runner.put(&first).await.unwrap();
    let second = task(id, 2, TaskVerb::Stop {});
    let error = runner.put(&second).await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, "busy");
    let path = format!("/v1/tasks/{}/events?after=0", first.id);
    let mut events = runner
        .client
        .stream_ndjson::<TaskEvent>(&path)
        .await
        .unwrap();
    loop {
        let event = tokio::time::timeout(LIMIT, events.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if matches!(&event.event, TaskEventKind::Log { text, .. } if text.contains("begun")) {
            break;
        }
    }
    runner
        .client
        .post::<_, TaskStatus>(&format!("/v1/tasks/{}/cancel", first.id), &())
        .await
        .unwrap();
    let (_, outcome, observed) = runner.finish(&first).await;
    assert_eq!(outcome, TaskOutcome::Cancelled {});
    assert_eq!(observed.state, ObservedState::Running);
    until("the command was killed", || async {
        let left = runner.exec(id, "ps -eo args | grep -c '[s]leep 600'");
        let left = String::from_utf8_lossy(&left.stdout).trim().to_owned();
        if left == "0" { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(runner.done(&second).await.state, ObservedState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_on_after_the_runner_was_killed_and_no_command_runs_twice() {
    let git = GitServer::start().await;
    let url = git.repository(
        "killed",
        &[(".devcontainer.json", r#"{"onCreateCommand": "echo once >> runs; echo begun; while ! test -e ../go; do sleep 0.05; done"}"#)],
    );
    let mut runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let start = task(id, 1, TaskVerb::Start { spec: spec(&url) });
    runner.put(&start).await.unwrap();
    let path = format!("/v1/tasks/{}/events?after=0", start.id);
    let mut events = runner
        .client
        .stream_ndjson::<TaskEvent>(&path)
        .await
        .unwrap();
    loop {
        let event = tokio::time::timeout(LIMIT, events.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if matches!(&event.event, TaskEventKind::Log { text, .. } if text.contains("begun")) {
            break;
        }
    }
    let container = runner.container(id);
    runner.kill_and_start().await;
    assert!(runner.exec(id, "touch /workspaces/go").status.success());
    let (_, outcome, observed) = runner.finish(&start).await;
    assert_eq!(outcome, TaskOutcome::Done {});
    assert_eq!(observed.state, ObservedState::Running);
    assert_eq!(runner.container(id), container);
    let runs = runner.exec(id, "cat /workspaces/killed/runs");
    assert_eq!(String::from_utf8_lossy(&runs.stdout), "once\n");

    // Killed after any of its events, it comes to its end.
    for seen in 0..9 {
        let id = gitspace();
        let url = git.repository(&format!("k{seen}"), &[]);
        let start = task(id, 1, TaskVerb::Start { spec: spec(&url) });
        runner.put(&start).await.unwrap();
        let path = format!("/v1/tasks/{}/events?after=0", start.id);
        let events = runner
            .client
            .stream_ndjson::<TaskEvent>(&path)
            .await
            .unwrap();
        let heard = events.take(seen).collect::<Vec<_>>();
        tokio::time::timeout(LIMIT, heard).await.unwrap();
        runner.kill_and_start().await;
        let (events, outcome, observed) = runner.finish(&start).await;
        assert_eq!(outcome, TaskOutcome::Done {}, "{events:#?}");
        assert_eq!(observed.state, ObservedState::Running);
        runner.done(&task(id, 2, TaskVerb::Delete {})).await;
    }
    runner.done(&task(id, 2, TaskVerb::Delete {})).await;
    until("only the spare sandbox is left", || async {
        let label = format!("gitspaces.deployment={}", runner.deployment);
        let left = (
            runner.listed(&["ps", "-a"], &label).len(),
            runner.listed(&["network", "ls"], &label).len(),
            runner.listed(&["volume", "ls"], &label).len(),
        );
        if left == (1, 1, 1) {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_dies_is_told_within_two_seconds_with_its_cause() {
    let git = GitServer::start().await;
    let url = git.repository("dies", &[]);
    let runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let spec = spec(&url);
    runner
        .done(&task(id, 1, TaskVerb::Start { spec: spec.clone() }))
        .await;
    let mut watch = runner
        .client
        .stream_ndjson::<Observed>("/v1/watch")
        .await
        .unwrap();
    let first = tokio::time::timeout(LIMIT, watch.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first.state, ObservedState::Running);
    runner.docker(&["kill", &runner.container(id)]);
    let seen = tokio::time::timeout(Duration::from_secs(2), watch.next())
        .await
        .expect("within two seconds");
    let seen = seen.unwrap().unwrap();
    assert_eq!(seen.state, ObservedState::Stopped);
    assert!(seen.revision > first.revision);
    let failure = seen.failure.unwrap();
    assert_eq!(failure.code, FailureCode::ContainerExited);
    assert!(failure.message.contains("137"), "{failure:?}");
    let observed = runner.done(&task(id, 2, TaskVerb::Start { spec })).await;
    assert_eq!(
        (observed.state, observed.failure),
        (ObservedState::Running, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitspace_reaches_neither_the_host_nor_the_metadata_address() {
    let git = GitServer::start().await;
    let closed = tokio::net::TcpListener::bind("172.17.0.1:0").await.unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    let url = git.repository("walls", &[]);
    let runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    runner
        .done(&task(id, 1, TaskVerb::Start { spec: spec(&url) }))
        .await;
    let reach = |address: &str| {
        let script = format!("curl -s -m 3 -o /dev/null {address}; echo $?");
        String::from_utf8_lossy(&runner.exec(id, &script).stdout)
            .trim()
            .to_owned()
    };
    assert_eq!(
        reach(&format!("http://172.17.0.1:{}/walls.git/HEAD", git.port)),
        "0"
    );
    assert_eq!(reach(&format!("http://172.17.0.1:{closed_port}/")), "7");
    assert_eq!(reach("http://169.254.169.254/"), "7");
    let sockets = runner.exec(id, "ls /var/run/docker.sock /run/docker.sock");
    assert!(!sockets.status.success());
    let read_only = runner.exec(id, "touch /.gitspaces/bin/x");
    assert!(!read_only.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_and_the_readiness_are_told() {
    let runner = Runner::start(&[]).await;
    let host: HostReport = runner.client.get("/v1/host").await.unwrap();
    assert!(
        host.docker_version.is_some() && host.disk_bytes > 0 && host.capacity.gitspaces > 0,
        "{host:?}"
    );
    let health: Result<serde_json::Value, _> = runner.admin.get("/readyz").await;
    assert_eq!(health.unwrap()["ready"], true);
    let status: BTreeMap<String, serde_json::Value> = runner.admin.get("/status").await.unwrap();
    assert_eq!(status["is"]["deployment"], runner.deployment.as_str());
    let error = runner
        .client
        .get::<()>("/v1/gitspaces/nonsense/git")
        .await
        .unwrap_err();
    assert_eq!(error.problem().unwrap().code, "invalid_id");
    let unknown = gitspace();
    let error = runner.dial(unknown, "80").await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, "unknown_gitspace");
    // The server answers before it has read all of it, so that the client may see only that it hung up.
    let huge = " ".repeat(1024 * 1024);
    let refused = runner
        .client
        .put::<_, TaskStatus>(&format!("/v1/tasks/{}", uuid()), &huge)
        .await;
    assert!(refused.is_err());
    let tasks: Vec<TaskStatus> = runner.client.get("/v1/tasks").await.unwrap();
    assert!(tasks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_socket_is_gone_is_told_with_what_brings_it_back() {
    let git = GitServer::start().await;
    let url = git.repository("app", &[]);
    let runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let spec = spec(&url);
    runner
        .done(&task(id, 1, TaskVerb::Start { spec: spec.clone() }))
        .await;
    let removed = runner.exec(id, "rm /.gitspaces/run/control.sock");
    assert!(removed.status.success(), "{removed:?}");
    let stops = |hint: Option<&String>| hint.is_some_and(|hint| hint.contains("stop the gitspace"));
    let error = runner
        .client
        .get::<serde_json::Value>(&format!("/v1/gitspaces/{id}/ports"))
        .await
        .unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.code, "agent_unreachable");
    assert!(stops(problem.hint.as_ref()), "{problem:?}");
    let observed = runner.done(&task(id, 1, TaskVerb::Observe {})).await;
    let failure = observed.failure.unwrap();
    assert_eq!(failure.code, FailureCode::AgentSilent);
    assert!(stops(failure.hint.as_ref()), "{failure:?}");

    // As the hint says.
    runner.done(&task(id, 2, TaskVerb::Stop {})).await;
    let observed = runner.done(&task(id, 3, TaskVerb::Start { spec })).await;
    assert_eq!(
        (observed.state, observed.failure),
        (ObservedState::Running, None)
    );
}
