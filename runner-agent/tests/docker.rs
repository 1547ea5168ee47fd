//! The runner as a whole: its real process, a real Docker, a real gitspace-agent in real containers.
//!
//! Needs a Docker that answers, root, the default image, `git`, and gitspace-agent built beside the runner. Each test has a deployment of
//! its own, and removes everything of it at its end.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    reason = "the test's own helpers fail the test"
)]

use camino::{Utf8Path, Utf8PathBuf};
use futures_util::StreamExt as _;
use local_rpc::{Client, ClientError, fd::PassedStream, fd::recv_fd};
use newtype_uuid::GenericUuid as _;
use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{
    control::TaskStatus,
    failure::FailureCode,
    gitspace::{Generation, GitspaceSpec, Observed, ObservedState, RepoSpec, Resources},
    ids::GitspaceUuid,
    runner::{DIAL_PROTOCOL, HostReport, STREAM_HEADER},
    task::{Phase, Task, TaskEvent, TaskEventKind, TaskOutcome, TaskVerb},
};

const IMAGE: &str = "gitspaces/default:latest";
/// A whole create takes a second or two; a busy host can be slow.
const LIMIT: Duration = Duration::from_secs(90);

/// A repository on the bridge's address, served as plain files, as git's "dumb" protocol needs.
struct GitServer {
    port: u16,
    root: tempfile::TempDir,
}

impl GitServer {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("172.17.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = root.path().to_owned();
        let mut connections = tokio::task::JoinSet::new();
        let serve = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let dir = dir.clone();
                connections.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap();
                    let path = path.split('?').next().unwrap().trim_start_matches('/');
                    let answer = match std::fs::read(dir.join(path)) {
                        Ok(body) => [
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).into_bytes(),
                            body,
                        ]
                        .concat(),
                        Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
                    };
                    drop(stream.write_all(&answer).await);
                });
            }
        };
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(serve);
        // Lives as long as the test's runtime.
        std::mem::forget(serving);
        Self { port, root }
    }

    /// Makes a repository of these files, and its URL.
    fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        let work = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = work.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::write(work.path().join("README"), "hello\n").unwrap();
        let bare = self.root.path().join(format!("{name}.git"));
        let bare = bare.to_str().unwrap();
        let git = |arguments: &[&str]| {
            let output = Command::new("git")
                .args([
                    "-c",
                    "user.name=t",
                    "-c",
                    "user.email=t@example.com",
                    "-c",
                    "init.defaultBranch=main",
                ])
                .arg("-C")
                .arg(work.path())
                .args(arguments)
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        git(&["init", "-q"]);
        git(&["add", "-A", "-f"]);
        git(&["commit", "-q", "-m", "first"]);
        git(&["clone", "-q", "--bare", ".", bare]);
        git(&["--git-dir", bare, "update-server-info"]);
        format!("http://172.17.0.1:{}/{name}.git", self.port)
    }
}

struct Runner {
    child: Child,
    client: Client,
    admin: Client,
    dir: Utf8PathBuf,
    deployment: String,
    _guard: tempfile::TempDir,
}

fn uuid() -> uuid::Uuid {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").unwrap(),
        &mut bytes,
    )
    .unwrap();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

impl Runner {
    async fn start(access: &[u16]) -> Self {
        let guard = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
        let deployment = format!("test-{}", &uuid().simple().to_string()[..12]);
        let runner = Utf8Path::new(env!("CARGO_BIN_EXE_runner-agent"));
        let agent = runner.parent().unwrap().join("gitspace-agent");
        assert!(
            agent.exists(),
            "build it first: cargo build -p gitspace-agent"
        );
        let access: Vec<String> = access
            .iter()
            .map(|port| format!("\"172.17.0.1:{port}\""))
            .collect();
        let config = format!(
            "api_socket = \"{dir}/api.sock\"\nadmin_socket = \"{dir}/admin.sock\"\nstate_dir = \"{dir}/state\"\n\
             run_dir = \"{dir}/run\"\ndeployment = \"{deployment}\"\nagent_binary = \"{agent}\"\n\
             default_image = \"{IMAGE}\"\nsandbox_pool = 1\nhost_access = [{}]\n",
            access.join(", ")
        );
        std::fs::write(dir.join("runner.toml"), config).unwrap();
        let child = spawn(&dir);
        let runner = Self {
            child,
            client: Client::new(dir.join("api.sock")),
            admin: Client::new(dir.join("admin.sock")),
            dir,
            deployment,
            _guard: guard,
        };
        runner.wait_until_ready().await;
        runner
    }

