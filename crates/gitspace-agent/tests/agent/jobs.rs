use crate::harness::{Agent, within};
use wire::{
    agent::{CommandJob, CommandLine, JobOutcome, JobSpec},
    failure::FailureCode,
    task::LogStream,
};

fn command(agent: &Agent, user: &str, command: CommandLine) -> JobSpec {
    JobSpec::Command(CommandJob {
        user: user.to_owned(),
        cwd: agent.path(""),
        env: [("FROM_JOB".to_owned(), Some("job".to_owned()))].into(),
        command,
        once: false,
    })
}

fn shell(agent: &Agent, script: &str) -> JobSpec {
    command(
        agent,
        "root",
        CommandLine::Shell {
            script: script.to_owned(),
        },
    )
}

fn exec(argv: &[&str]) -> CommandLine {
    CommandLine::Exec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
    }
}

#[tokio::test]
async fn output_and_exit_codes_come_back() {
    let agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    let ended = agent
        .job(
            "ok",
            &shell(&agent, "echo out $FROM_JOB $FROM_REMOTE_ENV; echo err >&2"),
        )
        .await;
    assert_eq!(ended.done(), None);
    assert_eq!(ended.text(LogStream::Stdout), "out job yes\n");
    assert_eq!(ended.text(LogStream::Stderr), "err\n");
    for (id, script, code) in [
        ("three", "echo why >&2; exit 3", 3),
        ("killed", "kill -9 $$", 137),
        ("term", "kill -TERM $$", 143),
    ] {
        let (exit_code, failure) = agent.job(id, &shell(&agent, script)).await.failure();
        assert_eq!(
            (exit_code, failure.code),
            (Some(code), FailureCode::LifecycleCommandFailed),
            "{id}"
        );
        assert!(failure.hint.is_some());
    }
    let (_, failure) = agent.follow("three", 0).await.failure();
    assert_eq!(failure.detail.as_deref(), Some("why"));
}

#[tokio::test]
async fn a_command_for_once_is_run_until_it_ends_well_and_then_never_again() {
    let mut agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    let script = |script: &str| {
        let mut spec = shell(&agent, script);
        if let JobSpec::Command(command) = &mut spec {
            command.once = true;
        }
        spec
    };
    let counts = script("echo ran >> ran; test -e good");
    let makes_good = shell(&agent, "touch good");
    let shows = shell(&agent, "cat ran");
    agent.job("hook", &counts).await.failure();
    let path = "/v1/jobs/hook";
    agent.client.delete::<()>(path).await.unwrap();
    agent.job("make", &makes_good).await.done();
    agent.job("hook", &counts).await.done();
    // Neither its end being forgotten nor a restart brings it back.
    for _ in 0..2 {
        agent.client.delete::<()>(path).await.unwrap();
        let ended = agent.job("hook", &counts).await;
        assert_eq!(ended.done().as_deref(), Some("it was done before"));
        agent.kill_and_restart().await;
    }
    let ended = agent.job("show", &shows).await;
    assert_eq!(ended.text(LogStream::Stdout), "ran\nran\n");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let agent = Agent::start().await;
    let (code, failure) = agent
        .job("tool", &command(&agent, "root", exec(&["no-such-tool"])))
        .await
        .failure();
    assert_eq!((code, failure.code), (None, FailureCode::ToolMissing));
    assert!(failure.message.contains("`no-such-tool`"));
    let (_, failure) = agent
        .job("user", &command(&agent, "nosuchuser", exec(&["true"])))
        .await
        .failure();
    assert!(failure.message.contains("`nosuchuser`"), "{failure:?}");
    let mut spec = command(&agent, "root", exec(&["true"]));
    if let JobSpec::Command(command) = &mut spec {
        "/no/such/folder".clone_into(&mut command.cwd);
    }
    let (_, failure) = agent.job("cwd", &spec).await.failure();
    assert!(failure.message.contains("/no/such/folder"), "{failure:?}");
}

#[tokio::test]
async fn a_command_runs_as_its_user_with_its_groups_alone() {
    let agent = Agent::start().await;
    let ended = agent
        .job(
            "nobody",
            &command(
                &agent,
                "65534:65534",
                CommandLine::Shell {
                    script: "id -u; id -g; id -G".to_owned(),
                },
            ),
        )
        .await;
    // The folder is root's own.
    let text = match &ended.outcome {
        Some(JobOutcome::Done { .. }) => ended.text(LogStream::Stdout),
        other => panic!("{other:?}"),
    };
    let ids: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(ids.get(..2), Some(&["65534", "65534"][..]), "{text}");
    assert!(!ids.contains(&"0"), "{text}");
}

