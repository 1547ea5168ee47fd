//! All delegates at once: the control plane is killed and comes back.

use crate::{
    api::Users,
    delegate::Board,
    plane::{self, Plane},
    print,
    runner::Play,
    spawn_delegates, until,
};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

pub(crate) const DELEGATES: usize = 2_000;
/// As long as the control plane is gone: long enough for every delegate's pauses to be at their longest.
const GONE: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(120);
/// Connections of users.
const USERS: usize = 8;

pub(crate) async fn measure(root: &Utf8Path, delegates: usize) {
    let plane = Plane {
        dir: root.join("storm"),
        port: plane::free_port(),
        heartbeat: link::limits::HEARTBEAT,
    };
    eprintln!("enrolling {delegates} delegates for the storm");
    let enrolled = plane.enrol(delegates).await;
    let process = plane.start().await;
    let board = Board::new(delegates);
    let tasks = spawn_delegates(&plane, &board, &Arc::new(Play::default()), &enrolled);
    let count = u64::try_from(delegates).unwrap();
    let live = |board: &Board| board.live.load(Ordering::SeqCst);
    until("all are welcome", LIMIT, || live(&board) == count).await;
    eprintln!("all connected; one gitspace for each");
    let users = Users::connect(&plane, USERS).await;
    let create = |number| {
        let body =
            json!({"repo": {"url": "https://example.com/app"}, "name": format!("g{number}")});
        ("/gitspaces".to_owned(), body)
    };
    let made = users.post_all((0..delegates).map(create).collect()).await;
    let stored = |board: &Board| board.stored.load(Ordering::SeqCst);
    until("all run", LIMIT, || stored(&board) == count).await;
    drop(users);

    eprintln!("kill -9");
    process.kill().await;
    until("all noticed", LIMIT, || live(&board) == 0).await;
    tokio::time::sleep(GONE).await;
    let welcomes = board.welcomes.load(Ordering::SeqCst);
    let process = plane.start().await;
    let listens = Instant::now();
    let before = board.began.elapsed();
    until("all are back", LIMIT, || live(&board) == count).await;
    let last = Duration::from_micros(board.last_welcome.load(Ordering::SeqCst));
    let back = last.saturating_sub(before);
    let again = board.welcomes.load(Ordering::SeqCst) - welcomes;
    let users = Users::connect(&plane, USERS).await;
    let seen = users.all("/delegates").await;
    let ids: BTreeSet<_> = seen
        .iter()
        .filter(|delegate| delegate["connected"] == true && delegate["runner_ready"] == true)
        .map(|delegate| delegate["id"].as_str().unwrap())
        .collect();
    let missing = delegates - ids.len();
    eprintln!("all back after {:?}; a task for each", listens.elapsed());
    let stop = |gitspace: &Value| {
        let path = format!("/gitspaces/{}/actions", gitspace["id"].as_str().unwrap());
        (path, json!({"action": "stop"}))
    };
    users.post_all(made.iter().map(stop).collect()).await;
    until("every task is done", LIMIT, || stored(&board) == 2 * count).await;
    let assigned = board.assigned.lock().unwrap().clone();
    let twice = assigned.values().filter(|times| **times > 1).count();
    assert_eq!(
        assigned.len(),
        2 * delegates,
        "a task of each gitspace's start and stop"
    );
    let states = users.all("/gitspaces").await;
    let stopped = states.iter().filter(|g| g["state"] == "stopped").count();
    drop(tasks);
    process.kill().await;

    let against = "the goal, from the moment it listens";
    print(
        "links.storm_back_s",
        back.as_secs_f64(),
        "s",
        Some(5.0),
        against,
    );
    let none = "none may be";
    let wrong = missing + twice + (delegates - stopped);
    print(
        "links.storm_lost_or_doubled",
        crate::float(wrong),
        "",
        None,
        none,
    );
    assert_eq!(
        wrong, 0,
        "{missing} missing, {twice} tasks twice, {stopped} stopped"
    );
    let more = usize::try_from(again - count).unwrap();
    print(
        "links.storm_links_made_twice",
        crate::float(more),
        "",
        None,
        none,
    );
}
