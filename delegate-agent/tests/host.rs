//! One host's delegate against a real control plane in the same process, over real sockets, with a runner that does nothing.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test stops at once"
)]

#[path = "host/control_plane.rs"]
mod control_plane;
#[path = "host/delegate.rs"]
mod delegate;
#[path = "host/enrolment.rs"]
mod enrolment;
#[path = "host/faults.rs"]
mod faults;
#[path = "host/faulty_road.rs"]
mod faulty_road;
#[path = "host/roads.rs"]
mod roads;
#[path = "host/rotation.rs"]
mod rotation;
#[path = "host/runner.rs"]
mod runner;
#[path = "host/versions.rs"]
mod versions;
#[path = "host/wrong_ways.rs"]
mod wrong_ways;

use admin::{Readiness, Severity};
use control_plane::TestControlPlane;
use delegate::TestDelegate;
use delegate_agent::transport::ProxyUrl;
use link::client::Stage;
use roads::{Authority, TestProxy, TlsFront};
use runner::TestRunner;
use std::time::Duration;
use wire::{control::DisconnectCode, secret::Secret};

const OPERATIONS: &str = include_str!("../../docs/operations.md");

#[tokio::test]
async fn a_delegate_enrols_and_connects() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    assert!(
        control_plane.delegate().await["connected"]
            .as_bool()
            .unwrap()
    );
}

