use crate::{
    git_server::{GitServer, git},
    harness::Agent,
};
use camino::Utf8Path;
use wire::{
    agent::{CloneJob, JobSpec, SshTrust},
    failure::FailureCode,
    gitspace::{GitCredential, GitScheme, RepoSpec},
    secret::Secret,
    task::LogStream,
};

fn clone(url: &str, reference: Option<&str>, destination: &str) -> JobSpec {
    with_credentials(url, reference, destination, Vec::new())
}

fn with_credentials(
    url: &str,
    reference: Option<&str>,
    destination: &str,
    credentials: Vec<GitCredential>,
) -> JobSpec {
    JobSpec::Clone(CloneJob {
        repo: RepoSpec {
            url: url.parse().unwrap(),
            reference: reference.map(|reference| reference.parse().unwrap()),
        },
        destination: destination.to_owned(),
        credentials,
        ssh: SshTrust::default(),
    })
}

fn head(folder: &str) -> String {
    git(
        Utf8Path::new(folder),
        &[
            "-c",
            "safe.directory=*",
            "rev-parse",
            "--abbrev-ref",
            "HEAD",
        ],
    )
    .trim()
    .to_owned()
}

#[tokio::test]
async fn a_repository_is_cloned_whole_and_a_second_time_changes_nothing() {
    let (agent, server) = (Agent::start().await, GitServer::start(None).await);
    server.repository("app", None);
    let destination = agent.path("w/app");
    let spec = clone(&server.url("app"), None, &destination);
    // What an earlier attempt left.
    std::fs::create_dir_all(agent.path("w/app.partial-0/x")).unwrap();
    let detail = agent.job("1", &spec).await.done().unwrap();
    assert!(detail.ends_with("(main)") && detail.len() == 14, "{detail}");
    assert_eq!(
        std::fs::read_to_string(format!("{destination}/README.md")).unwrap(),
        "hello\n"
    );
    std::fs::write(format!("{destination}/mine"), "kept").unwrap();
    agent.job("2", &spec).await.done();
    assert_eq!(
        std::fs::read_to_string(format!("{destination}/mine")).unwrap(),
        "kept"
    );
    let names: Vec<_> = std::fs::read_dir(agent.path("w"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["app"]);
    let config = std::fs::read_to_string(format!("{destination}/.git/config")).unwrap();
    assert!(
        !config.contains("credential")
            && !config.contains("protocol")
            && !config.contains("hooksPath"),
        "{config}"
    );
}

#[tokio::test]
async fn a_branch_a_tag_and_a_commit_are_checked_out() {
    let (agent, server) = (Agent::start().await, GitServer::start(None).await);
    let commit = server.repository("app", None);
    for (id, reference, expected) in [
        ("branch", "other", "other"),
        ("tag", "v1", "HEAD"),
        ("commit", commit.as_str(), "HEAD"),
        ("short", commit.get(..10).unwrap(), "HEAD"),
    ] {
        let destination = agent.path(id);
        agent
            .job(
                id,
                &clone(&server.url("app"), Some(reference), &destination),
            )
            .await
            .done();
        assert_eq!(head(&destination), expected, "{id}");
        assert_eq!(
            Utf8Path::new(&destination).join("other").exists(),
            id != "tag",
            "{id}"
        );
    }
}

#[tokio::test]
async fn each_way_to_fail_has_its_code_cause_and_hint_and_leaves_nothing() {
    let (agent, server) = (Agent::start().await, GitServer::start(None).await);
    server.repository("app", None);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let locked = GitServer::start(Some("dTpw")).await;
    locked.repository("app", None);
    for (id, url, reference, code) in [
        (
            "branch",
            server.url("app"),
            Some("none"),
            FailureCode::GitRefNotFound,
        ),
        (
            "commit",
            server.url("app"),
            Some("0123456789012345678901234567890123456789"),
            FailureCode::GitRefNotFound,
        ),
        (
            "missing",
            server.url("none"),
            None,
            FailureCode::GitRepositoryNotFound,
        ),
        (
            "unreachable",
            format!("http://{closed}/app.git"),
            None,
            FailureCode::GitUnreachable,
        ),
        (
            "no-such-host",
            "http://host.invalid/app.git".to_owned(),
            None,
            FailureCode::GitUnreachable,
        ),
        (
            "locked",
            locked.url("app"),
            None,
            FailureCode::GitAuthentication,
        ),
    ] {
        let ended = agent
            .job(id, &clone(&url, reference, &agent.path(&format!("w/{id}"))))
            .await;
        let (exit_code, failure) = ended.failure();
        assert_eq!(failure.code, code, "{id}: {failure:?}");
        assert_eq!(exit_code, Some(128), "{id}");
        assert!(
            failure.detail.is_some() && failure.hint.is_some(),
            "{id}: {failure:?}"
        );
        assert_eq!(
            std::fs::read_dir(agent.path("w")).unwrap().count(),
            0,
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_clone_gets_its_own_credentials_and_keeps_none() {
    let (agent, server) = (Agent::start().await, GitServer::start(Some("dTpw")).await);
    server.repository("app", None);
    let credential = |scheme, host: String| GitCredential {
        scheme,
        host,
        username: "u".to_owned(),
        secret: Secret::new("p"),
    };
    let destination = agent.path("right");
    let right = vec![credential(
        GitScheme::Http,
        format!("127.0.0.1:{}", server.port),
    )];
    agent
        .job(
            "right",
            &with_credentials(&server.url("app"), None, &destination, right),
        )
        .await
        .done();
    let config = std::fs::read_to_string(format!("{destination}/.git/config")).unwrap();
    assert!(
        !config.contains("u:p") && !config.contains("credential"),
        "{config}"
    );

    for (id, wrong) in [
        ("port", credential(GitScheme::Http, "127.0.0.1".to_owned())),
        (
            "scheme",
            credential(GitScheme::Https, format!("127.0.0.1:{}", server.port)),
        ),
    ] {
        let spec = with_credentials(&server.url("app"), None, &agent.path(id), vec![wrong]);
        let (_, failure) = agent.job(id, &spec).await.failure();
        assert_eq!(failure.code, FailureCode::GitAuthentication, "{id}");
        let place = format!("http://127.0.0.1:{}", server.port);
        assert!(
            failure
                .hint
                .as_ref()
                .is_some_and(|hint| hint.contains(&place)),
            "{id}: {failure:?}"
        );
    }
}

#[tokio::test]
async fn a_submodule_over_http_comes_along_and_one_of_the_host_is_refused() {
    let (agent, server) = (Agent::start().await, GitServer::start(None).await);
    server.repository("library", None);
    // The commit that the submodule points to is of the repository itself: both have the same history.
    server.repository("good", Some("../good.git"));
    let secret = agent.path("secret");
    std::fs::create_dir(&secret).unwrap();
    git(Utf8Path::new(&secret), &["init", "-q", "--bare"]);
    server.repository("evil", Some(&format!("file://{secret}")));
    server.repository(
        "worse",
        Some(&format!("ext::sh -c \"touch {}\"", agent.path("pwned"))),
    );

    let destination = agent.path("good");
    agent
        .job("good", &clone(&server.url("good"), None, &destination))
        .await
        .done();
    assert!(Utf8Path::new(&destination).join("sub/other").exists());
    for name in ["evil", "worse"] {
        let ended = agent
            .job(name, &clone(&server.url(name), None, &agent.path(name)))
            .await;
        let (_, failure) = ended.failure();
        assert_eq!(failure.code, FailureCode::GitFailed, "{failure:?}");
        assert!(failure.detail.unwrap().contains("not allowed"));
        assert!(!Utf8Path::new(&agent.path(name)).exists());
    }
    assert!(!Utf8Path::new(&agent.path("pwned")).exists());
}

#[tokio::test]
async fn progress_is_streamed_and_a_clone_over_something_else_is_refused() {
    let (agent, server) = (Agent::start().await, GitServer::start(None).await);
    server.repository("app", None);
    let ended = agent
        .job("1", &clone(&server.url("app"), None, &agent.path("app")))
        .await;
    assert!(
        ended.text(LogStream::Stderr).contains("Cloning into"),
        "{ended:?}"
    );
    std::fs::write(agent.path("file"), "").unwrap();
    let (_, failure) = agent
        .job("2", &clone(&server.url("app"), None, &agent.path("file")))
        .await
        .failure();
    assert_eq!(failure.code, FailureCode::PreconditionFailed);
    let (_, failure) = agent
        .job("3", &clone(&server.url("app"), None, &agent.path("a/../b")))
        .await
        .failure();
    assert_eq!(failure.code, FailureCode::PreconditionFailed);
}

#[tokio::test]
async fn large_files_come_with_the_clone_and_the_credential_of_its_host() {
    let (agent, server) = (Agent::start().await, GitServer::start(Some("dTpw")).await);
    // More than a pointer could be.
    let large: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    server.large_file("app", &large, true);
    server.large_file("lost", b"nobody has it", false);
    let credential = || {
        vec![GitCredential {
            scheme: GitScheme::Http,
            host: format!("127.0.0.1:{}", server.port),
            username: "u".to_owned(),
            secret: Secret::new("p"),
        }]
    };
    let destination = agent.path("app");
    let spec = with_credentials(&server.url("app"), None, &destination, credential());
    agent.job("app", &spec).await.done();
    assert!(std::fs::read(format!("{destination}/large.bin")).unwrap() == large);
    let config = std::fs::read_to_string(format!("{destination}/.git/config")).unwrap();
    assert!(
        config.contains("[filter \"lfs\"]") && !config.contains("credential"),
        "{config}"
    );

    let spec = with_credentials(&server.url("lost"), None, &agent.path("lost"), credential());
    let (_, failure) = agent.job("lost", &spec).await.failure();
    assert_eq!(failure.code, FailureCode::GitFailed, "{failure:?}");
    assert!(
        failure.message.contains("large file") && failure.hint.is_some(),
        "{failure:?}"
    );
    assert!(!Utf8Path::new(&agent.path("lost")).exists());
}
