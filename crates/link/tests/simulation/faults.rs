//! Tasks and their results over a channel that keeps no promise, between two ends that may be killed at any step.
//!
//! The channel loses, delays, reorders and repeats frames, brings frames of earlier connections into later ones, breaks, and goes silent
//! without breaking. A WebSocket over TLS does little of that; the link has to answer all of it with a connection anew, and never with a
//! wrong acknowledgement. Around the machines stand the smallest control plane and runner that keep what the real ones keep on disk.
//!
//! After each step: no task took effect twice, no result was stored twice, nothing is acknowledged that is not stored, and nothing is
//! forgotten that is not. In the end everything is done exactly once.

use jiff::Timestamp;
use link::{Class, Client, Server, Timing, backoff::Rng, client, codec, inbox::Inbox, server};
use newtype_uuid::GenericUuid as _;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    time::{Duration, Instant},
};
use uuid::Uuid;
use wire::{
    control::{
        DisconnectCode, Down, Epoch, Frame, Hello, MAX_FRAME, TaskStatus, TaskVerdict, Up, Welcome,
    },
    gitspace::{Generation, Observed, ObservedState},
    ids::{GitspaceUuid, StreamUuid, TaskUuid, TraceUuid},
    task::{Phase, Task, TaskEvent, TaskEventKind, TaskKind, TaskOutcome, TaskVerb},
};

const STEPS: usize = 600;
const CALM_STEPS: usize = 40_000;
/// Of one task; the last one is its result.
const EVENTS: u64 = 5;
/// Frames a socket takes before it is full.
const SOCKET: usize = 6;

fn stream(n: u64) -> StreamUuid {
    StreamUuid::from_untyped_uuid(Uuid::from_u128(u128::from(n)))
}

fn task_id(n: u64) -> TaskUuid {
    TaskUuid::from_untyped_uuid(Uuid::from_u128(u128::from(n)))
}

fn number(task: TaskUuid) -> u64 {
    u64::try_from(task.as_untyped_uuid().as_u128()).expect("ours")
}

fn task(n: u64) -> Box<Task> {
    Box::new(Task {
        id: task_id(n),
        gitspace: GitspaceUuid::nil(),
        generation: Generation(1),
        attempt: 1,
        deadline: Timestamp::MAX,
        trace: TraceUuid::nil(),
        verb: TaskVerb::Stop {},
    })
}

fn event(task: u64, seq: u64) -> Up {
    let event = if seq == EVENTS {
        TaskEventKind::Finished {
            outcome: TaskOutcome::Done {},
            observed: Box::new(Observed {
                gitspace: GitspaceUuid::nil(),
                state: ObservedState::Stopped,
                generation: Generation(1),
                revision: 1,
                at: Timestamp::UNIX_EPOCH,
                failure: None,
                task: None,
                dev_container: None,
            }),
        }
    } else {
        TaskEventKind::PhaseStarted { phase: Phase::Stop }
    };
    Up::TaskEvent {
        task: task_id(task),
        gitspace: GitspaceUuid::nil(),
        event: TaskEvent {
            seq,
            at: Timestamp::UNIX_EPOCH,
            event,
        },
    }
}

/// What the runner keeps on disk.
#[derive(Default)]
struct Runner {
    journal: BTreeMap<u64, ()>,
    /// How often each task was carried out.
    effects: BTreeMap<u64, u32>,
}

/// What the control plane keeps on disk.
#[derive(Default)]
struct Store {
    /// Number of the last event stored, for each task there ever was.
    tasks: BTreeMap<u64, u64>,
    results: BTreeMap<u64, u32>,
    epoch: u64,
}

