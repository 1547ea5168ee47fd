//! Clone URLs, refs, names and bodies that mean harm, at the API of a real control plane.

use crate::{deployment::Deployment, docker};
use anyhow::{Result, ensure};

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_is_refused_with_its_reason_and_starts_nothing() -> Result<()> {
    let host = Deployment::start().await?;
    let before = host.json(&["list"])?;
    for url in [
        "ext::sh -c 'touch /tmp/gitspaces-canary'",
        "file:///etc/passwd",
        "/etc",
        "--upload-pack=touch /tmp/gitspaces-canary",
        "ssh://-oProxyCommand=touch%20/tmp/gitspaces-canary/x",
        "http://user:secret@example.com/x.git",
        "http://h/x\ny",
    ] {
        let body = serde_json::json!({ "repo": { "url": url } }).to_string();
        let said = host.api("POST", "/gitspaces", &body)?;
        ensure!(
            said.code == 22 && said.out.contains("\"code\"") && said.out.contains("message"),
            "{url}: {said:#?}"
        );
    }
    for (what, body) in [
        (
            "ref",
            r#"{"repo":{"url":"http://h/x.git","reference":"--upload-pack=x"}}"#,
        ),
        (
            "name",
            r#"{"repo":{"url":"http://h/x.git"},"name":"../../etc"}"#,
        ),
        (
            "unknown key",
            r#"{"repo":{"url":"http://h/x.git"},"runArgs":["--privileged"]}"#,
        ),
        ("type", r#"{"repo":[]}"#),
    ] {
        let said = host.api("POST", "/gitspaces", body)?;
        ensure!(
            said.code == 22 && said.out.contains("\"code\""),
            "{what}: {said:#?}"
        );
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    ensure!(host.api("POST", "/gitspaces", &deep)?.code == 22);
    let large = host.path("large.json");
    std::fs::write(
        &large,
        format!("{{\"name\":\"{}\"}}", "x".repeat(10_000_000)),
    )?;
    let said = host.curl(&[
        "--request",
        "POST",
        "--header",
        &format!("Authorization: Bearer {}", host.token()?),
        "--header",
        "Content-Type: application/json",
        "--data-binary",
        &format!("@{large}"),
        "--write-out",
        "%{http_code}",
        &format!("{}/api/v1/gitspaces", host.control_url()),
    ])?;
    ensure!(
        said.out.contains("413") || said.code == 55,
        "too large: {said:#?}"
    );
    ensure!(host.json(&["list"])? == before, "nothing was made");
    ensure!(
        !std::path::Path::new("/tmp/gitspaces-canary").exists(),
        "no command of theirs ran"
    );
    ensure!(
        docker::left_of(&host.label)?.len() <= 3,
        "nothing but the spare in Docker"
    );
    Ok(())
}
