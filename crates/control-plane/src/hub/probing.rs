//! The probes of one live connection: when a delegate is probed, and what comes of it. The connection sends, waits and says what came.
//!
//! ```text
//! resting --its time has come, or somebody asks--> asked --the answer--> resting
//!                                                  asked --nothing heard for LIMIT--> resting, broken at `link`
//!                                                  asked --a sign of life, and no answer--> resting, broken at `delegate`
//!                                                  asked --other words, for SLOW_LIMIT--> resting, and as it was
//! ```
//!
//! One probe at a time. After a while the delegate is asked for a sign of life. What is asked arrives in the order in which it was asked: where
//! that sign comes, and the answer does not although there was time for it since, the link works and the delegate's tasks do not. Where other
//! words come, and neither of the two, the road is slow: that says nothing against the host, and the answer is waited for.

#[cfg(test)]
mod tests;

use super::{
    greeting::Admitted,
    pace::{Pace, Paced},
    registry::{Found, Slot},
};
use daemon::Clock;
use link::{Rng, Server};
use newtype_uuid::GenericUuid as _;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use wire::{
    control::{Hop, HopReport, ProbeReport},
    ids::DelegateUuid,
};

/// More than a delegate takes to find out that its runner is silent.
const LIMIT: Duration = Duration::from_secs(9);
const SIGN_OF_LIFE_AFTER: Duration = Duration::from_secs(3);
/// A delegate that has said the sign has had the question, and takes no longer for what it waits for.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// On a slow road. The next one may meet a better moment.
const SLOW_LIMIT: Duration = Duration::from_secs(60);

/// Who wants to know, beside the registry.
pub(super) type Waiter = oneshot::Sender<ProbeReport>;

/// The probes of a delegate that is in, and what they find: for whoever asks how it is.
#[derive(Debug)]
pub(super) struct Probes {
    delegate: DelegateUuid,
    name: String,
    slot: Arc<Slot>,
    clock: Arc<dyn Clock>,
    answers: Answers,
}

#[derive(Debug)]
enum Answers {
    Probes(Probing),
    /// It is of an older version, which would break off.
    Nothing {
        version: String,
    },
}

impl Answers {
    fn of(admitted: &Admitted, now: Instant, pace: &Arc<Pace>) -> Self {
        if admitted.probes {
            let (seed, _) = admitted.delegate.into_untyped_uuid().as_u64_pair();
            Self::Probes(Probing::new(now, pace.join(), seed ^ admitted.epoch.0))
        } else {
            Self::Nothing {
                version: admitted.version.clone(),
            }
        }
    }
}

impl Probes {
    pub(super) fn new(
        admitted: &Admitted,
        clock: Arc<dyn Clock>,
        now: Instant,
        pace: &Arc<Pace>,
    ) -> Self {
        let probes = Self {
            delegate: admitted.delegate,
            name: admitted.name.clone(),
            slot: Arc::clone(&admitted.slot),
            clock,
            answers: Answers::of(admitted, now, pace),
        };
        if let Answers::Nothing { version } = &probes.answers {
            probes.found(unsupported(version));
        }
        probes
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.answers {
            Answers::Probes(probing) => Some(probing.deadline()),
            Answers::Nothing { .. } => None,
        }
    }

    /// Time went on.
    pub(super) fn tick(&mut self, now: Instant, machine: &mut Server) {
        if let Answers::Probes(probing) = &mut self.answers
            && let Some(report) = probing.tick(now, machine)
        {
            self.found(report);
        }
    }

    /// Somebody asks.
    pub(super) fn ask(&mut self, now: Instant, waiter: Waiter, machine: &mut Server) {
        match &mut self.answers {
            Answers::Probes(probing) => probing.ask(now, waiter),
            // Whoever asked may have given up.
            Answers::Nothing { version } => drop(waiter.send(unsupported(version))),
        }
        self.tick(now, machine);
    }

