//! What goes wrong in a user's hands: each is a timeline event with cause and hint, state `error`, and a next action that works.

use crate::deployment::{Deployment, text};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Creates `name`, expects state `error` with this code, and that the timeline says why and what to do.
fn fails(host: &Deployment, url: &str, extra: &[&str], name: &str, code: &str) -> Result<Value> {
    let mut args = vec!["create", url, "--name", name, "--wait"];
    args.extend(extra);
    let said = host.gitspace(&args)?;
    ensure!(said.code == 1, "{name}: {said:#?}\n{}", host.logs());
    ensure!(
        said.err.contains("hint:"),
        "{name}: the command says what to do: {said:#?}"
    );
    let shown = host.show(name)?;
    ensure!(text(&shown, "/state") == "error", "{name}: {shown:#}");
    let error = shown
        .get("error")
        .cloned()
        .with_context(|| format!("{name} has an error"))?;
    ensure!(text(&error, "/code") == code, "{name}: {error:#}");
    ensure!(
        !text(&error, "/hint").is_empty() && !text(&error, "/message").is_empty(),
        "{name}: {error:#}"
    );
    let events = host.events(name)?;
    ensure!(
        events
            .iter()
            .any(|event| text(event, "/failure/code") == code),
        "{name}: the timeline has it: {events:#?}"
    );
    Ok(error)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_with_git_says_why_and_can_be_left() -> Result<()> {
    let host = Deployment::start().await?;
    let good = host.git.repository("good", &[("README.md", "x")])?;
    host.git.repository("private", &[("README.md", "x")])?;

    fails(
        &host,
        "http://172.17.0.1:9/x/y.git",
        &[],
        "unreachable",
        "git_unreachable",
    )?;
    fails(
        &host,
        &good,
        &["--branch", "no-such-branch"],
        "branch",
        "git_ref_not_found",
    )?;
    fails(
        &host,
        &host.git.url("nothing-here"),
        &[],
        "missing",
        "git_repository_not_found",
    )?;
    fails(
        &host,
        &host.git.url("private"),
        &[],
        "private",
        "git_authentication",
    )?;

    // With the credential stored, the next start works; the password is nowhere in the gitspace's clone.
    let file = host.path("password");
    std::fs::write(&file, crate::git_server::PASSWORD)?;
    let store = |place: &str| -> Result<()> {
        let mut command =
            host.command(&["git-credential", "set", place, crate::git_server::USER])?;
        let status = command.stdin(std::fs::File::open(&file)?).status()?;
        ensure!(status.success());
        Ok(())
    };
    // One for https is not sent in the clear.
    store(host.git.address())?;
    let said = host.gitspace(&["start", "private", "--wait"])?;
    ensure!(said.code == 1, "{said:#?}");
    let shown = host.show("private")?;
    ensure!(
        text(&shown, "/error/code") == "git_authentication"
            && text(&shown, "/error/hint").contains(&format!("http://{}", host.git.address())),
        "{shown:#}"
    );
    store(&format!("http://{}", host.git.address()))?;
    host.ok(&["start", "private", "--wait"])?;
    let said = host.gitspace(&[
        "exec",
        "private",
        "--",
        "sh",
        "-c",
        "grep -r correct-horse . ; env | grep correct-horse; git fetch && echo fetched",
    ])?;
    ensure!(said.out == "fetched\n", "{said:#?}");

    for name in ["unreachable", "branch", "missing", "private"] {
        host.ok(&["delete", name, "--wait"])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_with_a_dev_container_says_why_and_can_be_mended() -> Result<()> {
    let host = Deployment::start().await?;
    let with = |name: &str, json: &str| {
        host.git
            .repository(name, &[(".devcontainer/devcontainer.json", json)])
    };

    let url = with("syntax", "{\n  \"image\": \"x\"\n  \"name\": 1\n}")?;
    let error = fails(&host, &url, &[], "syntax", "devcontainer_invalid")?;
    let words = format!("{} {}", text(&error, "/message"), text(&error, "/detail"));
    ensure!(
        words.contains("devcontainer.json") && words.contains("line 2, column 15"),
        "file, line and column: {words}"
    );

    let url = with("image", r#"{ "image": "localhost:1/no/such:image" }"#)?;
    let error = fails(&host, &url, &[], "image", "image_missing")?;
    ensure!(
        text(&error, "/message").contains("localhost:1/no/such:image"),
        "{error:#}"
    );

    let url = with("unsupported", r#"{ "privileged": true }"#)?;
    fails(&host, &url, &[], "unsupported", "devcontainer_unsupported")?;

    // The output of a failing command is kept, the gitspace can be entered and mended, and then starts.
    let url = with(
        "hook",
        r#"{ "postCreateCommand": "echo before-the-end; test -e mended || exit 7" }"#,
    )?;
    let error = fails(&host, &url, &[], "hook", "lifecycle_command_failed")?;
    ensure!(format!("{error}").contains('7'), "the exit code: {error:#}");
    ensure!(host.ok(&["logs", "hook"])?.contains("before-the-end"));
    ensure!(host.show("hook")?.get("reachable") == Some(&Value::Bool(true)));
    host.ok(&["exec", "hook", "--", "touch", "mended"])?;
    host.ok(&["start", "hook", "--wait"])?;
    ensure!(host.state("hook")? == "running");

    for name in ["syntax", "image", "unsupported", "hook"] {
        host.ok(&["delete", name, "--wait"])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named() -> Result<()> {
    let host = Deployment::start_with(
        "volume_options = { type = \"tmpfs\", device = \"tmpfs\", o = \"size=1m\" }",
    )
    .await?;
    let noise: String = (0..300_000_u32)
        .map(|n| format!("{:x}\n", n.wrapping_mul(2_654_435_761)))
        .collect();
    let url = host.git.repository("big", &[("noise", noise.as_str())])?;
    fails(&host, &url, &[], "big", "disk_full")?;
    host.ok(&["delete", "big", "--wait"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_docker_the_cause_is_said_and_a_start_works_once_it_is_there() -> Result<()> {
    let link = tempfile::tempdir()?;
    let socket = link.path().join("docker.sock");
    let host =
        Deployment::start_with(&format!("docker_host = \"unix://{}\"", socket.display())).await?;
    let url = host.git.repository("app", &[("README.md", "x")])?;
    host.ok(&["create", &url, "--name", "app", "--no-wait"])?;
    host.until("the timeline says that Docker does not answer", |host| {
        Ok(host.events("app")?.iter().any(|event| {
            text(event, "/failure/code") == "docker_unavailable"
                && !text(event, "/failure/hint").is_empty()
        }))
    })?;
    std::os::unix::fs::symlink("/var/run/docker.sock", &socket)?;
    host.until("it runs", |host| {
        if host.state("app")? == "error" {
            host.ok(&["start", "app"])?;
        }
        Ok(host.state("app")? == "running")
    })
}
