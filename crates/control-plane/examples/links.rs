//! What delegates' links cost a control plane, and how soon all are back after it was killed: `bench/run links`.
//!
//! Three processes: a whole control plane on a real database, the delegates with their real protocol on real sockets, and, as the baseline of
//! both costs, a bare tokio-tungstenite server that echoes. Prints one JSON object a line.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints figures, and says what went wrong by stopping"
)]

#[path = "links/delegate.rs"]
mod delegate;
#[path = "links/echo.rs"]
mod echo;
#[path = "links/plane.rs"]
mod plane;
#[path = "links/storm.rs"]
mod storm;

use camino::Utf8PathBuf;
use delegate::{Board, Delegate};
use plane::{Enrolled, Plane, Process};
use serde_json::json;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::task::JoinSet;

const IDLE: [usize; 2] = [5_000, 20_000];
const STORM: usize = 2_000;
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Before memory is read: what the greetings used is given back by then, as far as it ever is.
const SETTLE: Duration = Duration::from_secs(5);
/// While heartbeats are counted: two of each link.
const COUNTED: Duration = Duration::from_secs(60);
/// While the links are made; no storm.
const DIALS: usize = 64;
/// Descriptors that each process needs beside its sockets.
const OTHER_FILES: u64 = 200;

/// Memory of one link in KiB, and of all links' heartbeats the percentage of a core.
struct Cost {
    kib: f64,
    percent: f64,
}

fn print(figure: &str, value: f64, unit: &str, baseline: Option<f64>, against: &str) {
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

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// All sockets this process may have.
fn sockets() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    // The soft one; `bench/links` raises it to the hard one.
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    usize::try_from(soft - OTHER_FILES).unwrap()
}

/// What `links` idle links cost `process`, whose memory was `before` without them.
async fn cost(process: &Process, before: f64, links: usize) -> Cost {
    tokio::time::sleep(SETTLE).await;
    let kib = (process.user_memory() - before) / float(links);
    let cpu = process.cpu_seconds();
    tokio::time::sleep(COUNTED).await;
    let percent = (process.cpu_seconds() - cpu) / COUNTED.as_secs_f64() * 100.0;
    Cost { kib, percent }
}

pub(crate) fn spawn_delegates(
    plane: &Plane,
    board: &Arc<Board>,
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

async fn idle(plane: &Plane, enrolled: &[Enrolled]) -> Cost {
    let process = plane.start().await;
    let before = process.user_memory();
    let board = Board::new(DIALS);
    let tasks = spawn_delegates(plane, &board, enrolled);
    let links = u64::try_from(enrolled.len()).unwrap();
    let all = || board.live.load(Ordering::SeqCst) == links;
    until("all delegates are welcome", Duration::from_secs(300), all).await;
    let cost = cost(&process, before, enrolled.len()).await;
    assert_eq!(
        board.welcomes.load(Ordering::SeqCst),
        links,
        "no link ended"
    );
    drop(tasks);
    process.kill().await;
    cost
}

async fn idle_echo(links: usize) -> Cost {
    let port = plane::free_port();
    let process = Process::start(&["echo".to_owned(), port.to_string()], port).await;
    let before = process.user_memory();
    let clients = echo::dial(port, links, HEARTBEAT).await;
    let cost = cost(&process, before, links).await;
    assert_eq!(clients.len(), links, "no connection ended");
    drop(clients);
    process.kill().await;
    cost
}

/// All figures, or those of so many links alone.
async fn measure(folder: &str, only: Option<usize>) {
    let guard = tempfile::tempdir_in(folder).unwrap();
    let root = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
    let most = sockets();
    let plane = Plane {
        dir: root.join("state"),
        port: plane::free_port(),
        heartbeat: HEARTBEAT,
    };
    let wanted = only.map_or(IDLE.to_vec(), |only| vec![only]);
    let largest = wanted.iter().copied().max().unwrap().min(most);
    if only.is_none() {
        storm::measure(&root, STORM).await;
    }
    eprintln!("enrolling {largest} delegates");
    let enrolled = plane.enrol(largest).await;
    for wanted in wanted {
        let links = wanted.min(most);
        if links < wanted {
            eprintln!("{links} links in place of {wanted}: this host gives no process more files");
        }
        eprintln!("{links} idle links");
        let ours = idle(&plane, &enrolled[..links]).await;
        let bare = idle_echo(links).await;
        let against = format!("a bare tokio-tungstenite server with {links} sockets, too");
        let suffix = if wanted == IDLE[1] {
            String::new()
        } else {
            format!(".{wanted}")
        };
        print(
            &format!("links.kib_per_idle{suffix}"),
            ours.kib,
            "KiB",
            Some(bare.kib),
            &against,
        );
        print(
            &format!("links.heartbeat_core_percent{suffix}"),
            ours.percent,
            "% of a core",
            Some(bare.percent),
            &against,
        );
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
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
            let guard = tempfile::tempdir_in(folder).unwrap();
            let root = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
            storm::measure(&root, delegates.parse().unwrap()).await;
        }
        ["idle", folder, links] => measure(folder, Some(links.parse().unwrap())).await,
        [folder] => measure(folder, None).await,
        _ => panic!("a folder on the disk"),
    }
}