    /// The delegate said something.
    pub(super) fn heard(&mut self, now: Instant, machine: &Server) {
        if let Answers::Probes(probing) = &mut self.answers {
            probing.heard(now, machine);
        }
    }

    pub(super) fn answered(&mut self, now: Instant, id: u64, report: ProbeReport) {
        if let Answers::Probes(probing) = &mut self.answers
            && let Some(report) = probing.answered(now, id, report)
        {
            self.found(report);
        }
    }

    /// The connection ends.
    pub(super) fn lost(&mut self, now: Instant) {
        if let Answers::Probes(probing) = &mut self.answers {
            probing.lost(now);
        }
    }

    fn found(&self, report: ProbeReport) {
        let broken = report.broken_at().cloned();
        let Found::Changed { was } = self.slot.found(report, self.clock.now()) else {
            return;
        };
        let (delegate, name) = (self.delegate, &self.name);
        match broken {
            Some(broken) => {
                tracing::warn!(%delegate, name, hop = %broken.hop, problem = ?broken.problem, "The way through a delegate is broken; starts go to others");
            }
            None => {
                tracing::info!(%delegate, name, was = was.map(tracing::field::display), "The way through a delegate is whole again");
            }
        }
    }
}

fn unsupported(version: &str) -> ProbeReport {
    let reason =
        format!("delegate-agent is of the older version {version}, which cannot be probed");
    ProbeReport::only(
        HopReport::not_supported(Hop::Delegate, &reason),
        Duration::ZERO,
    )
}

/// Pure.
#[derive(Debug)]
struct Probing {
    pace: Paced,
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
    /// When anything was last heard, since it was asked.
    heard: Instant,
    sign: Sign,
    waiters: Vec<Waiter>,
}

/// Of life.
#[derive(Debug)]
enum Sign {
    NotAsked,
    /// By a ping of this number; none where the connection is not live.
    Asked(Option<u64>),
    Heard(Instant),
}

/// What it means that the answer is not there.
enum Verdict {
    /// Nothing yet, before this.
    Until(Instant),
    BrokenAt(Hop),
    Slow,
}

impl Asked {
    fn verdict(&self, now: Instant) -> Verdict {
        let (until, verdict) = match self.sign {
            Sign::NotAsked => return Verdict::Until(self.at + SIGN_OF_LIFE_AFTER),
            Sign::Heard(at) => (
                (self.at + LIMIT).max(at + ANSWER_LIMIT),
                Verdict::BrokenAt(Hop::Delegate),
            ),
            Sign::Asked(_) => {
                let (silent, slow) = (self.heard + LIMIT, self.at + SLOW_LIMIT);
                if silent <= slow {
                    (silent, Verdict::BrokenAt(Hop::Link))
                } else {
                    (slow, Verdict::Slow)
                }
            }
        };
        if now < until {
            Verdict::Until(until)
        } else {
            verdict
        }
    }
}

impl Probing {
    /// Many delegates come at once: their first probes are spread over the period, too.
    fn new(now: Instant, pace: Paced, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let first = rng.up_to(pace.period());
        Self {
            pace,
            rng,
            next: now + first,
            last_id: 0,
            asked: None,
            waiting: Vec::new(),
        }
    }

    /// At once, or after the one that is under way.
    fn ask(&mut self, now: Instant, waiter: Waiter) {
        self.waiting.push(waiter);
        self.next = self.next.min(now);
    }

    fn deadline(&self) -> Instant {
        match &self.asked {
            None => self.next,
            Some(asked) => match asked.verdict(asked.at) {
                Verdict::Until(until) => until,
                Verdict::BrokenAt(_) | Verdict::Slow => asked.at,
            },
        }
    }

