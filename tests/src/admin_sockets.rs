//! What an operator sees and does on the admin sockets and with the sub-commands of the daemons.

use crate::{
    deployment::{Daemon, Deployment, text},
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

const OPERATIONS: &str = include_str!("../../docs/operations.md");

const BOTH: [Daemon; 2] = [Daemon::Delegate, Daemon::Runner];

/// The codes of `health` or `doctor`.
fn codes(json: &str) -> Result<BTreeSet<String>> {
    let readiness: Value = serde_json::from_str(json)?;
    let checks = readiness.pointer("/checks").and_then(Value::as_array);
    Ok(checks
        .context("checks")?
        .iter()
        .map(|check| text(check, "/code"))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_daemons_tell_how_they_are_and_every_check_has_its_paragraph() -> Result<()> {
    let host = Deployment::start().await?;
    let mut told = BTreeSet::new();
    for daemon in BOTH {
        // A runner that was slower to start than the delegate costs the link once.
        host.until("it is healthy", |host| {
            Ok(host.daemon(daemon, &["health"])?.code == 0)
        })?;
        let health = host.daemon(daemon, &["health", "-o", "json"])?;
        let doctor = host.daemon(daemon, &["doctor", "-o", "json"])?;
        ensure!(doctor.code == 0, "a running host is healthy: {doctor:#?}");
        told.extend(codes(&health.out)?);
        told.extend(codes(&doctor.out)?);

        let status = host.daemon(daemon, &["status"])?;
        ensure!(
            status.code == 0 && status.out.contains("draining: false"),
            "{status:#?}"
        );
        let metrics = host.daemon(daemon, &["metrics"])?;
        for wanted in [
            "gitspaces_daemon_info",
            "process_resident_memory_bytes",
            "# EOF",
        ] {
            ensure!(metrics.out.contains(wanted), "no {wanted} in {metrics:#?}");
        }
        let level = host.daemon(daemon, &["log-level", "warn,link=debug"])?;
        ensure!(level.out.contains("link=debug"), "{level:#?}");
        let wrong = host.daemon(daemon, &["log-level", "a=loud"])?;
        ensure!(
            wrong.code == 1 && wrong.err.contains("a=loud") && wrong.err.contains("hint: "),
            "{wrong:#?}"
        );
        let kept = host.daemon(daemon, &["log-level"])?;
        ensure!(
            kept.out.contains("link=debug"),
            "a wrong filter changes nothing: {kept:#?}"
        );
    }
    for code in &told {
        ensure!(
            OPERATIONS.contains(&format!("\n### {code}\n")),
            "docs/operations.md says nothing of the check `{code}`"
        );
    }
    ensure!(told.len() > 10, "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_and_gateway_tell_how_they_are_too() -> Result<()> {
    let host = Deployment::start_apart().await?;
    for daemon in [Daemon::ControlPlane, Daemon::Gateway] {
        let health = host.daemon(daemon, &["health", "-o", "json"])?;
        ensure!(health.code == 0, "{health:#?}");
        for code in codes(&health.out)? {
            ensure!(
                OPERATIONS.contains(&format!("\n### {code}\n")),
                "docs/operations.md says nothing of the check `{code}`"
            );
        }
        let metrics = host.daemon(daemon, &["metrics"])?;
        ensure!(
            metrics.out.contains("gitspaces_daemon_info"),
            "{metrics:#?}"
        );
        let refused = host.daemon(daemon, &["drain"])?;
        ensure!(refused.code == 64, "only hosts are drained: {refused:#?}");
    }
    let token = host.path("control-plane/admin-token");
    let made = host.daemon(Daemon::ControlPlane, &["admin-token"])?;
    ensure!(
        made.code == 0 && made.out.trim() == token && token.is_file(),
        "{made:#?}"
    );
    let refused = host.daemon(Daemon::Delegate, &["admin-token"])?;
    ensure!(
        refused.code == 1
            && refused
                .err
                .contains("no control plane runs in this process")
            && refused
                .err
                .contains("hint: ask the delegate-agent that embeds it"),
        "{refused:#?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_support_bundle_holds_no_secret_of_the_host() -> Result<()> {
    // Where people put them: a key of an older version, in a table, over several lines.
    let host = Deployment::start_with(
        "old = { proxy_password = \"hunter2-planted\" }\nold_token = \"\"\"\nhunter2-planted\n\"\"\"\n",
    )
    .await?;
    let secrets = [
        "hunter2-planted".to_owned(),
        host.token()?,
        text(
            &serde_json::from_str(&std::fs::read_to_string(
                host.path("delegate/identity.json"),
            )?)?,
            "/private_key",
        ),
    ];
    for daemon in BOTH {
        let path = host.path(&format!("{daemon:?}.tar"));
        let said = host.daemon(daemon, &["support-bundle", "--output", path.as_str()])?;
        ensure!(said.code == 0, "{said:#?}");
        let bundle = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        for wanted in [
            "support-bundle/checks.json",
            "support-bundle/log.txt",
            "state_dir = ",
        ] {
            ensure!(bundle.contains(wanted), "{daemon:?}: no {wanted}");
        }
        for secret in &secrets {
            ensure!(
                !secret.is_empty() && !bundle.contains(secret.as_str()),
                "{daemon:?} gives a secret away"
            );
        }
        let again = host.daemon(daemon, &["support-bundle", "--output", path.as_str()])?;
        ensure!(
            again.code == 1 && again.err.contains("hint: "),
            "nothing is written over: {again:#?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_host_takes_nothing_over_restarts_too_and_still_stops_what_it_has() -> Result<()>
{
    let mut host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "before", "--wait"])?;
    let said = host.daemon(Daemon::Delegate, &["drain", "--wait"])?;
    ensure!(said.code == 0 && said.out.contains("drained"), "{said:#?}");

    host.kill(Daemon::Delegate)?;
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    let said = host.daemon(Daemon::Delegate, &["status"])?;
    ensure!(said.out.contains("draining: true"), "{said:#?}");

    host.ok(&["create", &url, "--name", "after", "--no-wait"])?;
    host.until("it says that the host is drained", |host| {
        Ok(host.show("after")?.to_string().contains("drain"))
    })?;
    ensure!(
        host.state("before")? == "running",
        "what runs is left alone"
    );
    host.ok(&["stop", "before", "--wait"])?;

    let said = host.daemon(Daemon::Delegate, &["undrain"])?;
    ensure!(said.code == 0, "{said:#?}");
    host.until_state("after", "running")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_runner_refuses_starts_and_says_why() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    let said = host.daemon(Daemon::Runner, &["drain"])?;
    ensure!(said.code == 0, "{said:#?}");
    host.ok(&["create", &url, "--name", "app", "--no-wait"])?;
    host.until("it says why it does not start", |host| {
        Ok(host.show("app")?.to_string().contains("drain"))
    })?;
    ensure!(
        host.state("app")? == "starting",
        "it waits, and does not fail"
    );
    let said = host.daemon(Daemon::Runner, &["undrain"])?;
    ensure!(said.code == 0, "{said:#?}");
    host.until_state("app", "running")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_run_is_no_riddle() -> Result<()> {
    let mut host = Deployment::start().await?;
    host.kill(Daemon::Runner)?;
    let said = host.daemon(Daemon::Runner, &["status"])?;
    ensure!(
        said.code == 69 && said.err.contains("hint: ") && said.err.contains("runner-agent doctor"),
        "{said:#?}"
    );
    host.until("the delegate is not ready", |host| {
        Ok(host.daemon(Daemon::Delegate, &["health"])?.code == 75)
    })?;
    let said = host.daemon(Daemon::Delegate, &["health"])?;
    ensure!(
        said.out.contains("FAILED   runner_socket")
            && said.out.contains("mend `runner_socket` first"),
        "one cause is told once: {said:#?}"
    );
    Ok(())
}

/// A start that takes as long as somebody lets it.
const SLOW: &[(&str, &str)] = &[(
    ".devcontainer/devcontainer.json",
    r#"{ "onCreateCommand": "until test -e .go; do sleep 0.1; done" }"#,
)];

#[tokio::test(flavor = "multi_thread")]
async fn at_a_drains_deadline_a_start_is_handed_back_and_is_no_failed_attempt() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("slow", SLOW)?;
    host.ok(&["create", &url, "--name", "slow", "--no-wait"])?;
    let has_begun = |host: &Deployment| -> Result<usize> {
        let events = host.events("slow")?;
        let begun = |event: &&serde_json::Value| {
            text(event, "/phase") == "on_create_command" && text(event, "/kind") == "phase_started"
        };
        Ok(events.iter().filter(begun).count())
    };
    host.until("it has begun", |host| Ok(has_begun(host)? == 1))?;
    let said = host.daemon(Daemon::Delegate, &["drain", "--deadline", "1", "--wait"])?;
    ensure!(said.code == 0 && said.out.contains("drained"), "{said:#?}");
    let told = |host: &Deployment, words: &str| -> Result<bool> {
        let events = host.events("slow")?;
        Ok(events
            .iter()
            .any(|event| text(event, "/message").contains(words)))
    };
    host.until("it is handed back", |host| {
        told(host, "handed back by its host")
    })?;
    host.until("it waits for the host", |host| {
        Ok(text(&host.show("slow")?, "/error/message").contains("draining"))
    })?;

    let said = host.daemon(Daemon::Delegate, &["undrain"])?;
    ensure!(said.code == 0, "{said:#?}");
    host.until("it is given again", |host| Ok(has_begun(host)? == 2))?;
    ensure!(
        !told(&host, "attempt 2")? && !told(&host, "is tried again")?,
        "nothing failed: {:#?}",
        host.events("slow")?
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_may_only_dial_gets_nothing_else_of_the_runner() -> Result<()> {
    // No group of this host has it.
    const GATEWAYS: &str = "48713";
    let host = Deployment::start_with(&format!("dial_only_groups = [\"{GATEWAYS}\"]")).await?;
    let socket = host.path("runner.sock");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&socket, open)?;
    std::fs::set_permissions(
        host.path("."),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let ask = |group: &str, method: &str, path: &str| -> Result<String> {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", "48713", "--regid", group, "--clear-groups"])
            .args(["curl", "--silent", "--max-time", "20", "--request", method])
            .args(["--unix-socket", socket.as_str()])
            .arg(format!("http://localhost{path}"))
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (method, path) in [
        ("GET", "/v1/tasks"),
        ("GET", "/v1/gitspaces"),
        ("GET", "/v1/watch"),
    ] {
        let answer = ask(GATEWAYS, method, path)?;
        ensure!(
            answer.contains("\"dial_only\""),
            "{method} {path}: {answer}"
        );
    }
    let nobody = "00000000-0000-7000-8000-000000000000";
    for (method, path, code) in [
        (
            "GET",
            format!("/v1/gitspaces/{nobody}/ports"),
            "unknown_gitspace",
        ),
        (
            "POST",
            format!("/v1/gitspaces/{nobody}/dial?target=80"),
            "upgrade",
        ),
    ] {
        let answer = ask(GATEWAYS, method, &path)?;
        ensure!(
            answer.contains(code) && !answer.contains("dial_only"),
            "{method} {path}: {answer}"
        );
    }
    let answer = ask("48714", "GET", "/v1/tasks")?;
    ensure!(answer.contains("peer_refused"), "{answer}");
    Ok(())
}
