//! The link under faults. One seed is one run: `SEED=42 cargo test -p link --test simulation` repeats it.
//!
//! Here: both ends over a channel that delivers in order and may be cut at any frame, with more traffic than the bounds let through,
//! applications that are slow, and servers that start again. In [`faults`]: tasks over a channel that keeps no promise, with crashes of
//! either end.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a failing simulation stops at once and names its seed"
)]

#[path = "simulation/faults.rs"]
mod faults;

use jiff::Timestamp;
use link::{
    Class, Client, Server, Timing,
    backoff::Rng,
    client,
    inbox::Inbox,
    limits::{BULK_FRAMES, CONTROL_FRAMES, WINDOW_FRAMES},
    server,
};
use newtype_uuid::GenericUuid as _;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use uuid::Uuid;
use wire::{
    control::{DisconnectCode, Down, Epoch, Hello, ProbeReport, Up, Welcome},
    ids::{GitspaceUuid, StreamUuid, TaskUuid},
    task::{LogStream, Phase, TaskEvent, TaskEventKind},
};

const STEPS: usize = 2_000;

fn stream(n: u64) -> StreamUuid {
    StreamUuid::from_untyped_uuid(Uuid::from_u128(u128::from(n)))
}

fn hello() -> Box<Hello> {
    Box::new(
        serde_json::from_value(serde_json::json!({
            "version": "0", "tags": [], "draining": false, "runner_ready": true, "tasks": [], "gitspaces": [],
            "inventory": {"hostname": "h", "os": "o", "kernel": "k", "arch": "a", "cpus": 1, "memory_bytes": 1,
                "memory_available_bytes": 1, "disk_bytes": 1, "disk_available_bytes": 1,
                "capacity": {"gitspaces": 1, "cpu_millis": 1, "memory_bytes": 1}}
        }))
        .expect("reads"),
    )
}

fn bulk(n: u64, rng: &mut Rng) -> Up {
    Up::TaskEvent {
        task: TaskUuid::nil(),
        gitspace: GitspaceUuid::nil(),
        event: TaskEvent {
            seq: n,
            at: Timestamp::UNIX_EPOCH,
            event: TaskEventKind::Log {
                phase: Phase::Clone,
                stream: LogStream::Stdout,
                text: "x".repeat(usize::try_from(rng.below(3_000)).expect("small")),
            },
        },
    }
}

fn control(n: u64) -> Up {
    Up::TaskRefused {
        task: TaskUuid::from_untyped_uuid(Uuid::from_u128(u128::from(n))),
        gitspace: GitspaceUuid::nil(),
        failure: wire::failure::Failure::new(wire::failure::FailureCode::Internal, "x"),
    }
}

/// One WebSocket: frames in flight each way.
struct Wire {
    server: Server,
    up: VecDeque<String>,
    down: VecDeque<String>,
}

/// What the control plane remembers between connections.
struct Hub {
    inbox: Inbox,
    peer: Option<StreamUuid>,
    /// Whose proof was good last.
    greeting: Option<StreamUuid>,
    /// Delivered in this life of the server and not consumed: (number, body).
    waiting: VecDeque<(u64, Up)>,
    last_epoch: u64,
    /// Answers to probes, one of which is sent to each connection.
    probed: u32,
    streams: u64,
    /// Last bulk and control consumed in this life of the server.
    life: (Option<u64>, Option<u64>),
}

/// Body `n` is consumed. In one life of the server none comes twice; a later life may get again what was not acknowledged.
fn took(seed: u64, got: u64, life: &mut Option<u64>, n: u64) -> u64 {
    match *life {
        Some(last) => assert_eq!(n, last + 1, "seed {seed}: order within a life"),
        None => assert!(n <= got + 1, "seed {seed}: {n} came after {got}"),
    }
    *life = Some(n);
    got.max(n)
}