    /// Time went on. The answer is what the last probe found, where its time is over.
    fn tick(&mut self, now: Instant, machine: &mut Server) -> Option<ProbeReport> {
        let Some(asked) = &mut self.asked else {
            if now >= self.next {
                self.begin(now, machine);
            }
            return None;
        };
        let waited = now.saturating_duration_since(asked.at);
        if matches!(asked.sign, Sign::NotAsked) && waited >= SIGN_OF_LIFE_AFTER {
            asked.sign = Sign::Asked(machine.ping());
            return None;
        }
        let report = match asked.verdict(now) {
            Verdict::Until(_) => return None,
            Verdict::Slow => {
                let slow = HopReport::failed(
                    Hop::Link,
                    waited,
                    &format!(
                        "the road is slow: the answer is not there after {} s",
                        waited.as_secs()
                    ),
                    None,
                );
                self.tell(now, &ProbeReport::only(slow, waited));
                return None;
            }
            Verdict::BrokenAt(Hop::Delegate) => {
                let mut report = ProbeReport::only(
                    HopReport::failed(
                        Hop::Delegate,
                        waited,
                        &format!(
                            "the delegate answers pings, and not the probe within {} s",
                            waited.as_secs()
                        ),
                        Some("on the delegate's host: `systemctl status delegate-agent`"),
                    ),
                    waited,
                );
                let link = HopReport::good(Hop::Link, Duration::ZERO);
                report.hops.insert(0, link);
                report
            }
            Verdict::BrokenAt(_) => ProbeReport::only(
                HopReport::failed(
                    Hop::Link,
                    waited,
                    &format!("nothing came back within {} s", waited.as_secs()),
                    Some(
                        "the network is cut, or the delegate's process hangs: on its host, `delegate-agent probe`",
                    ),
                ),
                waited,
            ),
        };
        self.tell(now, &report);
        Some(report)
    }

    fn begin(&mut self, now: Instant, machine: &mut Server) {
        self.last_id += 1;
        let waiters = std::mem::take(&mut self.waiting);
        machine.probe(self.last_id, !waiters.is_empty());
        self.asked = Some(Asked {
            id: self.last_id,
            at: now,
            heard: now,
            sign: Sign::NotAsked,
            waiters,
        });
        // Between four and six fifths: delegates that came together drift apart.
        let period = self.pace.period();
        let jitter = self.rng.up_to(period * 2 / 5);
        self.next = now + period * 4 / 5 + jitter;
    }

    fn heard(&mut self, now: Instant, machine: &Server) {
        let Some(asked) = &mut self.asked else {
            return;
        };
        asked.heard = now;
        if let Sign::Asked(Some(ping)) = asked.sign
            && machine.session().answered(ping)
        {
            asked.sign = Sign::Heard(now);
        }
    }

    /// The delegate answered. Nothing where that is not the answer that is waited for.
    fn answered(&mut self, now: Instant, id: u64, report: ProbeReport) -> Option<ProbeReport> {
        let asked = self.asked.as_ref().filter(|asked| asked.id == id)?;
        let whole = now.saturating_duration_since(asked.at);
        let report = report.bounded().through(Hop::Link, whole);
        self.tell(now, &report);
        Some(report)
    }

    /// The connection ends: who waits hears how far the way went.
    fn lost(&mut self, now: Instant) {
        let lost = HopReport::failed(
            Hop::Link,
            Duration::ZERO,
            "the link was lost meanwhile",
            None,
        );
        let report = ProbeReport::only(lost, Duration::ZERO);
        self.tell(now, &report);
        for waiter in self.waiting.drain(..) {
            // Whoever asked may have given up.
            drop(waiter.send(report.clone()));
        }
        self.next = now + self.pace.period();
    }

    /// Those who wait for the probe that is under way.
    fn tell(&mut self, now: Instant, report: &ProbeReport) {
        for waiter in self
            .asked
            .take()
            .into_iter()
            .flat_map(|asked| asked.waiters)
        {
            // Whoever asked may have given up.
            drop(waiter.send(report.clone()));
        }
        if !self.waiting.is_empty() {
            self.next = now;
        }
    }
}
