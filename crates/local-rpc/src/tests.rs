//! The parts together, over real sockets.

mod streams;
mod support;

use crate::{
    BindError, BindOptions, Client, ClientError, Listener, Peer, PeerPolicy, ServerConfig,
    connect::connect_untrusted,
    server::{json, no_route, problem, read_json, segments},
};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use std::{
    os::unix::{fs::PermissionsExt as _, net::UnixListener as StdUnixListener},
    time::Duration,
};
use support::{TestServer, temp_dir};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::oneshot,
};
use wire::problem::Problem;

const BODY_LIMIT: usize = 64;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Greeting {
    name: String,
    #[serde(default)]
    inner: Option<Inner>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    count: u32,
}

async fn greet(
    request: http::Request<hyper::body::Incoming>,
    _: Peer,
) -> http::Response<crate::server::Body> {
    let (parts, body) = request.into_parts();
    match (&parts.method, segments(&parts.uri).as_slice()) {
        (&Method::POST, ["v1", "greet"]) => {
            match read_json::<Greeting, _>(http::Request::from_parts(parts, body), BODY_LIMIT).await
            {
                Ok(greeting) => json(StatusCode::OK, &greeting),
                Err(error) => error.into_response(),
            }
        }
        (&Method::GET, ["v1", "missing", id]) => problem(
            StatusCode::NOT_FOUND,
            &Problem::new("no_such_thing", format!("there is no `{id}`")).hint("look again"),
        ),
        (&Method::DELETE, ["v1", "thing"]) => crate::server::empty(StatusCode::NO_CONTENT),
        (&Method::GET, ["v1", "large"]) => json(StatusCode::OK, &"x".repeat(10_000)),
        (&Method::GET, ["v1", "never"]) => std::future::pending().await,
        (&Method::GET, ["v1", "panic"]) => panic!("boom"),
        _ => no_route(&parts),
    }
}

fn greeting(name: &str) -> Greeting {
    Greeting {
        name: name.to_owned(),
        inner: None,
    }
}

#[tokio::test]
async fn a_call_is_answered() {
    let server = TestServer::start(greet);
    let answer: Greeting = server
        .client()
        .post("/v1/greet", &greeting("ada"))
        .await
        .unwrap();
    assert_eq!(answer, greeting("ada"));
    server.client().delete::<()>("/v1/thing").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_problem_reaches_the_caller_whole() {
    let server = TestServer::start(greet);
    let error = server
        .client()
        .get::<()>("/v1/missing/7")
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.problem(),
        Some(&Problem::new("no_such_thing", "there is no `7`").hint("look again"))
    );
    let error = server.client().get::<()>("/v2").await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, "no_route");
}

#[tokio::test]
async fn a_peer_outside_the_policy_is_refused_before_the_handler() {
    let server = TestServer::start_with(
        ServerConfig::new(PeerPolicy::nobody().allow_uid(4_000_000_000)),
        |_, _| async { panic!("the handler must not be reached") },
    );
    let error = server
        .client()
        .post::<_, ()>("/v1/greet", &greeting("ada"))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::FORBIDDEN));
    assert_eq!(error.problem().unwrap().code, "peer_refused");
}

#[tokio::test]
async fn the_peer_is_known_with_its_groups() {
    let server = TestServer::start(|_, peer: Peer| async move {
        json(StatusCode::OK, &(peer.uid, peer.gid, peer.groups, peer.pid))
    });
    let (uid, gid, groups, pid): (u32, u32, Vec<u32>, Option<i32>) =
        server.client().get("/").await.unwrap();
    assert_eq!(uid, nix::unistd::geteuid().as_raw());
    assert_eq!(gid, nix::unistd::getegid().as_raw());
    let own: Vec<u32> = nix::unistd::getgroups()
        .unwrap()
        .into_iter()
        .map(nix::unistd::Gid::as_raw)
        .collect();
    assert_eq!(groups, own);
    assert_eq!(pid, i32::try_from(std::process::id()).ok());
}

#[tokio::test]
async fn an_oversized_body_gets_413() {
    let server = TestServer::start(greet);
    let error = server
        .client()
        .post::<_, Greeting>("/v1/greet", &greeting(&"x".repeat(BODY_LIMIT)))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::PAYLOAD_TOO_LARGE));
    assert_eq!(error.problem().unwrap().code, "body_too_large");
}

