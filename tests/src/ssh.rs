//! SSH into gitspaces, as users and their editors open it.

use crate::{
    deployment::{Deployment, Said, free_port, text},
    lifecycle::APP,
};
use anyhow::{Result, ensure};
use camino::Utf8PathBuf;
use std::{
    fs,
    process::{Command, Stdio},
};

/// A program of OpenSSH's with what `gitspace config-ssh` wrote, and nobody to ask.
fn openssh(host: &Deployment, config: &Utf8PathBuf, program: &str, args: &[&str]) -> Result<Said> {
    let output = Command::new(program)
        .args(["-F", config.as_str(), "-oBatchMode=yes"])
        .args(args)
        .env("XDG_CONFIG_HOME", host.path("cli"))
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::null())
        .output()?;
    Ok(output.into())
}

fn good(said: Said) -> Result<String> {
    ensure!(said.code == 0, "{said:#?}");
    Ok(said.out)
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_scp_and_forwarded_ports_need_no_key_no_password_and_no_answer() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    let config = host.path("ssh/config");
    let write = ["config-ssh", "--file", config.as_str()];
    ensure!(host.ok(&write)?.starts_with("wrote "), "the first time");
    // Made after the configuration was written.
    host.ok(&["create", &url, "--name", "demo", "--wait"])?;
    let run = |program: &str, args: &[&str]| openssh(&host, &config, program, args);

    let said = run(
        "ssh",
        &["demo.gitspace", "id -un; pwd; echo oops >&2; exit 7"],
    )?;
    let user = text(&host.show("demo")?, "/dev_container/remote_user");
    ensure!(said.code == 7, "{said:#?}");
    ensure!(
        said.out == format!("{user}\n/workspaces/app\n"),
        "{said:#?}"
    );
    ensure!(
        said.err == "oops\n",
        "nothing but the command speaks: {said:#?}"
    );

    // The key is the published one.
    let published = text(&host.show("demo")?, "/dev_container/ssh_host_key");
    let known = fs::read_to_string(host.path("cli/gitspaces/known_hosts/demo.gitspace"))?;
    ensure!(known == format!("demo.gitspace {published}\n"), "{known}");

    let file = host.path("big");
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&file, &bytes)?;
    good(run("scp", &["-q", file.as_str(), "demo.gitspace:there"])?)?;
    let back = host.path("back");
    good(run("scp", &["-q", "demo.gitspace:there", back.as_str()])?)?;
    ensure!(fs::read(&back)? == bytes, "it comes back as it went");

    // An app of the gitspace, over a connection that the client made.
    let port = free_port()?;
    let forward = format!("{port}:localhost:8000");
    let mut forwarding = Command::new("ssh")
        .args(["-F", config.as_str(), "-oBatchMode=yes"])
        .args([
            "-oExitOnForwardFailure=yes",
            "-N",
            "-L",
            &forward,
            "demo.gitspace",
        ])
        .env("XDG_CONFIG_HOME", host.path("cli"))
        .stdin(Stdio::null())
        .spawn()?;
    let reached = host.until("the app answers over ssh", |_| {
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
    });
    let answer = host.curl(&["--silent", &format!("http://127.0.0.1:{port}/")]);
    forwarding.kill()?;
    forwarding.wait()?;
    reached?;
    ensure!(answer?.code == 0, "the app answers");

    // Without any configuration.
    let said = host.gitspace(&["ssh", "demo", "-oBatchMode=yes", "echo", "plain"])?;
    ensure!(said.out == "plain\n" && said.code == 0, "{said:#?}");

    // An editor lists what there is; the user's own settings stay.
    fs::write(
        &config,
        fs::read_to_string(&config)? + "Host mine\n  Port 2222\n",
    )?;
    host.ok(&write)?;
    let written = fs::read_to_string(&config)?;
    ensure!(
        written.contains("\nHost demo.gitspace *.gitspace\n"),
        "{written}"
    );
    ensure!(
        host.ok(&write)?.contains("as it should be"),
        "a second time"
    );
    host.ok(&["config-ssh", "--remove", "--file", config.as_str()])?;
    ensure!(
        fs::read_to_string(&config)? == "Host mine\n  Port 2222\n",
        "nothing else is left"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_to_a_stopped_gitspace_starts_it_with_the_same_key_and_goes_on() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    let config = host.path("ssh/config");
    host.ok(&["config-ssh", "--file", config.as_str()])?;
    host.ok(&["create", &url, "--name", "demo", "--wait"])?;
    let run = |args: &[&str]| openssh(&host, &config, "ssh", args);
    good(run(&["demo.gitspace", "touch here"])?)?;
    let known = || fs::read_to_string(host.path("cli/gitspaces/known_hosts/demo.gitspace"));
    let before = known()?;

    host.ok(&["stop", "demo", "--wait"])?;
    let said = host.gitspace(&["ssh", "--no-start", "demo", "true"])?;
    ensure!(said.code == 255, "{said:#?}");
    ensure!(said.err.contains("stopped"), "it says why: {said:#?}");
    ensure!(host.state("demo")? == "stopped", "and starts nothing");

    let said = run(&["demo.gitspace", "ls here"])?;
    ensure!(said.code == 0 && said.out == "here\n", "{said:#?}");
    ensure!(said.err.contains("start"), "the wait is told: {said:#?}");
    ensure!(host.state("demo")? == "running", "it runs");

    // Another container, the same volume.
    host.ok(&["reset", "demo", "--wait"])?;
    good(run(&["demo.gitspace", "ls here"])?)?;
    ensure!(known()? == before, "its key stays with its files");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_opens_to_its_owner_alone() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    let config = host.path("ssh/config");
    host.ok(&["config-ssh", "--file", config.as_str()])?;
    host.ok(&["create", &url, "--name", "demo", "--wait"])?;
    let said = host.gitspace(&["ssh", "nobody", "true"])?;
    ensure!(said.code == 255 && said.err.contains("nobody"), "{said:#?}");
    let said = host.gitspace(&["ssh", "-oProxyCommand=evil", "true"])?;
    ensure!(said.code == 64, "an option is no name: {said:#?}");

    host.ok(&["user", "create", "other", "--role", "developer"])?;
    let token = host.ok(&["token", "create", "--name", "theirs", "--user", "other"])?;
    let other = host
        .command(&["--url", &host.control_url(), "ssh", "--stdio", "demo"])?
        .env("GITSPACES_TOKEN", token.trim())
        .output()?;
    let other = Said::from(other);
    ensure!(other.code == 66, "it is not there for others: {other:#?}");
    ensure!(other.out.is_empty(), "not a byte: {other:#?}");
    Ok(())
}