struct World {
    seed: u64,
    now: Instant,
    rng: Rng,
    client: Client,
    wire: Option<Wire>,
    hub: Hub,
    dialling: bool,
    sent_bulk: u64,
    sent_control: u64,
    /// Consumed, over all lives of the server.
    got_bulk: u64,
    got_control: u64,
    down_sent: u64,
    down_got: u64,
    cuts: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            now: Instant::now(),
            rng: Rng::new(seed),
            client: Client::new(stream(1), seed),
            wire: None,
            hub: Hub {
                inbox: Inbox::default(),
                peer: None,
                greeting: None,
                waiting: VecDeque::new(),
                last_epoch: 0,
                probed: 0,
                streams: 1,
                life: (None, None),
            },
            dialling: false,
            sent_bulk: 0,
            sent_control: 0,
            got_bulk: 0,
            got_control: 0,
            down_sent: 0,
            down_got: 0,
            cuts: 0,
        };
        world.client.handle(world.now, client::Input::Start);
        world
    }

    fn step(&mut self, calm: bool) {
        match self.rng.below(if calm { 60 } else { 100 }) {
            0..20 => self.move_up(),
            20..40 => self.move_down(),
            40..48 => self.consume(),
            48..52 => self.advance(),
            52..60 => self.connect(),
            60..75 => self.produce_bulk(),
            75..80 => self.produce_control(),
            80..88 => self.produce_down(),
            88..92 => self.cut(),
            92 => self.restart_server(),
            93..95 => self.client.handle(self.now, client::Input::Reconnect),
            _ => self.now += Duration::from_millis(self.rng.below(50)),
        }
        self.pump();
        self.check();
    }

    fn produce_bulk(&mut self) {
        let body = bulk(self.sent_bulk + 1, &mut self.rng);
        if self.client.send(&body, Class::Bulk).is_ok() {
            self.sent_bulk += 1;
        }
    }

    fn produce_control(&mut self) {
        if self
            .client
            .send(&control(self.sent_control + 1), Class::Control)
            .is_ok()
        {
            self.sent_control += 1;
        }
    }

    fn produce_down(&mut self) {
        if let Some(wire) = &mut self.wire {
            let body = Down::Stored {
                task: TaskUuid::nil(),
                seq: self.down_sent + 1,
            };
            if wire.server.send(&body, Class::Control).is_ok() {
                self.down_sent += 1;
            }
        }
    }

    fn move_up(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        if let Some(text) = wire.up.pop_front() {
            wire.server.handle(self.now, server::Input::Text(&text));
        }
    }

    fn move_down(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        if let Some(text) = wire.down.pop_front() {
            self.client.handle(self.now, client::Input::Text(&text));
        }
    }

    /// The slow application of the control plane.
    fn consume(&mut self) {
        let Some((seq, body)) = self.hub.waiting.pop_front() else {
            return;
        };
        match body {
            Up::TaskEvent { event, .. } => {
                self.got_bulk = took(self.seed, self.got_bulk, &mut self.hub.life.0, event.seq);
            }
            Up::TaskRefused { task, .. } => {
                let n = u64::try_from(task.as_untyped_uuid().as_u128()).expect("small");
                self.got_control = took(self.seed, self.got_control, &mut self.hub.life.1, n);
            }
            other => panic!("{other:?}"),
        }
        self.hub.inbox.consume(seq);
        if let Some(wire) = &mut self.wire {
            wire.server.consumed(self.now, seq);
        }
    }

    fn advance(&mut self) {
        let next = [
            self.client.deadline(),
            self.wire.as_ref().and_then(|wire| wire.server.deadline()),
        ];
        if let Some(next) = next.into_iter().flatten().min() {
            self.now = self.now.max(next);
        }
        self.client.handle(self.now, client::Input::Tick);
        if let Some(wire) = &mut self.wire {
            wire.server.handle(self.now, server::Input::Tick);
        }
    }

    fn connect(&mut self) {
        if !self.dialling {
            return;
        }
        self.dialling = false;
        if self.rng.below(4) == 0 {
            let reason = "refused".to_owned();
            self.client.handle(
                self.now,
                client::Input::DialFailed {
                    code: DisconnectCode::CannotConnect,
                    reason,
                },
            );
            return;
        }
        let server = Server::new(
            self.now,
            Timing::default(),
            "n".to_owned(),
            Timestamp::UNIX_EPOCH,
        );
        self.wire = Some(Wire {
            server,
            up: VecDeque::new(),
            down: VecDeque::new(),
        });
        self.client.handle(self.now, client::Input::Connected);
    }

    /// The connection breaks; what was under way is lost. The hub lets its application finish what was delivered.
    fn cut(&mut self) {
        if self.wire.take().is_some() {
            self.cuts += 1;
            while !self.hub.waiting.is_empty() {
                self.consume();
            }
            let reason = "reset".to_owned();
            self.client
                .handle(self.now, client::Input::Closed { code: None, reason });
        }
    }

    /// `kill -9`: what was delivered and not consumed is gone, and so is the memory of the stream.
    fn restart_server(&mut self) {
        self.hub.waiting.clear();
        self.hub.inbox = Inbox::default();
        self.hub.peer = None;
        self.hub.life = (None, None);
        if self.wire.take().is_some() {
            let reason = "reset".to_owned();
            self.client
                .handle(self.now, client::Input::Closed { code: None, reason });
        }
    }

    /// What the shells do.
    fn pump(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.client.poll_output() {
                idle = false;
                self.on_client(output);
            }
            let Some(wire) = &mut self.wire else {
                if idle {
                    return;
                }
                continue;
            };
            // A socket takes a few frames.
            if wire.up.len() < 8
                && let Some(text) = self.client.poll_transmit(self.now)
            {
                wire.up.push_back(text);
                idle = false;
            }
            if wire.down.len() < 8
                && let Some(text) = wire.server.poll_transmit(self.now)
            {
                wire.down.push_back(text);
                idle = false;
            }
            if let Some(output) = wire.server.poll_output() {
                idle = false;
                self.on_server(output);
            }
            if idle {
                return;
            }
        }
    }

    fn on_client(&mut self, output: client::Output) {
        match output {
            client::Output::Dial => self.dialling = true,
            client::Output::Challenged { .. } => self.client.handle(
                self.now,
                client::Input::Greet {
                    proof: String::new(),
                    hello: hello(),
                },
            ),
            client::Output::Live { epoch, .. } => {
                assert_eq!(
                    epoch.0, self.hub.last_epoch,
                    "seed {}: stale epoch",
                    self.seed
                );
                self.down_got = 0;
            }
            client::Output::Deliver { seq, body } => {
                let Down::Stored { seq: n, .. } = body else {
                    panic!("{body:?}");
                };
                assert!(n > self.down_got, "seed {}: down order", self.seed);
                self.down_got = n;
                self.client.consumed(self.now, seq);
            }
            client::Output::Probe { id, .. } => {
                self.client.probed(id, ProbeReport::default());
            }
            client::Output::HangUp { cause, .. } => {
                assert!(
                    !matches!(cause, client::Cause::Violation { .. }),
                    "seed {}: {cause}",
                    self.seed
                );
                self.dialling = false;
                self.wire = None;
                while !self.hub.waiting.is_empty() {
                    self.consume();
                }
            }
        }
    }

    fn on_server(&mut self, output: server::Output) {
        match output {
            server::Output::Proof { stream: peer, .. } => {
                self.hub.greeting = Some(peer);
                if let Some(wire) = &mut self.wire {
                    wire.server.handle(self.now, server::Input::Proved);
                }
            }
            server::Output::Hello { .. } => {
                let peer = self.hub.greeting.expect("proved before");
                if self.hub.peer != Some(peer) {
                    self.hub.peer = Some(peer);
                    self.hub.inbox = Inbox::resumed(peer, 0);
                }
                self.hub.last_epoch += 1;
                self.hub.streams += 1;
                let input = server::Input::Accept(server::Acceptance {
                    epoch: Epoch(self.hub.last_epoch),
                    stream: stream(self.hub.streams),
                    inbox: self.hub.inbox.clone(),
                    welcome: Box::new(Welcome {
                        version: String::new(),
                        heartbeat_ms: 0,
                        silence_limit_ms: 0,
                        tasks: Vec::new(),
                    }),
                });
                if let Some(wire) = &mut self.wire {
                    wire.server.handle(self.now, input);
                    wire.server.probe(self.hub.last_epoch, false);
                }
            }
            server::Output::Probed { id, .. } => {
                assert_eq!(id, self.hub.last_epoch, "seed {}: stale answer", self.seed);
                self.hub.probed += 1;
            }
            server::Output::Deliver { seq, body } => {
                self.hub.waiting.push_back((seq, *body));
                if let Some(wire) = &self.wire {
                    self.hub.inbox = wire.server.session().inbox().clone();
                }
            }
            server::Output::Ended { cause } => {
                assert!(
                    !matches!(cause, server::Cause::Violation { .. }),
                    "seed {}: {cause}",
                    self.seed
                );
                self.cut();
            }
        }
    }

    fn check(&self) {
        let (control, bulk, in_flight) = self.client.session().outbox().depth();
        assert!(control <= CONTROL_FRAMES, "seed {}", self.seed);
        assert!(bulk <= BULK_FRAMES, "seed {}", self.seed);
        assert!(in_flight <= WINDOW_FRAMES, "seed {}", self.seed);
        assert!(
            self.hub.waiting.len() <= WINDOW_FRAMES,
            "seed {}",
            self.seed
        );
        assert!(self.got_bulk <= self.sent_bulk, "seed {}", self.seed);
    }

    fn run(mut self) -> (u64, u64, u32) {
        for _ in 0..STEPS {
            self.step(false);
        }
        // It always converges once the cuts end.
        for _ in 0..200_000 {
            if self.client.session().outbox().is_empty() && self.hub.waiting.is_empty() {
                break;
            }
            self.step(true);
        }
        assert_eq!(
            (self.got_bulk, self.got_control),
            (self.sent_bulk, self.sent_control),
            "seed {}: did not converge, the client is {}",
            self.seed,
            self.client.state().stage()
        );
        assert!(
            self.hub.probed > 0,
            "seed {}: no probe got through",
            self.seed
        );
        (self.got_bulk, self.got_control, self.cuts)
    }
}

