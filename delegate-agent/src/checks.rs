//! What a running delegate needs, and how it is.

use crate::{
    runner::Runner,
    status::{Board, LinkStatus},
    uplink::clock_is_right,
};
use admin::{Check, Severity};
use camino::Utf8PathBuf;
use daemon::ErrorChain;
use link::client::Stage;
use std::time::Duration;

/// Whoever asks wants to know how it is, not how long the runner may take.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

pub(crate) const LINK: &str = "link";
pub(crate) const CLOCK: &str = "clock_skew";
pub(crate) const RUNNER: &str = "runner_socket";
/// The runner's to be unready for: the delegate does all that it can.
pub(crate) const RUNNER_DOCKER: &str = "runner_docker";
pub(crate) const STATE_DISK: &str = "state_disk";
pub(crate) const DRAINING: &str = "draining";

/// Where to look. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub(crate) board: Board,
    pub(crate) runner: Runner,
    pub(crate) state_dir: Utf8PathBuf,
}

impl Checks {
    pub(crate) async fn all(&self, draining: bool) -> Vec<Check> {
        let status = self.board.link.borrow().clone();
        let mut checks = vec![link(&status), clock(status.clock_skew_ms)];
        checks.extend(runner(&self.runner).await);
        checks.push(Check::disk(STATE_DISK, "the delegate's state", &self.state_dir).await);
        checks.push(if draining {
            Check::bad(
                DRAINING,
                Severity::Info,
                "drained: the control plane gives it nothing",
            )
            .fix("`delegate-agent undrain` takes work again")
        } else {
            Check::good(DRAINING, Severity::Info, "takes work")
        });
        checks
    }
}

fn link(status: &LinkStatus) -> Check {
    if status.state == Stage::Live {
        return Check::good(
            LINK,
            Severity::Error,
            format!("connected to {}", status.control_plane),
        );
    }
    let check = Check::bad(
        LINK,
        Severity::Error,
        format!(
            "not connected to {} ({})",
            status.control_plane, status.state
        ),
    );
    let Some(error) = &status.last_error else {
        return check.fix("`delegate-agent doctor` tries each step of the way");
    };
    check.cause(&error.message).fix(
        error
            .hint
            .clone()
            .unwrap_or_else(|| "`delegate-agent doctor` tries each step of the way".to_owned()),
    )
}

pub(crate) fn clock(skew_ms: Option<i64>) -> Check {
    let words = skew_ms.map_or_else(
        || "not compared yet".to_owned(),
        |skew| format!("{skew} ms behind the control plane's"),
    );
    if clock_is_right(skew_ms) {
        Check::good(CLOCK, Severity::Error, words)
    } else {
        Check::bad(CLOCK, Severity::Error, words)
            .cause("proofs and grants carry times: clocks that are half a minute apart make them worthless")
            .fix("set the clock of the host that is wrong, `timedatectl set-ntp true`")
    }
}

pub(crate) async fn runner(runner: &Runner) -> Vec<Check> {
    let answer = tokio::time::timeout(PROBE_LIMIT, runner.host()).await;
    let failed = |cause: String| {
        vec![
            Check::bad(RUNNER, Severity::Error, "runner-agent does not answer")
                .cause(cause)
                .fix("see `systemctl status runner-agent` and `runner-agent doctor`"),
            Check::bad(RUNNER_DOCKER, Severity::Warning, "not known").because_of(RUNNER),
        ]
    };
    match answer {
        Err(_) => failed(format!("no answer within {} s", PROBE_LIMIT.as_secs())),
        Ok(Err(error)) => failed(ErrorChain(&error).to_string()),
        Ok(Ok(report)) => {
            let up = Check::good(
                RUNNER,
                Severity::Error,
                format!("runner-agent {} answers", report.version),
            );
            let docker = match (report.docker_version, report.docker_failure) {
                (Some(version), _) => Check::good(
                    RUNNER_DOCKER,
                    Severity::Warning,
                    format!("Docker {version} answers the runner"),
                ),
                (None, failure) => {
                    let check = Check::bad(
                        RUNNER_DOCKER,
                        Severity::Warning,
                        "Docker does not answer the runner",
                    );
                    let (cause, fix) = failure
                        .map(|failure| (failure.detail.unwrap_or(failure.message), failure.hint))
                        .unwrap_or_default();
                    check
                        .cause(cause)
                        .fix(fix.unwrap_or_else(|| "see `runner-agent doctor`".to_owned()))
                }
            };
            vec![up, docker]
        }
    }
}
