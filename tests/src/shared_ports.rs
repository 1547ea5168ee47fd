//! Ports that their owner shares, as a program, a browser and a colleague come to them.

use crate::{
    deployment::{Deployment, text},
    lifecycle::APP,
};
use anyhow::{Result, ensure};

const PAGE: &str = "Accept: text/html";

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_its_owner_s_until_they_share_it_and_again_when_they_do_not() -> Result<()> {
    let host = Deployment::start_apart_with("max_port_visibility = \"public\"\n").await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let workspace = text(&host.show("app")?, "/url");
    let port = host.ok(&["url", "app", "8000"])?;
    let port = port.trim();
    let status = |arguments: &[&str]| -> Result<String> {
        let code = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        Ok(host.curl(&[&code[..], arguments].concat())?.out)
    };
    host.until("the app answers its owner", |host| {
        let said = host.gitspace(&["exec", "app", "--", "curl", "-sf", "localhost:8000"])?;
        Ok(said.code == 0)
    })?;
    ensure!(status(&[port])? == "401", "its owner's alone");

    let said = host.ok(&["share", "app", "8000", "public"])?;
    ensure!(said.contains("everybody"), "{said}");
    host.until("anybody's program gets in", |host| {
        Ok(host.curl(&[port])?.out.starts_with("app /\n"))
    })?;
    let page = host.curl(&["--header", PAGE, port])?.out;
    ensure!(
        page.contains("shares port 8000") && !page.contains("app /"),
        "a person is told whose it is: {page}"
    );
    ensure!(status(&[&workspace])? == "401", "the rest is not shared");
    let listed = host.ok(&["ports", "app"])?;
    ensure!(listed.contains("public"), "{listed}");

    host.ok(&["share", "app", "8000"])?;
    host.until("anybody is kept out again", |_| {
        Ok(status(&[port])? == "401")
    })?;
    host.ok(&["user", "create", "other", "--role", "developer"])?;
    let token = host.ok(&["token", "create", "--name", "theirs", "--user", "other"])?;
    let (jar, control) = (host.path("jar"), host.control_url());
    let browser = ["--cookie", jar.as_str(), "--cookie-jar", jar.as_str()];
    let login = format!("{control}/login");
    let (origin, form) = (
        format!("Origin: {control}"),
        format!("token={}&next=/", token.trim()),
    );
    let posted = [
        &browser[..],
        &["--header", &origin, "--data", &form, &login],
    ]
    .concat();
    ensure!(status(&posted)? == "303", "a colleague logs in");
    let open = |url: &str| {
        let way = ["--location", "--header", PAGE, url];
        host.curl(&[&browser[..], &way].concat())
    };
    let seen = open(port)?.out;
    ensure!(seen.starts_with("app /\n"), "and gets in: {seen}");
    let seen = open(&workspace)?.out;
    ensure!(
        seen.contains("not_found") || seen.contains("no such") || seen.contains("No such"),
        "and no further: {seen}"
    );

    host.ok(&["share", "app", "8000", "private"])?;
    host.until("the colleague is kept out again", |_| {
        Ok(!open(port)?.out.starts_with("app /\n"))
    })?;
    host.ok(&["delete", "app", "--wait"])?;
    Ok(())
}
