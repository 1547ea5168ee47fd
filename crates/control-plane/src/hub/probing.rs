//! When a delegate is probed, and what comes of it. Pure: the connection sends, waits and says what came.
//!
//! ```text
//! resting --its time has come, or somebody asks--> asked --the answer--> resting
//!                                                  asked --LIMIT: nothing--> resting, broken at `link` or `delegate`
//! ```
//!
//! One probe at a time. Half-way to the limit the delegate is asked for a sign of life: where that comes and the answer does not, the link
//! works and the delegate's tasks do not.

use link::{Rng, Server};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use wire::control::{Hop, HopReport, ProbeReport};

/// More than a delegate takes to find out that its runner is silent.
const LIMIT: Duration = Duration::from_secs(9);
const SIGN_OF_LIFE_AFTER: Duration = Duration::from_secs(6);

/// Who wants to know, beside the registry.
pub(super) type Waiter = oneshot::Sender<ProbeReport>;

#[derive(Debug)]
pub(super) struct Probing {
    period: Duration,
    rng: Rng,
    next: Instant,
    last_id: u64,
    asked: Option<Asked>,
    /// For the next probe, which is to tell of every agent.
    waiting: Vec<Waiter>,
}

#[derive(Debug)]
struct Asked {
    id: u64,
    at: Instant,
    /// Number of the ping that asks for a sign of life.
    ping: Option<u64>,
    waiters: Vec<Waiter>,
}

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Step {
    /// This is what the last probe found.
    Told(ProbeReport),
    Nothing,
}

impl Probing {
    /// Many delegates come at once: their first probes are spread over the period, too.
    pub(super) fn new(now: Instant, period: Duration, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let first = rng.up_to(period);
        Self {
            period,
            rng,
            next: now + first,
            last_id: 0,
            asked: None,
            waiting: Vec::new(),
        }
    }

    /// At once, or after the one that is under way.
    pub(super) fn ask(&mut self, now: Instant, waiter: Waiter) {
        self.waiting.push(waiter);
        self.next = self.next.min(now);
    }

    pub(super) fn deadline(&self) -> Instant {
        match &self.asked {
            None => self.next,
            Some(asked) if asked.ping.is_none() => asked.at + SIGN_OF_LIFE_AFTER,
            Some(asked) => asked.at + LIMIT,
        }
    }

    /// Time went on.
    pub(super) fn tick(&mut self, now: Instant, machine: &mut Server) -> Step {
        match &mut self.asked {
            None if now >= self.next => {
                self.last_id += 1;
                let waiters = std::mem::take(&mut self.waiting);
                machine.probe(self.last_id, !waiters.is_empty());
                self.asked = Some(Asked {
                    id: self.last_id,
                    at: now,
                    ping: None,
                    waiters,
                });
                // Between four and six fifths: delegates that came together drift apart.
                let jitter = self.rng.up_to(self.period * 2 / 5);
                self.next = now + self.period * 4 / 5 + jitter;
                Step::Nothing
            }
            None => Step::Nothing,
            Some(asked) => {
                let waited = now.saturating_duration_since(asked.at);
                if waited >= LIMIT {
                    let alive = asked
                        .ping
                        .is_some_and(|ping| machine.session().answered(ping));
                    return Step::Told(self.unanswered(now, alive));
                }
                if waited >= SIGN_OF_LIFE_AFTER && asked.ping.is_none() {
                    asked.ping = machine.ping();
                }
                Step::Nothing
            }
        }
    }

    /// The delegate answered. `Nothing` where that is not the answer that is waited for.
    pub(super) fn answered(&mut self, now: Instant, id: u64, report: ProbeReport) -> Step {
        let Some(asked) = self.asked.take_if(|asked| asked.id == id) else {
            return Step::Nothing;
        };
        let mut report = report.bounded();
        let whole = now.saturating_duration_since(asked.at);
        let beyond = Duration::from_micros(report.took_us);
        let link = HopReport::good(Hop::Link, micros(whole.saturating_sub(beyond)));
        report.hops.insert(0, link);
        report.took_us = micros(whole);
        Step::Told(self.tell(now, asked, report))
    }

    /// The connection ends: who waits hears how far the way went.
    pub(super) fn lost(&mut self, now: Instant) {
        let waiters = self.asked.take().map(|asked| asked.waiters);
        let report = broken(
            HopReport::failed(Hop::Link, 0, "the link was lost meanwhile", None),
            Duration::ZERO,
        );
        for waiter in waiters.into_iter().flatten().chain(self.waiting.drain(..)) {
            // Whoever asked may have given up.
            drop(waiter.send(report.clone()));
        }
        self.next = now + self.period;
    }

