//! A host's identity: rotated, copied, revoked, and enrolled again, as an operator does it.

use crate::deployment::{Daemon, Deployment, Said, text};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// From the call that revokes to the end of the live connection.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

fn link(host: &Deployment) -> Result<Value> {
    let said = host.daemon(Daemon::Delegate, &["status", "-o", "json"])?;
    ensure!(said.code == 0, "{said:#?}");
    let status: Value = serde_json::from_str(&said.out)?;
    Ok(status.pointer("/is/link").cloned().unwrap_or_default())
}

/// With a token that is made with `token`.
fn enroll(host: &Deployment, token: &[&str], args: &[&str]) -> Result<Said> {
    let file = host.path("join-token");
    let create = [&["join-token", "create"], token].concat();
    std::fs::write(&file, host.ok(&create)?)?;
    let mut all = vec!["enroll", "--join-token-file", file.as_str()];
    all.extend(args);
    host.daemon(Daemon::Delegate, &all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_is_cut_off_within_a_second_and_comes_back_by_the_steps_it_is_told()
-> Result<()> {
    let mut host = Deployment::start_apart().await?;
    let id = text(&host.json(&["delegate", "show", "host"])?, "/id");
    ensure!(text(&link(&host)?, "/state") == "live", "{}", host.logs());

    let asked = Instant::now();
    host.ok(&["delegate", "revoke", "host"])?;
    let mut seen = link(&host)?;
    while text(&seen, "/state") == "live" {
        ensure!(
            asked.elapsed() < REVOKED_WITHIN,
            "it is connected after {:?}: {seen:#}",
            asked.elapsed()
        );
        seen = link(&host)?;
    }
    let took = asked.elapsed();
    ensure!(took < REVOKED_WITHIN, "it took {took:?}");
    ensure!(text(&seen, "/last_error/code") == "revoked", "{seen:#}");
    let hint = text(&seen, "/last_error/hint");
    for step in [
        "stop delegate-agent",
        "gitspace join-token create --delegate NAME",
        "delegate-agent enroll --again --join-token-file FILE",
    ] {
        ensure!(hint.contains(step), "no `{step}` in `{hint}`");
    }
    let doctor = host.daemon(Daemon::Delegate, &["doctor"])?;
    ensure!(
        doctor.code == 69 && doctor.out.contains("the delegate was revoked"),
        "{doctor:#?}"
    );

    host.stop(Daemon::Delegate)?;
    let kept = enroll(&host, &[], &[])?;
    ensure!(
        kept.code == 64 && kept.err.contains("--again"),
        "an identity is not thrown away unasked: {kept:#?}"
    );
    let other = enroll(&host, &[], &["--again"])?;
    ensure!(
        other.code == 77 && other.err.contains("join-token create --delegate"),
        "a token for any host gets another's gitspaces: {other:#?}"
    );
    let again = enroll(&host, &["--delegate", "host"], &["--again"])?;
    ensure!(again.code == 0, "{again:#?}");
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    let delegate = host.json(&["delegate", "show", "host"])?;
    ensure!(text(&delegate, "/id") == id, "it is another: {delegate:#}");
    Ok(())
}

/// Its control plane is in the same process, and is gone while that one is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_with_its_control_plane_inside_comes_back_when_its_identity_is_removed()
-> Result<()> {
    let mut host = Deployment::start().await?;
    let id = text(&host.json(&["delegate", "show", "host"])?, "/id");
    host.ok(&["delegate", "revoke", "host"])?;
    host.stop(Daemon::Delegate)?;
    std::fs::remove_file(host.path("delegate/identity.json"))?;
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    let delegate = host.json(&["delegate", "show", "host"])?;
    ensure!(text(&delegate, "/id") == id, "it is another: {delegate:#}");
    ensure!(
        delegate.pointer("/revoked") == Some(&Value::Bool(false)),
        "{delegate:#}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_shown_everywhere_and_a_restored_backup_is_named_as_one() -> Result<()> {
    let mut host = Deployment::start_apart().await?;
    let identity = host.path("delegate/identity.json");
    let backup = std::fs::read(&identity)?;
    let before = link(&host)?;
    let rotated = host.daemon(Daemon::Delegate, &["rotate", "-o", "json"])?;
    ensure!(rotated.code == 0, "{rotated:#?}\n{}", host.logs());
    let rotated: Value = serde_json::from_str(&rotated.out)?;
    let fingerprint = text(&rotated, "/key/fingerprint");
    let after = link(&host)?;
    ensure!(
        before.pointer("/epoch") == after.pointer("/epoch"),
        "the link was dropped: {before:#} {after:#}"
    );
    let shown = host.ok(&["delegate", "show", "host"])?;
    ensure!(shown.contains(&fingerprint), "{shown}");
    for command in ["doctor", "status"] {
        let said = host.daemon(Daemon::Delegate, &[command])?;
        ensure!(said.out.contains(&fingerprint), "{said:#?}");
    }

    // Where no daemon runs.
    host.stop(Daemon::Delegate)?;
    let said = host.daemon(Daemon::Delegate, &["rotate"])?;
    ensure!(
        said.code == 0 && said.out.contains(&fingerprint),
        "{said:#?}"
    );
    let newest = std::fs::read(&identity)?;

    std::fs::write(&identity, &backup)?;
    host.run(Daemon::Delegate)?;
    host.until("it is told why it is refused", |host| {
        Ok(link(host).is_ok_and(|link| text(&link, "/last_error/code") == "superseded_key"))
    })?;
    for command in ["health", "doctor"] {
        let said = host.daemon(Daemon::Delegate, &[command])?;
        ensure!(
            said.code != 0 && said.out.contains("superseded") && said.out.contains("revoke"),
            "{said:#?}"
        );
    }
    for daemon in [Daemon::Delegate, Daemon::ControlPlane] {
        let log = host.path(&format!("{}.log", daemon.binary()));
        let log = std::fs::read_to_string(&log)?;
        ensure!(log.contains("superseded_key"), "{daemon:?}: {log}");
    }
    std::fs::write(&identity, &newest)?;
    host.stop(Daemon::Delegate)?;
    host.run(Daemon::Delegate)?;
    host.until_ready()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_join_token_among_its_credentials_enrols_itself_when_the_control_plane_is_there()
-> Result<()> {
    let mut host = Deployment::prepare_apart().await?;
    host.run_control_plane()?;
    let credential = host.path("credentials/join-token");
    std::fs::write(&credential, host.ok(&["join-token", "create"])?)?;
    host.stop(Daemon::ControlPlane)?;

    host.run(Daemon::Runner)?;
    let doctor = host.daemon(Daemon::Delegate, &["doctor"])?;
    ensure!(
        doctor
            .out
            .contains("enrols with the credential `join-token`"),
        "{doctor:#?}"
    );
    host.run(Daemon::Delegate)?;
    host.until("it says why it is not enrolled yet", |host| {
        let health = host.daemon(Daemon::Delegate, &["health"])?;
        Ok(health.code == 75
            && health.out.contains("(enrolling)")
            && health.out.contains("Connection refused"))
    })?;
    host.run(Daemon::ControlPlane)?;
    host.until_ready()?;
    let delegates = host.json(&["delegate", "list"])?;
    ensure!(text(&delegates, "/0/name") == "host", "{delegates:#}");
    let id = text(&delegates, "/0/id");
    ensure!(credential.is_file(), "the credential is not the daemon's");
    let rotated = host.daemon(Daemon::Delegate, &["rotate"])?;
    ensure!(rotated.code == 0, "{rotated:#?}");

    // It is who it is from there on, whatever the credential says.
    host.stop(Daemon::Delegate)?;
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    let delegates = host.json(&["delegate", "list"])?;
    ensure!(
        text(&delegates, "/0/id") == id && delegates.pointer("/1").is_none(),
        "{delegates:#}"
    );

    // The same token on another host.
    host.stop(Daemon::Delegate)?;
    std::fs::remove_file(host.path("delegate/identity.json"))?;
    host.run(Daemon::Delegate)?;
    let code = host.ended(Daemon::Delegate)?;
    ensure!(code == 77, "a refused token ends it for good: {code}");
    let log = std::fs::read_to_string(host.path("delegate-agent.log"))?;
    ensure!(
        log.contains("the join token is used up") && log.contains("gitspace join-token create"),
        "{log}"
    );

    std::fs::remove_file(&credential)?;
    host.run(Daemon::Delegate)?;
    let code = host.ended(Daemon::Delegate)?;
    ensure!(code == 78, "nothing to enrol with: {code}");
    Ok(())
}
