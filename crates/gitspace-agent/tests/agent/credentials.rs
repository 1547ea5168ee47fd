use crate::harness::{Agent, BINARY};
use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};
use wire::{
    agent::Health,
    gitspace::{GitCredential, GitScheme},
    secret::Secret,
};

fn ask(agent: &Agent, uid: Option<u32>, question: &str) -> (bool, String) {
    // Where the other user reaches it. Not written by this process: a child that another test forks meanwhile would hold it open for writing, and
    // nobody executes such a file.
    let binary = agent.path("agent-binary");
    let copied = Command::new("cp").arg(BINARY).arg(&binary).status();
    assert!(copied.unwrap().success());
    let mut command = Command::new(binary);
    if let Some(uid) = uid {
        command.uid(uid);
    }
    let mut child = command
        .args(["credential", "--run-dir", agent.run_dir.as_str(), "get"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(question.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn credentials() -> Vec<GitCredential> {
    vec![GitCredential {
        scheme: GitScheme::Https,
        host: "git.example".to_owned(),
        username: "ada".to_owned(),
        secret: Secret::new("s3cret"),
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn git_gets_the_credential_of_its_exact_host_alone() {
    let agent = Agent::start().await;
    assert_eq!(
        ask(&agent, None, "protocol=https\nhost=git.example\n\n"),
        (true, String::new())
    );
    agent.configure(credentials()).await;
    let answer = ask(
        &agent,
        None,
        "protocol=https\nhost=git.example\npath=team/app\n\n",
    );
    assert_eq!(answer, (true, "username=ada\npassword=s3cret\n".to_owned()));
    for question in [
        "protocol=https\nhost=git.example.evil\n",
        "protocol=https\nhost=git.example:444\n",
        "protocol=http\nhost=git.example\n",
        "host=git.example\n",
        "",
    ] {
        assert_eq!(
            ask(&agent, None, question),
            (true, String::new()),
            "{question:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_container_gets_no_credential() {
    let agent = Agent::start().await;
    agent.configure(credentials()).await;
    // So that the other user reaches the socket at all.
    std::fs::set_permissions(
        agent.folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let (asked, answer) = ask(&agent, Some(65534), "protocol=https\nhost=git.example\n");
    assert_eq!((asked, answer.as_str()), (false, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_reaches_a_disk_and_a_restart_asks_for_them_again() {
    let mut agent = Agent::start().await;
    agent.configure(credentials()).await;
    assert!(
        agent
            .client
            .get::<Health>("/v1/health")
            .await
            .unwrap()
            .configured
    );
    for entry in std::fs::read_dir(&agent.run_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert!(
                !String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains("s3cret"),
                "{path:?}"
            );
        }
    }
    agent.kill_and_restart().await;
    assert!(
        !agent
            .client
            .get::<Health>("/v1/health")
            .await
            .unwrap()
            .configured
    );
    agent.configure(Vec::new()).await;
    agent.kill_and_restart().await;
    assert!(
        agent
            .client
            .get::<Health>("/v1/health")
            .await
            .unwrap()
            .configured
    );
}
