//! How soon a user's order is with the runner, and how many tasks a control plane carries through a second.

use crate::{
    DIALS,
    api::Users,
    delegate::Board,
    float,
    plane::{self, Plane, Process},
    print,
    runner::Play,
    spawn_delegates, until,
};
use camino::Utf8Path;
use serde_json::json;
use std::{
    collections::HashMap,
    fs::File,
    io::Write as _,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::JoinSet,
};
use wire::ids::GitspaceUuid;

const DELEGATES: usize = 100;
const GITSPACES: usize = 1_000;
const USERS: usize = 64;
/// Orders a second, while it is measured how soon each is taken.
const RATE: u32 = 500;
/// Not counted: connections, caches and the database's pages are made.
const WARM_UP: Duration = Duration::from_secs(2);
const COUNTED: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);
/// Users who always have an order under way, while it is measured how many are carried through.
const BUSY: usize = 256;

/// A control plane with delegates that are welcome, and gitspaces that are not started.
struct Fleet {
    process: Process,
    users: Users,
    gitspaces: Vec<GitspaceUuid>,
    taken: UnboundedReceiver<(GitspaceUuid, Instant)>,
    stored: UnboundedReceiver<GitspaceUuid>,
    _delegates: JoinSet<()>,
}

impl Fleet {
    async fn start(root: &Utf8Path, mut play: Play) -> Self {
        let plane = Plane {
            dir: root.to_owned(),
            port: plane::free_port(),
            heartbeat: link::limits::HEARTBEAT,
        };
        let enrolled = plane.enrol(DELEGATES).await;
        let process = plane.start().await;
        let board = Board::new(DIALS);
        let (tell_taken, taken) = mpsc::unbounded_channel();
        let (tell_stored, stored) = mpsc::unbounded_channel();
        play.gitspaces = u32::try_from(GITSPACES).unwrap();
        play.taken = Some(tell_taken);
        play.stored = Some(tell_stored);
        let delegates = spawn_delegates(&plane, &board, &Arc::new(play), &enrolled);
        let count = u64::try_from(enrolled.len()).unwrap();
        let all = || board.live.load(Ordering::SeqCst) == count;
        until("all delegates are welcome", LIMIT, all).await;
        let users = Users::connect(&plane, USERS).await;
        let create = |number| {
            let repo = json!({"url": "https://example.com/app"});
            let body = json!({"repo": repo, "name": format!("g{number}"), "start": false});
            ("/gitspaces".to_owned(), body)
        };
        let made = users.post_all((0..GITSPACES).map(create).collect()).await;
        let gitspaces = made
            .iter()
            .map(|gitspace| gitspace["id"].as_str().unwrap().parse().unwrap())
            .collect();
        Self {
            process,
            users,
            gitspaces,
            taken,
            stored,
            _delegates: delegates,
        }
    }

    /// Orders at a steady rate, each counted from when it was due: whoever is late because others are slow waits, too.
    async fn paced(&mut self) -> Vec<Duration> {
        let orders = usize::try_from(RATE).unwrap() * 12;
        let began = Instant::now();
        let mut calls = JoinSet::new();
        for number in 0..orders {
            let due = began + Duration::from_secs(1) * u32::try_from(number).unwrap() / RATE;
            let gitspace = self.gitspaces[number % GITSPACES];
            let action = ["start", "stop"][number / GITSPACES % 2];
            let users = self.users.clone();
            calls.spawn(async move {
                tokio::time::sleep_until(due.into()).await;
                order(&users, number, gitspace, action).await;
            });
        }
        let mut due: HashMap<GitspaceUuid, usize> = HashMap::new();
        for (number, gitspace) in self.gitspaces.iter().enumerate() {
            due.insert(*gitspace, number);
        }
        let mut took = Vec::with_capacity(orders);
        for _ in 0..orders {
            let taken = tokio::time::timeout(LIMIT, self.taken.recv());
            let (gitspace, at) = taken.await.expect("all are taken").unwrap();
            let number = due.get_mut(&gitspace).expect("one of ours");
            let was_due = began + Duration::from_secs(1) * u32::try_from(*number).unwrap() / RATE;
            *number += GITSPACES;
            if was_due >= began + WARM_UP {
                took.push(at.saturating_duration_since(was_due));
            }
        }
        while let Some(called) = calls.join_next().await {
            called.unwrap();
        }
        took
    }

