//! A fleet of simulated delegates against one control plane: `bench/run links` and `bench/run dispatch`.
//!
//! Three processes: a whole control plane on a real database, the delegates with their real protocol on real sockets, and, where it is the
//! baseline, a bare tokio-tungstenite server that echoes. Prints one JSON object a line.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints figures, and says what went wrong by stopping"
)]

#[path = "fleet/api.rs"]
mod api;
#[path = "fleet/delegate.rs"]
mod delegate;
#[path = "fleet/dispatch.rs"]
mod dispatch;
#[path = "fleet/echo.rs"]
mod echo;
#[path = "fleet/gateway.rs"]
mod gateway;
#[path = "fleet/idle.rs"]
mod idle;
#[path = "fleet/plane.rs"]
mod plane;
#[path = "fleet/runner.rs"]
mod runner;
#[path = "fleet/storm.rs"]
mod storm;

use camino::{Utf8Path, Utf8PathBuf};
use delegate::{Board, Delegate};
use plane::{Enrolled, Plane};
use runner::Play;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Dials at once while the links are made, where it is no storm.
const DIALS: usize = 64;

pub(crate) fn print(figure: &str, value: f64, unit: &str, baseline: Option<f64>, against: &str) {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let line = json!({
        "figure": figure,
        "value": rounded(value),
        "unit": unit,
        "baseline": baseline.map(rounded),
        "ratio": baseline.map(|baseline| rounded(value / baseline)),
        "against": against,
    });
    println!("{line}");
}

pub(crate) fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

pub(crate) fn spawn_delegates(
    plane: &Plane,
    board: &Arc<Board>,
    play: &Arc<Play>,
    enrolled: &[Enrolled],
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (number, enrolled) in enrolled.iter().enumerate() {
        let delegate = Delegate {
            number,
            id: enrolled.id,
            key: enrolled.key.clone(),
            plane: plane.clone(),
            board: Arc::clone(board),
            play: Arc::clone(play),
        };
        tasks.spawn(delegate.run());
    }
    tasks
}

/// Looks often enough for what is measured in seconds.
pub(crate) async fn until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(limit, wait).await.is_ok(),
        "not within {} s: {what}",
        limit.as_secs()
    );
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let scratch = |folder: &str| tempfile::tempdir_in(folder).unwrap();
    let utf8 = |guard: &tempfile::TempDir| Utf8PathBuf::from_path_buf(guard.path().into()).unwrap();
    match words.as_slice() {
        ["serve", dir, port, heartbeat] => {
            let plane = Plane {
                dir: dir.into(),
                port: port.parse().unwrap(),
                heartbeat: Duration::from_millis(heartbeat.parse().unwrap()),
            };
            plane.serve().await;
        }
        ["echo", port] => echo::serve(port.parse().unwrap()).await,
        ["storm", folder, delegates] => {
            let guard = scratch(folder);
            storm::measure(&utf8(&guard), delegates.parse().unwrap()).await;
        }
        ["idle", folder, links] => {
            let guard = scratch(folder);
            idle::measure(&utf8(&guard), &[links.parse().unwrap()]).await;
        }
        ["links", folder] => {
            let guard = scratch(folder);
            let root: &Utf8Path = &utf8(&guard);
            storm::measure(root, storm::DELEGATES).await;
            idle::measure(root, &idle::LINKS).await;
        }
        ["dispatch", folder] => {
            let guard = scratch(folder);
            dispatch::measure(&utf8(&guard)).await;
        }
        _ => panic!("what to measure, and a folder on the disk"),
    }
}
