//! Clones over ssh, from a real sshd of this host: which servers are trusted, and what is said of the others.

use crate::harness::{GitServer, IMAGE, Runner, gitspace, spec, task, until, uuid};
use std::{
    path::Path,
    process::{Child, Command},
};
use wire::{failure::FailureCode, gitspace::ObservedState, task::TaskVerb};

/// An sshd on the bridge's address that lets one key in, to git and nothing else.
struct SshServer {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn make_key(path: &Path) -> String {
    let path = path.to_str().unwrap();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", path]);
    std::fs::read_to_string(format!("{path}.pub")).unwrap()
}

/// The key without its comment.
fn bare(public_key: &str) -> String {
    let fields: Vec<&str> = public_key.split_whitespace().take(2).collect();
    fields.join(" ")
}

impl SshServer {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("172.17.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        make_key(&dir.path().join("host"));
        let user = make_key(&dir.path().join("user"));
        let allowed =
            format!("command=\"git-shell -c \\\"$SSH_ORIGINAL_COMMAND\\\"\",restrict {user}");
        std::fs::write(dir.path().join("allowed"), allowed).unwrap();
        let at = dir.path().to_str().unwrap();
        let config = format!(
            "Port {port}\nListenAddress 172.17.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/allowed\nPidFile none\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nStrictModes no\n"
        );
        std::fs::write(dir.path().join("config"), config).unwrap();
        // Where sshd's unprivileged part lives; its package makes it at boot.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args([
                "-D",
                "-f",
                &format!("{at}/config"),
                "-E",
                &format!("{at}/log"),
            ])
            .spawn()
            .expect("openssh-server is installed");
        until("sshd listens", || async {
            match tokio::net::TcpStream::connect(("172.17.0.1", port)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        Self { child, port, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn url(&self, git: &GitServer, name: &str) -> String {
        let path = git.root.path().join(format!("{name}.git"));
        format!("ssh://root@172.17.0.1:{}{}", self.port, path.display())
    }

    /// As a line of `known_hosts`.
    fn known(&self) -> String {
        let key = std::fs::read_to_string(self.path("host.pub")).unwrap();
        format!("[172.17.0.1]:{} {}", self.port, bare(&key))
    }

    fn fingerprint(&self) -> String {
        let told = run("ssh-keygen", &["-l", "-f", &self.path("host.pub")]);
        told.split(' ').nth(1).unwrap().to_owned()
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The default image with a key for git in it, as an operator gives it to the sandboxes.
struct ImageWithKey(String);

impl ImageWithKey {
    fn make(ssh: &SshServer) -> Self {
        let name = format!("gitspaces-test-ssh:{}", uuid().simple());
        let container = run("docker", &["create", "--user", "0", IMAGE]);
        let home = ssh.dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        std::fs::copy(ssh.path("user"), home.join("id_ed25519")).unwrap();
        let (from, to) = (home.to_str().unwrap(), format!("{container}:/root/.ssh"));
        run("docker", &["cp", from, &to]);
        run("docker", &["commit", &container, &name]);
        run("docker", &["rm", &container]);
        Self(name)
    }
}

impl Drop for ImageWithKey {
    fn drop(&mut self) {
        drop(
            Command::new("docker")
                .args(["image", "rm", "--force", &self.0])
                .output(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_over_ssh_trusts_the_servers_that_the_operator_names_and_no_other() {
    let (git, ssh) = (GitServer::start().await, SshServer::start().await);
    git.repository("app", &[]);
    let url = ssh.url(&git, "app");
    let image = ImageWithKey::make(&ssh);
    let sandbox = format!("sandbox_image = \"{}\"\n", image.0);
    let known = |line: &str| format!("{sandbox}ssh_known_hosts = [\"{line}\"]\n");
    let mut runner = Runner::start_with(&[ssh.port], &sandbox).await;
    let id = gitspace();
    let start = |generation| task(id, generation, TaskVerb::Start { spec: spec(&url) });

    // Nobody knows it: the fingerprint is named, and the line that makes it known.
    let (_, failure, observed) = runner.failed(&start(1)).await;
    assert_eq!(failure.code, FailureCode::GitUnreachable, "{failure:?}");
    assert!(failure.message.contains(&ssh.fingerprint()), "{failure:?}");
    let hint = failure.hint.unwrap();
    assert!(
        hint.contains(&ssh.known()) && hint.contains("ssh_known_hosts"),
        "{hint}"
    );
    assert_eq!(observed.state, ObservedState::Absent);

    // Another key is known: somebody may be in between.
    let other = make_key(&ssh.dir.path().join("other"));
    runner
        .reconfigure(&known(&format!(
            "[172.17.0.1]:{} {}",
            ssh.port,
            bare(&other)
        )))
        .await;
    let (_, failure, _) = runner.failed(&start(2)).await;
    assert_eq!(failure.code, FailureCode::GitUnreachable, "{failure:?}");
    assert!(failure.message.contains("another key"), "{failure:?}");

    runner.reconfigure(&known(&ssh.known())).await;
    assert_eq!(runner.done(&start(3)).await.state, ObservedState::Running);
    let cloned = runner.exec(id, "cat /workspaces/app/README");
    assert_eq!(String::from_utf8_lossy(&cloned.stdout), "hello\n");

    // At first sight only where the operator said so.
    runner
        .reconfigure(&format!("{sandbox}ssh_unknown_hosts = \"accept-new\"\n"))
        .await;
    let second = task(gitspace(), 1, TaskVerb::Start { spec: spec(&url) });
    assert_eq!(runner.done(&second).await.state, ObservedState::Running);
}