    /// Tasks a second, and what one costs the control plane's process in milliseconds of a core.
    async fn busy(mut self) -> (f64, f64) {
        let mut ends = HashMap::new();
        let mut users = JoinSet::new();
        for (number, gitspace) in self.gitspaces.iter().copied().take(BUSY).enumerate() {
            let (end, mut ended) = mpsc::unbounded_channel();
            ends.insert(gitspace, end);
            let api = self.users.clone();
            users.spawn(async move {
                for action in ["start", "stop"].into_iter().cycle() {
                    order(&api, number, gitspace, action).await;
                    if ended.recv().await.is_none() {
                        return;
                    }
                }
            });
        }
        let began = Instant::now();
        let mut counted = 0;
        let mut from = None;
        loop {
            let stored = tokio::time::timeout(LIMIT, self.stored.recv());
            let gitspace = stored.await.expect("tasks end").unwrap();
            ends[&gitspace].send(()).unwrap();
            match from {
                None if began.elapsed() >= WARM_UP => {
                    from = Some((Instant::now(), self.process.cpu_seconds()));
                }
                None => {}
                Some((from, cpu)) => {
                    counted += 1;
                    let span = from.elapsed();
                    if span >= COUNTED {
                        let tasks = float(counted);
                        let cost = (self.process.cpu_seconds() - cpu) / tasks * 1000.0;
                        users.shutdown().await;
                        self.process.kill().await;
                        return (tasks / span.as_secs_f64(), cost);
                    }
                }
            }
        }
    }
}

async fn order(users: &Users, user: usize, gitspace: GitspaceUuid, action: &str) {
    let path = format!("/gitspaces/{gitspace}/actions");
    users.post(user, &path, json!({"action": action})).await;
}

/// Appends of one page, each waited for.
fn syncs(dir: &Utf8Path) -> Vec<Duration> {
    let mut file = File::create(dir.join("probe")).unwrap();
    let began = Instant::now();
    let mut took = Vec::new();
    while began.elapsed() < Duration::from_secs(2) {
        let before = Instant::now();
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
        took.push(before.elapsed());
    }
    took
}

fn percentile(took: &mut [Duration], percent: usize) -> f64 {
    took.sort_unstable();
    let rank = (took.len() * percent).div_ceil(100).max(1) - 1;
    took[rank].as_secs_f64() * 1000.0
}

pub(crate) async fn measure(root: &Utf8Path) {
    let journals = root.join("journals");
    std::fs::create_dir(&journals).unwrap();

    eprintln!("{RATE} orders a second");
    let mut floor = syncs(root);
    let play = Play {
        log_lines: Some(0),
        journals: Some(journals),
        ..Play::default()
    };
    let mut fleet = Fleet::start(&root.join("paced"), play).await;
    let mut took = fleet.paced().await;
    fleet.process.kill().await;
    let against = "fdatasync of a 4 KiB append on the same disk";
    for percent in [50, 99] {
        print(
            &format!("dispatch.p{percent}_ms"),
            percentile(&mut took, percent),
            "ms",
            Some(percentile(&mut floor, percent)),
            against,
        );
    }
    for (suffix, log_lines) in [("", 0), (".with_100_log_lines", 100)] {
        eprintln!("as many orders as it carries through, each with {log_lines} lines of output");
        let floor = float(syncs(root).len()) / 2.0;
        let play = Play {
            log_lines: Some(log_lines),
            ..Play::default()
        };
        let fleet = Fleet::start(&root.join(format!("busy{log_lines}")), play).await;
        let (rate, cost) = fleet.busy().await;
        let against = format!("{against}, each waited for");
        print(
            &format!("dispatch.tasks_per_s{suffix}"),
            rate,
            "1/s",
            Some(floor),
            &against,
        );
        print(
            &format!("dispatch.cpu_ms_per_task{suffix}"),
            cost,
            "ms",
            None,
            "the control plane's process alone",
        );
    }
}
