//! One `serve`, and clients of it.

use camino::{Utf8Path, Utf8PathBuf};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use local_rpc::{
    Client, ClientError,
    fd::{PassedStream, recv_fd},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use wire::{
    agent::{AgentConfig, Health, JobEvent, JobEventKind, JobOutcome, JobSpec},
    gitspace::GitCredential,
    runner::{DIAL_PROTOCOL, STREAM_HEADER},
    task::LogStream,
    workspace::{Channel, ClientMessage, ServerMessage, TerminalInfo},
};

const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_gitspace-agent");

pub(crate) struct Agent {
    child: Child,
    pub(crate) client: Client,
    pub(crate) run_dir: Utf8PathBuf,
    /// Outlives the child.
    pub(crate) folder: TempDir,
}

impl Agent {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let run_dir = Utf8Path::from_path(folder.path()).unwrap().join("run");
        let child = spawn(&run_dir);
        let client = Client::new(run_dir.join("control.sock")).with_deadline(LIMIT);
        let agent = Self {
            child,
            client,
            run_dir,
            folder,
        };
        agent.until_up().await;
        agent
    }

    /// Kills `serve` as nothing can prevent it, and starts another.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.run_dir);
        self.until_up().await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    async fn until_up(&self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        let up = async {
            loop {
                ticks.tick().await;
                if self.client.get::<Health>("/v1/health").await.is_ok() {
                    return;
                }
            }
        };
        within("the agent is up", up).await;
    }

    pub(crate) fn path(&self, name: &str) -> String {
        Utf8Path::from_path(self.folder.path())
            .unwrap()
            .join(name)
            .into_string()
    }

    pub(crate) async fn configure(&self, git_credentials: Vec<GitCredential>) {
        let config = AgentConfig {
            name: "app".parse().unwrap(),
            slug: "app-abc123".parse().unwrap(),
            remote_user: "root".to_owned(),
            workspace_folder: self.path(""),
            remote_env: [("FROM_REMOTE_ENV".to_owned(), Some("yes".to_owned()))].into(),
            forward_ports: Vec::new(),
            git_credentials,
            git_identity: None,
        };
        self.client
            .put::<_, ()>("/v1/config", &config)
            .await
            .unwrap();
    }

    /// Puts a job and reads its events to the end.
    pub(crate) async fn job(&self, id: &str, spec: &JobSpec) -> Ended {
        self.client
            .put::<_, ()>(&format!("/v1/jobs/{id}"), spec)
            .await
            .unwrap();
        self.follow(id, 0).await
    }

    pub(crate) async fn follow(&self, id: &str, after: u64) -> Ended {
        let path = format!("/v1/jobs/{id}/events?after={after}");
        let mut events = self.client.stream_ndjson::<JobEvent>(&path).await.unwrap();
        let mut ended = Ended::default();
        let mut last = after;
        let reading = async {
            while let Some(event) = events.next().await {
                let event = event.unwrap();
                last += 1;
                assert_eq!(event.seq, last, "events are numbered without a gap");
                match event.event {
                    JobEventKind::Output { stream, text } => ended.output.push((stream, text)),
                    JobEventKind::Exited { outcome } => ended.outcome = Some(outcome),
                }
            }
        };
        within("the job ends", reading).await;
        ended
    }

    pub(crate) async fn dial(&self, target: &str) -> Result<PassedStream, ClientError> {
        let path = format!("/v1/dial?target={target}");
        let upgraded = self
            .client
            .upgrade::<()>(Method::POST, &path, DIAL_PROTOCOL, None)
            .await?;
        assert_eq!(upgraded.headers[STREAM_HEADER], "fd");
        let (fd, _) = recv_fd(&upgraded.stream).await.unwrap();
        Ok(PassedStream::new(fd).unwrap())
    }

    /// One call of the workspace service.
    pub(crate) async fn http(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> (StatusCode, http::HeaderMap, Vec<u8>) {
        let stream = self.dial("workspace").await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "app.localhost")
            .body(Full::new(bytes::Bytes::from(
                serde_json::to_vec(body).unwrap(),
            )))
            .unwrap();
        let call = async {
            let response = sender.send_request(request).await.unwrap();
            let (head, body) = response.into_parts();
            (
                head.status,
                head.headers,
                body.collect().await.unwrap().to_bytes().to_vec(),
            )
        };
        tokio::pin!(connection);
        tokio::pin!(call);
        tokio::select! {
            answer = &mut call => answer,
            _ = &mut connection => call.await,
        }
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> T {
        let (status, _, bytes) = self.http(method, path, body).await;
        assert!(
            status.is_success(),
            "{status}: {}",
            String::from_utf8_lossy(&bytes)
        );
        serde_json::from_slice(&bytes).unwrap()
    }

    pub(crate) async fn socket(&self, path: &str, first: &ClientMessage) -> Socket {
        let stream = self.dial("workspace").await.unwrap();
        let url = format!("ws://app.localhost{path}");
        let (mut inner, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        inner
            .send(Message::text(serde_json::to_string(first).unwrap()))
            .await
            .unwrap();
        Socket {
            inner,
            shown: Vec::new(),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Holders outlive `serve`: theirs are the sockets in the folder.
        drop(self.child.kill());
        drop(self.child.wait());
        for entry in std::fs::read_dir(self.run_dir.join("terminals"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let id = entry.file_name().to_string_lossy().into_owned();
            if let Some(id) = id.strip_suffix(".sock") {
                stop_holder(id);
            }
        }
    }
}

/// Ends a holder by its own id on its command line.
fn stop_holder(id: &str) {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|pid| pid.parse::<i32>().ok())
        else {
            continue;
        };
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line)
            .split('\0')
            .any(|argument| argument == id)
        {
            let pid = nix::unistd::Pid::from_raw(pid);
            // It may have ended by itself.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        }
    }
}

fn spawn(run_dir: &Utf8Path) -> Child {
    Command::new(BINARY)
        .args(["serve", "--run-dir", run_dir.as_str(), "--volume"])
        .arg(run_dir.parent().unwrap())
        .env("GITSPACES_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) output: Vec<(LogStream, String)>,
    pub(crate) outcome: Option<JobOutcome>,
}

impl Ended {
    pub(crate) fn text(&self, of: LogStream) -> String {
        self.output
            .iter()
            .filter(|(stream, _)| *stream == of)
            .map(|(_, text)| text.as_str())
            .collect()
    }

    pub(crate) fn failure(&self) -> (Option<i32>, wire::failure::Failure) {
        match &self.outcome {
            Some(JobOutcome::Failed { exit_code, failure }) => (*exit_code, failure.clone()),
            other => panic!("not a failure: {other:?}, output {:?}", self.output),
        }
    }

    pub(crate) fn done(&self) -> Option<String> {
        match &self.outcome {
            Some(JobOutcome::Done { detail }) => detail.clone(),
            other => panic!("not done: {other:?}, output {:?}", self.output),
        }
    }
}

pub(crate) struct Socket {
    inner: WebSocketStream<PassedStream>,
    /// Output so far, without the channels.
    pub(crate) shown: Vec<u8>,
}

impl Socket {
    pub(crate) async fn say(&mut self, message: &ClientMessage) {
        self.inner
            .send(Message::text(serde_json::to_string(message).unwrap()))
            .await
            .unwrap();
    }

    pub(crate) async fn type_in(&mut self, text: &str) {
        self.inner
            .send(Message::binary(text.as_bytes().to_vec()))
            .await
            .unwrap();
    }

    /// The next message that is not output; output is kept.
    pub(crate) async fn next_message(&mut self) -> ServerMessage {
        self.message_or_end().await.expect("open")
    }

    /// `None` where the connection ends first.
    pub(crate) async fn message_or_end(&mut self) -> Option<ServerMessage> {
        let next = async {
            loop {
                match self.inner.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Some(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Binary(bytes))) => self.keep(&bytes),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        tokio::time::timeout(LIMIT, next)
            .await
            .expect("a message in time")
    }

    pub(crate) async fn until_shown(&mut self, text: &str) {
        let shown = async {
            while !String::from_utf8_lossy(&self.shown).contains(text) {
                match self.inner.next().await.expect("open").expect("whole") {
                    Message::Binary(bytes) => self.keep(&bytes),
                    Message::Text(text) => panic!("{text}"),
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(LIMIT, shown).await.is_err() {
            panic!(
                "{text:?} was not shown, but {:?}",
                String::from_utf8_lossy(&self.shown)
            );
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let (channel, bytes) = bytes.split_first().expect("a channel");
        assert!(Channel::from_byte(*channel).is_some());
        self.shown.extend_from_slice(bytes);
    }
}

pub(crate) type Terminals = Vec<TerminalInfo>;
