//! What the gateway tells on its admin socket; the routes are those of every daemon, see the `admin` crate.

use admin::{
    About, Check, Registry, Severity, Subject,
    metrics::{counter, gauge},
};
use camino::Utf8PathBuf;
use daemon::ErrorChain;
use gateway::{GatewayView, TunnelsView};
use http::StatusCode;
use jiff::Timestamp;
use local_rpc::Client;
use serde_json::{Value, json};
use std::time::Duration;
use tls_server::ServedCertificate;
use wire::{
    control::{HopProblem, ProbeReport},
    problem::Problem,
    runner::HostReport,
};

/// Whoever asks wants to know how it is, not how long the runner may take.
const RUNNER_LIMIT: Duration = Duration::from_secs(2);

const LINK: &str = "gateway_link";
const DATA_PATH: &str = "data_path";
const RUNNER: &str = "runner_socket";
const TUNNELS: &str = "tunnels";

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) gateway: GatewayView,
    /// Of this host, where there is one.
    pub(crate) runner: Option<Client>,
    pub(crate) certificate: Option<ServedCertificate>,
    pub(crate) certificate_warn_days: u32,
    pub(crate) config_files: Vec<Utf8PathBuf>,
}

/// As the last probe found it.
fn data_path(probe: Option<(Timestamp, ProbeReport)>) -> Check {
    let Some((at, report)) = probe else {
        return Check::good(DATA_PATH, Severity::Warning, "not probed yet");
    };
    let failed = report.hops.iter().find(|hop| hop.is_failed());
    let Some(failed) = failed else {
        return Check::good(
            DATA_PATH,
            Severity::Warning,
            format!(
                "the way into gitspaces is whole, and {} of their agents answer; probed at {at}",
                report.agents
            ),
        );
    };
    let of = failed
        .gitspace
        .map_or_else(String::new, |gitspace| format!(" of gitspace {gitspace}"));
    let check = Check::bad(
        DATA_PATH,
        Severity::Warning,
        format!(
            "the way into gitspaces ends at `{}`{of}; probed at {at}",
            failed.hop
        ),
    );
    match &failed.problem {
        Some(HopProblem::Failed { reason, hint }) => check
            .cause(reason)
            .fix(hint.as_deref().unwrap_or("see `runner-agent doctor`")),
        Some(HopProblem::NotSupported { .. } | HopProblem::Other) | None => check,
    }
}

async fn local_runner(runner: &Client) -> Check {
    let runner = runner.clone().with_deadline(RUNNER_LIMIT);
    match runner.get::<HostReport>("/v1/host").await {
        Ok(report) => Check::good(
            RUNNER,
            Severity::Error,
            format!("runner-agent {} answers", report.version),
        ),
        Err(error) => Check::bad(RUNNER, Severity::Error, "runner-agent does not answer")
            .cause(ErrorChain(&error).to_string())
            .fix("see `systemctl status runner-agent`, and whether the gateway's user is in the API socket's group; where no runner is to be here, set `runner_socket = \"off\"`"),
    }
}

/// A gateway that stands alone leads nowhere without one.
fn tunnel_ends(tunnels: TunnelsView, has_runner: bool) -> Check {
    let TunnelsView {
        delegates,
        lines,
        streams,
    } = tunnels;
    if delegates > 0 || has_runner {
        return Check::good(
            TUNNELS,
            Severity::Warning,
            format!(
                "delegates with tunnels to it: {delegates}; tunnels: {lines}; streams: {streams}"
            ),
        );
    }
    Check::bad(TUNNELS, Severity::Warning, "no delegate has a tunnel to it")
        .cause("no host is connected, or none reaches this gateway at its public URL")
        .fix("see `delegate-agent status` on a host: `tunnels` says why; `tunnel_url` is where they try")
}

