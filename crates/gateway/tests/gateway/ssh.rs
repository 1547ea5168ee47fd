//! OpenSSH's own client at the gateway, and another implementation's server behind it.

use crate::harness::{LIMIT, SLUG, World, revoke_user, route, snapshot, within};
use camino::Utf8PathBuf;
use sha2::{Digest as _, Sha256};
use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};
use wire::{
    gateway::{FromGateway, ToGateway},
    gitspace::GitspaceState,
};

/// Somebody with a key that is registered.
struct Ada {
    world: World,
    key: Utf8PathBuf,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Ada {
    async fn new() -> Self {
        let world = World::start().await;
        let ada = Self {
            key: world.file("id"),
            world,
        };
        let public = ada.keygen("id", &["-t", "ed25519"]).await;
        ada.register(&public);
        // As the control plane publishes it.
        let hello: FromGateway =
            serde_json::from_str(&ada.world.seen.hello.lock().unwrap()).unwrap();
        let FromGateway::Hello { ssh: Some(ssh), .. } = hello else {
            panic!("{hello:?}");
        };
        assert_eq!(
            (ssh.host.as_str(), ssh.port),
            ("localhost", ada.world.ssh.port())
        );
        let mut known = ssh.known_hosts_line().unwrap();
        known.push_str(&format!("\ndemo {}\n", ada.world.ssh_server.key));
        std::fs::write(ada.file("known_hosts"), known).unwrap();
        ada
    }

    fn file(&self, name: &str) -> Utf8PathBuf {
        self.world.file(name)
    }

    /// Makes a key pair; answers with the public half as it is registered.
    async fn keygen(&self, name: &str, arguments: &[&str]) -> String {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "ada", "-f"])
            .arg(self.file(name))
            .args(arguments)
            .output()
            .await
            .unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let line = std::fs::read_to_string(self.file(&format!("{name}.pub"))).unwrap();
        let mut words = line.split(' ');
        format!("{} {}", words.next().unwrap(), words.next().unwrap())
    }

    fn register(&self, credential: &str) {
        let mut known = self.world.seen.credentials.lock().unwrap();
        known.insert(credential.to_owned());
    }

    fn forget(&self, credential: &str) {
        self.world
            .seen
            .credentials
            .lock()
            .unwrap()
            .remove(credential);
    }

    /// What every OpenSSH tool is given; `-o` for each.
    fn options(&self) -> Vec<String> {
        [
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile={}", self.file("known_hosts")),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            format!("IdentityFile={}", self.key),
            format!("Port={}", self.world.ssh.port()),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect()
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-F", "/dev/null"])
            .args(self.options())
            .env_remove("SSH_AUTH_SOCK")
            .kill_on_drop(true)
            .stdin(Stdio::null());
        command
    }

    async fn ssh(&self, arguments: &[&str]) -> Output {
        let mut ssh = self.tool("ssh");
        ssh.args(arguments);
        within("ssh", ssh.output()).await.unwrap()
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        self.tool("ssh")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

#[track_caller]
fn refused_with(output: &Output, words: &str) {
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(said.contains(words), "`{words}` is not in:\n{said}");
}

#[tokio::test]
async fn a_command_has_its_streams_its_environment_and_its_status() {
    let ada = Ada::new().await;
    let mut ssh = ada.spawn(&[
        "-o",
        "SetEnv=LANG=C.UTF-8",
        "demo@localhost",
        "cat; echo $LANG; echo to stderr >&2; exit 7",
    ]);
    let mut stdin = ssh.stdin.take().unwrap();
    stdin.write_all(b"to stdin\n").await.unwrap();
    drop(stdin);
    let output = within("ssh", ssh.wait_with_output()).await.unwrap();
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (
            Some(7),
            "to stdin\nC.UTF-8\n".to_owned(),
            "to stderr\n".to_owned()
        )
    );
    let by_slug = ada
        .ssh(&[&format!("{SLUG}@localhost"), "kill -TERM $$"])
        .await;
    // OpenSSH's way to say that a signal ended it.
    assert_eq!(by_slug.status.code(), Some(255), "{by_slug:?}");
    assert_eq!(ada.world.seen.dials.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn every_kind_of_registered_key_opens_and_no_other() {
    let ada = Ada::new().await;
    let first = std::fs::read_to_string(ada.file("id.pub")).unwrap();
    let first = first.trim_end().trim_end_matches(" ada").to_owned();
    for (name, arguments) in [
        ("p256", &["-t", "ecdsa", "-b", "256"][..]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("p521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ] {
        let public = ada.keygen(name, arguments).await;
        let key = ada.file(name);
        let own = ["-i", key.as_str(), "demo@localhost", "true"];
        ada.forget(&first);
        let before = ada.ssh(&own).await;
        refused_with(&before, "Permission denied (publickey,password)");
        ada.register(&public);
        let after = ada.ssh(&own).await;
        assert!(after.status.success(), "{name}: {after:?}");
    }
    let asked = ada.world.seen.asked.lock().unwrap().clone();
    let unproven: Vec<_> = asked
        .iter()
        .filter(|question| question["proven"] == false)
        .collect();
    assert!(!unproven.is_empty());
    assert!(
        unproven
            .iter()
            .all(|question| question["gitspace"].is_null()),
        "a key alone must not tell of gitspaces: {unproven:?}"
    );
}

#[tokio::test]
async fn an_access_token_is_a_password() {
    let ada = Ada::new().await;
    let answer = ada.file("askpass");
    for (token, lets_in) in [("gsp_right", true), ("gsp_wrong", false)] {
        std::fs::write(&answer, format!("#!/bin/sh\necho {token}\n")).unwrap();
        std::fs::set_permissions(&answer, Permissions::from_mode(0o700)).unwrap();
        ada.register("gsp_right");
        let mut again = Command::new("ssh");
        // OpenSSH takes the first of two values.
        again
            .args(["-F", "/dev/null", "-o", "BatchMode=no"])
            .args([
                "-o",
                "PubkeyAuthentication=no",
                "-o",
                "NumberOfPasswordPrompts=1",
            ])
            .args(ada.options())
            .args(["demo@localhost", "true"])
            .env("SSH_ASKPASS", &answer)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::null());
        let output = within("ssh", again.output()).await.unwrap();
        assert_eq!(output.status.success(), lets_in, "{output:?}");
    }
}

#[tokio::test]
async fn megabytes_go_both_ways_at_once_whole_and_in_order() {
    let ada = Ada::new().await;
    let bytes: Vec<u8> = (0..24_u32 * 1024 * 1024)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for options in [
        &["-c", "chacha20-poly1305@openssh.com", "-o", "RekeyLimit=3M"][..],
        &[
            "-c",
            "aes256-gcm@openssh.com",
            "-o",
            "KexAlgorithms=curve25519-sha256",
        ],
        &["-c", "aes128-gcm@openssh.com", "-o", "RekeyLimit=1M"],
    ] {
        let mut ssh = ada.spawn(&[options, &["demo@localhost", "cat"]].concat());
        let (mut stdin, mut stdout) = (ssh.stdin.take().unwrap(), ssh.stdout.take().unwrap());
        let write = async {
            stdin.write_all(&bytes).await.unwrap();
            drop(stdin);
        };
        let mut back = Vec::with_capacity(bytes.len());
        let both = async { tokio::join!(write, stdout.read_to_end(&mut back)) };
        let (_, read) = tokio::time::timeout(LIMIT * 6, both).await.expect("whole");
        read.unwrap();
        assert!(
            within("ssh", ssh.wait()).await.unwrap().success(),
            "{options:?}"
        );
        assert_eq!(back.len(), bytes.len(), "{options:?}");
        assert_eq!(Sha256::digest(&back), Sha256::digest(&bytes), "{options:?}");
    }
}

#[tokio::test]
async fn files_are_copied_by_scp_and_sftp() {
    let ada = Ada::new().await;
    let (from, to, back) = (ada.file("from"), ada.file("to"), ada.file("back"));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(&from, &bytes).unwrap();
    for legacy in [&["-O"][..], &[]] {
        let mut scp = ada.tool("scp");
        scp.args(legacy)
            .arg(&from)
            .arg(format!("demo@localhost:{to}"));
        let output = within("scp", scp.output()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(std::fs::read(&to).unwrap(), bytes);
        std::fs::remove_file(&to).unwrap();
    }
    let batch = ada.file("batch");
    let lines = format!("put {from} {to}\nget {to} {back}\n");
    std::fs::write(&batch, lines).unwrap();
    let mut sftp = ada.tool("sftp");
    sftp.arg("-b").arg(&batch).arg("demo@localhost");
    let output = within("sftp", sftp.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(&back).unwrap(), bytes);
}

#[tokio::test]
async fn ports_are_forwarded_in_both_directions() {
    let ada = Ada::new().await;
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app_port = app.local_addr().unwrap().port();
    let serve = async {
        while let Ok((mut stream, _)) = app.accept().await {
            stream.write_all(b"from the app").await.unwrap();
        }
    };
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (near, far) = (free(), free());
    let mut ssh = ada.spawn(&[
        "-L",
        &format!("{near}:127.0.0.1:{app_port}"),
        "-R",
        &format!("127.0.0.1:{far}:127.0.0.1:{app_port}"),
        "-o",
        "ExitOnForwardFailure=yes",
        "demo@localhost",
        "echo ready; cat",
    ]);
    let mut lines = BufReader::new(ssh.stdout.take().unwrap()).lines();
    let ready = within("the forwards", lines.next_line()).await.unwrap();
    assert_eq!(ready.as_deref(), Some("ready"));
    let use_them = async {
        for port in [near, far, near] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let mut said = String::new();
            within("the app", stream.read_to_string(&mut said))
                .await
                .unwrap();
            assert_eq!(said, "from the app");
        }
    };
    tokio::select! {
        () = serve => panic!("the app ended"),
        () = use_them => {}
    }
}

#[tokio::test]
async fn a_terminal_has_its_size_and_hears_of_another() {
    let ada = Ada::new().await;
    // `script` gives the client a terminal; its size is changed while the command runs.
    let line = ada
        .tool("ssh")
        .as_std()
        .get_args()
        .map(|argument| format!("'{}'", argument.to_str().unwrap()))
        .collect::<Vec<_>>()
        .join(" ");
    let inner = format!(
        "stty rows 40 cols 100; (while ! grep -q started {0}; do :; done; stty rows 50 cols 120 </dev/tty) & exec ssh {line} -tt demo@localhost 'echo $TEST_PTY; echo started; read line; echo $line'",
        ada.file("typescript")
    );
    let mut script = Command::new("script");
    script
        .args(["-q", "-f", "-c", &inner])
        .arg(ada.file("typescript"))
        .env("TERM", "xterm")
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut script = script.spawn().unwrap();
    let mut seen = String::new();
    let mut stdout = script.stdout.take().unwrap();
    let both = async {
        let mut buffer = [0; 1024];
        while !seen.contains("[resized 120x50]") {
            let read = stdout.read(&mut buffer).await.unwrap();
            assert!(read > 0, "it ended after:\n{seen}");
            seen.push_str(&text(&buffer[..read]));
        }
    };
    let both = tokio::time::timeout(LIMIT, both).await.is_ok();
    assert!(both, "no other size was heard of:\n{seen}");
    assert!(seen.contains("xterm 100x40"), "{seen}");
}

#[tokio::test]
async fn a_channel_that_nobody_reads_holds_up_no_other() {
    let ada = Ada::new().await;
    // The other implementation stops all channels where one is not read.
    ada.world.ssh_server.windows.store(true, Ordering::SeqCst);
    let control = ada.file("control");
    let path = format!("ControlPath={control}");
    let master = ada.spawn(&["-M", "-N", "-o", &path, "demo@localhost"]);
    within("the master", async {
        while !ada
            .ssh(&["-O", "check", "-o", &path, "demo@localhost"])
            .await
            .status
            .success()
        {}
    })
    .await;
    // Fills every window and buffer there is, and is not read.
    let mut stalled = ada.spawn(&["-o", &path, "demo@localhost", "flood 64000000"]);
    let mut first = [0; 1];
    let mut stdout = stalled.stdout.take().unwrap();
    within("the flood", stdout.read_exact(&mut first))
        .await
        .unwrap();
    let many = futures_util::future::join_all((0..8).map(async |number: u32| {
        let number = number.to_string();
        let command = format!("say {number}");
        let output = ada.ssh(&["-o", &path, "demo@localhost", &command]).await;
        assert_eq!(text(&output.stdout), number, "{output:?}");
    }));
    within("the others", many).await;
    let mut rest = Vec::new();
    within("what was held up", stdout.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest.len(), 63_999_999);
    assert_eq!(ada.world.seen.dials.load(Ordering::SeqCst), 1);
    drop(master);
}

#[tokio::test]
async fn a_jump_leads_to_the_gitspaces_own_server_and_decrypts_nothing() {
    let ada = Ada::new().await;
    let proxy = |user: &str| {
        let options: Vec<String> = ada
            .options()
            .into_iter()
            .map(|option| format!("'{option}'"))
            .collect();
        format!(
            "ProxyCommand=ssh -F /dev/null {} -W %h:%p {user}@localhost",
            options.join(" ")
        )
    };
    // Whoever the user is called on the own host, and where the name is a gitspace's as well.
    for user in ["ada", "demo", SLUG] {
        let proxy = proxy(user);
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-o", "Port=22", "-o", &proxy])
            .args(ada.options())
            .args(["inner@demo", "cat; exit 3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut ssh = ssh.spawn().unwrap();
        let mut stdin = ssh.stdin.take().unwrap();
        let bytes = vec![b'x'; 4_000_000];
        let write = async {
            stdin.write_all(&bytes).await.unwrap();
            drop(stdin);
        };
        let both = async { tokio::join!(write, ssh.wait_with_output()) };
        let output = within("ssh", both).await.1.unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        assert!(output.stdout == bytes, "{} bytes came", output.stdout.len());
    }
    // The keys of the first step are changed many times meanwhile.
    let often = proxy("ada").replace("-W", "-o RekeyLimit=64K -W");
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "/dev/null", "-o", "Port=22", "-o", &often])
        .args(ada.options())
        .args(["inner@demo", "head -c 5000000 /dev/zero"])
        .stdin(Stdio::null());
    let output = within("ssh", ssh.output()).await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), 5_000_000);
    let users = ada.world.ssh_server.users.lock().unwrap().clone();
    assert_eq!(
        users, ["inner"; 4],
        "the user's own login reached the server"
    );
    for (to, words) in [
        ("other:22", "there is no gitspace `other` of yours"),
        ("demo:80", "is no gitspace's SSH"),
        ("127.0.0.1:22", "is no gitspace's SSH"),
        ("169.254.169.254:80", "is no gitspace's SSH"),
    ] {
        let output = ada.ssh(&["-W", to, "ada@localhost"]).await;
        refused_with(&output, words);
    }
}

#[tokio::test]
async fn whoever_cannot_be_let_in_is_told_why_and_does_not_wait() {
    let ada = Ada::new().await;
    let unknown = ada.ssh(&["nothing@localhost", "true"]).await;
    refused_with(&unknown, "there is no gitspace `nothing` of yours");
    let forward = ada
        .ssh(&["-N", "-W", "localhost:8000", "nothing@localhost"])
        .await;
    refused_with(&forward, "is no gitspace's SSH");
    for (state, words) in [
        (
            GitspaceState::Stopped,
            "the gitspace `demo` does not run: it is stopped; start it with `gitspace start demo`",
        ),
        (GitspaceState::Starting, "is starting"),
        (GitspaceState::Running, "its host is not connected"),
    ] {
        let message = ToGateway::Route {
            route: route(state, false),
        };
        let code = match state {
            GitspaceState::Stopped => "gitspace_not_running",
            GitspaceState::Starting => "gitspace_starting",
            _ => "gitspace_unreachable",
        };
        ada.world.tell.send(Some(message)).await.unwrap();
        within(code, async {
            while !ada.world.granted("/", "").await.contains(code) {}
        })
        .await;
        let output = ada.ssh(&["demo@localhost", "true"]).await;
        refused_with(&output, words);
        let jump = ada.ssh(&["-W", "demo:22", "ada@localhost"]).await;
        refused_with(&jump, words);
    }
}

#[tokio::test]
async fn a_revoked_grant_ends_its_sessions_within_a_second_and_says_so() {
    let ada = Ada::new().await;
    let mut sessions = Vec::new();
    let mut session = ada.spawn(&["demo@localhost", "echo up; cat"]);
    let mut lines = BufReader::new(session.stdout.take().unwrap()).lines();
    within("the session", lines.next_line()).await.unwrap();
    sessions.push(session);
    let mut jump = ada.spawn(&["-W", "demo:22", "ada@localhost"]);
    let mut greeting = [0; 8];
    let mut stdout = jump.stdout.take().unwrap();
    within("the jump", stdout.read_exact(&mut greeting))
        .await
        .unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
    sessions.push(jump);
    let begun = Instant::now();
    ada.world.tell.send(Some(revoke_user())).await.unwrap();
    for session in sessions {
        let output = within("the end", session.wait_with_output()).await.unwrap();
        refused_with(&output, "the grant was revoked");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_session_outlives_its_grants_as_long_as_there_are_others() {
    let ada = Ada::new().await;
    ada.world.seen.grant_life.store(2, Ordering::SeqCst);
    let mut session = ada.spawn(&["demo@localhost", "echo up; cat"]);
    let mut lines = BufReader::new(session.stdout.take().unwrap()).lines();
    within("the session", lines.next_line()).await.unwrap();
    let proven = || {
        let asked = ada.world.seen.asked.lock().unwrap();
        asked.iter().filter(|one| one["proven"] == true).count()
    };
    // Six grants of two seconds, each asked for a second before.
    within("six grants", async {
        while proven() < 6 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"still here\n").await.unwrap();
    let line = within("the echo", lines.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("still here"));
    // The key is forgotten, and nothing says so: there is no next grant.
    ada.world.seen.credentials.lock().unwrap().clear();
    let output = within("the end", session.wait_with_output()).await.unwrap();
    refused_with(&output, "access to the gitspace was taken away");
}

#[tokio::test]
async fn many_who_do_not_log_in_keep_nobody_else_out() {
    let ada = Ada::new().await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(ada.world.ssh).await.unwrap();
        let mut greeting = [0; 8];
        within("a greeting", stream.read_exact(&mut greeting))
            .await
            .unwrap();
        silent.push(stream);
    }
    let output = ada.ssh(&["demo@localhost", "true"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    // The oldest has left for it, with a reason.
    let mut rest = Vec::new();
    silent[0].read_to_end(&mut rest).await.unwrap();
    assert!(text(&rest).contains("this one was the oldest"));
}

#[tokio::test]
async fn what_is_no_ssh_is_hung_up_on() {
    let ada = Ada::new().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[b'x'; 5000]] {
        let mut stream = TcpStream::connect(ada.world.ssh).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        within("the end", stream.read_to_end(&mut answer))
            .await
            .ok();
        assert!(answer.starts_with(b"SSH-2.0-Gitspaces\r\n") || answer.is_empty());
    }
}

#[tokio::test]
async fn a_drain_lets_sessions_go_on_and_nobody_in() {
    let ada = Ada::new().await;
    let mut session = ada.spawn(&["demo@localhost", "echo up; cat"]);
    let mut lines = BufReader::new(session.stdout.take().unwrap()).lines();
    within("the session", lines.next_line()).await.unwrap();
    ada.world.drain();
    within("a closed port", async {
        while TcpStream::connect(ada.world.ssh).await.is_ok() {}
    })
    .await;
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"still here\n").await.unwrap();
    let line = within("the echo", lines.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("still here"));
}

#[tokio::test]
async fn a_login_to_a_stopped_gitspace_starts_it_and_tells_how_it_goes() {
    let ada = Ada::new().await;
    let mut told = snapshot(&ada.world.key);
    if let ToGateway::Snapshot { wakes, routes, .. } = &mut told {
        *wakes = true;
        *routes = vec![route(GitspaceState::Stopped, false)];
    }
    ada.world.tell.send(Some(told)).await.unwrap();
    let head = format!(
        "gitspaces-grant: {}\r\ngitspaces-wake: never\r\n",
        ada.world.grant()
    );
    within("it is stopped", async {
        while !ada.world.get("/", &head).await.contains("is stopped") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut ssh = ada.spawn(&["demo@localhost", "echo in"]);
    let mut banners = BufReader::new(ssh.stderr.take().unwrap()).lines();
    let mut banner = async || within("a banner", banners.next_line()).await.unwrap();
    assert_eq!(
        banner().await.as_deref(),
        Some("gitspace demo is stopped; it is being started")
    );
    let mut starting = route(GitspaceState::Starting, false);
    starting.phase = Some(wire::task::Phase::Container);
    for (route, wanted) in [
        (starting, Some("gitspace demo is starting: container")),
        (route(GitspaceState::Running, true), None),
    ] {
        let told = ToGateway::Route { route };
        ada.world.tell.send(Some(told)).await.unwrap();
        if wanted.is_some() {
            assert_eq!(banner().await.as_deref(), wanted);
        }
    }
    let output = within("ssh", ssh.wait_with_output()).await.unwrap();
    assert_eq!(text(&output.stdout), "in\n");
    assert!(output.status.success());
}
