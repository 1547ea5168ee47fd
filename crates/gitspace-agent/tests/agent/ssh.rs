//! The agent's SSH server, as OpenSSH's own programs use it.

use crate::harness::{Agent, BINARY, within};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill};
use sha2::{Digest as _, Sha256};
use std::{
    process::{Output, Stdio},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UnixListener},
    process::{Child, Command},
    task::JoinSet,
};
use tokio_util::task::TaskTracker;
use wire::agent::Health;

/// An agent that is configured, and a port that leads to its SSH server.
struct Server {
    agent: Arc<Agent>,
    port: u16,
    _accepting: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let agent = Arc::new(Agent::start().await);
        agent.configure(Vec::new()).await;
        let health: Health = agent.client.get("/v1/health").await.unwrap();
        let key = health.ssh_host_key.expect("a configured agent has a key");
        std::fs::write(agent.path("known_hosts"), format!("space {key}\n")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let of = Arc::clone(&agent);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let connections = TaskTracker::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                client.set_nodelay(true).unwrap();
                let mut server = of.dial("ssh").await.unwrap();
                connections.spawn(async move {
                    // Either end may go first.
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                });
            }
        });
        Self {
            agent,
            port,
            _accepting: accepting,
        }
    }

    /// Options that all of OpenSSH's programs take. The host key has to be the published one.
    fn options(&self) -> Vec<String> {
        let known = self.agent.path("known_hosts");
        [
            "-F/dev/null",
            "-oBatchMode=yes",
            "-oStrictHostKeyChecking=yes",
            "-oHostname=127.0.0.1",
            "-oHostKeyAlias=space",
            "-oLogLevel=ERROR",
            &format!("-oUserKnownHostsFile={known}"),
            "-oGlobalKnownHostsFile=/dev/null",
            "-oIdentityFile=/dev/null",
            &format!("-oPort={}", self.port),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .args(self.options())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn ssh(&self, words: &[&str]) -> Command {
        let mut command = self.program("ssh");
        command.args(words);
        command
    }

    async fn run(&self, words: &[&str]) -> Output {
        output(&mut self.ssh(words)).await
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        self.agent.path(name).into()
    }
}

async fn output(command: &mut Command) -> Output {
    within("the client is done", command.output())
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn good(output: &Output) -> &str {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text(&output.stdout)
}

/// Bytes that no compression and no line discipline leaves as they are.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

#[tokio::test]
async fn a_command_has_its_own_output_errors_folder_environment_and_end() {
    let server = Server::start().await;
    let output = server
        .run(&[
            "-oSetEnv=LC_MINE=yes LD_PRELOAD=/evil PATH=/evil",
            "space",
            "printf '%s|' \"$PWD\" \"$LC_MINE\" \"$LD_PRELOAD\" \"$FROM_REMOTE_ENV\"; echo oops >&2; exit 42",
        ])
        .await;
    assert_eq!(
        output.status.code(),
        Some(42),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let folder = server.path("").canonicalize_utf8().unwrap();
    assert_eq!(text(&output.stdout), format!("{folder}|yes||yes|"));
    assert_eq!(text(&output.stderr), "oops\n");
}

#[tokio::test]
async fn a_command_that_a_signal_ends_or_that_is_not_there_is_told() {
    let server = Server::start().await;
    let output = server.run(&["space", "kill -TERM $$"]).await;
    assert_eq!(output.status.code(), Some(255));
    let output = server.run(&["space", "nonsense-that-is-nowhere"]).await;
    assert_eq!(output.status.code(), Some(127));
}

#[tokio::test]
async fn megabytes_pass_both_ways_as_they_are() {
    let server = Server::start().await;
    let bytes = noise(8 << 20);
    let mut child = server
        .ssh(&["space", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut back = Vec::new();
    within("everything came back", async {
        let (sent, received) = tokio::join!(
            async {
                stdin.write_all(&bytes).await.unwrap();
                drop(stdin);
            },
            stdout.read_to_end(&mut back)
        );
        let () = sent;
        received.unwrap();
        assert!(child.wait().await.unwrap().success());
    })
    .await;
    assert_eq!(Sha256::digest(&back), Sha256::digest(&bytes));
}

#[tokio::test]
async fn a_command_that_reads_nothing_ends_all_the_same() {
    let server = Server::start().await;
    let mut child = server
        .ssh(&["space", "exit 3"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let status = within("the client is done", async {
        // More than any buffer on the way holds.
        drop(stdin.write_all(&noise(16 << 20)).await);
        drop(stdin);
        child.wait().await
    })
    .await
    .unwrap();
    assert_eq!(status.code(), Some(3));
}

#[tokio::test]
async fn what_runs_in_the_background_outlives_its_client() {
    let server = Server::start().await;
    let output = server
        .run(&[
            "space",
            "sh -c 'while ! [ -e stop ]; do sleep 0.01; done; touch stopped' >/dev/null 2>&1 </dev/null & echo $!",
        ])
        .await;
    let pid: i32 = good(&output).trim().parse().unwrap();
    kill(nix::unistd::Pid::from_raw(pid), None).expect("it runs on");
    std::fs::write(server.path("stop"), "").unwrap();
    until_exists(&server.path("stopped")).await;
}

async fn until_exists(path: &Utf8Path) {
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
    within("the file is there", async {
        while !path.exists() {
            ticks.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_terminal_is_one_and_is_hung_up_with_its_client() {
    let server = Server::start().await;
    let mut child = server
        .ssh(&[
            "-tt",
            "space",
            "trap 'touch hung-up; exit' HUP; stty -a; echo term=$TERM tty=$SSH_TTY; tty; echo ready; while :; do sleep 0.01; done",
        ])
        .env("TERM", "screen-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    within("the terminal is ready", async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.trim_end() == "ready" {
                return;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("it ended: {seen}");
    })
    .await;
    assert!(seen.contains("rows 24; columns 80;"), "{seen}");
    assert!(
        seen.contains("term=screen-256color tty=/dev/pts/"),
        "{seen}"
    );
    child.kill().await.unwrap();
    until_exists(&server.path("hung-up")).await;
}

#[tokio::test]
async fn a_shell_without_a_command_is_a_login_shell() {
    let server = Server::start().await;
    let mut child = server
        .ssh(&["space"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(b"shopt -q login_shell && echo login; exit 5\n")
        .await
        .unwrap();
    let output = within("the shell ends", child.wait_with_output())
        .await
        .unwrap();
    assert_eq!(text(&output.stdout).trim_end(), "login");
    assert_eq!(output.status.code(), Some(5));
}

#[tokio::test]
async fn files_go_both_ways_by_sftp_and_scp_whatever_they_are_called() {
    use std::os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _};
    let server = Server::start().await;
    let bytes = noise(3 << 20);
    let (there, here) = (server.path("there"), server.path("here"));
    std::fs::create_dir(&there).unwrap();
    std::fs::create_dir(&here).unwrap();
    // Latin-1: bytes that are no UTF-8.
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9 and more");
    let original = || here.as_std_path().join(name);
    std::fs::write(original(), &bytes).unwrap();
    std::fs::set_permissions(original(), std::fs::Permissions::from_mode(0o741)).unwrap();
    let scp = |from: &str, to: &str| {
        let mut scp = server.program("scp");
        scp.args(["-rp", from, to]);
        scp
    };
    // Relative to the workspace, which is the folder of this test.
    let copied = output(&mut scp(here.as_str(), "space:there")).await;
    good(&copied);
    let copy = there.join("here").into_std_path_buf().join(name);
    assert_eq!(std::fs::read(&copy).unwrap(), bytes);
    assert_eq!(
        std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o741
    );
    let back = server.path("back");
    let copied = output(&mut scp("space:there/here", back.as_str())).await;
    good(&copied);
    assert_eq!(std::fs::read(back.as_std_path().join(name)).unwrap(), bytes);
}

#[tokio::test]
async fn an_sftp_session_does_what_a_file_browser_asks_for() {
    let server = Server::start().await;
    std::fs::write(server.path("old"), "content").unwrap();
    let batch = server.path("batch");
    std::fs::write(
        &batch,
        "pwd\nmkdir folder\nput old folder/copy\nrename folder/copy folder/moved\nln -s moved folder/link\nln folder/moved folder/hard\nchmod 600 folder/moved\nls -la folder\ndf folder\nget folder/link fetched\n-rm nowhere\nrm folder/link\nrm folder/hard\nrm folder/moved\nrmdir folder\n",
    )
    .unwrap();
    let mut sftp = server.program("sftp");
    sftp.arg("-b").arg(&batch).arg("space");
    sftp.current_dir(server.path(""));
    let output = output(&mut sftp).await;
    let said = good(&output);
    assert!(said.contains("-rw-------"), "{said}");
    assert!(said.contains(" moved"), "{said}");
    assert!(
        text(&output.stderr).contains("nowhere"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        std::fs::read_to_string(server.path("fetched")).unwrap(),
        "content"
    );
    assert!(!server.path("folder").exists());
}

#[tokio::test]
async fn what_is_no_packet_ends_a_transfer_and_nothing_else() {
    for garbage in [
        &b"\x00\x00\x00\x00"[..],
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\x03",
        b"\x00\x00\x00\x05\x03\x00\x00\x00\x07",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut child = Command::new(BINARY)
            .arg("sftp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        drop(stdin.write_all(garbage).await);
        drop(stdin);
        let output = within("it ends", child.wait_with_output()).await.unwrap();
        assert!(
            output.status.code().is_some(),
            "{garbage:?}: {}",
            output.status
        );
    }
}

/// A client that only forwards, once it does.
async fn forwarding(server: &Server, words: &[&str]) -> Child {
    let mut child = server
        .ssh(&["-oExitOnForwardFailure=yes"])
        .args(words)
        // Said when the forwardings are there.
        .args(["space", "echo ready; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let line = within("the client is in", lines.next_line()).await;
    assert_eq!(line.unwrap().as_deref(), Some("ready"));
    child
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Sends what it hears back, until its end.
async fn echo(listener: TcpListener) {
    let connections = TaskTracker::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        });
    }
}

async fn there_and_back(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut back = Vec::new();
    within("it came back", async {
        tokio::join!(
            async {
                write.write_all(bytes).await.unwrap();
                write.shutdown().await.unwrap();
            },
            async {
                read.read_to_end(&mut back).await.unwrap();
            }
        )
    })
    .await;
    let differs = back.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!((back.len(), differs), (bytes.len(), None));
}

#[tokio::test]
async fn ports_are_forwarded_in_both_directions() {
    let server = Server::start().await;
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app_port = app.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(echo(app));
    let (local, remote, closed) = (free_port().await, free_port().await, free_port().await);
    let _client = forwarding(
        &server,
        &[
            &format!("-L127.0.0.1:{local}:localhost:{app_port}"),
            &format!("-R{remote}:127.0.0.1:{app_port}"),
        ],
    )
    .await;
    let bytes = noise(2 << 20);
    tokio::join!(
        there_and_back(local, &bytes),
        there_and_back(remote, &bytes),
        there_and_back(local, b"small")
    );
    // Nobody is there: the connection ends, and the client goes on.
    let _other = forwarding(&server, &[&format!("-L127.0.0.1:{closed}:localhost:1")]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", closed)).await.unwrap();
    let mut nothing = Vec::new();
    within("it is closed", stream.read_to_end(&mut nothing))
        .await
        .unwrap();
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_port_of_the_gitspace_that_is_taken_is_not_forwarded() {
    let server = Server::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = server
        .run(&[
            "-oExitOnForwardFailure=yes",
            &format!("-R{port}:127.0.0.1:1"),
            "space",
            "true",
        ])
        .await;
    assert_eq!(output.status.code(), Some(255));
}

#[tokio::test]
async fn a_unix_socket_of_the_gitspace_is_forwarded() {
    let server = Server::start().await;
    let app = UnixListener::bind(server.path("app.sock")).unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, _) = app.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    });
    let local = free_port().await;
    let socket = server.agent.path("app.sock");
    let _client = forwarding(&server, &[&format!("-L127.0.0.1:{local}:{socket}")]).await;
    there_and_back(local, &noise(1 << 20)).await;
    serving.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_clients_agent_answers_inside_and_for_the_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start().await;
    let (key, socket) = (server.agent.path("key"), server.agent.path("agent.sock"));
    let words = ["-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", &key];
    good(&output(Command::new("ssh-keygen").args(words)).await);
    let _keys = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until_exists(socket.as_str().into()).await;
    let added = output(
        Command::new("ssh-add")
            .arg(&key)
            .env("SSH_AUTH_SOCK", &socket),
    )
    .await;
    good(&added);
    let mut ssh = server.ssh(&[
        "-A",
        "space",
        "stat -c %a $SSH_AUTH_SOCK; ssh-add -l; echo $SSH_AUTH_SOCK",
    ]);
    let answered = output(ssh.env("SSH_AUTH_SOCK", &socket)).await;
    let said = good(&answered);
    assert!(said.starts_with("600\n"), "{said}");
    assert!(said.contains(" mine (ED25519)"), "{said}");
    let gone = Utf8PathBuf::from(said.lines().last().unwrap());
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
    within("its socket goes with the client", async {
        while gone.exists() {
            ticks.tick().await;
        }
    })
    .await;
    let folder = server.path("run/ssh-agents");
    let mode = std::fs::metadata(folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o711);
}

#[tokio::test]
async fn many_sessions_share_one_connection() {
    let server = Server::start().await;
    let control = format!("-oControlPath={}", server.agent.path("control"));
    let mut master = server
        .ssh(&["-M", &control, "space", "echo ready; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(master.stdout.as_mut().unwrap()).lines();
    let line = within("the first is in", lines.next_line()).await;
    assert_eq!(line.unwrap().as_deref(), Some("ready"));
    let sessions = (0..24).map(|number| {
        let mut ssh = server.ssh(&[&control, "space", "head -c 300000 /dev/zero; echo end"]);
        async move {
            let output = output(&mut ssh).await;
            assert!(output.status.success(), "session {number}");
            assert_eq!(output.stdout.len(), 300_000 + 4, "session {number}");
        }
    });
    futures_util::future::join_all(sessions).await;
    kill(
        nix::unistd::Pid::from_raw(master.id().unwrap().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    within("the master ends", master.wait()).await.unwrap();
}

#[tokio::test]
async fn a_program_that_does_not_read_holds_up_nobody_but_itself() {
    let server = Server::start().await;
    let control = format!("-oControlPath={}", server.agent.path("control"));
    let mut stuck = server
        .ssh(&[
            "-M",
            &control,
            "space",
            "echo ready; exec tail -f /dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stuck.stdout.as_mut().unwrap()).lines();
    let line = within("the first is in", lines.next_line()).await;
    assert_eq!(line.unwrap().as_deref(), Some("ready"));
    let mut stdin = stuck.stdin.take().unwrap();
    let mut filling = JoinSet::new();
    filling.spawn(async move {
        // Far more than a window; it is never taken.
        drop(stdin.write_all(&noise(32 << 20)).await);
    });
    for _ in 0..8 {
        let answered = output(&mut server.ssh(&[&control, "space", "echo here"])).await;
        assert_eq!(good(&answered), "here\n");
    }
    assert!(filling.try_join_next().is_none(), "it is held up itself");
}

#[tokio::test]
async fn a_stop_is_told_as_one() {
    let server = Server::start().await;
    let mut session = server.ssh(&["space", "echo up; sleep infinity"]);
    session.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut session = session.spawn().unwrap();
    let mut lines = BufReader::new(session.stdout.take().unwrap()).lines();
    let line = within("the session is up", lines.next_line()).await;
    assert_eq!(line.unwrap().as_deref(), Some("up"));
    server.agent.signal(Signal::SIGTERM);
    let output = within("the end", session.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(255));
    let said = text(&output.stderr);
    assert!(said.contains("the gitspace is being stopped"), "{said}");
}

#[tokio::test]
async fn the_host_key_stays_when_serve_is_killed() {
    let mut agent = Agent::start().await;
    let health: Health = agent.client.get("/v1/health").await.unwrap();
    assert_eq!(health.ssh_host_key, None, "a sandbox has none");
    agent.configure(Vec::new()).await;
    let before: Health = agent.client.get("/v1/health").await.unwrap();
    agent.kill_and_restart().await;
    let after: Health = agent.client.get("/v1/health").await.unwrap();
    assert!(before.ssh_host_key.is_some());
    assert_eq!(before.ssh_host_key, after.ssh_host_key);
}
