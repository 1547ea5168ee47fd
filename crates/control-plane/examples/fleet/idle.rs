//! What links cost a control plane that do nothing but stay.

use crate::{
    DIALS,
    delegate::Board,
    echo, float,
    plane::{self, Enrolled, Plane, Process},
    print,
    runner::Play,
    spawn_delegates, until,
};
use camino::Utf8Path;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

pub(crate) const LINKS: [usize; 2] = [5_000, 20_000];
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Before memory is read: what the greetings used is given back by then, as far as it ever is.
const SETTLE: Duration = Duration::from_secs(5);
/// While heartbeats are counted: two of each link.
const COUNTED: Duration = Duration::from_secs(60);
/// Descriptors that each process needs beside its sockets.
const OTHER_FILES: u64 = 200;

/// Memory of one link in KiB, and of all links' heartbeats the percentage of a core.
struct Cost {
    kib: f64,
    percent: f64,
}

/// All sockets this process may have.
fn sockets() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    // The soft one; `bench/run links` raises it to the hard one.
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

async fn idle(plane: &Plane, enrolled: &[Enrolled]) -> Cost {
    let process = plane.start().await;
    let before = process.user_memory();
    let board = Board::new(DIALS);
    let tasks = spawn_delegates(plane, &board, &Arc::new(Play::default()), enrolled);
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

/// The figures of so many links each.
pub(crate) async fn measure(root: &Utf8Path, numbers: &[usize]) {
    let most = sockets();
    let plane = Plane {
        dir: root.join("state"),
        port: plane::free_port(),
        heartbeat: HEARTBEAT,
    };
    let largest = numbers.iter().copied().max().unwrap().min(most);
    eprintln!("enrolling {largest} delegates");
    let enrolled = plane.enrol(largest).await;
    for wanted in numbers.iter().copied() {
        let links = wanted.min(most);
        if links < wanted {
            eprintln!("{links} links in place of {wanted}: this host gives no process more files");
        }
        eprintln!("{links} idle links");
        let ours = idle(&plane, &enrolled[..links]).await;
        let bare = idle_echo(links).await;
        let against = format!("a bare tokio-tungstenite server with {links} sockets, too");
        let suffix = if wanted == LINKS[1] {
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
