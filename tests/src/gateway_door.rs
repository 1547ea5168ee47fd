//! The gateway's door with a real gitspace behind it.

use crate::{
    deployment::{Deployment, text},
    lifecycle::APP,
};
use anyhow::{Result, ensure};

#[tokio::test(flavor = "multi_thread")]
async fn only_a_grant_for_this_gitspace_passes_and_the_app_never_sees_it() -> Result<()> {
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "one", "--wait"])?;
    host.ok(&["create", &url, "--name", "two", "--wait"])?;
    let slug = |name: &str| -> Result<String> { Ok(text(&host.show(name)?, "/slug")) };
    let (one, two) = (
        format!("8000--{}.localhost", slug("one")?),
        format!("8000--{}.localhost", slug("two")?),
    );
    let grant = text(&host.grant("one")?, "/grant");
    let header = format!("gitspaces-grant: {grant}");
    host.until("the app answers", |host| {
        Ok(host
            .gateway(&one, "/", &["--header", &header])?
            .starts_with("HTTP/1.1 200"))
    })?;

    let app_log = "cat /tmp/app.log";
    let lines_before = host.ok(&["exec", "one", "--", "sh", "-c", app_log])?;
    let status = |host_name: &str, args: &[&str]| -> Result<String> {
        Ok(host
            .gateway(host_name, "/secret", args)?
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned())
    };
    ensure!(status(&one, &[])?.contains("401"), "no grant");
    ensure!(
        status(&one, &["--header", "Accept: text/html"])?.contains("302"),
        "a browser is sent to log in"
    );
    // One character of the payload: its form stays right, its signature does not.
    let forged: String = grant
        .chars()
        .enumerate()
        .map(|(n, c)| {
            if n == 20 {
                if c == 'A' { 'B' } else { 'A' }
            } else {
                c
            }
        })
        .collect();
    ensure!(
        status(&one, &["--header", &format!("gitspaces-grant: {forged}")])?.contains("401"),
        "forged"
    );
    let other = status(&two, &["--header", &header])?;
    ensure!(
        other.contains("401") || other.contains("403"),
        "another gitspace's: {other}"
    );
    ensure!(
        status("localhost", &["--header", &header])?.contains("421"),
        "no gitspace's name"
    );
    ensure!(
        status("evil.example", &["--header", &header])?.contains("421"),
        "another domain"
    );
    let socket = [
        "--header",
        "Connection: Upgrade",
        "--header",
        "Upgrade: websocket",
        "--header",
        "Sec-WebSocket-Version: 13",
        "--header",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "--header",
        "Origin: http://evil.example",
        "--header",
        &header,
    ];
    ensure!(
        status(&one, &socket)?.contains("403"),
        "a foreign Origin's WebSocket"
    );
    let lines_after = host.ok(&["exec", "one", "--", "sh", "-c", app_log])?;
    ensure!(
        lines_before == lines_after,
        "no byte of them reached the app: {lines_after}"
    );

    let seen = host.gateway(
        &one,
        "/",
        &[
            "--header",
            &header,
            "--header",
            &format!("Cookie: a=b; gitspaces-grant={grant}; c=d"),
            "--header",
            "X-Forwarded-For: 1.2.3.4",
            "--header",
            "X-Forwarded-Proto: gopher",
        ],
    )?;
    ensure!(
        !seen.contains(&grant) && !seen.contains("1.2.3.4") && !seen.contains("gopher"),
        "{seen}"
    );
    ensure!(
        seen.contains("a=b") && seen.contains("c=d"),
        "the app's own cookies stay: {seen}"
    );

    // The browser's way: a link that opens once.
    let link = host.ok(&["url", "one", "--login"])?;
    let link = link.trim();
    let jar = host.path("cookies");
    let open = |jar: &str| {
        host.curl(&[
            "--include",
            "--location",
            "--resolve",
            &format!(
                "{}.localhost:{}:127.0.0.1",
                slug("one").unwrap_or_default(),
                host.gateway_port
            ),
            "--cookie-jar",
            jar,
            "--cookie",
            jar,
            link,
        ])
    };
    let said = open(jar.as_str())?;
    ensure!(
        said.code == 0 && said.out.to_lowercase().contains("httponly"),
        "{said:#?}"
    );
    let again = open(host.path("other-cookies").as_str())?;
    ensure!(
        !again.out.contains("HTTP/1.1 200") || again.out.contains("login"),
        "the code opens once: {again:#?}"
    );

    // A deleted gitspace's grants are void at once.
    host.ok(&["delete", "one", "--wait"])?;
    ensure!(!status(&one, &["--header", &header])?.contains("200"));
    Ok(())
}
