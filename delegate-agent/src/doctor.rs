//! What is wrong on this host, before the first start or when nothing works: each step of the way is tried.
//!
//! Needs no running daemon, and changes nothing.

use crate::{
    ask::{AskError, CallError, ask, read},
    certificates::Certificates,
    checks,
    config::{Config, Embedded},
    identity::{Identity, IdentityFile},
    rotate::{self, ProveError},
    runner::Runner,
    transport::{ProxyEnv, Transport},
};
use admin::{Check, Severity};
use bytes::Bytes;
use daemon::{Clock, ErrorChain, Hint as _};
use http::{Request, Response, header};
use http_body_util::Full;
use std::sync::Arc;

const STATE_DIR: &str = "state_dir";
const IDENTITY: &str = "identity";
const CONTROL_PLANE: &str = "control_plane";
const ADMIN_SOCKET: &str = "admin_socket";
const CONTROL_PLANE_LISTEN: &str = "control_plane_listen";
const GATEWAY_LISTEN: &str = "gateway_listen";
const EMBEDDED_STATE: &str = "control_plane_state_dir";
const SEAL_KEY: &str = "seal_key";
const SSH_LISTEN: &str = "ssh_listen";
const SSH_HOST_KEY: &str = "ssh_host_key";

/// As its binary is called.
const DAEMON: &str = "delegate-agent";

/// Every check that can be made from here.
pub async fn examine(
    config: &Config,
    proxy_env: &ProxyEnv,
    has_join_token: bool,
    clock: &Arc<dyn Clock>,
) -> Vec<Check> {
    let (running, is_running) = Check::running(&config.state_dir, DAEMON);
    let mut checks = vec![
        running,
        Check::writable(STATE_DIR, &config.state_dir, DAEMON),
        Check::drain_file(&config.state_dir),
        Check::socket(ADMIN_SOCKET, &config.admin_socket, DAEMON, is_running),
        Check::disk(
            checks::STATE_DISK,
            "the delegate's state",
            &admin::nearest(&config.state_dir),
        )
        .await,
        identity(config, has_join_token),
    ];
    if let Some(embedded) = &config.embedded {
        checks.extend(self::embedded(embedded, is_running));
    }
    checks.extend(if is_own(config) && !is_running {
        vec![Check::good(
            CONTROL_PLANE,
            Severity::Error,
            "it is embedded, and answers when delegate-agent runs",
        )]
    } else {
        control_plane(config, proxy_env, clock).await
    });
    checks.extend(checks::runner(&Runner::new(&config.runner_socket)).await);
    checks
}

/// Whether the control plane that the host connects to is the one in its own process.
fn is_own(config: &Config) -> bool {
    config
        .embedded
        .as_ref()
        .is_some_and(|embedded| embedded.public_url == config.control_plane_url)
}

/// What the control plane and the gateway take that start with the delegate.
fn embedded(embedded: &Embedded, is_running: bool) -> Vec<Check> {
    let mut checks = vec![
        Check::writable(EMBEDDED_STATE, &embedded.state_dir, DAEMON),
        Check::address(
            CONTROL_PLANE_LISTEN,
            "the embedded control plane",
            embedded.listen,
            is_running,
        ),
        match control_plane::look_at_seal_key(&embedded.state_dir) {
            Ok(()) => Check::good(SEAL_KEY, Severity::Error, "it can be used, or is made"),
            Err(error) => Check::bad(SEAL_KEY, Severity::Error, "a start refuses it")
                .cause(ErrorChain(&error).to_string())
                .fix("restore `seal.key` from the backup of the database, with mode 0600"),
        },
    ];
    if let Some(gateway) = &embedded.gateway {
        let what = "the embedded gateway";
        checks.push(Check::address(
            GATEWAY_LISTEN,
            what,
            gateway.listen,
            is_running,
        ));
        if let Some(ssh) = gateway.ssh {
            let what = "the embedded gateway's SSH";
            checks.push(Check::address(SSH_LISTEN, what, ssh.listen, is_running));
            let file = crate::embedded::ssh_host_key(&embedded.state_dir);
            checks.push(match gateway::look_at_ssh_host_key(&file) {
                Ok(()) => Check::good(SSH_HOST_KEY, Severity::Error, "it can be used, or is made"),
                Err(error) => {
                    let check = Check::bad(SSH_HOST_KEY, Severity::Error, "a start refuses it")
                        .cause(ErrorChain(&error).to_string());
                    match error.hint() {
                        Some(hint) => check.fix(hint),
                        None => check,
                    }
                }
            });
        }
    }
    checks
}

