//! When a delegate is probed, and what comes of it, over both ends of a real link without sockets.

use super::*;
use daemon::ManualClock;
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

fn paced() -> Paced {
    Pace::new(PERIOD).join()
}

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
                        hops: vec![HopReport::good(Hop::Delegate, Duration::from_millis(1))],
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
    fn turn(&mut self, probing: &mut Probing) -> Option<ProbeReport> {
        self.now = self.now.max(probing.deadline());
        probing.tick(self.now, &mut self.server)
    }
}

fn told(report: Option<ProbeReport>) -> ProbeReport {
    report.expect("something was told")
}

#[test]
fn a_good_way_is_told_with_the_time_of_the_link_alone_and_probed_again_after_about_the_period() {
    let mut ends = Ends::live();
    let mut probing = Probing::new(ends.now, paced(), 7);
    let began = ends.now;
    assert_eq!(ends.turn(&mut probing), None);
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
        let mut probing = Probing::new(ends.now, paced(), 7);
        for _ in 0..2 {
            assert_eq!(ends.turn(&mut probing), None);
            if !is_cut {
                assert!(ends.exchange(false).is_none());
                probing.heard(ends.now, &ends.server);
            }
        }
        let begun = ends.now;
        let report = told(ends.turn(&mut probing));
        assert_eq!(report.broken_at().map(|broken| broken.hop), Some(hop));
        assert_eq!(ends.now - begun + SIGN_OF_LIFE_AFTER, LIMIT);
    }
}

#[test]
fn a_slow_road_is_not_a_broken_one_and_its_late_answer_counts() {
    let mut ends = Ends::live();
    let mut probing = Probing::new(ends.now, paced(), 7);
    for _ in 0..2 {
        assert_eq!(ends.turn(&mut probing), None);
    }
    // Words that were said before the question come, one by one.
    for _ in 0..5 {
        ends.now = probing.deadline() - Duration::from_secs(1);
        probing.heard(ends.now, &ends.server);
        assert_eq!(probing.tick(ends.now, &mut ends.server), None);
    }
    let (id, report) = ends.exchange(true).expect("answered");
    let report = told(probing.answered(ends.now, id, report));
    assert_eq!(report.broken_at(), None);
    assert!(Duration::from_micros(report.took_us) > 2 * LIMIT);
}

#[test]
fn a_road_on_which_the_answer_never_comes_is_given_up_as_slow_and_probed_again() {
    let mut ends = Ends::live();
    let mut probing = Probing::new(ends.now, paced(), 7);
    let (waiter, mut report) = oneshot::channel();
    probing.ask(ends.now, waiter);
    for _ in 0..2 {
        assert_eq!(ends.turn(&mut probing), None);
    }
    let asked = ends.now - SIGN_OF_LIFE_AFTER;
    while probing.asked.is_some() {
        ends.now = (ends.now + Duration::from_secs(5)).min(probing.deadline());
        probing.heard(ends.now, &ends.server);
        assert_eq!(probing.tick(ends.now, &mut ends.server), None, "not broken");
    }
    assert_eq!(ends.now - asked, SLOW_LIMIT);
    let report = report.try_recv().expect("told");
    assert_eq!(report.broken_at().map(|broken| broken.hop), Some(Hop::Link));
    assert!(report.to_string().contains("slow"), "{report}");
    assert_eq!(ends.turn(&mut probing), None);
    assert!(ends.exchange(true).is_some());
}

#[test]
fn a_delegate_that_had_the_question_late_has_its_time_for_the_answer() {
    let mut ends = Ends::live();
    let mut probing = Probing::new(ends.now, paced(), 7);
    for _ in 0..2 {
        assert_eq!(ends.turn(&mut probing), None);
    }
    let asked = ends.now - SIGN_OF_LIFE_AFTER;
    ends.now = asked + LIMIT - Duration::from_secs(1);
    assert!(ends.exchange(false).is_none());
    probing.heard(ends.now, &ends.server);
    let heard = ends.now;
    let report = told(ends.turn(&mut probing));
    assert_eq!(ends.now - heard, ANSWER_LIMIT);
    assert_eq!(
        report.broken_at().map(|broken| broken.hop),
        Some(Hop::Delegate)
    );
}

/// With whatever answers it gives; who asks is told at once where it gives none.
fn probes(answers: Answers) -> Probes {
    Probes {
        delegate: DelegateUuid::nil(),
        name: "host".to_owned(),
        slot: Arc::default(),
        clock: Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH)),
        answers,
    }
}

#[test]
fn a_delegate_that_does_not_say_that_it_answers_probes_is_sent_none() {
    let now = Instant::now();
    let old = Answers::Nothing {
        version: "0.0.9".to_owned(),
    };
    for (answers, is_asked) in [
        (old, false),
        (Answers::Probes(Probing::new(now, paced(), 7)), true),
    ] {
        let mut ends = Ends::live();
        let mut probes = probes(answers);
        let (waiter, mut report) = oneshot::channel();
        probes.ask(ends.now, waiter, &mut ends.server);
        for _ in 0..10 {
            ends.now += PERIOD;
            probes.tick(ends.now, &mut ends.server);
        }
        assert_eq!(ends.exchange(true).is_some(), is_asked);
        if !is_asked {
            let report = report.try_recv().expect("told at once");
            assert!(report.to_string().contains("0.0.9"), "{report}");
            assert_eq!(probes.deadline(), None);
        }
    }
}

#[test]
fn who_asks_while_a_probe_is_under_way_gets_the_next_one_and_a_late_answer_counts_for_nothing() {
    let mut ends = Ends::live();
    let mut probing = Probing::new(ends.now, paced(), 7);
    assert_eq!(ends.turn(&mut probing), None);
    let (waiter, mut report) = oneshot::channel();
    probing.ask(ends.now, waiter);
    assert_eq!(ends.turn(&mut probing), None, "sign of life");
    assert_eq!(told(ends.turn(&mut probing)).hops.len(), 1);
    assert!(report.try_recv().is_err(), "that was the probe before");
    // The answer to the first is still on its way.
    let (id, late) = ends.exchange(true).expect("answered");
    assert_eq!(probing.answered(ends.now, id, late), None);
    assert_eq!(ends.turn(&mut probing), None);
    let (id, answer) = ends.exchange(true).expect("answered");
    assert!(id > 1);
    told(probing.answered(ends.now, id, answer));
    assert_eq!(report.try_recv().expect("told").broken_at(), None);
}

#[test]
fn who_waits_hears_where_the_way_ended_when_the_link_is_lost() {
    let now = Instant::now();
    let mut probing = Probing::new(now, paced(), 7);
    let (waiter, mut report) = oneshot::channel();
    probing.ask(now, waiter);
    probing.lost(now);
    let report = report.try_recv().expect("told");
    assert_eq!(report.broken_at().map(|broken| broken.hop), Some(Hop::Link));
}
