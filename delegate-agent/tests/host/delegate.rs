//! A delegate on a host of its own: a directory.

use crate::control_plane::{LIMIT, TestControlPlane};
use admin::Readiness;
use camino::Utf8PathBuf;
use daemon::{ErrorChain, Lifecycle, RandomIds, SystemClock};
use delegate_agent::{
    app::{self, Sources, Started},
    config::{CapacitySettings, Config, Origin},
    enrol::{Enrolment, enrol},
    identity::{Identity, IdentityFile},
    rotate::{Prover, Rotated, Rotation},
    status::LinkStatus,
    transport::{ProxyEnv, ProxyUrl, Transport},
    uplink::LinkHandle,
};
use link::client::Stage;
use std::{sync::Arc, time::Duration};
use wire::secret::Secret;

pub(crate) struct TestDelegate {
    origin: Origin,
    pub(crate) proxy: Option<ProxyUrl>,
    pub(crate) proxy_password: Option<Secret>,
    pub(crate) ca_file: Option<Utf8PathBuf>,
    running: Option<(Lifecycle, Started)>,
    dir: tempfile::TempDir,
}

impl TestDelegate {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            origin: Origin::parse("control_plane_url", url).unwrap(),
            proxy: None,
            proxy_password: None,
            ca_file: None,
            running: None,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn runner_socket(&self) -> Utf8PathBuf {
        self.path("runner.sock")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Utf8PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) async fn enrol(&self, control_plane: &TestControlPlane) -> Result<(), String> {
        let token = control_plane.join_token().await;
        self.enrol_with(token.expose()).await
    }

    pub(crate) async fn enrol_with(&self, join_token: &str) -> Result<(), String> {
        self.enrol_as(join_token, false).await
    }

    /// As `delegate-agent enroll --again` does.
    pub(crate) async fn enrol_again_with(&self, join_token: &str) -> Result<(), String> {
        self.enrol_as(join_token, true).await
    }

    async fn enrol_as(&self, join_token: &str, again: bool) -> Result<(), String> {
        let transport = Transport::new(
            self.origin.clone(),
            self.proxy.clone(),
            &ProxyEnv::default().with_password(self.proxy_password.clone()),
            self.ca_file.as_deref(),
        )
        .map_err(|error| ErrorChain(&error).to_string())?;
        let enrolment = Enrolment {
            transport: &transport,
            file: &IdentityFile::new(self.path("state")),
            name: "host-1",
            tags: &["zone=test".to_owned()],
            join_token: Secret::new(join_token),
            again,
        };
        enrol(enrolment, &SystemClock, |_| {})
            .await
            .map(drop)
            .map_err(|error| ErrorChain(&error).to_string())
    }

