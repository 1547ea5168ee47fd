//! A whole deployment on loopback: runner-agent, and delegate-agent with control plane and gateway embedded, or each on its own.

use crate::{docker, git_server::GitServer};
use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::File,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longest time anything here may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Daemon {
    ControlPlane,
    Runner,
    Delegate,
    Gateway,
}

impl Daemon {
    /// In the order in which they are stopped.
    pub(crate) const ALL: [Self; 4] = [
        Self::Gateway,
        Self::Delegate,
        Self::ControlPlane,
        Self::Runner,
    ];

    pub(crate) const fn binary(self) -> &'static str {
        match self {
            Self::ControlPlane => "gitspaces-control-plane",
            Self::Runner => "runner-agent",
            Self::Delegate => "delegate-agent",
            Self::Gateway => "gitspaces-gateway",
        }
    }

    const fn config(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane.toml",
            Self::Runner => "runner.toml",
            Self::Delegate => "delegate.toml",
            Self::Gateway => "gateway.toml",
        }
    }
}

pub(crate) struct Deployment {
    pub(crate) git: GitServer,
    pub(crate) label: String,
    pub(crate) control_port: u16,
    pub(crate) gateway_port: u16,
    /// Of the embedded gateway.
    pub(crate) ssh_port: u16,
    /// What `https` is trusted by; without it everything is plain HTTP.
    ca_file: Option<Utf8PathBuf>,
    dir: Option<tempfile::TempDir>,
    root: Utf8PathBuf,
    running: BTreeMap<Daemon, Child>,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Deployment {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// With more lines for the runner's config.
    pub(crate) async fn start_with(runner_config: &str) -> Result<Self> {
        let mut deployment = Self::prepare_embedded(runner_config).await?;
        deployment.run_hosts_own()?;
        deployment.log_in()?;
        Ok(deployment)
    }

    /// The runner, then the delegate: a gateway that starts before it finds its way broken, and for a moment no gitspace is made.
    pub(crate) fn run_hosts_own(&mut self) -> Result<()> {
        self.run_runner()?;
        self.run(Daemon::Delegate)?;
        self.until_ready()
    }

    fn run_runner(&mut self) -> Result<()> {
        self.run(Daemon::Runner)?;
        self.until("the runner listens", |deployment| {
            Ok(deployment.path("runner.sock").exists())
        })
    }

    /// With control plane and gateway in the delegate; nothing runs yet.
    pub(crate) async fn prepare_embedded(runner_config: &str) -> Result<Self> {
        let deployment = Self::prepare(runner_config).await?;
        deployment.configure_embedded("")?;
        Ok(deployment)
    }

    /// The same, served by TLS as `[tls]` says; `ca_file` is what clients trust. Both may name a file below the deployment's folder by `@`.
    pub(crate) async fn prepare_tls(settings: &str, ca_file: &str) -> Result<Self> {
        let mut deployment = Self::prepare("").await?;
        let below = |text: &str| text.replace('@', deployment.root.as_str());
        let (settings, ca_file) = (below(settings), below(ca_file));
        deployment.ca_file = Some(ca_file.into());
        deployment.configure_embedded(&format!("[tls]\n{settings}"))?;
        Ok(deployment)
    }

    fn configure_embedded(&self, more: &str) -> Result<()> {
        let deployment = self;
        let (scheme, domain) = (self.scheme(), self.domain());
        let (root, control_port, gateway_port, ssh_port) = (
            &deployment.root,
            deployment.control_port,
            deployment.gateway_port,
            deployment.ssh_port,
        );
        deployment.configure(
            Daemon::Delegate,
            &format!(
                r#"control_plane_url = "{scheme}://localhost:{control_port}"
name = "host"
state_dir = "{root}/delegate"
runner_socket = "{root}/runner.sock"
admin_socket = "{root}/delegate-admin.sock"

[embedded.control_plane]
enabled = true
state_dir = "{root}/control-plane"
listen = "127.0.0.1:{control_port}"
public_url = "{scheme}://localhost:{control_port}"

[embedded.gateway]
enabled = true
listen = "127.0.0.1:{gateway_port}"
public_url = "{scheme}://{domain}:{gateway_port}"
ssh_listen = "127.0.0.1:{ssh_port}"
{more}
"#
            ),
        )
    }

    const fn scheme(&self) -> &'static str {
        match self.ca_file {
            Some(_) => "https",
            None => "http",
        }
    }