/// One WebSocket, with the control plane's end of it.
struct Wire {
    server: Server,
    nonce: String,
    peer: Option<StreamUuid>,
    proof: Option<String>,
    /// Of the hello that was taken and is not answered.
    held: Option<Vec<TaskStatus>>,
    is_admitted: bool,
    /// Delivered and not stored.
    waiting: VecDeque<(u64, Up)>,
    up: VecDeque<(Instant, String)>,
    down: VecDeque<(Instant, String)>,
    /// What is sent vanishes, and neither end hears of it.
    is_half_open: bool,
    /// The channel broke its promise: the ends may say so.
    is_tampered: bool,
    /// A frame was lost: what carries it has to break some time.
    lost: bool,
    /// The server's end is closed; what it said last is on its way.
    is_closing: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) tasks: usize,
    pub(crate) losses: u32,
    pub(crate) delays: u32,
    pub(crate) swaps: u32,
    pub(crate) repeats: u32,
    pub(crate) strays: u32,
    pub(crate) cuts: u32,
    pub(crate) half_open: u32,
    pub(crate) delegate_crashes: u32,
    pub(crate) server_crashes: u32,
    pub(crate) violations: u32,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.tasks += other.tasks;
        self.losses += other.losses;
        self.delays += other.delays;
        self.swaps += other.swaps;
        self.repeats += other.repeats;
        self.strays += other.strays;
        self.cuts += other.cuts;
        self.half_open += other.half_open;
        self.delegate_crashes += other.delegate_crashes;
        self.server_crashes += other.server_crashes;
        self.violations += other.violations;
    }

    /// Whether each kind of fault happened, so that none is covered in name only.
    pub(crate) fn is_whole(&self) -> bool {
        [
            self.losses,
            self.delays,
            self.swaps,
            self.repeats,
            self.strays,
            self.cuts,
            self.half_open,
            self.delegate_crashes,
            self.server_crashes,
            self.violations,
        ]
        .into_iter()
        .all(|count| count > 100)
    }
}

pub(crate) struct World {
    start: Instant,
    now: Instant,
    rng: Rng,
    seed: u64,
    /// What happened, a line each.
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,

    runner: Runner,
    client: Client,
    lives: u64,
    is_dialling: bool,
    /// Next event of each task to send.
    followers: BTreeMap<u64, u64>,
    /// What each number of the client's stream says.
    numbered: BTreeMap<u64, (u64, u64)>,
    /// Acknowledgements up to here were compared with what is stored.
    checked: u64,
    client_wire: Option<u64>,