    pub(crate) async fn start(&mut self) {
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        let config = Config {
            control_plane_url: self.origin.clone(),
            name: "host-1".to_owned(),
            tags: vec!["zone=test".to_owned()],
            capacity: CapacitySettings::default(),
            state_dir: self.path("state"),
            runner_socket: self.runner_socket(),
            admin_socket: self.path("admin.sock"),
            socket_gid: None,
            proxy: self.proxy.clone(),
            ca_file: self.ca_file.clone(),
            certificate_warn_days: tls_roots::WARN_DAYS,
            embedded: None,
        };
        let (_, log) =
            daemon::logging::build(&daemon::logging::LogConfig::default(), "test").unwrap();
        let sources = Sources {
            sockets: daemon::PassedSockets::of_process().unwrap(),
            log,
            config_files: Vec::new(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            proxy_env: ProxyEnv::default().with_password(self.proxy_password.clone()),
            join_token: None,
        };
        let started = Box::pin(app::start(config, sources, &lifecycle))
            .await
            .unwrap();
        self.running = Some((lifecycle, started));
    }

    /// As `kill -9`: every task is dropped where it stands, without last words.
    pub(crate) async fn kill(&mut self) {
        if let Some((lifecycle, _)) = self.running.take() {
            lifecycle.kill_token().cancel();
            lifecycle.run().await;
        }
    }

    /// The same state directory on another host.
    pub(crate) fn clone_host(&self) -> Self {
        let twin = Self::new(&self.origin.ascii());
        std::fs::create_dir(twin.path("state")).unwrap();
        std::fs::copy(
            self.path("state/identity.json"),
            twin.path("state/identity.json"),
        )
        .unwrap();
        twin
    }

    pub(crate) fn identity(&self) -> IdentityFile {
        IdentityFile::new(self.path("state"))
    }

    /// Runs the command with the same state folder and another admin socket, so that nothing but the folder tells of the daemon.
    pub(crate) fn command(&self, args: &[&str]) -> std::process::Output {
        let text = format!(
            "control_plane_url = \"{}\"\nstate_dir = \"{}\"\nadmin_socket = \"{}\"\n",
            self.origin.ascii(),
            self.path("state"),
            self.path("other.sock"),
        );
        std::process::Command::new(env!("CARGO_BIN_EXE_delegate-agent"))
            .args(args)
            .arg("--config")
            .arg(self.write("other.toml", &text))
            .output()
            .unwrap()
    }

    /// Through the admin socket, as `delegate-agent rotate` does.
    pub(crate) async fn rotate(&self) -> Result<Rotated, String> {
        local_rpc::Client::new(self.path("admin.sock"))
            .post("/rotate", &())
            .await
            .map_err(|error| ErrorChain(&error).to_string())
    }

    /// As `delegate-agent rotate` does where no daemon runs.
    pub(crate) async fn rotate_alone(&self) -> Result<Rotated, String> {
        let transport =
            Transport::new(self.origin.clone(), None, &ProxyEnv::default(), None).unwrap();
        let rotation = Rotation {
            transport: &transport,
            file: &self.identity(),
            in_use: None,
            link: None,
        };
        rotation
            .run(&SystemClock, |_| {})
            .await
            .map_err(|error| ErrorChain(&error).to_string())
    }

    /// A rotation up to where the control plane takes both keys, and no further. The answer is the identity to switch to.
    pub(crate) async fn propose_alone(&self) -> Identity {
        let transport =
            Transport::new(self.origin.clone(), None, &ProxyEnv::default(), None).unwrap();
        let identity = self.identity().load().unwrap().unwrap();
        let next = Identity {
            delegate: identity.delegate,
            ..Identity::generate(&identity.name, &identity.control_plane).unwrap()
        };
        let prover = Prover {
            transport: &transport,
            delegate: identity.delegate.unwrap(),
            clock: &SystemClock,
        };
        prover.propose(&identity.key, &next.key).await.unwrap();
        next
    }

    /// As `delegate-agent health` asks.
    pub(crate) async fn health(&self) -> Readiness {
        let bytes = local_rpc::Client::new(self.path("admin.sock"))
            .fetch("/readyz", &[http::StatusCode::SERVICE_UNAVAILABLE])
            .await
            .unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    pub(crate) fn link(&self) -> &LinkHandle {
        &self.running.as_ref().expect("started").1.link
    }

    pub(crate) async fn until_state(&self, state: Stage) -> LinkStatus {
        self.until(|status| status.state == state).await
    }

    pub(crate) async fn until(&self, so: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        let (_, started) = self.running.as_ref().expect("started");
        let mut link = started.board.link.subscribe();
        let found = tokio::time::timeout(LIMIT, link.wait_for(|status| so(status)))
            .await
            .map(|status| status.expect("published").clone());
        found.unwrap_or_else(|_| panic!("last seen: {:?}", started.board.link.borrow().clone()))
    }
}

impl Drop for TestDelegate {
    fn drop(&mut self) {
        if let Some((lifecycle, _)) = &self.running {
            lifecycle.kill_token().cancel();
        }
    }
}
