//! Tasks and their results over a channel that keeps no promise, between two ends that may be killed at any step.
//!
//! The channel loses, delays, reorders and repeats frames, brings frames of earlier connections into later ones, breaks, and goes silent
//! without breaking. A WebSocket over TLS does little of that; the link has to answer all of it with a connection anew, and never with a
//! wrong acknowledgement. Around the machines stand the smallest control plane and runner that keep what the real ones keep on disk.
//!
//! After each step: no task took effect twice, no result was stored twice, nothing is acknowledged that is not stored, and nothing is
//! forgotten that is not. In the end everything is done exactly once.

#[path = "faults/control_plane.rs"]
mod control_plane;
#[path = "faults/delegate.rs"]
mod delegate;

use jiff::Timestamp;
use link::{Client, Server, backoff::Rng, client, codec, inbox::Inbox, server};
use newtype_uuid::GenericUuid as _;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    time::{Duration, Instant},
};
use uuid::Uuid;
use wire::{
    control::{Frame, MAX_FRAME, TaskStatus, Up},
    gitspace::{Generation, Observed, ObservedState},
    ids::{GitspaceUuid, StreamUuid, TaskUuid, TraceUuid},
    task::{Phase, Task, TaskEvent, TaskEventKind, TaskOutcome, TaskVerb},
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
            self.client.state().stage(),
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

    /// What has to hold after each step.
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