fn wanted_seed() -> Option<u64> {
    std::env::var("SEED").ok()?.parse().ok()
}

/// Runs one seed. Where anything panics, the seed and what led there are printed.
#[expect(clippy::print_stderr, reason = "a failing run says how to repeat it")]
fn run_faults(seed: u64) -> faults::World {
    let mut world = faults::World::new(seed);
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    if let Err(panic) = run {
        let last = world.trace.len().saturating_sub(40);
        eprintln!("SEED={seed} repeats this; the end of it:");
        for line in world.trace.iter().skip(last) {
            eprintln!("{line}");
        }
        std::panic::resume_unwind(panic);
    }
    world
}

#[test]
fn each_task_takes_effect_once_and_no_result_is_lost_whatever_the_channel_does() {
    if let Some(seed) = wanted_seed() {
        run_faults(seed);
        return;
    }
    let mut tally = faults::Tally::default();
    for seed in 0..500 {
        tally.add(&run_faults(seed).tally);
    }
    // A simulation in which nothing happens proves nothing.
    assert!(tally.is_whole() && tally.tasks > 5_000, "{tally:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let (one, other) = (run_faults(seed), run_faults(seed));
        assert_eq!(one.trace, other.trace, "SEED={seed}");
        assert_eq!(one.tally, other.tally, "SEED={seed}");
    }
    assert_ne!(run_faults(1).trace, run_faults(2).trace);
}