#[tokio::test]
async fn an_enrolment_is_refused_with_the_control_planes_own_reason() {
    let control_plane = TestControlPlane::start().await;
    let delegate = TestDelegate::new(&control_plane.url());
    let error = delegate.enrol_with("gsj_wrong").await.expect_err("refused");
    assert!(error.contains("the control plane refuses"), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_named_as_that() {
    let port = roads::free_port();
    let delegate = TestDelegate::new(&format!("http://localhost:{port}"));
    let error = delegate.enrol_with("gsj_x").await.expect_err("refused");
    assert!(
        error.contains("Connection refused") && error.contains(&port.to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn everything_goes_through_the_proxy_with_its_credentials() {
    let control_plane = TestControlPlane::start().await;
    let proxy = TestProxy::start(Some("user:p@ss")).await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.proxy = Some(ProxyUrl::parse(&proxy.url("user:p%40ss@")).unwrap());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    assert_eq!(proxy.tunnels(), 2, "enrolment and link");
}

#[tokio::test]
async fn the_proxys_password_may_lie_apart_from_its_url() {
    let control_plane = TestControlPlane::start().await;
    let proxy = TestProxy::start(Some("user:p@ss")).await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.proxy = Some(ProxyUrl::parse(&proxy.url("user@")).unwrap());
    let error = delegate.enrol(&control_plane).await.expect_err("refused");
    assert!(error.contains("407"), "{error}");
    delegate.proxy_password = Some(Secret::new("p@ss"));
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    assert_eq!(proxy.tunnels(), 2, "enrolment and link");
}

#[tokio::test]
async fn a_proxy_that_wants_credentials_is_named() {
    let proxy = TestProxy::start(Some("user:secret")).await;
    let mut delegate = TestDelegate::new("http://control.example");
    delegate.proxy = Some(ProxyUrl::parse(&proxy.url("")).unwrap());
    let error = delegate.enrol_with("gsj_x").await.expect_err("refused");
    assert!(
        error.contains("the proxy") && error.contains("407"),
        "{error}"
    );
}

#[test]
fn a_proxy_variable_that_names_no_proxy_ends_every_command_that_connects_with_the_code_for_configuration()
 {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("delegate-agent.toml");
    let text = format!(
        "control_plane_url = \"http://control.example\"\nstate_dir = \"{0}/state\"\nadmin_socket = \"{0}/admin.sock\"\n",
        dir.path().display()
    );
    std::fs::write(&config, text).unwrap();
    for command in [
        &["config", "check"][..],
        &["run"],
        &["enroll", "--join-token-file", "/dev/null"],
    ] {
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_delegate-agent"))
            .args(command)
            .arg("--config")
            .arg(&config)
            .env_remove("http_proxy")
            .env("HTTP_PROXY", "socks5://user:hunter2@proxy:1080")
            .env("NO_PROXY", "")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(78), "{command:?}: {said}");
        assert!(
            said.contains("`HTTP_PROXY` names no proxy: `socks5://user:***@proxy:1080`")
                && said.contains("it is not of the form")
                && said.contains("hint: set `HTTP_PROXY`"),
            "{command:?}: {said}"
        );
        assert!(!said.contains("hunter2"), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_configured() {
    let authority = Authority::new("ours");
    let front = TlsFront::bind(&authority).await;
    let control_plane = TestControlPlane::start_behind(&front.url()).await;
    front.forward_to(control_plane.address);
    let mut delegate = TestDelegate::new(&front.url());
    delegate.ca_file = Some(delegate.write("ca.pem", &authority.pem()));
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
}

#[tokio::test]
async fn certificates_that_end_soon_are_warned_of_while_the_link_is_live() {
    let now = roads::now();
    let days = |days: u64| now + Duration::from_secs(days * 24 * 3_600 + 600);
    let authority = Authority::until("ours", days(20));
    let front = TlsFront::bind_until(&authority, days(3)).await;
    let control_plane = TestControlPlane::start_behind(&front.url()).await;
    front.forward_to(control_plane.address);
    let mut delegate = TestDelegate::new(&front.url());
    delegate.ca_file = Some(delegate.write("ca.pem", &authority.pem()));
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    let find = |readiness: Readiness, code: &str| {
        let found = readiness
            .checks
            .into_iter()
            .find(|check| check.code == code);
        found.unwrap_or_else(|| panic!("no check `{code}`"))
    };
    for (code, left) in [("certificate", "in 3 days"), ("ca_file", "in 20 days")] {
        let check = find(delegate.health().await, code);
        assert!(
            !check.ok && check.severity == Severity::Warning && check.summary.contains(left),
            "{check:?}"
        );
        assert!(check.fix.is_some(), "{check:?}");
    }
    for check in delegate.health().await.checks {
        assert!(
            OPERATIONS.contains(&format!("\n### {}\n", check.code)),
            "docs/operations.md says nothing of the check `{}`",
            check.code
        );
    }
    // Beside the next one, the end of the one before is no matter.
    let next = Authority::until("next", days(400));
    delegate.write("ca.pem", &format!("{}{}", authority.pem(), next.pem()));
    assert!(find(delegate.health().await, "ca_file").ok);
    let ended = Authority::until("ended", now - Duration::from_secs(60));
    delegate.write("ca.pem", &ended.pem());
    let check = find(delegate.health().await, "ca_file");
    assert!(check.is_fatal(), "{check:?}");
}

#[tokio::test]
async fn tls_goes_through_a_proxy_too() {
    let authority = Authority::new("ours");
    let front = TlsFront::bind(&authority).await;
    let control_plane = TestControlPlane::start_behind(&front.url()).await;
    front.forward_to(control_plane.address);
    let proxy = TestProxy::start(None).await;
    let mut delegate = TestDelegate::new(&front.url());
    delegate.ca_file = Some(delegate.write("ca.pem", &authority.pem()));
    delegate.proxy = Some(ProxyUrl::parse(&proxy.url("")).unwrap());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    assert_eq!(proxy.tunnels(), 2);
}

#[tokio::test]
async fn a_task_reaches_the_runner_and_its_end_reaches_the_user() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    let runner = TestRunner::start(&delegate.runner_socket());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    let gitspace = control_plane.create_gitspace().await;
    control_plane.until_gitspace(&gitspace, "running").await;
    // Acknowledged, and so forgotten.
    runner
        .until(|state| state.forgotten == 1 && state.tasks.is_empty())
        .await;
}

#[tokio::test]
async fn a_delegate_that_is_killed_in_the_middle_of_a_task_loses_nothing() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    let runner = TestRunner::start(&delegate.runner_socket());
    runner.hold_ends();
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    let gitspace = control_plane.create_gitspace().await;
    runner.until(|state| state.tasks.len() == 1).await;
    delegate.kill().await;
    runner.let_ends_go();
    delegate.start().await;
    control_plane.until_gitspace(&gitspace, "running").await;
    runner
        .until(|state| state.forgotten == 1 && state.put == 1)
        .await;
}

#[tokio::test]
async fn a_runner_that_comes_late_is_told_to_the_control_plane() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    assert!(
        !control_plane.delegate().await["runner_ready"]
            .as_bool()
            .unwrap()
    );
    let gitspace = control_plane.create_gitspace().await;
    let runner = TestRunner::start(&delegate.runner_socket());
    control_plane.until_gitspace(&gitspace, "running").await;
    runner.until(|state| state.forgotten == 1).await;
}

#[tokio::test]
async fn a_revoked_delegate_is_hung_up_at_once_and_told_why() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    let asked = std::time::Instant::now();
    control_plane.revoke().await;
    let status = delegate.until_state(Stage::Backoff).await;
    let took = asked.elapsed();
    assert!(
        took.as_secs() < 1,
        "the live connection was closed after {took:?}"
    );
    let error = status.last_error.expect("says why");
    assert!(error.message.contains("revoked"), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("enroll")));
    assert_eq!(error.code, Some(DisconnectCode::Revoked));
    control_plane
        .until_delegate(|delegate| delegate["last_disconnect"]["code"] == "revoked")
        .await;
    let shown = control_plane.delegate().await;
    assert!(shown.get("last_refused").is_none(), "{shown}");
    delegate.link().reconnect();
    control_plane
        .until_delegate(|delegate| {
            let refused = &delegate["last_refused"];
            refused["code"] == "revoked" && refused["at"].is_string()
        })
        .await;
}

#[tokio::test]
async fn a_hello_of_five_thousand_gitspaces_is_taken() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    let runner = TestRunner::start(&delegate.runner_socket());
    runner.remembers_gone(5_000);
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    let seen = control_plane.delegate().await;
    assert!(seen["runner_ready"].as_bool().unwrap(), "{seen}");
}

#[tokio::test]
async fn the_older_of_two_clones_is_told_that_it_has_a_twin() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    let mut twin = delegate.clone_host();
    twin.start().await;
    twin.until_state(Stage::Live).await;
    let status = delegate.until_state(Stage::Backoff).await;
    let error = status.last_error.expect("says why");
    assert_eq!(error.code, Some(DisconnectCode::Superseded), "{error:?}");
    assert!(error.message.contains("another process"), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("cloned")));
}

