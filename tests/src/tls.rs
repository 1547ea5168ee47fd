//! TLS that ends in the daemons: an authority of their own, and certificates that somebody else renews.

use crate::{
    deployment::{Daemon, Deployment, Said, text},
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use camino::Utf8Path;
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;
use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::Duration,
};

/// curl's code for a certificate that it does not take.
const NOT_TAKEN: i32 = 60;

fn status(host: &Deployment) -> Result<Value> {
    let said = admin(host, "status")?;
    let status: Value = serde_json::from_str(&said.out)?;
    status.pointer("/is").cloned().context("what it is")
}

/// One check of `readyz`.
fn check(host: &Deployment, code: &str) -> Result<Value> {
    let said = admin(host, "readyz")?;
    let readiness: Value = serde_json::from_str(&said.out)?;
    let checks = readiness.pointer("/checks").and_then(Value::as_array);
    let found = checks.and_then(|all| all.iter().find(|one| text(one, "/code") == code));
    found
        .cloned()
        .with_context(|| format!("{code}: {readiness:#}"))
}

fn is_ok(check: &Value) -> bool {
    check.pointer("/ok") == Some(&Value::Bool(true))
}

fn admin(host: &Deployment, route: &str) -> Result<Said> {
    host.curl(&[
        "--unix-socket",
        host.path("delegate-admin.sock").as_str(),
        &format!("http://localhost/{route}"),
    ])
}