#[tokio::test]
async fn an_oversized_body_without_a_declared_length_gets_413() {
    let server = TestServer::start(greet);
    let mut stream = UnixStream::connect(server.path()).await.unwrap();
    let head = "POST /v1/greet HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 100, "x".repeat(100));
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(chunk.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_wrong_body_is_refused_with_the_path_of_the_key() {
    let server = TestServer::start(greet);
    for (body, expected) in [
        (
            serde_json::json!({"name": "a", "inner": {"count": -1}}),
            "at `inner.count`: invalid value: integer `-1`, expected u32",
        ),
        (
            serde_json::json!({"name": "a", "nam": 1}),
            "unknown field `nam`",
        ),
        (serde_json::json!({}), "missing field `name`"),
    ] {
        let error = server
            .client()
            .post::<_, Greeting>("/v1/greet", &body)
            .await
            .unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
        let message = &error.problem().unwrap().message;
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_is_cut_off() {
    let server = TestServer::start(greet);
    let error = server
        .client()
        .with_max_response(100)
        .get::<String>("/v1/large")
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::TooLarge { limit: 100, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let server = TestServer::start(greet);
    let error = server
        .client()
        .with_deadline(Duration::from_millis(50))
        .get::<()>("/v1/never")
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert!(error.is_unreachable());
}

#[tokio::test]
async fn a_panic_of_a_handler_costs_its_connection_only() {
    let server = TestServer::start(greet);
    let error = server.client().get::<()>("/v1/panic").await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
    server.client().delete::<()>("/v1/thing").await.unwrap();
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let (_guard, dir) = temp_dir();
    let error = Client::new(dir.join("none.sock"))
        .get::<()>("/")
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("cannot connect to `{dir}/none.sock`")
    );
}

#[tokio::test]
async fn more_connections_than_allowed_get_503() {
    let mut config = ServerConfig::new(PeerPolicy::owner());
    config.max_connections = 1;
    let server = TestServer::start_with(config, greet);
    let mut held = UnixStream::connect(server.path()).await.unwrap();
    // Answered, so accepted, and kept open.
    held.write_all(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    held.read_exact(&mut answer).await.unwrap();
    let error = server.client().delete::<()>("/v1/thing").await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert!(error.is_unreachable());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_gets_the_mode_and_the_group() {
    let (_guard, dir) = temp_dir();
    let path = dir.join("api.sock");
    // Dropping a std listener leaves its file.
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let options = BindOptions {
        mode: 0o620,
        gid: Some(nix::unistd::getegid().as_raw()),
    };
    let listener = Listener::bind(&path, options).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o620);
    let (connected, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
    connected.unwrap();
    accepted.unwrap();
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_live_socket_is_refused_with_its_holder() {
    let (_guard, dir) = temp_dir();
    let path = dir.join("api.sock");
    let own_pid = i32::try_from(std::process::id()).unwrap();
    // One that knows the lock file, and one that does not.
    let with_lock = Listener::bind(&path, BindOptions::default()).unwrap();
    let error = Listener::bind(&path, BindOptions::default()).unwrap_err();
    assert!(
        matches!(error, BindError::Live { pid: Some(pid), .. } if pid == own_pid),
        "{error:?}"
    );
    assert!(error.to_string().contains("another process (pid "));
    drop(with_lock);
    let _without_lock = StdUnixListener::bind(&path).unwrap();
    let error = Listener::bind(&path, BindOptions::default()).unwrap_err();
    assert!(
        matches!(error, BindError::Live { pid: Some(pid), .. } if pid == own_pid),
        "{error:?}"
    );
    assert!(path.exists());
}

#[tokio::test]
async fn what_is_not_a_socket_is_not_replaced() {
    let (_guard, dir) = temp_dir();
    let path = dir.join("api.sock");
    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&path, BindOptions::default()).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_missing_directory_is_a_hint() {
    let (_guard, dir) = temp_dir();
    let error = Listener::bind(&dir.join("none/api.sock"), BindOptions::default()).unwrap_err();
    assert_eq!(
        error.hint().unwrap(),
        format!("create the directory `{dir}/none`")
    );
}

#[tokio::test]
async fn a_path_longer_than_a_socket_address_works() {
    let (_guard, dir) = temp_dir();
    let deep = dir.join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let path = deep.join("api.sock");
    let listener = Listener::bind(&path, BindOptions::default()).unwrap();
    let (connected, accepted) = tokio::join!(crate::connect::connect(&path), listener.accept());
    connected.unwrap();
    accepted.unwrap();
}

#[tokio::test]
async fn an_inherited_listener_is_served_and_its_file_stays() {
    let (_guard, dir) = temp_dir();
    let path = dir.join("passed.sock");
    let listener = Listener::from_std(StdUnixListener::bind(&path).unwrap()).unwrap();
    let server = TestServer::serve(listener, ServerConfig::new(PeerPolicy::owner()), greet);
    Client::new(&path).delete::<()>("/v1/thing").await.unwrap();
    server.stop().await;
    assert!(path.exists());
}

#[tokio::test]
async fn an_untrusted_directory_gives_its_socket_and_nothing_else() {
    let (_guard, dir) = temp_dir();
    let server = TestServer::start(greet);
    let inside = dir.join("agent.sock");
    let listener = StdUnixListener::bind(&inside).unwrap();
    connect_untrusted(&dir, "agent.sock").await.unwrap();
    drop(listener);

    // Root in the container swaps the socket for a link to a socket of the host.
    std::fs::remove_file(&inside).unwrap();
    std::os::unix::fs::symlink(server.path(), &inside).unwrap();
    let error = connect_untrusted(&dir, "agent.sock").await.unwrap_err();
    assert_eq!(error.to_string(), "it is a symbolic link, not a socket");
    let error = Client::untrusted(&dir, "agent.sock")
        .delete::<()>("/v1/thing")
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert_eq!(error.to_string(), "cannot connect to `agent.sock`");

    std::fs::remove_file(&inside).unwrap();
    std::fs::write(&inside, "").unwrap();
    let error = connect_untrusted(&dir, "agent.sock").await.unwrap_err();
    assert_eq!(error.to_string(), "it is a regular file, not a socket");

    for name in ["", ".", "..", "../agent.sock", "/run/x.sock", "a\0b"] {
        assert!(connect_untrusted(&dir, name).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_stop_lets_an_open_answer_finish_and_takes_no_more() {
    let (started, wait_started) = oneshot::channel();
    let (finish, wait_finish) = oneshot::channel::<()>();
    let channels = std::sync::Arc::new(std::sync::Mutex::new(Some((started, wait_finish))));
    let server = TestServer::start(move |_, _| {
        let channels = channels.lock().unwrap().take();
        async move {
            let (started, wait_finish) = channels.unwrap();
            started.send(()).unwrap();
            wait_finish.await.unwrap();
            json(StatusCode::OK, "done")
        }
    });
    let client = server.client();
    let call = client.get::<String>("/");
    let stop = async {
        wait_started.await.unwrap();
        let stopped = server.stop();
        tokio::pin!(stopped);
        // Polled once, so that the stop is under way before the handler goes on.
        assert!(futures_util::poll!(&mut stopped).is_pending());
        finish.send(()).unwrap();
        stopped.await
    };
    let (answer, path) = tokio::join!(call, stop);
    assert_eq!(answer.unwrap(), "done");
    assert!(!path.exists());
    assert!(matches!(
        Client::new(&path).get::<()>("/").await,
        Err(ClientError::Connect { .. })
    ));
}

#[tokio::test]
async fn a_stop_cuts_off_what_does_not_finish_in_time() {
    let mut config = ServerConfig::new(PeerPolicy::owner());
    config.drain = Duration::from_millis(50);
    let server = TestServer::start_with(config, greet);
    let client = server.client();
    let (answer, _) = tokio::join!(client.get::<()>("/v1/never"), async {
        // The client has to be in before the stop.
        tokio::task::yield_now().await;
        server.stop().await
    });
    assert!(answer.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_stop() {
    let server = TestServer::start(greet);
    let mut fresh = UnixStream::connect(server.path()).await.unwrap();
    let mut idle = UnixStream::connect(server.path()).await.unwrap();
    idle.write_all(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    let start = std::time::Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(3));
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    // Closed, in whatever way.
    drop(fresh.read_to_end(&mut rest).await);
}