#[tokio::test]
async fn two_clones_are_named_as_that_on_both_sides_and_do_not_throw_each_other_out_in_a_loop() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    let mut twin = delegate.clone_host();
    twin.start().await;
    twin.until_state(Stage::Live).await;
    delegate.until_state(Stage::Backoff).await;
    assert!(control_plane.delegate().await["cloned"].is_null());
    // Its back-off is over.
    delegate.link().reconnect();
    delegate.until_state(Stage::Live).await;
    let status = twin.until_state(Stage::Backoff).await;
    let error = status.last_error.expect("says why");
    assert_eq!(error.code, Some(DisconnectCode::Cloned), "{error:?}");
    assert!(
        error
            .hint
            .is_some_and(|hint| hint.contains("enroll --again"))
    );
    let pause = status
        .next_try
        .expect("dials again")
        .duration_since(error.at);
    assert!(pause.as_secs() > 400, "{pause}");
    let seen = control_plane.delegate().await;
    assert_eq!(
        seen["cloned"]["hosts"].as_array().unwrap().len(),
        2,
        "{seen}"
    );
    assert_eq!(seen["connected"], true);
}

#[tokio::test]
async fn a_reconnect_on_request_is_a_connection_of_a_later_epoch() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    let first = delegate.until_state(Stage::Live).await.epoch;
    delegate.link().reconnect();
    let status = delegate
        .until(|status| status.state == Stage::Live && status.epoch > first)
        .await;
    assert!(status.epoch > first);
}
