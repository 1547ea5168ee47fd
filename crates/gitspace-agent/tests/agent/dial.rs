use crate::harness::Agent;
use http::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use wire::agent::{Activity, GitState, ListeningPort};

#[tokio::test]
async fn a_dialled_port_is_the_very_socket_of_the_app() {
    let agent = Agent::start().await;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(app) = TcpListener::bind(address).await else {
            assert!(address.starts_with('['), "only IPv6 may be missing");
            continue;
        };
        let port = app.local_addr().unwrap().port();
        let (mut dialled, accepted) = tokio::join!(
            async { agent.dial(&port.to_string()).await.unwrap() },
            app.accept()
        );
        let (mut accepted, _) = accepted.unwrap();
        dialled.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 4];
        accepted.read_exact(&mut buffer).await.unwrap();
        accepted.write_all(&buffer).await.unwrap();
        dialled.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"ping");
        let activity: Activity = agent.client.get("/v1/activity").await.unwrap();
        assert_eq!(activity.open_connections, 1);
        assert!(activity.last_connection.is_some());
        drop((dialled, accepted));
    }
}

#[tokio::test]
async fn a_closed_port_is_a_problem_that_names_what_listens() {
    let agent = Agent::start().await;
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = (open.local_addr().unwrap().port(), open);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = agent.dial(&closed.to_string()).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::BAD_GATEWAY));
    let problem = error.problem().unwrap();
    assert_eq!(problem.code, "port_closed");
    assert!(
        problem
            .message
            .contains(&format!("nothing listens on port {closed}")),
        "{problem}"
    );
    let ports: Vec<ListeningPort> = agent.client.get("/v1/ports").await.unwrap();
    let found = ports.iter().find(|port| port.port == open.0).unwrap();
    assert_eq!(found.pid, Some(std::process::id()));
    for target in ["0", "65536", "x", "-1"] {
        assert_eq!(
            agent.dial(target).await.unwrap_err().status(),
            Some(StatusCode::BAD_REQUEST),
            "{target}"
        );
    }
}

#[tokio::test]
async fn the_page_is_served_with_a_strict_policy_and_is_not_sent_twice() {
    let agent = Agent::start().await;
    let (status, headers, body) = agent.http(Method::GET, "/", &()).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'")
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers.contains_key("etag"));
    assert!(String::from_utf8(body).unwrap().contains("terminal.js"));
    for path in [
        "/none",
        "/../etc/passwd",
        "/api/v1/none",
        "/api/v1/terminals/x",
    ] {
        let (status, headers, _) = agent.http(Method::GET, path, &()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn git_tells_what_would_be_lost() {
    let agent = Agent::start().await;
    let error = agent.client.get::<GitState>("/v1/git").await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, "not_configured");
    agent.configure(Vec::new()).await;
    let error = agent.client.get::<GitState>("/v1/git").await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, "git_failed");
    let folder = camino::Utf8PathBuf::from(agent.path(""));
    let git = |arguments: &[&str]| crate::git_server::git(&folder, arguments);
    git(&["init", "-q", "-b", "main"]);
    std::fs::write(folder.join("a"), "1").unwrap();
    std::fs::write(folder.join(".gitignore"), "run\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "a"]);
    std::fs::write(folder.join("a"), "2").unwrap();
    git(&["stash", "-q"]);
    std::fs::write(folder.join("new file"), "x").unwrap();
    std::fs::write(folder.join("a"), "3").unwrap();
    let state: GitState = agent.json(Method::GET, "/api/v1/git", &()).await;
    assert_eq!(
        (
            state.staged,
            state.unstaged,
            state.untracked,
            state.unpushed,
            state.stashes
        ),
        (0, 1, 1, 1, 1)
    );
    assert_eq!(state.branch.as_deref(), Some("main"));
}
