//! A runner of its own for each test, a Git server for it, and what tasks are made of.

use camino::{Utf8Path, Utf8PathBuf};
use futures_util::StreamExt as _;
use local_rpc::{Client, ClientError, fd::PassedStream, fd::recv_fd};
use newtype_uuid::GenericUuid as _;
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{
    control::TaskStatus,
    gitspace::{Generation, GitspaceSpec, Observed, RepoSpec, Resources},
    ids::GitspaceUuid,
    runner::{DIAL_PROTOCOL, STREAM_HEADER},
    task::{Phase, Task, TaskEvent, TaskEventKind, TaskOutcome, TaskVerb},
};

pub(crate) const IMAGE: &str = "gitspaces/default:latest";
/// A whole create takes a second or two; a busy host can be slow.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// A repository on the bridge's address, served as plain files, as git's "dumb" protocol needs.
pub(crate) struct GitServer {
    pub(crate) port: u16,
    pub(crate) root: tempfile::TempDir,
}

impl GitServer {
    pub(crate) async fn start() -> Self {
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
    pub(crate) fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
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

pub(crate) struct Runner {
    pub(crate) child: Child,
    pub(crate) client: Client,
    pub(crate) admin: Client,
    pub(crate) dir: Utf8PathBuf,
    pub(crate) deployment: String,
    config: String,
    _guard: tempfile::TempDir,
}

pub(crate) fn uuid() -> uuid::Uuid {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").unwrap(),
        &mut bytes,
    )
    .unwrap();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

impl Runner {
    pub(crate) async fn start(access: &[u16]) -> Self {
        Self::start_with(access, "").await
    }

    /// With more lines of configuration.
    pub(crate) async fn start_with(access: &[u16], more: &str) -> Self {
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
        std::fs::write(dir.join("runner.toml"), format!("{config}{more}")).unwrap();
        let child = spawn(&dir);
        let runner = Self {
            child,
            client: Client::new(dir.join("api.sock")),
            admin: Client::new(dir.join("admin.sock")),
            dir,
            deployment,
            config,
            _guard: guard,
        };
        runner.wait_until_ready().await;
        runner
    }

    pub(crate) async fn wait_until_ready(&self) {
        until("the runner is ready", || async {
            match self.admin.get::<serde_json::Value>("/readyz").await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:?}")),
            }
        })
        .await;
    }

    /// `SIGKILL`, and a new process on the same state.
    pub(crate) async fn kill_and_start(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// A restart with other lines of configuration than those that every test has.
    pub(crate) async fn reconfigure(&mut self, more: &str) {
        let path = self.dir.join("runner.toml");
        std::fs::write(path, format!("{}{more}", self.config)).unwrap();
        self.kill_and_start().await;
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(&self.dir);
        self.wait_until_ready().await;
    }

    pub(crate) async fn put(&self, task: &Task) -> Result<TaskStatus, ClientError> {
        self.client
            .put(&format!("/v1/tasks/{}", task.id), task)
            .await
    }

    pub(crate) async fn finish(&self, task: &Task) -> (Vec<TaskEvent>, TaskOutcome, Observed) {
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

    pub(crate) async fn run(&self, task: &Task) -> (Vec<TaskEvent>, TaskOutcome, Observed) {
        self.put(task).await.unwrap();
        self.finish(task).await
    }

    pub(crate) async fn done(&self, task: &Task) -> Observed {
        let (events, outcome, observed) = self.run(task).await;
        assert_eq!(outcome, TaskOutcome::Done {}, "{events:#?}");
        observed
    }

    pub(crate) async fn failed(
        &self,
        task: &Task,
    ) -> (Vec<TaskEvent>, wire::failure::Failure, Observed) {
        let (events, outcome, observed) = self.run(task).await;
        match outcome {
            TaskOutcome::Failed { failure } => (events, failure, observed),
            other => panic!("{other:?}: {events:#?}"),
        }
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker").args(arguments).output().unwrap();
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn listed(&self, what: &[&str], label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let mut arguments = what.to_vec();
        arguments.extend(["-q", "--filter", &filter]);
        self.docker(&arguments).lines().map(str::to_owned).collect()
    }

    /// The dev container's id.
    pub(crate) fn container(&self, gitspace: GitspaceUuid) -> String {
        let found = self.listed(
            &["ps", "-a", "--no-trunc"],
            &format!("gitspaces.gitspace={gitspace}"),
        );
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    pub(crate) fn exec(&self, gitspace: GitspaceUuid, script: &str) -> std::process::Output {
        Command::new("docker")
            .args(["exec", &self.container(gitspace), "sh", "-c", script])
            .output()
            .unwrap()
    }

    pub(crate) async fn dial(
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

pub(crate) fn spawn(dir: &Utf8Path) -> Child {
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
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
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

pub(crate) fn spec(url: &str) -> GitspaceSpec {
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

pub(crate) fn task(gitspace: GitspaceUuid, generation: u64, verb: TaskVerb) -> Task {
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

pub(crate) fn gitspace() -> GitspaceUuid {
    newtype_uuid::TypedUuid::from_untyped_uuid(uuid())
}

pub(crate) fn log_of(events: &[TaskEvent], wanted: Phase) -> String {
    events
        .iter()
        .filter_map(|event| match &event.event {
            TaskEventKind::Log { phase, text, .. } if *phase == wanted => Some(text.as_str()),
            _ => None,
        })
        .collect()
}