/// The control plane, as somebody who is not logged in.
fn health(host: &Deployment, more: &[&str]) -> Result<Said> {
    let url = format!("{}/api/v1/healthz", host.control_url());
    let mut all = more.to_vec();
    all.push(&url);
    host.curl(&all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_with_an_authority_of_its_own_is_used_over_https_alone() -> Result<()> {
    let authority = "@/control-plane/tls/authority.pem";
    let mut host = Deployment::prepare_tls("private_ca = true", authority).await?;
    host.run_hosts_own()?;

    let folder = host.path("control-plane/tls");
    for secret in ["authority.key", "server.pem"] {
        let mode = fs::metadata(folder.join(secret))?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{secret}: {mode:o}");
    }
    let tls = status(&host)?;
    let sha256 = text(&tls, "/tls/authority/sha256");
    let openssl = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(folder.join("authority.pem"))
        .output()?;
    let openssl = String::from_utf8(openssl.stdout)?;
    ensure!(
        !sha256.is_empty() && openssl.contains(&sha256),
        "what status shows is what users compare: {tls:#} {openssl}"
    );
    let log = fs::read_to_string(host.log_path(Daemon::Delegate))?;
    ensure!(log.contains(&sha256), "the log of the first start has it");
    ensure!(is_ok(&check(&host, "tls_certificate")?), "{tls:#}");

    // Who does not know the authority takes nothing from it, and what is plain gets no answer.
    let known = health(&host, &[])?;
    ensure!(known.code == 0, "{known:#?}");
    let unknown = health(&host, &["--cacert", "/etc/ssl/certs/ca-certificates.crt"])?;
    ensure!(unknown.code == NOT_TAKEN, "{unknown:#?}");
    let plain = host.curl(&[&format!("http://127.0.0.1:{}/", host.control_port)])?;
    ensure!(plain.code != 0 && plain.out.is_empty(), "{plain:#?}");

    host.log_in()?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let said = host.gitspace(&["exec", "app", "--", "sh", "-c", "echo out; exit 3"])?;
    ensure!(said.code == 3 && said.out == "out\n", "{said:#?}");
    let said = host.gitspace(&["ssh", "app", "-oBatchMode=yes", "echo", "over ssh"])?;
    ensure!(said.code == 0 && said.out == "over ssh\n", "{said:#?}");

    let slug = text(&host.show("app")?, "/slug");
    let site = format!("8000--{slug}.{}", host.domain());
    let header = format!("gitspaces-grant: {}", text(&host.grant("app")?, "/grant"));
    host.until("the app answers", |host| {
        let answer = host.gateway(&site, "/", &["--header", &header])?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    })?;
    let answer = host
        .gateway(&site, "/", &["--header", &header])?
        .to_lowercase();
    ensure!(answer.contains("x-forwarded-proto: https"), "{answer}");
    let own = host.gateway(&site, "/", &[])?.to_lowercase();
    ensure!(own.contains("strict-transport-security: max-age="), "{own}");

    // A browser's way in; its cookie is for https and this one host.
    let link = host.ok(&["url", "app", "--login"])?;
    let page = host.curl(&["--include", link.trim()])?;
    ensure!(
        page.out.contains("__Host-gitspaces=") && page.out.contains("Secure"),
        "{page:#?}"
    );

    // The authority stays: nobody has to trust another one.
    ensure!(host.stop(Daemon::Delegate)? == 0, "it ends in order");
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    ensure!(
        text(&status(&host)?, "/tls/authority/sha256") == sha256,
        "the same after a restart"
    );
    host.ok(&["exec", "app", "--", "true"])?;
    Ok(())
}

/// An authority that the daemons know nothing of, as a company has one.
struct Company {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Company {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        // By another name than what it signs, which would pass for self-signed.
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Company");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// As whoever renews certificates writes them: two files, one after the other.
    fn sign(&self, dir: &Utf8Path, names: &[&str], until_year: i32) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.not_after = date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(dir.join("server.pem"), certificate.pem())?;
        fs::write(dir.join("server.key"), key.serialize_pem())?;
        Ok(fs::set_permissions(
            dir.join("server.key"),
            Permissions::from_mode(0o600),
        )?)
    }
}

const NAMES: [&str; 2] = ["localhost", "*.gitspaces.localhost"];
const GOOD: i32 = 2100;
const ENDED: i32 = 2020;

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_under_open_connections_and_a_worse_one_is_not() -> Result<()>
{
    let settings = "certificate = \"@/server.pem\"\nkey = \"@/server.key\"";
    let mut host = Deployment::prepare_tls(settings, "@/company.pem").await?;
    let company = Company::new()?;
    fs::write(host.path("company.pem"), &company.certificate)?;
    let root = host.path("");

    // A key for all to read is not served.
    company.sign(&root, &NAMES, GOOD)?;
    fs::set_permissions(host.path("server.key"), Permissions::from_mode(0o644))?;
    let said = host.daemon(Daemon::Delegate, &["run"])?;
    ensure!(said.code == 78, "{said:#?}");
    ensure!(
        said.err.contains("server.key") && said.err.contains("644"),
        "{said:#?}"
    );
    fs::set_permissions(host.path("server.key"), Permissions::from_mode(0o600))?;

    host.run_hosts_own()?;
    host.log_in()?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let served = |host: &Deployment| -> Result<String> { Ok(text(&status(host)?, "/tls/sha256")) };
    let first = served(&host)?;

    // It talks to the gateway over a WebSocket of its own.
    let mut shell = host
        .command(&["exec", "app", "--", "cat"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut to = shell.stdin.take().context("an input")?;
    let mut from = BufReader::new(shell.stdout.take().context("an output")?);
    let mut echo = |line: &str| -> Result<()> {
        writeln!(to, "{line}")?;
        let mut back = String::new();
        from.read_line(&mut back)?;
        ensure!(back.trim_end() == line, "{line} came back as {back}");
        Ok(())
    };
    echo("before")?;

    company.sign(&root, &NAMES, GOOD)?;
    host.signal(Daemon::Delegate, Signal::SIGHUP)?;
    host.until("the renewed certificate is served", |host| {
        Ok(served(host)? != first)
    })?;
    echo("after the renewal")?;
    ensure!(health(&host, &[])?.code == 0, "new connections are taken");
    host.ok(&["exec", "app", "--", "true"])?;

    // Worse ones are told, and change nothing.
    let second = served(&host)?;
    for (names, until, told) in [
        (&NAMES[..1], GOOD, "*.gitspaces.localhost"),
        (&NAMES[..], ENDED, "ended at 2020"),
    ] {
        company.sign(&root, names, until)?;
        host.signal(Daemon::Delegate, Signal::SIGHUP)?;
        host.until("the worse certificate is told", |host| {
            let check = check(host, "tls_reload")?;
            Ok(!is_ok(&check) && text(&check, "/cause").contains(told))
        })?;
        ensure!(host.is_ready()?, "it is a warning");
        ensure!(served(&host)? == second, "the one before stays");
        ensure!(health(&host, &[])?.code == 0, "and is taken");
    }
    fs::write(host.path("server.pem"), "half a fi")?;
    host.signal(Daemon::Delegate, Signal::SIGHUP)?;
    host.until("the broken file is told", |host| {
        Ok(text(&check(host, "tls_reload")?, "/cause").contains("holds no certificate"))
    })?;
    echo("after the worse ones")?;

    // Mended, it is found without a signal.
    company.sign(&root, &NAMES, GOOD)?;
    host.until("the mended certificate is served", |host| {
        Ok(served(host)? != second && is_ok(&check(host, "tls_reload")?))
    })?;
    echo("to the end")?;
    drop(to);
    ensure!(shell.wait()?.success(), "the connection ended in order");

    // A start with one that has ended: told, and refused by clients, not by the host's own link.
    host.stop(Daemon::Delegate)?;
    company.sign(&root, &NAMES, ENDED)?;
    host.run(Daemon::Delegate)?;
    host.until("the ended certificate is told", |host| {
        let socket = host.path("delegate-admin.sock").exists();
        Ok(socket && check(host, "tls_certificate").is_ok_and(|check| !is_ok(&check)))
    })?;
    host.until("the host's own link is live", |host| {
        Ok(is_ok(&check(host, "link")?))
    })?;
    ensure!(!host.is_ready()?, "no client can come in");
    ensure!(health(&host, &[])?.code == NOT_TAKEN, "clients see it");
    let said = host.gitspace(&["list"])?;
    ensure!(said.code != 0, "{said:#?}");

    company.sign(&root, &["other.example"], GOOD)?;
    host.signal(Daemon::Delegate, Signal::SIGHUP)?;
    host.until(
        "nothing better than a certificate with no name of ours is served",
        |host| Ok(text(&check(host, "tls_reload")?, "/cause").contains("localhost")),
    )?;
    company.sign(&root, &NAMES, GOOD)?;
    host.signal(Daemon::Delegate, Signal::SIGHUP)?;
    host.until_ready()?;
    host.ok(&["exec", "app", "--", "true"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_play_for_time_in_the_handshake_keep_nobody_out() -> Result<()> {
    let authority = "@/control-plane/tls/authority.pem";
    let mut host = Deployment::prepare_tls("private_ca = true", authority).await?;
    host.run_hosts_own()?;
    let mut silent = Vec::new();
    for port in [host.control_port, host.gateway_port] {
        for _ in 0..700 {
            silent.push(std::net::TcpStream::connect(("127.0.0.1", port))?);
        }
    }
    host.log_in()?;
    let any = format!("demo.{}", host.domain());
    let answer = host.gateway(&any, "/", &[])?;
    ensure!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    // They are hung up on, not kept.
    let mut last = silent.pop().context("a connection")?;
    last.set_read_timeout(Some(Duration::from_secs(30)))?;
    let read = std::io::Read::read(&mut last, &mut [0; 8])?;
    ensure!(read == 0, "it is closed");
    Ok(())
}