    /// Below which gitspaces are. No client takes a certificate for `*.localhost`.
    pub(crate) const fn domain(&self) -> &'static str {
        match self.ca_file {
            Some(_) => "gitspaces.localhost",
            None => "localhost",
        }
    }

    /// Each daemon in a process of its own; nothing runs yet, and nothing is enrolled or registered.
    pub(crate) async fn prepare_apart() -> Result<Self> {
        Self::prepare_apart_with("", None).await
    }

    async fn prepare_apart_with(
        control_plane_config: &str,
        tunnel_port: Option<u16>,
    ) -> Result<Self> {
        let deployment = Self::prepare("").await?;
        let (root, control_port, gateway_port) = (
            deployment.root.clone(),
            deployment.control_port,
            deployment.gateway_port,
        );
        std::fs::create_dir(deployment.path("credentials"))?;
        deployment.configure(
            Daemon::ControlPlane,
            &format!(
                r#"state_dir = "{root}/control-plane"
listen = "127.0.0.1:{control_port}"
public_url = "http://localhost:{control_port}"
gateway_url = "http://localhost:{gateway_port}"
admin_socket = "{root}/control-plane-admin.sock"
{control_plane_config}
"#
            ),
        )?;
        deployment.configure(
            Daemon::Delegate,
            &format!(
                r#"control_plane_url = "http://localhost:{control_port}"
name = "host"
state_dir = "{root}/delegate"
runner_socket = "{root}/runner.sock"
admin_socket = "{root}/delegate-admin.sock"
"#
            ),
        )?;
        let way = match tunnel_port {
            None => format!("runner_socket = \"{root}/runner.sock\""),
            Some(port) => format!(
                "runner_socket = \"off\"\ntunnel_url = \"http://localhost:{port}\"\nssh_listen = \"127.0.0.1:{}\"\nssh_host_key = \"{root}/gateway_host_key\"",
                deployment.ssh_port
            ),
        };
        deployment.configure(
            Daemon::Gateway,
            &format!(
                r#"control_plane_url = "http://localhost:{control_port}"
listen = "127.0.0.1:{gateway_port}"
public_url = "http://localhost:{gateway_port}"
admin_socket = "{root}/gateway-admin.sock"
{way}
"#
            ),
        )?;
        Ok(deployment)
    }

    /// The control plane answers, and its administrator is logged in.
    pub(crate) fn run_control_plane(&mut self) -> Result<()> {
        self.run(Daemon::ControlPlane)?;
        self.until_control_plane()?;
        self.log_in()
    }

    pub(crate) fn until_control_plane(&self) -> Result<()> {
        let health = format!("{}/api/v1/healthz", self.control_url());
        self.until("the control plane answers", |deployment| {
            Ok(deployment.curl(&[&health])?.code == 0)
        })
    }

    /// Each daemon in a process of its own: enrolled with a join token, the gateway registered through the API.
    pub(crate) async fn start_apart() -> Result<Self> {
        Self::start_apart_with("").await
    }

    /// With more lines for the control plane's config.
    pub(crate) async fn start_apart_with(control_plane_config: &str) -> Result<Self> {
        let deployment = Self::prepare_apart_with(control_plane_config, None).await?;
        deployment.run_apart()
    }

    /// The gateway has no runner beside it, and the delegate dials it at a port that somebody else listens on. `relay` is told where to pass
    /// that on to.
    pub(crate) async fn start_with_tunnel(port: u16, relay: impl FnOnce(u16)) -> Result<Self> {
        let deployment = Self::prepare_apart_with("", Some(port)).await?;
        relay(deployment.gateway_port);
        deployment.run_apart()
    }

    fn run_apart(mut self) -> Result<Self> {
        let deployment = &mut self;
        deployment.run_control_plane()?;
        deployment.run_runner()?;

        let join_token = deployment.path("join-token");
        std::fs::write(&join_token, deployment.ok(&["join-token", "create"])?)?;
        let enrolled = Command::new(bin_dir()?.join("delegate-agent"))
            .args(["--config", deployment.path("delegate.toml").as_str()])
            .args(["enroll", "--join-token-file", join_token.as_str()])
            .output()?;
        ensure!(enrolled.status.success(), "{:#?}", Said::from(enrolled));
        deployment.run(Daemon::Delegate)?;

        std::fs::write(
            deployment.path("credentials/gateway-token"),
            deployment.ok(&["gateway", "register", "edge"])?,
        )?;
        deployment.run(Daemon::Gateway)?;
        deployment.until_ready()?;
        // Until then the link is made anew, with a hello that says what the runner has.
        deployment.until("the control plane knows of the runner", |deployment| {
            let host = deployment.json(&["delegate", "show", "host"])?;
            Ok(host.pointer("/runner_ready") == Some(&Value::Bool(true)))
        })?;
        deployment.until("the gateway is connected", |deployment| {
            let gateways = deployment.json(&["gateway", "list"])?;
            Ok(gateways.pointer("/0/connected") == Some(&Value::Bool(true)))
        })?;
        Ok(self)
    }

    /// A folder, ports and the runner's config; nothing runs yet.
    async fn prepare(runner_config: &str) -> Result<Self> {
        let git = GitServer::start().await?;
        // Short: Unix socket paths lie below it.
        let dir = tempfile::Builder::new().prefix("gs").tempdir_in("/tmp")?;
        let root = Utf8PathBuf::try_from(dir.path().to_path_buf())?;
        let deployment = Self {
            label: format!("test-{}", root.file_name().context("a name")?),
            control_port: free_port()?,
            gateway_port: free_port()?,
            ssh_port: free_port()?,
            ca_file: None,
            dir: Some(dir),
            running: BTreeMap::new(),
            git,
            root,
        };
        let (root, label, bin) = (&deployment.root, &deployment.label, bin_dir()?);
        deployment.configure(
            Daemon::Runner,
            &format!(
                r#"api_socket = "{root}/runner.sock"
admin_socket = "{root}/runner-admin.sock"
state_dir = "{root}/runner"
run_dir = "{root}/gs"
deployment = "{label}"
agent_binary = "{bin}/gitspace-agent"
default_image = "gitspaces/default:latest"
host_access = ["{}"]
{runner_config}
"#,
                deployment.git.address()
            ),
        )?;
        Ok(deployment)
    }

    fn configure(&self, daemon: Daemon, text: &str) -> Result<()> {
        Ok(std::fs::write(self.path(daemon.config()), text)?)
    }

    /// The delegate is connected and its runner answers.
    pub(crate) fn until_ready(&self) -> Result<()> {
        self.until("the delegate is connected", Self::is_ready)
    }

    pub(crate) fn is_ready(&self) -> Result<bool> {
        let said = self.curl(&[
            "--unix-socket",
            self.path("delegate-admin.sock").as_str(),
            "http://localhost/readyz",
        ])?;
        Ok(said.code == 0)
    }

    pub(crate) fn log_in(&self) -> Result<()> {
        let token = self.path("control-plane/admin-token");
        let url = self.control_url();
        let mut login = vec!["login", "--url", &url, "--token-file", token.as_str()];
        if let Some(ca_file) = &self.ca_file {
            login.extend(["--ca-file", ca_file.as_str()]);
        }
        self.ok(&login)?;
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        self.root.join(name)
    }

    pub(crate) fn control_url(&self) -> String {
        format!("{}://localhost:{}", self.scheme(), self.control_port)
    }

    /// One of the administrator's: the login has used up the one of the first start.
    pub(crate) fn token(&self) -> Result<String> {
        let token = self.ok(&["token", "create", "--name", "test"])?;
        Ok(token.trim().to_owned())
    }

    /// Starts a daemon that does not run.
    pub(crate) fn run(&mut self, daemon: Daemon) -> Result<()> {
        self.run_armed(daemon, "")
    }

    /// With a fail point that kills it: `name` or `name:visits`.
    pub(crate) fn run_armed(&mut self, daemon: Daemon, fail_at: &str) -> Result<()> {
        let mut command = Command::new(bin_dir()?.join(daemon.binary()));
        command.env("GITSPACES_FAIL_AT", fail_at);
        self.spawn(daemon, command)
    }

    /// With a fail point at which it fills a disk.
    pub(crate) fn run_to_fill(
        &mut self,
        daemon: Daemon,
        fail_at: &str,
        ballast: &Utf8Path,
    ) -> Result<()> {
        let mut command = Command::new(bin_dir()?.join(daemon.binary()));
        command.env("GITSPACES_FAIL_AT", fail_at);
        command.env("GITSPACES_FAIL_BY", ballast);
        self.spawn(daemon, command)
    }

    /// With no more than so many open files.
    pub(crate) fn run_with_files(&mut self, daemon: Daemon, files: u32) -> Result<()> {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={files}"))
            .arg(bin_dir()?.join(daemon.binary()));
        self.spawn(daemon, command)
    }

    fn spawn(&mut self, daemon: Daemon, mut command: Command) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path(daemon))?;
        let child = command
            .args(["--config", self.path(daemon.config()).as_str()])
            .env("GITSPACES_LOG", "debug,hyper=info,sqlx=info")
            .env("CREDENTIALS_DIRECTORY", self.path("credentials"))
            .env("GITSPACES_CLOCK_FILE", self.clock_path(daemon))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start", daemon.binary()))?;
        self.running.insert(daemon, child);
        Ok(())
    }

    pub(crate) fn log_path(&self, daemon: Daemon) -> Utf8PathBuf {
        self.path(&format!("{}.log", daemon.binary()))
    }

    fn clock_path(&self, daemon: Daemon) -> Utf8PathBuf {
        self.path(&format!("{}.clock", daemon.binary()))
    }

    /// The wall clock of one daemon steps, so many seconds away from the host's. Whole or not there: it is read at any moment.
    pub(crate) fn step_clock(&self, daemon: Daemon, seconds: i64) -> Result<()> {
        let path = self.clock_path(daemon);
        let temporary = self.path("clock.tmp");
        std::fs::write(&temporary, seconds.to_string())?;
        Ok(std::fs::rename(temporary, path)?)
    }

    /// A sub-command of a daemon's binary, with its configuration.
    pub(crate) fn daemon(&self, daemon: Daemon, args: &[&str]) -> Result<Said> {
        Ok(Command::new(bin_dir()?.join(daemon.binary()))
            .args(["--config", self.path(daemon.config()).as_str()])
            .args(args)
            .env("CREDENTIALS_DIRECTORY", self.path("credentials"))
            .output()?
            .into())
    }

    /// Whether a daemon that was started has ended by itself.
    pub(crate) fn has_ended(&mut self, daemon: Daemon) -> Result<bool> {
        match self.running.get_mut(&daemon) {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Waits until a daemon has ended by itself; the answer is its exit code.
    pub(crate) fn ended(&mut self, daemon: Daemon) -> Result<i32> {
        let limit = Instant::now() + PATIENCE;
        while !self.has_ended(daemon)? {
            ensure!(
                Instant::now() < limit,
                "{daemon:?} goes on\n{}",
                self.logs()
            );
            pause();
        }
        let mut child = self.running.remove(&daemon).context("it does not run")?;
        Ok(child.wait()?.code().unwrap_or(-1))
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(&mut self, daemon: Daemon) -> Result<()> {
        if let Some(mut child) = self.running.remove(&daemon) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(&mut self, daemon: Daemon) -> Result<i32> {
        let mut child = self.running.remove(&daemon).context("it does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        Ok(child.wait()?.code().unwrap_or(-1))
    }

    /// To a daemon that was started.
    pub(crate) fn signal(&self, daemon: Daemon, signal: Signal) -> Result<()> {
        let child = self.running.get(&daemon).context("it does not run")?;
        Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
    }

    /// The `gitspace` command, logged in.
    pub(crate) fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(bin_dir()?.join("gitspace"));
        command
            .args(args)
            .env("XDG_CONFIG_HOME", self.path("cli"))
            .stdin(Stdio::null());
        Ok(command)
    }

    pub(crate) fn gitspace(&self, args: &[&str]) -> Result<Said> {
        Ok(self.command(args)?.output()?.into())
    }

    /// Standard output of a `gitspace` command that has to work.
    pub(crate) fn ok(&self, args: &[&str]) -> Result<String> {
        let said = self.gitspace(args)?;
        ensure!(
            said.code == 0,
            "gitspace {args:?}: {said:#?}\n{}",
            self.logs()
        );
        Ok(said.out)
    }

    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["-o", "json"];
        all.extend(args);
        Ok(serde_json::from_str(&self.ok(&all)?)?)
    }

    pub(crate) fn show(&self, name: &str) -> Result<Value> {
        self.json(&["show", name])
    }

    pub(crate) fn state(&self, name: &str) -> Result<String> {
        Ok(text(&self.show(name)?, "/state"))
    }

    /// The whole timeline, oldest first.
    pub(crate) fn events(&self, name: &str) -> Result<Vec<Value>> {
        let lines = self.ok(&["-o", "json", "events", name])?;
        lines
            .lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }

    pub(crate) fn curl(&self, args: &[&str]) -> Result<Said> {
        Ok(Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail-with-body",
                "--max-time",
                "20",
            ])
            .args(
                self.ca_file
                    .iter()
                    .flat_map(|file| ["--cacert", file.as_str()]),
            )
            .args(args)
            .output()?
            .into())
    }

    /// `curl -i` at the gateway: status line, headers and body as they came.
    pub(crate) fn gateway(&self, host: &str, path: &str, args: &[&str]) -> Result<String> {
        let port = self.gateway_port;
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--include", "--max-time", "20"]);
        match &self.ca_file {
            None => curl
                .args(["--header", &format!("Host: {host}:{port}")])
                .arg(format!("http://127.0.0.1:{port}{path}")),
            Some(ca_file) => curl
                .args(["--cacert", ca_file.as_str()])
                .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
                .arg(format!("https://{host}:{port}{path}")),
        };
        let output = curl.args(args).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A grant for a program, for everything in a gitspace.
    pub(crate) fn grant(&self, name: &str) -> Result<Value> {
        let said = self.api("POST", &format!("/gitspaces/{name}/grants"), "{}")?;
        Ok(serde_json::from_str(&said.out)?)
    }

    /// `curl` at the terminals of a gitspace, through the gateway; its body.
    pub(crate) fn terminals(&self, name: &str, args: &[&str]) -> Result<String> {
        let header = format!("gitspaces-grant: {}", text(&self.grant(name)?, "/grant"));
        let workspace = format!("{}.{}", text(&self.show(name)?, "/slug"), self.domain());
        let mut all = vec!["--header", &header];
        all.extend(args);
        let answer = self.gateway(&workspace, "/api/v1/terminals", &all)?;
        let body = answer.split("\r\n\r\n").last();
        Ok(body.unwrap_or_default().to_owned())
    }

    /// Makes a terminal; its id.
    pub(crate) fn terminal(&self, name: &str) -> Result<String> {
        let json = "Content-Type: application/json";
        let made = self.terminals(
            name,
            &["--request", "POST", "--header", json, "--data-raw", "{}"],
        )?;
        let made: Value = serde_json::from_str(&made).with_context(|| made.clone())?;
        let id = text(&made, "/id");
        ensure!(!id.is_empty(), "a terminal was made: {made:#}");
        Ok(id)
    }

    /// The REST API with the admin's token.
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> Result<Said> {
        let token = self.token()?;
        self.curl(&[
            "--request",
            method,
            "--header",
            &format!("Authorization: Bearer {token}"),
            "--header",
            "Content-Type: application/json",
            "--data-raw",
            body,
            &format!("{}/api/v1{path}", self.control_url()),
        ])
    }

    /// Waits until `truth` holds, by looking; says what it waited for.
    pub(crate) fn until(
        &self,
        what: &str,
        mut truth: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        while !truth(self)? {
            if Instant::now() > limit {
                bail!("not within {PATIENCE:?}: {what}\n{}", self.logs());
            }
            pause();
        }
        Ok(())
    }

    /// The same, for what has to be asked of a daemon's process.
    pub(crate) fn until_mut(
        &mut self,
        what: &str,
        mut truth: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        while !truth(self)? {
            if Instant::now() > limit {
                bail!("not within {PATIENCE:?}: {what}\n{}", self.logs());
            }
            pause();
        }
        Ok(())
    }

    pub(crate) fn until_state(&self, name: &str, state: &str) -> Result<()> {
        let mut last = String::new();
        self.until(&format!("{name} is {state}"), |deployment| {
            last = deployment.state(name)?;
            Ok(last == state)
        })
        .with_context(|| format!("its state was {last}"))
    }

    /// The end of the daemons' logs.
    pub(crate) fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            let skipped = text.lines().count().saturating_sub(60);
            let lines: Vec<&str> = text.lines().skip(skipped).collect();
            format!(
                "--- {name}
{}
",
                lines.join(
                    "
"
                )
            )
        };
        let logs = Daemon::ALL.map(|daemon| format!("{}.log", daemon.binary()));
        let there = logs.iter().filter(|name| self.path(name).exists());
        there.map(|name| tail(name)).collect()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for daemon in Daemon::ALL {
            if let Err(error) = self.kill(daemon) {
                eprintln!("{daemon:?} was not stopped: {error:#}");
            }
        }
        // Its firewall chains too; what Docker was still making when the runner was killed is looked for after that.
        let purged = bin_dir().and_then(|bin| {
            let output = Command::new(bin.join("runner-agent"))
                .args([
                    "--config",
                    self.path("runner.toml").as_str(),
                    "purge",
                    "--yes",
                ])
                .output()?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(())
        });
        if let Err(error) = purged {
            eprintln!("{} was not purged: {error:#}", self.label);
        }
        if let Err(error) = docker::remove(&self.label) {
            eprintln!("{} is left in Docker: {error:#}", self.label);
        }
        if std::env::var_os("GITSPACES_TEST_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept {}", dir.keep().display());
        }
    }
}

/// A string of a JSON document, empty where there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A moment between two looks; polling is level-triggered and bounded by [`PATIENCE`].
pub(crate) fn pause() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the pause of a bounded wait, in a thread of its own test"
    )]
    std::thread::sleep(Duration::from_millis(50));
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

pub(crate) fn bin_dir() -> Result<&'static Utf8Path> {
    static DIR: std::sync::OnceLock<Option<Utf8PathBuf>> = std::sync::OnceLock::new();
    DIR.get_or_init(|| {
        std::env::var("GITSPACES_TEST_BIN")
            .ok()
            .map(Utf8PathBuf::from)
    })
    .as_deref()
    .context("GITSPACES_TEST_BIN is not set: run ./test, which builds the binaries and sets it")
}
