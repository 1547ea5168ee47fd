//! The control plane of the world.

use super::{EVENTS, World, number, send_down, stream, task};
use link::{Class, inbox::Inbox, server};
use wire::control::{DisconnectCode, Down, Epoch, TaskStatus, TaskVerdict, Up, Welcome};

impl World {
    /// A user wants something.
    pub(super) fn wish(&mut self) {
        let n = self.store.tasks.len() as u64 + 1;
        self.store.tasks.insert(n, 0);
        self.say(&format!("task {n} is wanted"));
        if let Some(wire) = self.turn.and_then(|id| self.wires.get_mut(&id)) {
            // Where it is refused, the next hello finds it missing.
            drop(wire.server.send(
                &Down::Assign {
                    task: task(n),
                    limit_ms: None,
                },
                Class::Control,
            ));
        }
    }

    pub(super) fn on_server(&mut self, id: u64, output: server::Output) {
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
            // Nothing depends on one; the other simulation sends them.
            server::Output::Probed { .. } => {}
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
    pub(super) fn answer(&mut self) {
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
            drop(wire.server.send(
                &Down::Assign {
                    task: task(*n),
                    limit_ms: None,
                },
                Class::Control,
            ));
        }
        self.turn = Some(id);
    }

    /// The slow application: one body of the admitted connection.
    pub(super) fn store_one(&mut self) {
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
    pub(super) fn leave(&mut self, id: u64) {
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
    pub(super) fn crash_server(&mut self) {
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
}