fn identity(config: &Config, has_join_token: bool) -> Check {
    let file = IdentityFile::new(config.state_dir.clone());
    let not_yet = |summary: String| {
        Check::bad(IDENTITY, Severity::Error, summary).fix(
            "make a join token with `gitspace join-token create`, and run `delegate-agent enroll --url URL --join-token-file FILE`",
        )
    };
    match file.load() {
        Err(error) => {
            let check = Check::bad(IDENTITY, Severity::Error, "the identity cannot be used")
                .cause(ErrorChain(&error).to_string());
            match error.hint() {
                Some(hint) => check.fix(hint),
                None => check,
            }
        }
        Ok(None) if config.embedded.is_some() => Check::good(
            IDENTITY,
            Severity::Error,
            "enrols at the embedded control plane by itself",
        ),
        Ok(None | Some(Identity { delegate: None, .. })) if has_join_token => Check::good(
            IDENTITY,
            Severity::Error,
            "enrols with the credential `join-token` when it starts",
        ),
        Ok(None) => not_yet("this host is not enrolled".to_owned()),
        Ok(Some(Identity {
            delegate: Some(delegate),
            name,
            control_plane,
            ..
        })) => {
            let configured = config.control_plane_url.ascii();
            if control_plane == configured || config.embedded.is_some() {
                Check::good(
                    IDENTITY,
                    Severity::Error,
                    format!("enrolled at {control_plane} as `{name}` ({delegate})"),
                )
            } else {
                Check::bad(
                    IDENTITY,
                    Severity::Error,
                    format!("enrolled at {control_plane}, and `control_plane_url` is {configured}"),
                )
                .fix("set `control_plane_url` back, or enrol anew with `delegate-agent enroll --again`")
            }
        }
        Ok(Some(_)) => not_yet("an enrolment was begun and not finished".to_owned()),
    }
}

/// The way there, and the clocks at both ends.
async fn control_plane(
    config: &Config,
    proxy_env: &ProxyEnv,
    clock: &Arc<dyn Clock>,
) -> Vec<Check> {
    let url = &config.control_plane_url;
    let failed = |cause: String, fix: Option<String>| {
        let check = Check::bad(
            CONTROL_PLANE,
            Severity::Error,
            format!("{url} cannot be reached"),
        )
        .cause(cause);
        let check = match fix {
            Some(fix) => check.fix(fix),
            None => check,
        };
        vec![
            check,
            Check::bad(checks::CLOCK, Severity::Error, "cannot be compared")
                .because_of(CONTROL_PLANE),
        ]
    };
    let transport = Transport::new(
        url.clone(),
        config.proxy.clone(),
        proxy_env,
        config.trusted().as_deref(),
    );
    let transport = match transport {
        Ok(transport) => transport,
        Err(error) => return failed(ErrorChain(&error).to_string(), error.hint()),
    };
    match look(&transport).await {
        Err(error) => {
            let fix = if config.embedded.is_some() {
                Some("it is embedded: it answers while delegate-agent runs".to_owned())
            } else {
                error.hint()
            };
            failed(ErrorChain(&error).to_string(), fix)
        }
        Ok(answer) => {
            let skew = answer
                .headers()
                .get(header::DATE)
                .and_then(|date| date.to_str().ok())
                .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
                .map(|date| date.timestamp().as_second() - clock.now().as_second());
            let mut checks = vec![
                Check::good(CONTROL_PLANE, Severity::Error, format!("{url} answers")),
                checks::clock(skew.map(|seconds| seconds.saturating_mul(1_000))),
            ];
            checks.extend(key(config, &transport, &**clock).await);
            let certificates = Certificates {
                served: None,
                transport,
                ca_file: config.trusted(),
                warn_days: config.certificate_warn_days,
                clock: Arc::clone(clock),
            };
            checks.extend(certificates.checks().await);
            checks
        }
    }
}

/// Whether the control plane would let this host in. `identity` says where there is nothing to ask about.
async fn key(config: &Config, transport: &Transport, clock: &dyn Clock) -> Option<Check> {
    let file = IdentityFile::new(config.state_dir.clone());
    let identity = file.load().ok().flatten()?;
    let delegate = identity.delegate?;
    let fingerprint = identity.key.public().kid();
    Some(
        match rotate::check(transport, delegate, &identity.key, clock).await {
            Ok(_) if file.load_next().ok().flatten().is_some() => checks::unfinished_rotation(),
            Ok(state) => Check::good(
                checks::KEY,
                Severity::Error,
                format!(
                    "the control plane takes {fingerprint}, since {}",
                    state.since
                ),
            ),
            Err(ProveError::Call(error)) if error.is_unknown_call() => Check::good(
                checks::KEY,
                Severity::Error,
                "cannot be asked about: the control plane is older",
            ),
            Err(error) => {
                let check = Check::bad(
                    checks::KEY,
                    Severity::Error,
                    format!("the control plane does not take {fingerprint}"),
                )
                .cause(ErrorChain(&error).to_string());
                let hint = match &error {
                    ProveError::Call(error) => error.hint(),
                    ProveError::Sign(_) => None,
                };
                match hint {
                    Some(hint) => check.fix(hint),
                    None => check,
                }
            }
        },
    )
}