    fn unanswered(&mut self, now: Instant, alive: bool) -> ProbeReport {
        let took = micros(LIMIT);
        let report = if alive {
            let mut report = broken(
                HopReport::failed(
                    Hop::Delegate,
                    took,
                    &format!(
                        "the delegate answers pings, and not the probe within {} s",
                        LIMIT.as_secs()
                    ),
                    Some("on the delegate's host: `systemctl status delegate-agent`"),
                ),
                LIMIT,
            );
            report.hops.insert(0, HopReport::good(Hop::Link, 0));
            report
        } else {
            broken(
                HopReport::failed(
                    Hop::Link,
                    took,
                    &format!("nothing came back within {} s", LIMIT.as_secs()),
                    Some(
                        "the network is cut, or the delegate's process hangs: on its host, `delegate-agent probe`",
                    ),
                ),
                LIMIT,
            )
        };
        match self.asked.take() {
            Some(asked) => self.tell(now, asked, report),
            None => report,
        }
    }

    fn tell(&mut self, now: Instant, asked: Asked, report: ProbeReport) -> ProbeReport {
        for waiter in asked.waiters {
            // Whoever asked may have given up.
            drop(waiter.send(report.clone()));
        }
        if !self.waiting.is_empty() {
            self.next = now;
        }
        report
    }
}

