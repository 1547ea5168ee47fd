//! What a running delegate needs, and how it is.

use crate::{
    certificates::Certificates,
    identity::IdentityFile,
    runner::Runner,
    status::{Board, LinkStatus},
    uplink::clock_is_right,
};
use admin::{Check, Severity};
use camino::Utf8PathBuf;
use daemon::{ErrorChain, Hint as _};
use link::client::Stage;
use std::time::Duration;
use wire::shown;

/// Whoever asks wants to know how it is, not how long the runner may take.
const RUNNER_LIMIT: Duration = Duration::from_secs(2);

pub(crate) const LINK: &str = "link";
pub(crate) const CLOCK: &str = "clock_skew";
pub(crate) const KEY: &str = "key";
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
    pub(crate) identity: IdentityFile,
    pub(crate) certificates: Certificates,
    pub(crate) state_dir: Utf8PathBuf,
}

impl Checks {
    pub(crate) async fn all(&self, draining: bool) -> Vec<Check> {
        let status = self.board.link.borrow().clone();
        let status = status.with_skew_of(&*self.certificates.clock);
        let mut checks = vec![link(&status), clock(status.clock_skew_ms)];
        checks.extend(runner(&self.runner).await);
        checks.extend(self.certificates.checks().await);
        checks.push(key(&self.identity));
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
    let state = if status.is_enrolling {
        "enrolling".to_owned()
    } else {
        status.state.to_string()
    };
    let check = Check::bad(
        LINK,
        Severity::Error,
        format!("not connected to {} ({state})", status.control_plane),
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

/// What lies on the disk: whether the control plane takes it shows in the link.
fn key(file: &IdentityFile) -> Check {
    let bad = |severity, summary: &str| Check::bad(KEY, severity, summary);
    match (file.load(), file.load_next()) {
        (Ok(Some(identity)), Ok(None)) => Check::good(
            KEY,
            Severity::Warning,
            format!("its fingerprint is {}", identity.key.public().kid()),
        ),
        (Ok(Some(_)), Ok(Some(_))) => unfinished_rotation(),
        (Ok(None), _) => bad(Severity::Warning, "the identity is not there any more")
            .cause(format!(
                "`{}` is missing: the next start fails",
                file.path()
            ))
            .fix("put it back from a backup, or enrol this host again"),
        (Err(error), _) | (_, Err(error)) => {
            let check = bad(Severity::Warning, "the identity cannot be read any more")
                .cause(ErrorChain(&error).to_string());
            match error.hint() {
                Some(hint) => check.fix(hint),
                None => check,
            }
        }
    }
}

pub(crate) fn unfinished_rotation() -> Check {
    Check::bad(
        KEY,
        Severity::Warning,
        "a rotation of the key was begun and not finished",
    )
    .cause("it was killed, or the control plane did not answer; the key before is in force")
    .fix("`delegate-agent rotate` finishes it")
}

pub(crate) fn clock(skew_ms: Option<i64>) -> Check {
    let words = skew_ms.map_or_else(|| "not compared yet".to_owned(), clock_words);
    if clock_is_right(skew_ms) {
        Check::good(CLOCK, Severity::Error, words)
    } else {
        Check::bad(CLOCK, Severity::Error, words)
            .cause("proofs and grants carry times: clocks that are half a minute apart make them worthless")
            .fix("set the clock of the host that is wrong: `timedatectl set-ntp true` there")
    }
}

/// `skew_ms` is the control plane's clock minus this host's.
pub(crate) fn clock_words(skew_ms: i64) -> String {
    shown::clocks("this host's", "the control plane's", skew_ms)
}

pub(crate) async fn runner(runner: &Runner) -> Vec<Check> {
    let answer = tokio::time::timeout(RUNNER_LIMIT, runner.host()).await;
    let failed = |cause: String| {
        vec![
            Check::bad(RUNNER, Severity::Error, "runner-agent does not answer")
                .cause(cause)
                .fix("see `systemctl status runner-agent` and `runner-agent doctor`"),
            Check::bad(RUNNER_DOCKER, Severity::Warning, "not known").because_of(RUNNER),
        ]
    };
    match answer {
        Err(_) => failed(format!("no answer within {} s", RUNNER_LIMIT.as_secs())),
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