/// What the control plane says of its own health; only the head is read further.
async fn look(transport: &Transport) -> Result<Response<Bytes>, CallError> {
    #[derive(serde::Deserialize)]
    struct Health {
        #[serde(rename = "status")]
        _status: String,
    }
    let request = Request::get("/api/v1/healthz").body(Full::default());
    let request = request.map_err(|source| AskError::Http {
        control_plane: transport.origin().ascii(),
        source: source.into(),
    })?;
    let answer = ask(transport, request, || {}).await?;
    read::<Health>(transport, &answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use camino::Utf8Path;
    use daemon::Credentials;
    use daemon::SystemClock;
    use gateway::SshListen;
    use std::net::{SocketAddr, TcpListener};

    fn settings(root: &Utf8Path, listen: [SocketAddr; 2]) -> Settings {
        let mut settings = Settings {
            name: Some("host-1".to_owned()),
            state_dir: Some(root.join("state")),
            runner_socket: Some(root.join("none.sock")),
            admin_socket: Some(root.join("run/admin.sock")),
            ..Settings::default()
        };
        let embedded = &mut settings.embedded;
        embedded.control_plane.enabled = true;
        embedded.control_plane.state_dir = root.join("control-plane");
        embedded.gateway.enabled = true;
        [embedded.control_plane.listen, embedded.gateway.listen] = listen;
        // Not beside the gateway's, which somebody else may have.
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        embedded.gateway.ssh_listen = Some(SshListen::At(any));
        settings
    }

    async fn fatal(settings: Settings) -> Vec<String> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let config = settings.check(&Credentials::default()).unwrap();
        examine(&config, &ProxyEnv::default(), false, &clock)
            .await
            .into_iter()
            .filter(Check::is_fatal)
            .map(|check| check.code)
            .filter(|code| code != checks::RUNNER)
            .collect()
    }

    #[tokio::test]
    async fn what_a_start_would_refuse_is_told_before_it_and_a_host_before_its_first_start_is_well()
    {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        let free = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = [(), ()].map(free);
        let listen = taken
            .each_ref()
            .map(|listener| listener.local_addr().unwrap());
        let in_use = fatal(settings(root, listen)).await;
        assert_eq!(in_use, [CONTROL_PLANE_LISTEN, GATEWAY_LISTEN]);
        drop(taken);
        assert!(fatal(settings(root, listen)).await.is_empty());
        assert!(!root.join("state").exists() && !root.join("control-plane").exists());
        let [one, _] = listen;
        let twice = settings(root, [one, one]).check(&Credentials::default());
        let said = twice.unwrap_err().to_string();
        assert!(said.contains("are both 127.0.0.1:"), "{said}");

        let file = root.join("file");
        std::fs::write(&file, "x").unwrap();
        let mut wrong = settings(root, listen);
        wrong.admin_socket = Some(file.join("admin.sock"));
        wrong.embedded.control_plane.state_dir = file;
        assert_eq!(fatal(wrong).await, [ADMIN_SOCKET, EMBEDDED_STATE]);

        for name in ["state", "control-plane"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        std::fs::write(root.join("state/drain.json"), "cut").unwrap();
        for key in ["seal.key", "ssh_host_ed25519_key"] {
            std::fs::write(root.join("control-plane").join(key), "cut").unwrap();
        }
        let found = fatal(settings(root, listen)).await;
        assert_eq!(found, ["drain_file", SEAL_KEY, SSH_HOST_KEY]);
        std::fs::remove_file(root.join("state/drain.json")).unwrap();
        for key in ["seal.key", "ssh_host_ed25519_key"] {
            std::fs::remove_file(root.join("control-plane").join(key)).unwrap();
        }
        let taken = free(());
        let mut ssh = settings(root, listen);
        let address = taken.local_addr().unwrap();
        ssh.embedded.gateway.ssh_listen = Some(SshListen::At(address));
        assert_eq!(fatal(ssh).await, [SSH_LISTEN]);

        // A daemon that runs has all of it.
        let _taken = listen.map(|address| TcpListener::bind(address).unwrap());
        let config = settings(root, listen)
            .check(&Credentials::default())
            .unwrap();
        let checks = embedded(&config.embedded.unwrap(), true);
        assert!(checks.iter().all(|check| check.ok), "{checks:#?}");
    }
}