impl Subject for Admin {
    fn about(&self) -> About {
        About {
            daemon: "gitspaces-gateway".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    async fn checks(&self) -> Vec<Check> {
        let link = self.gateway.link();
        let link = match (link.up_since, link.last_error) {
            (Some(since), _) => Check::good(
                LINK,
                Severity::Error,
                format!("connected to the control plane since {since}"),
            ),
            (None, error) => {
                let check = Check::bad(
                    LINK,
                    Severity::Error,
                    "not connected to the control plane: grants, routes and revocations are as they were",
                )
                .fix("is the control plane running, and is the gateway's token one of its own? `gitspace gateway list`");
                match error {
                    Some(error) => check.cause(error),
                    None => check,
                }
            }
        };
        let mut checks = vec![link];
        if let Some(runner) = &self.runner {
            checks.push(local_runner(runner).await);
        }
        if let Some(tunnels) = self.gateway.tunnels() {
            checks.push(tunnel_ends(tunnels, self.runner.is_some()));
        }
        let leads = self.runner.is_some()
            || self
                .gateway
                .tunnels()
                .is_some_and(|tunnels| tunnels.delegates > 0);
        if leads {
            checks.push(data_path(self.gateway.probe()));
        }
        if let Some(certificate) = &self.certificate {
            checks.extend(certificate.checks(self.certificate_warn_days));
        }
        checks
    }

    async fn status(&self) -> Value {
        let link = self.gateway.link();
        json!({
            "link": {
                "up_since": link.up_since,
                "connections": link.connections,
                "last_error": link.last_error,
            },
            "routes": self.gateway.routes(),
            "probe": self.gateway.probe(),
            "connections": self.gateway.connections(),
            "tunnels": self.gateway.tunnels().map(|tunnels| json!({
                "delegates": tunnels.delegates,
                "lines": tunnels.lines,
                "streams": tunnels.streams,
            })),
            "ssh": self.gateway.ssh().map(|ssh| json!({
                "sessions": ssh.sessions,
                "strangers": ssh.strangers,
                "opened": ssh.opened,
                "refused": ssh.refused,
                "turned_away": ssh.turned_away,
                "bytes": ssh.bytes,
            })),
            "tls": self.certificate.as_ref().map(ServedCertificate::view),
        })
    }

    /// It holds none.
    async fn tasks(&self) -> Value {
        json!([])
    }

    fn metrics(&self, registry: &mut Registry) {
        if let Some(certificate) = &self.certificate {
            certificate.metrics(registry);
        }
        let link = self.gateway.link();
        gauge(
            registry,
            "gitspaces_link_live",
            "Whether the link to the control plane is live",
            u64::from(link.up_since.is_some()),
        );
        counter(
            registry,
            "gitspaces_link_connections",
            "Times that the link became live",
            link.connections,
        );
        if let Some((_, report)) = self.gateway.probe() {
            gauge(
                registry,
                "gitspaces_gateway_path_whole",
                "Whether the last probe came as far as Docker",
                u64::from(report.broken_at().is_none()),
            );
            gauge(
                registry,
                "gitspaces_agents_silent",
                "Agents that did not answer the last probe",
                u64::from(report.silent_agents),
            );
        }
        gauge(
            registry,
            "gitspaces_gateway_routes",
            "Gitspaces that it knows a way to",
            u64::try_from(self.gateway.routes()).unwrap_or(u64::MAX),
        );
        gauge(
            registry,
            "gitspaces_gateway_connections",
            "Open connections of clients",
            u64::try_from(self.gateway.connections()).unwrap_or(u64::MAX),
        );
        if let Some(tunnels) = self.gateway.tunnels() {
            for (name, help, value) in [
                (
                    "gitspaces_gateway_tunnel_delegates",
                    "Delegates that have a tunnel to it",
                    tunnels.delegates,
                ),
                (
                    "gitspaces_gateway_tunnel_lines",
                    "Lines of tunnels that are open",
                    tunnels.lines,
                ),
                (
                    "gitspaces_gateway_tunnel_streams",
                    "Streams that are open through tunnels",
                    tunnels.streams,
                ),
            ] {
                let value = u64::try_from(value).unwrap_or(u64::MAX);
                gauge(registry, name, help, value);
            }
        }
        if let Some(ssh) = self.gateway.ssh() {
            let known = ssh.sessions.saturating_sub(ssh.strangers);
            for (name, help, value) in [
                (
                    "gitspaces_gateway_ssh_sessions",
                    "SSH sessions of users that are open",
                    known,
                ),
                (
                    "gitspaces_gateway_ssh_strangers",
                    "SSH connections that wait for a login",
                    ssh.strangers,
                ),
            ] {
                gauge(
                    registry,
                    name,
                    help,
                    u64::try_from(value).unwrap_or(u64::MAX),
                );
            }
            for (name, help, value) in [
                (
                    "gitspaces_gateway_ssh_logins",
                    "SSH sessions so far whose user was let in",
                    ssh.opened,
                ),
                (
                    "gitspaces_gateway_ssh_refused",
                    "SSH connections so far that ended without a login",
                    ssh.refused,
                ),
                (
                    "gitspaces_gateway_ssh_turned_away",
                    "SSH connections so far that were too many",
                    ssh.turned_away,
                ),
                (
                    "gitspaces_gateway_ssh_bytes",
                    "Bytes that ended SSH sessions have passed on",
                    ssh.bytes,
                ),
            ] {
                counter(registry, name, help, value);
            }
        }
    }

    fn reconnect(&self) -> Result<(), (StatusCode, Problem)> {
        self.gateway.reconnect();
        Ok(())
    }

    fn config_files(&self) -> Vec<Utf8PathBuf> {
        self.config_files.clone()
    }
}