fn broken(hop: HopReport, took: Duration) -> ProbeReport {
    ProbeReport {
        took_us: micros(took),
        hops: vec![hop],
        ..ProbeReport::default()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::{
        Client, Timing,
        client::{self, Stage},
        inbox::Inbox,
        server::{self, Acceptance},
    };
    use std::iter::from_fn;
    use wire::{
        control::{Epoch, Hello, Welcome},
        ids::StreamUuid,
    };

    const PERIOD: Duration = Duration::from_secs(30);

    /// Both ends of a live link.
    struct Ends {
        now: Instant,
        server: Server,
        client: Client,
    }

    impl Ends {
        fn live() -> Self {
            let now = Instant::now();
            let timing = Timing::of_heartbeat(Duration::from_secs(60));
            let mut ends = Self {
                now,
                server: Server::new(now, timing, "nonce".to_owned(), jiff::Timestamp::UNIX_EPOCH),
                client: Client::new(StreamUuid::nil(), 1),
            };
            ends.client.handle(now, client::Input::Start);
            ends.client.handle(now, client::Input::Connected);
            while ends.client.state().stage() != Stage::Live {
                ends.exchange(true);
            }
            ends
        }

        /// Whatever waits on the way. Where `answers`, what the client is asked is answered.
        fn exchange(&mut self, answers: bool) -> Option<(u64, ProbeReport)> {
            for text in from_fn(|| self.server.poll_transmit(self.now)) {
                self.client.handle(self.now, client::Input::Text(&text));
            }
            while let Some(output) = self.client.poll_output() {
                match output {
                    client::Output::Challenged { .. } => {
                        let hello: Hello = serde_json::from_value(serde_json::json!({
                            "version": "0", "tags": [], "draining": false, "probes": true, "runner_ready": true, "tasks": [], "gitspaces": [],
                            "inventory": {"hostname": "h", "os": "o", "kernel": "k", "arch": "a", "cpus": 1, "memory_bytes": 1,
                                "memory_available_bytes": 1, "disk_bytes": 1, "disk_available_bytes": 1,
                                "capacity": {"gitspaces": 1, "cpu_millis": 1, "memory_bytes": 1}}
                        }))
                        .unwrap();
                        let greet = client::Input::Greet {
                            proof: String::new(),
                            hello: Box::new(hello),
                        };
                        self.client.handle(self.now, greet);
                    }
                    client::Output::Probe { id, .. } if answers => {
                        let report = ProbeReport {
                            took_us: 1_000,
                            hops: vec![HopReport::good(Hop::Delegate, 1_000)],
                            ..ProbeReport::default()
                        };
                        self.client.probed(id, report);
                    }
                    _ => {}
                }
            }
            for text in from_fn(|| self.client.poll_transmit(self.now)) {
                self.server.handle(self.now, server::Input::Text(&text));
            }
            let mut probed = None;
            while let Some(output) = self.server.poll_output() {
                match output {
                    server::Output::Proof { .. } => {
                        self.server.handle(self.now, server::Input::Proved);
                    }
                    server::Output::Hello { .. } => {
                        let acceptance = Acceptance {
                            epoch: Epoch(1),
                            stream: StreamUuid::nil(),
                            inbox: Inbox::resumed(StreamUuid::nil(), 0),
                            welcome: Box::new(Welcome {
                                version: String::new(),
                                heartbeat_ms: 0,
                                silence_limit_ms: 0,
                                tasks: Vec::new(),
                            }),
                        };
                        self.server
                            .handle(self.now, server::Input::Accept(acceptance));
                    }
                    server::Output::Probed { id, report } => probed = Some((id, *report)),
                    server::Output::Deliver { .. } => {}
                    server::Output::Ended { cause } => panic!("{cause}"),
                }
            }
            probed
        }

        /// Time goes on to the next deadline.
        fn turn(&mut self, probing: &mut Probing) -> Step {
            self.now = self.now.max(probing.deadline());
            probing.tick(self.now, &mut self.server)
        }
    }

    fn told(step: Step) -> ProbeReport {
        match step {
            Step::Told(report) => report,
            Step::Nothing => panic!("nothing was told"),
        }
    }

    #[test]
    fn a_good_way_is_told_with_the_time_of_the_link_alone_and_probed_again_after_about_the_period()
    {
        let mut ends = Ends::live();
        let mut probing = Probing::new(ends.now, PERIOD, 7);
        let began = ends.now;
        assert!(matches!(ends.turn(&mut probing), Step::Nothing));
        assert!(ends.now <= began + PERIOD, "the first is within a period");
        let asked = ends.now;
        ends.now += Duration::from_millis(5);
        let (id, report) = ends.exchange(true).expect("answered");
        let report = told(probing.answered(ends.now, id, report));
        assert_eq!(report.broken_at(), None);
        let times: Vec<_> = report
            .hops
            .iter()
            .map(|hop| (hop.hop, hop.took_us))
            .collect();
        assert_eq!(times, [(Hop::Link, 4_000), (Hop::Delegate, 1_000)]);
        let next = probing.deadline() - asked;
        assert!(
            (PERIOD * 4 / 5..=PERIOD * 6 / 5).contains(&next),
            "{next:?}"
        );
    }

    #[test]
    fn a_delegate_whose_tasks_hang_is_told_from_a_link_that_is_cut() {
        for (is_cut, hop) in [(false, Hop::Delegate), (true, Hop::Link)] {
            let mut ends = Ends::live();
            let mut probing = Probing::new(ends.now, PERIOD, 7);
            for _ in 0..2 {
                assert!(matches!(ends.turn(&mut probing), Step::Nothing));
                if !is_cut {
                    assert!(ends.exchange(false).is_none());
                }
            }
            let report = told(ends.turn(&mut probing));
            assert_eq!(report.broken_at().map(|broken| broken.hop), Some(hop));
        }
    }

    #[test]
    fn who_asks_while_a_probe_is_under_way_gets_the_next_one_and_a_late_answer_counts_for_nothing()
    {
        let mut ends = Ends::live();
        let mut probing = Probing::new(ends.now, PERIOD, 7);
        assert!(matches!(ends.turn(&mut probing), Step::Nothing));
        let (waiter, mut report) = oneshot::channel();
        probing.ask(ends.now, waiter);
        assert!(
            matches!(ends.turn(&mut probing), Step::Nothing),
            "sign of life"
        );
        assert_eq!(told(ends.turn(&mut probing)).hops.len(), 1);
        assert!(report.try_recv().is_err(), "that was the probe before");
        // The answer to the first is still on its way.
        let (id, late) = ends.exchange(true).expect("answered");
        assert!(matches!(
            probing.answered(ends.now, id, late),
            Step::Nothing
        ));
        assert!(matches!(ends.turn(&mut probing), Step::Nothing));
        let (id, answer) = ends.exchange(true).expect("answered");
        assert!(id > 1);
        told(probing.answered(ends.now, id, answer));
        assert_eq!(report.try_recv().expect("told").broken_at(), None);
    }

    #[test]
    fn who_waits_hears_where_the_way_ended_when_the_link_is_lost() {
        let now = Instant::now();
        let mut probing = Probing::new(now, PERIOD, 7);
        let (waiter, mut report) = oneshot::channel();
        probing.ask(now, waiter);
        probing.lost(now);
        let report = report.try_recv().expect("told");
        assert_eq!(report.broken_at().map(|broken| broken.hop), Some(Hop::Link));
    }
}