#[test]
fn every_body_arrives_in_order_and_once_however_the_link_is_cut() {
    if let Some(seed) = wanted_seed() {
        World::new(seed).run();
        return;
    }
    let mut total = (0, 0, 0);
    for seed in 0..60 {
        let (bulk, control, cuts) = World::new(seed).run();
        total = (total.0 + bulk, total.1 + control, total.2 + cuts);
    }
    // A simulation in which nothing happens proves nothing.
    assert!(
        total.0 > 5_000 && total.1 > 1_000 && total.2 > 1_000,
        "{total:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(World::new(7).run(), World::new(7).run());
}

proptest::proptest! {
    #[test]
    fn no_text_panics_either_end(texts in proptest::collection::vec("\\PC{0,200}", 0..20)) {
        feed(&texts);
    }

    #[test]
    fn no_frame_panics_either_end(frames in proptest::collection::vec(frame(), 0..30)) {
        feed(&frames);
    }
}

fn feed(texts: &[String]) {
    let now = Instant::now();
    let mut world = World::new(1);
    for _ in 0..400 {
        world.step(true);
        if world.client.state().stage() == client::Stage::Live {
            break;
        }
    }
    let mut fresh = Server::new(now, Timing::default(), String::new(), Timestamp::UNIX_EPOCH);
    for text in texts {
        fresh.handle(now, server::Input::Text(text));
        world.client.handle(world.now, client::Input::Text(text));
        if let Some(wire) = &mut world.wire {
            wire.server.handle(world.now, server::Input::Text(text));
            while wire.server.poll_output().is_some() {}
            while wire.server.poll_transmit(world.now).is_some() {}
        }
        while world.client.poll_output().is_some() {}
        while world.client.poll_transmit(world.now).is_some() {}
    }
}

fn frame() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let number = prop_oneof![
        Just(0),
        Just(1),
        Just(2),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        0..300_u64
    ];
    (0..8, number.clone(), number.clone(), number).prop_map(|(kind, epoch, seq, ack)| match kind {
        0 => format!(r#"{{"type":"data","epoch":{epoch},"seq":{seq},"ack":{ack},"body":{{"body":"runner_ready","ready":true}}}}"#),
        1 => format!(r#"{{"type":"ack","epoch":{epoch},"ack":{ack}}}"#),
        2 => format!(r#"{{"type":"ping","epoch":{epoch},"id":{seq}}}"#),
        3 => format!(r#"{{"type":"welcome","epoch":{epoch},"stream":"{}","received":{ack},"welcome":{{"version":"","heartbeat_ms":{seq},"silence_limit_ms":{ack},"tasks":[]}}}}"#, Uuid::nil()),
        4 => format!(r#"{{"type":"probe","epoch":{epoch},"id":{seq}}}"#),
        5 => format!(r#"{{"type":"probed","epoch":{epoch},"id":{seq},"report":{{"took_us":{ack},"hops":[]}}}}"#),
        6 => r#"{"type":"challenge","nonce":"n","now":"2026-01-01T00:00:00Z"}"#.to_owned(),
        _ => r#"{"type":"bye","code":"future","reason":"r"}"#.to_owned(),
    })
}
