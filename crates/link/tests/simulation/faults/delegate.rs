//! The delegate of the world, and its runner.

use super::{EVENTS, Wire, World, event, number, stream, task_id};
use jiff::Timestamp;
use link::{Class, Client, Server, Timing, client, server};
use std::collections::VecDeque;
use wire::{
    control::{DisconnectCode, Down, Hello, TaskStatus, TaskVerdict},
    gitspace::Generation,
    ids::{GitspaceUuid, TaskUuid},
    task::TaskKind,
};

impl World {
    pub(super) fn connect(&mut self, is_calm: bool) {
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

    pub(super) fn on_client(&mut self, output: client::Output) {
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
            client::Output::Probe { .. } => {}
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
            Down::Assign { task, .. } => {
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
            Down::Cancel { .. } | Down::Tunnels { .. } => {}
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

    pub(super) fn violated(&mut self, id: u64, cause: &str) {
        let is_tampered = self.wires.get(&id).is_none_or(|wire| wire.is_tampered);
        assert!(is_tampered, "a channel that kept its promises: {cause}");
        self.tally.violations += 1;
    }

    /// A follower reads a few events at once.
    pub(super) fn follow_one(&mut self) {
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

    pub(super) fn crash_delegate(&mut self) {
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
}
