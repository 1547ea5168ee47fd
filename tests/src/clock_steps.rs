//! The wall clock of one process steps by an hour or ten years, forth and back, while it runs: it stays up, what was acknowledged comes
//! about, and all is well when the clock is right again.
//!
//! The clock is stepped in the process, where it is asked: the host's own is everybody's. Durations are of the monotonic clock, which no
//! step moves.

use crate::{
    deployment::{Daemon, Deployment},
    lifecycle::APP,
};
use anyhow::{Result, ensure};

const HOUR: i64 = 3600;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;
const DAY: i64 = 24 * HOUR;
/// Exit code of `gitspace`.
const REFUSED: i32 = 77;
const STEPS: [i64; 4] = [HOUR, -HOUR, TEN_YEARS, -TEN_YEARS];

async fn start() -> Result<Deployment> {
    let host = Deployment::start_apart_with("delegate_heartbeat_ms = 1000").await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    Ok(host)
}

fn can_be_entered(host: &Deployment) -> Result<bool> {
    Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
}

/// Steps, asks for what is the case afterwards, and steps back.
fn churn(
    host: &mut Deployment,
    daemon: Daemon,
    also: impl Fn(&mut Deployment) -> Result<()>,
) -> Result<()> {
    for step in STEPS {
        let running = host.state("app")? == "running";
        let (verb, state) = if running {
            ("stop", "stopped")
        } else {
            ("start", "running")
        };
        host.step_clock(daemon, step)?;
        // Of the control plane's clock: in ten years a token has expired, and nothing is taken.
        let taken = host.gitspace(&[verb, "app"])?;
        ensure!(
            taken.code == 0 || (step == TEN_YEARS && taken.code == REFUSED),
            "{step}: {taken:#?}"
        );
        also(host)?;
        ensure!(!host.has_ended(daemon)?, "{step}: {}", host.logs());
        host.step_clock(daemon, 0)?;
        host.until_ready()?;
        if taken.code != 0 {
            host.ok(&[verb, "app"])?;
        }
        host.until(
            &format!("{step} s: it is {state} or says why not"),
            |host| {
                let now = host.state("app")?;
                if now == "error" {
                    // A deadline of a clock that was wrong has passed: told, and its user decides.
                    let said = host.events("app")?;
                    let told = said.iter().any(|event| {
                        crate::deployment::text(event, "/failure/code") == "deadline_exceeded"
                    });
                    ensure!(told, "{step}: {said:#?}");
                    host.ok(&[verb, "app"])?;
                }
                Ok(now == state)
            },
        )?;
    }
    ensure!(!host.has_ended(daemon)?, "{}", host.logs());
    host.ok(&["start", "app", "--wait"])?;
    host.until("it can be entered", can_be_entered)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_whose_clock_steps_does_what_it_was_asked() -> Result<()> {
    let mut host = start().await?;
    churn(&mut host, Daemon::Runner, |host| {
        // Started with the wrong time, too.
        host.kill(Daemon::Runner)?;
        host.run(Daemon::Runner)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegate_whose_clock_steps_says_so_and_connects_again_when_it_is_right() -> Result<()> {
    let mut host = start().await?;
    churn(&mut host, Daemon::Delegate, |host| {
        let said = host.daemon(Daemon::Delegate, &["reconnect"])?;
        ensure!(said.code == 0, "{said:#?}");
        let socket = host.path("delegate-admin.sock");
        let readyz = ["--unix-socket", socket.as_str(), "http://localhost/readyz"];
        host.until("the skew is told", |host| {
            let said = host.curl(&readyz)?;
            Ok(said.code != 0 && said.out.contains("clock_skew"))
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_whose_clock_steps_carries_out_what_it_took_when_it_is_right() -> Result<()>
{
    let mut host = start().await?;
    churn(&mut host, Daemon::ControlPlane, |host| {
        // Not by a clock by which its token has expired.
        if host.gitspace(&["list"])?.code == REFUSED {
            return Ok(());
        }
        host.until("it is done while the clock is wrong", |host| {
            let state = host.state("app")?;
            ensure!(state != "error", "{:#?}", host.events("app")?);
            Ok(state == "stopped" || state == "running")
        })
    })
}

/// The next try was put down for tomorrow.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_while_the_clock_was_ahead_is_tried_again_soon_after_it_is_right() -> Result<()>
{
    let mut host = start().await?;
    host.kill(Daemon::Runner)?;
    host.step_clock(Daemon::ControlPlane, DAY)?;
    host.ok(&["stop", "app"])?;
    host.until("it was tried", |host| {
        Ok(host
            .events("app")?
            .iter()
            .any(|event| crate::deployment::text(event, "/kind") == "retrying"))
    })?;
    host.step_clock(Daemon::ControlPlane, 0)?;
    host.run(Daemon::Runner)?;
    host.until_state("app", "stopped")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_clock_steps_serves_again_when_it_is_right() -> Result<()> {
    let mut host = start().await?;
    churn(&mut host, Daemon::Gateway, |host| {
        // Entered, or refused: a grant is of a time.
        host.gitspace(&["exec", "app", "--", "true"]).map(drop)
    })
}