    store: Store,
    wires: BTreeMap<u64, Wire>,
    last_wire: u64,
    /// The admitted one.
    turn: Option<u64>,
    /// What this life of the control plane remembers of the delegate's stream.
    memory: Option<(StreamUuid, Inbox)>,
    streams: u64,
    /// Frames that arrived: by which wire, whether upwards, and what.
    graveyard: VecDeque<(u64, bool, String)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let start = Instant::now();
        let mut world = Self {
            start,
            now: start,
            rng: Rng::new(seed),
            seed,
            trace: Vec::new(),
            tally: Tally::default(),
            runner: Runner::default(),
            client: Client::new(stream(1), seed),
            lives: 1,
            is_dialling: false,
            followers: BTreeMap::new(),
            numbered: BTreeMap::new(),
            checked: 0,
            client_wire: None,
            store: Store::default(),
            wires: BTreeMap::new(),
            last_wire: 0,
            turn: None,
            memory: None,
            streams: 1_000_000,
            graveyard: VecDeque::new(),
        };
        world.client.handle(world.now, client::Input::Start);
        world
    }

    fn say(&mut self, what: &str) {
        let at = self.now.duration_since(self.start).as_millis();
        let mut line = String::new();
        write!(line, "{at:>9} ms  {what}").expect("memory");
        self.trace.push(line);
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            self.step(false);
        }
        // Every channel that lost something breaks; from here on all promises are kept.
        let lossy: Vec<_> = self.wires.keys().copied().collect();
        for id in lossy {
            if self
                .wires
                .get(&id)
                .is_some_and(|wire| wire.lost || wire.is_half_open)
            {
                self.cut(id);
            }
        }
        for _ in 0..CALM_STEPS {
            if self.is_done() {
                break;
            }
            self.step(true);
        }
        assert!(
            self.is_done(),
            "it does not converge: the client is {}, stored {:?}, journal {:?}",
            self.client.state().name(),
            self.store.tasks,
            self.runner.journal.keys()
        );
        self.tally.tasks = self.store.tasks.len();
        for task in self.store.tasks.keys() {
            assert_eq!(self.runner.effects.get(task), Some(&1), "effects of {task}");
            assert_eq!(self.store.results.get(task), Some(&1), "results of {task}");
        }
    }

    fn is_done(&self) -> bool {
        self.store.tasks.values().all(|stored| *stored == EVENTS) && self.runner.journal.is_empty()
    }

    fn step(&mut self, is_calm: bool) {
        match self.rng.below(if is_calm { 800 } else { 1_000 }) {
            0..170 => self.deliver_up(),
            170..340 => self.deliver_down(),
            340..450 => self.store_one(),
            450..540 => self.follow_one(),
            540..620 => self.connect(is_calm),
            620..700 => self.answer(),
            700..712 => self.tick(),
            712..800 => self.now += Duration::from_millis(self.rng.below(200)),
            800..830 => self.wish(),
            830..985 => self.fault(),
            985..990 => self.crash_delegate(),
            990..994 => self.crash_server(),
            _ => self.client.handle(self.now, client::Input::Reconnect),
        }
        self.pump();
        self.check();
    }

    // What the channel does.

    fn fault(&mut self) {
        let Some(id) = self.client_wire else { return };
        let kind = self.rng.below(40);
        let (is_up, swap_with) = (self.one_in(2), self.rng.below(SOCKET as u64));
        let pick = self.rng.below(1_000);
        let hold = Duration::from_millis(self.rng.below(8_000));
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let is_live = wire.is_admitted;
        let queue = if is_up { &mut wire.up } else { &mut wire.down };
        let side = if is_up { "up" } else { "down" };
        match kind {
            0..4 => {
                let is_lost = queue.pop_front().is_some();
                if is_lost {
                    (wire.lost, wire.is_tampered) = (true, true);
                    self.tally.losses += 1;
                    self.say(&format!("{side}: a frame is lost"));
                }
            }
            4..10 => {
                // Order is kept: what comes after it waits, too.
                if let Some((due, _)) = queue.front_mut() {
                    *due += hold;
                    self.tally.delays += 1;
                    self.say(&format!("{side}: a frame waits"));
                }
            }
            10..18 => {
                let with = usize::try_from(swap_with).expect("small");
                if with > 0 && with < queue.len() {
                    queue.swap(0, with);
                    wire.is_tampered = true;
                    self.tally.swaps += 1;
                    self.say(&format!("{side}: frames 0 and {with} change places"));
                }
            }
            18..24 => {
                if let Some(frame) = queue.front().cloned() {
                    queue.push_front(frame);
                    wire.is_tampered = true;
                    self.tally.repeats += 1;
                    self.say(&format!("{side}: a frame comes twice"));
                }
            }
            24..35 => {
                // Into the greeting TLS lets nobody; in the middle of it this would only be a lost connection.
                let strays: Vec<_> = self
                    .graveyard
                    .iter()
                    .filter(|(from, ..)| *from != id)
                    .collect();
                let at = usize::try_from(pick).expect("small") % strays.len().max(1);
                if is_live && let Some((_, is_up, frame)) = strays.get(at) {
                    let queue = if *is_up { &mut wire.up } else { &mut wire.down };
                    queue.push_front((self.now, frame.clone()));
                    wire.is_tampered = true;
                    self.tally.strays += 1;
                    self.say("a frame of an earlier connection comes in this one");
                }
            }
            35..37 => self.cut(id),
            37 => {
                wire.is_half_open = true;
                wire.up.clear();
                wire.down.clear();
                self.tally.half_open += 1;
                self.say("the channel is half-open");
            }
            _ => {}
        }
    }

    /// Both ends hear that the connection is gone.
    fn cut(&mut self, id: u64) {
        self.tally.cuts += 1;
        self.say(&format!("wire {id} breaks"));
        if self.client_wire == Some(id) {
            self.client_wire = None;
            self.close_client();
        }
        self.leave(id);
    }

    fn close_client(&mut self) {
        let input = client::Input::Closed {
            code: None,
            reason: "reset".to_owned(),
        };
        self.client.handle(self.now, input);
    }

    // What the shells do.

    fn pump(&mut self) {
        loop {
            let mut is_idle = true;
            while let Some(output) = self.client.poll_output() {
                is_idle = false;
                self.on_client(output);
            }
            if let Some(id) = self.client_wire
                && self
                    .wires
                    .get(&id)
                    .is_some_and(|wire| wire.up.len() < SOCKET)
                && let Some(text) = self.client.poll_transmit(self.now)
            {
                is_idle = false;
                self.send_up(id, text);
            }
            let ids: Vec<_> = self.wires.keys().copied().collect();
            for id in ids {
                is_idle &= !self.pump_server(id);
            }
            if is_idle {
                return;
            }
        }
    }

    /// Whether there was something to do.
    fn pump_server(&mut self, id: u64) -> bool {
        let Some(wire) = self.wires.get_mut(&id) else {
            return false;
        };
        if wire.is_closing {
            return false;
        }
        if let Some(output) = wire.server.poll_output() {
            self.on_server(id, output);
            return true;
        }
        if wire.down.len() < SOCKET
            && let Some(text) = wire.server.poll_transmit(self.now)
        {
            send_down(wire, self.now, text);
            return true;
        }
        false
    }

    fn send_up(&mut self, id: u64, text: String) {
        if let Ok(Frame::Data {
            seq,
            body: Up::TaskEvent { task, event, .. },
            ..
        }) = codec::decode::<Up>(&text, MAX_FRAME)
        {
            let says = (number(task), event.seq);
            let before = self.numbered.insert(seq, says);
            assert!(
                before.is_none_or(|before| before == says),
                "number {seq} says two things"
            );
        }
        let now = self.now;
        if let Some(wire) = self.wires.get_mut(&id)
            && !wire.is_half_open
        {
            wire.up.push_back((now, text));
        }
    }

    fn deliver_up(&mut self) {
        let Some(id) = self.client_wire else { return };
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        if wire.is_closing || !wire.server.is_reading() {
            return;
        }
        if wire.up.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, text)) = wire.up.pop_front()
        {
            wire.server.handle(now, server::Input::Text(&text));
            self.bury(id, true, text);
        }
    }

    fn deliver_down(&mut self) {
        let Some(id) = self.client_wire else { return };
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        match wire.down.front() {
            Some((due, _)) if *due > now => {}
            Some(_) => {
                if let Some((_, text)) = wire.down.pop_front() {
                    self.client.handle(now, client::Input::Text(&text));
                    self.bury(id, false, text);
                }
            }
            None if wire.is_closing && !wire.is_half_open => {
                self.wires.remove(&id);
                self.client_wire = None;
                self.close_client();
            }
            None => {}
        }
    }

    fn bury(&mut self, id: u64, is_up: bool, text: String) {
        // Greetings are not brought back; see `fault`. Acknowledgements do the most harm, and are the rarest.
        let is_ack = text.starts_with(r#"{"type":"ack""#);
        if is_ack || (text.starts_with(r#"{"type":"data""#) && self.one_in(4)) {
            self.graveyard.push_back((id, is_up, text));
            if self.graveyard.len() > 60 {
                self.graveyard.pop_front();
            }
        }
    }

    fn tick(&mut self) {
        let deadlines = self
            .wires
            .values()
            .filter(|wire| !wire.is_closing)
            .filter_map(|wire| wire.server.deadline())
            .chain(self.client.deadline());
        if let Some(next) = deadlines.min() {
            self.now = self.now.max(next);
        }
        self.client.handle(self.now, client::Input::Tick);
        for wire in self.wires.values_mut().filter(|wire| !wire.is_closing) {
            wire.server.handle(self.now, server::Input::Tick);
        }
    }

    // The delegate and its runner.

    fn connect(&mut self, is_calm: bool) {
        if !std::mem::take(&mut self.is_dialling) {
            return;
        }
        if !is_calm && self.one_in(5) {
            let input = client::Input::DialFailed {
                code: DisconnectCode::CannotConnect,
                reason: "refused".to_owned(),
            };
            self.client.handle(self.now, input);
            return;
        }
        self.last_wire += 1;
        let id = self.last_wire;
        let nonce = format!("nonce {id}");
        let server = Server::new(
            self.now,
            Timing::default(),
            nonce.clone(),
            Timestamp::UNIX_EPOCH,
        );
        let wire = Wire {
            server,
            nonce,
            peer: None,
            proof: None,
            held: None,
            is_admitted: false,
            waiting: VecDeque::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            is_half_open: false,
            is_tampered: false,
            lost: false,
            is_closing: false,
        };
        self.wires.insert(id, wire);
        self.client_wire = Some(id);
        self.say(&format!("wire {id} opens"));
        self.client.handle(self.now, client::Input::Connected);
    }

    fn on_client(&mut self, output: client::Output) {
        match output {
            client::Output::Dial => self.is_dialling = true,
            client::Output::Challenged { nonce, .. } => {
                let hello = self.hello();
                let input = client::Input::Greet {
                    proof: nonce,
                    hello,
                };
                self.client.handle(self.now, input);
            }
            client::Output::Live { epoch, welcome } => {
                self.say(&format!("live in epoch {}: {:?}", epoch.0, welcome.tasks));
                self.followers.clear();
                for verdict in welcome.tasks {
                    match verdict {
                        TaskVerdict::Continue { task, after }
                        | TaskVerdict::Cancel { task, after } => {
                            self.followers.insert(number(task), after + 1);
                        }
                        TaskVerdict::Forget { task } => self.forget(task),
                    }
                }
            }
            client::Output::Deliver { seq, body } => {
                self.on_down(body);
                self.client.consumed(self.now, seq);
            }
            client::Output::HangUp { cause, .. } => self.on_hang_up(&cause),
        }
    }

    fn hello(&self) -> Box<Hello> {
        let mut hello: Hello = serde_json::from_value(serde_json::json!({
            "version": "0", "tags": [], "draining": false, "runner_ready": true, "tasks": [], "gitspaces": [],
            "inventory": {"hostname": "h", "os": "o", "kernel": "k", "arch": "a", "cpus": 1, "memory_bytes": 1,
                "memory_available_bytes": 1, "disk_bytes": 1, "disk_available_bytes": 1,
                "capacity": {"gitspaces": 1, "cpu_millis": 1, "memory_bytes": 1}}
        }))
        .expect("reads");
        let held = self.runner.journal.keys().map(|task| TaskStatus {
            task: task_id(*task),
            gitspace: GitspaceUuid::nil(),
            generation: Generation(1),
            kind: TaskKind::Stop,
            finished: true,
            last_seq: EVENTS,
        });
        hello.tasks = held.collect();
        Box::new(hello)
    }

    fn on_down(&mut self, body: Down) {
        match body {
            Down::Assign { task } => {
                let n = number(task.id);
                self.say(&format!("task {n} is assigned"));
                // Idempotent as long as the runner remembers it, and it does until its result is stored.
                if self.runner.journal.insert(n, ()).is_none() {
                    let times = self.runner.effects.entry(n).or_default();
                    *times += 1;
                    assert_eq!(*times, 1, "task {n} takes effect again");
                }
                self.followers.entry(n).or_insert(1);
            }
            Down::Stored { task, .. } => self.forget(task),
            Down::Cancel { .. } => {}
        }
    }

    fn forget(&mut self, task: TaskUuid) {
        let n = number(task);
        assert_eq!(
            self.store.results.get(&n),
            Some(&1),
            "task {n} is forgotten and its result is not stored"
        );
        self.say(&format!("task {n} is forgotten"));
        self.runner.journal.remove(&n);
    }

    fn on_hang_up(&mut self, cause: &client::Cause) {
        self.say(&format!("the client hangs up: {cause}"));
        self.is_dialling = false;
        self.followers.clear();
        let Some(id) = self.client_wire.take() else {
            return;
        };
        if matches!(cause, client::Cause::Violation { .. }) {
            self.violated(id, &cause.to_string());
        }
        // Its last words may get through, or the other end never hears that it is gone.
        if self.one_in(3) {
            if let Some(wire) = self.wires.get_mut(&id) {
                wire.is_half_open = true;
            }
        } else {
            let words =
                std::iter::from_fn(|| self.client.poll_transmit(self.now)).collect::<Vec<_>>();
            if let Some(wire) = self.wires.get_mut(&id)
                && !wire.is_closing
                && wire.server.is_reading()
            {
                for text in words {
                    wire.server.handle(self.now, server::Input::Text(&text));
                }
            }
            self.leave(id);
        }
    }

    fn violated(&mut self, id: u64, cause: &str) {
        let is_tampered = self.wires.get(&id).is_none_or(|wire| wire.is_tampered);
        assert!(is_tampered, "a channel that kept its promises: {cause}");
        self.tally.violations += 1;
    }

    /// A follower reads a few events at once.
    fn follow_one(&mut self) {
        let index = self.rng.below(self.followers.len() as u64);
        let index = usize::try_from(index).expect("small");
        for _ in 0..=self.rng.below(EVENTS) {
            let Some((task, next)) = self.followers.iter().nth(index).map(|(t, n)| (*t, *n)) else {
                return;
            };
            if next <= EVENTS && self.client.send(&event(task, next), Class::Bulk).is_ok() {
                self.followers.insert(task, next + 1);
            }
        }
    }

    fn crash_delegate(&mut self) {
        self.tally.delegate_crashes += 1;
        self.lives += 1;
        self.say(&format!(
            "the delegate is killed; life {} begins",
            self.lives
        ));
        self.client = Client::new(stream(self.lives), self.seed.wrapping_add(self.lives));
        self.client.handle(self.now, client::Input::Start);
        self.followers.clear();
        self.numbered.clear();
        self.checked = 0;
        self.is_dialling = false;
        let Some(id) = self.client_wire.take() else {
            return;
        };
        if self.one_in(2) {
            self.leave(id);
        } else if let Some(wire) = self.wires.get_mut(&id) {
            wire.is_half_open = true;
        }
    }

    // The control plane.

    /// A user wants something.
    fn wish(&mut self) {
        let n = self.store.tasks.len() as u64 + 1;
        self.store.tasks.insert(n, 0);
        self.say(&format!("task {n} is wanted"));
        if let Some(wire) = self.turn.and_then(|id| self.wires.get_mut(&id)) {
            // Where it is refused, the next hello finds it missing.
            drop(
                wire.server
                    .send(&Down::Assign { task: task(n) }, Class::Control),
            );
        }
    }

    fn on_server(&mut self, id: u64, output: server::Output) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        match output {
            server::Output::Proof { proof, stream } => {
                wire.peer = Some(stream);
                wire.proof = Some(proof);
            }
            server::Output::Hello { hello } => wire.held = Some(hello.tasks),
            server::Output::Deliver { seq, body } => wire.waiting.push_back((seq, *body)),
            server::Output::Ended { cause } => {
                if matches!(cause, server::Cause::Violation { .. }) {
                    self.violated(id, &cause.to_string());
                }
                self.say(&format!("the server ends wire {id}: {cause}"));
                self.leave(id);
            }
        }
    }

    /// What takes a while: checking proofs, comparing hellos.
    fn answer(&mut self) {
        let ids: Vec<_> = self.wires.keys().copied().collect();
        for id in ids {
            let Some(wire) = self.wires.get_mut(&id).filter(|wire| !wire.is_closing) else {
                continue;
            };
            if let Some(proof) = wire.proof.take() {
                let input = if proof == wire.nonce {
                    server::Input::Proved
                } else {
                    server::Input::Refuse {
                        code: DisconnectCode::BadProof,
                        reason: "of another connection".to_owned(),
                        hint: None,
                    }
                };
                wire.server.handle(self.now, input);
            } else if let Some(held) = wire.held.take() {
                self.admit(id, &held);
            }
        }
    }

    fn admit(&mut self, id: u64, held: &[TaskStatus]) {
        self.store.epoch += 1;
        self.streams += 1;
        // The older connection ends first, and what it delivered is stored.
        if let Some(older) = self.turn.take()
            && let Some(wire) = self.wires.get_mut(&older)
        {
            let input = server::Input::Close {
                code: DisconnectCode::Superseded,
                reason: "another connection".to_owned(),
                hint: None,
            };
            wire.server.handle(self.now, input);
            while wire.server.poll_output().is_some() {}
            self.leave(older);
        }
        let verdicts = held
            .iter()
            .map(|status| {
                let stored = self.store.tasks.get(&number(status.task)).copied();
                match stored {
                    Some(after) if after < EVENTS => TaskVerdict::Continue {
                        task: status.task,
                        after,
                    },
                    Some(_) | None => TaskVerdict::Forget { task: status.task },
                }
            })
            .collect();
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let peer = wire.peer.expect("proved before");
        let inbox = match &self.memory {
            Some((known, inbox)) if *known == peer => inbox.clone(),
            Some(_) | None => Inbox::resumed(peer, 0),
        };
        let acceptance = server::Acceptance {
            epoch: Epoch(self.store.epoch),
            stream: stream(self.streams),
            inbox,
            welcome: Box::new(Welcome {
                version: String::new(),
                heartbeat_ms: 0,
                silence_limit_ms: 0,
                tasks: verdicts,
            }),
        };
        wire.is_admitted = true;
        wire.server
            .handle(self.now, server::Input::Accept(acceptance));
        let is_held = |n: u64| held.iter().any(|status| number(status.task) == n);
        for (n, _) in self
            .store
            .tasks
            .iter()
            .filter(|(n, stored)| **stored < EVENTS && !is_held(**n))
        {
            drop(
                wire.server
                    .send(&Down::Assign { task: task(*n) }, Class::Control),
            );
        }
        self.turn = Some(id);
    }

    /// The slow application: one body of the admitted connection.
    fn store_one(&mut self) {
        if let Some(id) = self.turn {
            self.store_next(id);
        }
    }

    /// Whether there was one.
    fn store_next(&mut self, id: u64) -> bool {
        let Some(wire) = self.wires.get_mut(&id) else {
            return false;
        };
        let Some((seq, body)) = wire.waiting.pop_front() else {
            return false;
        };
        let Up::TaskEvent { task, event, .. } = body else {
            panic!("{body:?}");
        };
        let n = number(task);
        let stored = self.store.tasks.get_mut(&n).expect("wanted before");
        assert!(
            event.seq <= *stored + 1,
            "event {} of task {n} came when {stored} was stored",
            event.seq
        );
        if event.seq == *stored + 1 {
            *stored = event.seq;
            if event.seq == EVENTS {
                let times = self.store.results.entry(n).or_default();
                *times += 1;
                assert_eq!(*times, 1, "the result of task {n} is stored again");
            }
        }
        wire.server.consumed(self.now, seq);
        if event.seq == EVENTS {
            let body = Down::Stored { task, seq: EVENTS };
            drop(wire.server.send(&body, Class::Control));
        }
        self.say(&format!("event {} of task {n} is stored", event.seq));
        true
    }

    /// The server's end of the connection is over; what it delivered is stored, and what it says last is under way.
    fn leave(&mut self, id: u64) {
        while self.store_next(id) {}
        let is_left = self.client_wire != Some(id);
        if let Some(wire) = self.wires.get_mut(&id)
            && !wire.is_closing
        {
            wire.is_closing = true;
            wire.server.handle(
                self.now,
                server::Input::Closed {
                    code: None,
                    reason: "reset".to_owned(),
                },
            );
            while let Some(text) = wire.server.poll_transmit(self.now) {
                send_down(wire, self.now, text);
            }
            if wire.is_admitted
                && let Some(peer) = wire.peer
            {
                let consumed = wire.server.session().inbox().consumed();
                self.memory = Some((peer, Inbox::resumed(peer, consumed)));
            }
        }
        if self.turn == Some(id) {
            self.turn = None;
        }
        if is_left {
            self.wires.remove(&id);
        }
    }

    /// `kill -9`: what was not stored is gone, and so is the memory of the stream.
    fn crash_server(&mut self) {
        self.tally.server_crashes += 1;
        self.say("the control plane is killed");
        let is_silent = self.one_in(2);
        self.memory = None;
        self.turn = None;
        let client_wire = self.client_wire;
        self.wires.retain(|id, wire| {
            // A host that is gone sends no reset.
            wire.is_closing = true;
            wire.is_half_open |= is_silent;
            wire.waiting.clear();
            wire.up.clear();
            wire.down.clear();
            client_wire == Some(*id)
        });
    }

    // What has to hold after each step.

    fn check(&mut self) {
        let acked = self.client.session().outbox().acked();
        if acked <= self.checked {
            return;
        }
        for (seq, (task, event)) in self.numbered.range(self.checked + 1..=acked) {
            let stored = self.store.tasks.get(task).copied().unwrap_or_default();
            assert!(
                *event <= stored,
                "number {seq} (event {event} of task {task}) is acknowledged, and {stored} are stored"
            );
        }
        self.checked = acked;
    }
}

fn send_down(wire: &mut Wire, now: Instant, text: String) {
    if !wire.is_half_open {
        wire.down.push_back((now, text));
    }
}