    async fn wait_until_ready(&self) {
        until("the runner is ready", || async {
            match self.admin.get::<serde_json::Value>("/readyz").await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:?}")),
            }
        })
        .await;
    }

    /// `SIGKILL`, and a new process on the same state.
    async fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.dir);
        self.wait_until_ready().await;
    }

    async fn put(&self, task: &Task) -> Result<TaskStatus, ClientError> {
        self.client
            .put(&format!("/v1/tasks/{}", task.id), task)
            .await
    }

    async fn finish(&self, task: &Task) -> (Vec<TaskEvent>, TaskOutcome, Observed) {
        let mut events: Vec<TaskEvent> = Vec::new();
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            let after = events.last().map_or(0, |event| event.seq);
            let path = format!("/v1/tasks/{}/events?after={after}", task.id);
            let Ok(mut stream) = self.client.stream_ndjson::<TaskEvent>(&path).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while let Ok(Some(Ok(event))) = tokio::time::timeout(LIMIT, stream.next()).await {
                events.push(event);
            }
            if let Some(TaskEvent {
                event: TaskEventKind::Finished { outcome, observed },
                ..
            }) = events.last()
            {
                let (outcome, observed) = (outcome.clone(), (**observed).clone());
                let mut seqs = events.iter().map(|event| event.seq);
                assert!(
                    (1..=events.len() as u64).eq(seqs.by_ref()),
                    "numbers without a gap"
                );
                return (events, outcome, observed);
            }
        }
        panic!("task did not finish; seen: {events:#?}");
    }

    async fn run(&self, task: &Task) -> (Vec<TaskEvent>, TaskOutcome, Observed) {
        self.put(task).await.unwrap();
        self.finish(task).await
    }

    async fn done(&self, task: &Task) -> Observed {
        let (events, outcome, observed) = self.run(task).await;
        assert_eq!(outcome, TaskOutcome::Done {}, "{events:#?}");
        observed
    }

    async fn failed(&self, task: &Task) -> (Vec<TaskEvent>, wire::failure::Failure, Observed) {
        let (events, outcome, observed) = self.run(task).await;
        match outcome {
            TaskOutcome::Failed { failure } => (events, failure, observed),
            other => panic!("{other:?}: {events:#?}"),
        }
    }

    fn docker(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker").args(arguments).output().unwrap();
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn listed(&self, what: &[&str], label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let mut arguments = what.to_vec();
        arguments.extend(["-q", "--filter", &filter]);
        self.docker(&arguments).lines().map(str::to_owned).collect()
    }

    /// The dev container's id.
    fn container(&self, gitspace: GitspaceUuid) -> String {
        let found = self.listed(
            &["ps", "-a", "--no-trunc"],
            &format!("gitspaces.gitspace={gitspace}"),
        );
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    fn exec(&self, gitspace: GitspaceUuid, script: &str) -> std::process::Output {
        Command::new("docker")
            .args(["exec", &self.container(gitspace), "sh", "-c", script])
            .output()
            .unwrap()
    }

    async fn dial(
        &self,
        gitspace: GitspaceUuid,
        target: &str,
    ) -> Result<PassedStream, ClientError> {
        let path = format!("/v1/gitspaces/{gitspace}/dial?target={target}");
        let upgraded = self
            .client
            .upgrade(http::Method::POST, &path, DIAL_PROTOCOL, None::<&()>)
            .await?;
        assert_eq!(upgraded.headers.get(STREAM_HEADER).unwrap(), "fd");
        let (fd, _) = recv_fd(&upgraded.stream).await.unwrap();
        Ok(PassedStream::new(fd).unwrap())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let purged = Command::new(env!("CARGO_BIN_EXE_runner-agent"))
            .args(["purge", "--yes", "--config"])
            .arg(self.dir.join("runner.toml"))
            .output()
            .unwrap();
        let left = self.listed(
            &["ps", "-a"],
            &format!("gitspaces.deployment={}", self.deployment),
        );
        if !std::thread::panicking() {
            assert!(purged.status.success(), "{purged:?}");
            assert!(left.is_empty(), "left after the purge: {left:?}");
            assert!(!self.dir.join("state").exists());
        }
    }
}

fn spawn(dir: &Utf8Path) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("runner.log"))
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_runner-agent"))
        .arg("--config")
        .arg(dir.join("runner.toml"))
        .env("GITSPACES_LOG", "info")
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap()
}

/// Level-triggered and bounded; says what it last saw.
async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if started.elapsed() > LIMIT => {
                panic!("waited for: {what}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn spec(url: &str) -> GitspaceSpec {
    GitspaceSpec {
        name: "demo".parse().unwrap(),
        slug: format!("demo-{}", &uuid().simple().to_string()[..6])
            .parse()
            .unwrap(),
        repo: RepoSpec {
            url: url.parse().unwrap(),
            reference: None,
        },
        resources: Resources {
            cpu_millis: 1000,
            memory_bytes: 512 * 1024 * 1024,
            pids: 256,
        },
        git_credentials: Vec::new(),
        git_identity: None,
    }
}

fn task(gitspace: GitspaceUuid, generation: u64, verb: TaskVerb) -> Task {
    Task {
        id: newtype_uuid::TypedUuid::from_untyped_uuid(uuid()),
        gitspace,
        generation: Generation(generation),
        attempt: 1,
        deadline: jiff::Timestamp::now() + Duration::from_secs(300),
        trace: newtype_uuid::TypedUuid::from_untyped_uuid(uuid()),
        verb,
    }
}

fn gitspace() -> GitspaceUuid {
    newtype_uuid::TypedUuid::from_untyped_uuid(uuid())
}

fn log_of(events: &[TaskEvent], wanted: Phase) -> String {
    events
        .iter()
        .filter_map(|event| match &event.event {
            TaskEventKind::Log { phase, text, .. } if *phase == wanted => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

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
    assert_eq!(status["deployment"], runner.deployment.as_str());
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