#[tokio::test]
async fn parallel_commands_all_run_and_the_first_failure_counts() {
    let agent = Agent::start().await;
    let commands = [
        (
            "bad".to_owned(),
            CommandLine::Shell {
                script: "echo one; exit 7".to_owned(),
            },
        ),
        ("good".to_owned(), exec(&["echo", "two"])),
    ];
    let ended = agent
        .job(
            "1",
            &command(
                &agent,
                "root",
                CommandLine::Parallel {
                    commands: commands.into(),
                },
            ),
        )
        .await;
    assert_eq!(ended.failure().0, Some(7));
    let text = ended.text(LogStream::Stdout);
    assert!(
        text.contains("[bad] one\n") && text.contains("[good] two\n"),
        "{text}"
    );
}

#[tokio::test]
async fn the_same_id_runs_once() {
    let agent = Agent::start().await;
    let spec = shell(&agent, "echo x >> count");
    agent.job("1", &spec).await.done();
    agent.job("1", &spec).await.done();
    assert_eq!(std::fs::read_to_string(agent.path("count")).unwrap(), "x\n");
    // Forgotten, it is another job.
    agent.client.delete::<()>("/v1/jobs/1").await.unwrap();
    agent.job("1", &spec).await.done();
    assert_eq!(
        std::fs::read_to_string(agent.path("count")).unwrap(),
        "x\nx\n"
    );
}

#[tokio::test]
async fn a_cancel_ends_the_whole_group_and_is_told_so() {
    let agent = Agent::start().await;
    let script = "trap '' TERM; sleep 1000 & echo $! > child; echo up; wait; sleep 1000";
    agent
        .client
        .put::<_, ()>("/v1/jobs/1", &shell(&agent, script))
        .await
        .unwrap();
    let child = within("the child is there", async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
        loop {
            ticks.tick().await;
            if let Ok(pid) = std::fs::read_to_string(agent.path("child"))
                .unwrap_or_default()
                .trim()
                .parse::<i32>()
            {
                return pid;
            }
        }
    })
    .await;
    agent.client.delete::<()>("/v1/jobs/1").await.unwrap();
    let ended = agent.follow("1", 0).await;
    assert_eq!(ended.outcome, Some(JobOutcome::Cancelled {}));
    within("the child is gone", async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
        loop {
            ticks.tick().await;
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_daemon_left_behind_neither_holds_up_the_job_nor_dies_of_its_output() {
    let agent = Agent::start().await;
    let script = "(trap '' HUP; read line < go; echo still here; echo alive > alive) & mkfifo go";
    let script = format!("mkfifo go; {}", script.trim_end_matches(" mkfifo go"));
    agent.job("1", &shell(&agent, &script)).await.done();
    std::fs::write(agent.path("go"), "now\n").unwrap();
    within("the daemon went on", async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
        while !std::path::Path::new(&agent.path("alive")).exists() {
            ticks.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn hostile_job_requests_are_refused() {
    let agent = Agent::start().await;
    let spec = shell(&agent, "true");
    for id in ["a%20b", "-x", &"x".repeat(200)] {
        let error = agent
            .client
            .put::<_, ()>(&format!("/v1/jobs/{id}"), &spec)
            .await
            .unwrap_err();
        assert_eq!(
            error.problem().map(|problem| problem.code.as_str()),
            Some("invalid_job"),
            "{id}"
        );
    }
    let error = agent
        .client
        .put::<_, ()>(
            "/v1/jobs/1",
            &serde_json::json!({"job": "command", "evil": 1}),
        )
        .await
        .unwrap_err();
    assert_eq!(
        error.problem().map(|problem| problem.code.as_str()),
        Some("invalid_body")
    );
    let url =
        serde_json::json!({"job": "clone", "repo": {"url": "ext::sh -c id"}, "destination": "/x"});
    assert!(agent.client.put::<_, ()>("/v1/jobs/1", &url).await.is_err());
    assert!(
        agent
            .client
            .stream_ndjson::<()>("/v1/jobs/none/events")
            .await
            .unwrap_err()
            .is_not_found()
    );
}
