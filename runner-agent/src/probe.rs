//! The runner's part of a probe: Docker, and the agents of all gitspaces that run, at the same time.
//!
//! One task, which looks once at a time: whoever asks meanwhile hears what that look finds. For [`FRESH`] after it so does whoever asks then,
//! but for a person, who asks for every agent and may have changed something just now. Where nobody asks for [`OWN_PERIOD`], it asks the agents by itself, so that a silent one is noticed also while the link is down.
//!
//! What it finds of an agent that is otherwise than what the board says is looked at by the gitspace's own task, which tries longer and
//! publishes. An agent that stays silent for as long as the configuration says is replaced, by that task too, on a signal to the first process
//! of its container: terminals are in processes of their own. The container itself is never stopped or killed for it.

use crate::{
    agent_client::Agent,
    docker::Docker,
    gitspace::{Gitspaces, Silent},
    shared::Shared,
    silence,
};
use daemon::ErrorChain;
use futures_util::{StreamExt as _, stream};
use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use wire::{
    control::{Hop, HopReport, MAX_PROBE_AGENTS, ProbeReport},
    failure::FailureCode,
    gitspace::{Observed, ObservedState},
    ids::GitspaceUuid,
};

const DOCKER_LIMIT: Duration = Duration::from_secs(2);
/// For all of them: a delegate waits little longer. Who had no turn by then comes first the next time.
const AGENTS_LIMIT: Duration = Duration::from_secs(3);
/// Asked at once.
const AGENTS_AT_ONCE: usize = 64;
/// Silent agents that are told one by one where not all are asked for: the counters say the rest.
const MAX_SILENT: usize = 16;
/// What is not older need not be looked for again, for a daemon that asks now and then.
const FRESH: Duration = Duration::from_secs(1);
/// Longer than a control plane lets pass between two probes, unless somebody set that.
const OWN_PERIOD: Duration = Duration::from_secs(40);
/// Who waits for the look that is under way. One more waits for room here.
const MAX_WAITING: usize = 64;

/// What a probe is asked for.
#[derive(Debug)]
struct Question {
    /// The time of every agent.
    all: bool,
    answer: oneshot::Sender<ProbeReport>,
}

impl Question {
    fn tell(self, found: &ProbeReport) {
        // Whoever asked may have given up.
        drop(self.answer.send(told(found, self.all)));
    }
}

/// To the task. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    questions: mpsc::Sender<Question>,
}

/// The task's own end.
#[derive(Debug)]
pub(crate) struct Questions(mpsc::Receiver<Question>);

impl Prober {
    pub(crate) fn new() -> (Self, Questions) {
        let (sender, questions) = mpsc::channel(MAX_WAITING);
        let prober = Self { questions: sender };
        (prober, Questions(questions))
    }

    /// Nothing where the runner stops.
    pub(crate) async fn ask(&self, all: bool) -> Option<ProbeReport> {
        let (answer, report) = oneshot::channel();
        self.questions.send(Question { all, answer }).await.ok()?;
        report.await.ok()
    }
}

pub(crate) struct ProbeTask {
    pub(crate) shared: Arc<Shared>,
    pub(crate) docker: Docker,
    pub(crate) gitspaces: Gitspaces,
    pub(crate) questions: Questions,
}

enum Event {
    Asked(Question),
    OwnTurn,
    Stop,
}

impl ProbeTask {
    pub(crate) async fn run(self) -> Result<(), Infallible> {
        let Self {
            shared,
            docker,
            gitspaces,
            questions: Questions(mut questions),
        } = self;
        let drain = shared.tasks.drain_token();
        let mut agents = Agents::default();
        let mut last: Option<(Instant, ProbeReport)> = None;
        let mut own_turn = Instant::now() + OWN_PERIOD;
        loop {
            let event = tokio::select! {
                () = drain.cancelled() => Event::Stop,
                question = questions.recv() => question.map_or(Event::Stop, Event::Asked),
                () = sleep_until(own_turn) => Event::OwnTurn,
            };
            let first = match event {
                Event::Stop => return Ok(()),
                Event::OwnTurn => None,
                Event::Asked(question) => match &last {
                    Some((at, found)) if at.elapsed() < FRESH && !question.all => {
                        question.tell(found);
                        continue;
                    }
                    Some(_) | None => Some(question),
                },
            };
            let begun = Instant::now();
            let look = async {
                let docker = async {
                    match &first {
                        Some(_) => Some(ask_docker(&docker).await),
                        None => None,
                    }
                };
                tokio::join!(docker, agents.ask(&shared, &gitspaces))
            };
            let Some((docker, found)) = drain.run_until_cancelled(look).await else {
                return Ok(());
            };
            own_turn = agents.own_turn(shared.config.silence_limit(), Instant::now());
            // Of its own turn nobody is told, and whoever asks meanwhile asks for Docker, too.
            let Some(docker) = docker else {
                continue;
            };
            let found = report(docker, found, begun.elapsed());
            let meanwhile = std::iter::from_fn(|| questions.try_recv().ok());
            for question in first.into_iter().chain(meanwhile).take(MAX_WAITING) {
                question.tell(&found);
            }
            last = Some((Instant::now(), found));
        }
    }
}

/// Of a whole look, with every agent as far as they have room.
fn report(docker: HopReport, agents: Asked, took: Duration) -> ProbeReport {
    // The silent ones first: they are what a bounded report has room for.
    let (silent, good): (Vec<_>, Vec<_>) =
        agents.reports.into_iter().partition(HopReport::is_failed);
    ProbeReport {
        agents: count(silent.len() + good.len() + agents.unasked),
        silent_agents: count(silent.len()),
        unasked_agents: count(agents.unasked),
        hops: [docker]
            .into_iter()
            .chain(silent.into_iter().chain(good).take(MAX_PROBE_AGENTS))
            .collect(),
        ..ProbeReport::default()
    }
    .taken(took)
}

/// As much of it as was asked for.
fn told(whole: &ProbeReport, all: bool) -> ProbeReport {
    let mut report = whole.clone();
    if !all {
        let mut silent = 0;
        report.hops.retain(|one| {
            silent += usize::from(one.hop == Hop::Agent && one.is_failed());
            one.hop != Hop::Agent || (one.is_failed() && silent <= MAX_SILENT)
        });
    }
    report
}

async fn ask_docker(docker: &Docker) -> HopReport {
    let begun = Instant::now();
    match docker.ping(DOCKER_LIMIT).await {
        Ok(()) => HopReport::good(Hop::Docker, begun.elapsed()),
        Err(error) => HopReport::failed(
            Hop::Docker,
            begun.elapsed(),
            &ErrorChain(&error).to_string(),
            error.failure().hint.as_deref(),
        ),
    }
}

/// What is remembered of agents between two looks.
#[derive(Debug, Default)]
struct Agents {
    /// The first that had no turn the last time.
    begin: Option<GitspaceUuid>,
    silent: HashMap<GitspaceUuid, Silence>,
}

#[derive(Debug)]
struct Silence {
    /// Since when it is silent, or was last replaced for it.
    since: Instant,
    was_replaced: bool,
}

/// What a look found of agents.
#[derive(Debug, Default)]
struct Asked {
    reports: Vec<HopReport>,
    /// Of those that had no turn.
    unasked: usize,
}

impl Agents {
    async fn ask(&mut self, shared: &Shared, gitspaces: &Gitspaces) -> Asked {
        let board = shared.board.after(0).into_iter();
        let mut running: HashMap<_, _> = board
            .filter(|observed| observed.state == ObservedState::Running)
            .map(|observed| (observed.gitspace, observed))
            .collect();
        self.silent.retain(|id, _| running.contains_key(id));
        let mut left = turn(running.keys().copied().collect(), self.begin);
        let in_turn: Vec<Observed> = left.iter().filter_map(|id| running.remove(id)).collect();
        let deadline = Instant::now() + AGENTS_LIMIT;
        let mut answers = stream::iter(in_turn)
            .map(|observed| async move {
                let report = ask_agent(shared, observed.gitspace).await;
                (observed, report)
            })
            .buffer_unordered(AGENTS_AT_ONCE);
        let mut asked = Asked::default();
        while let Ok(Some((observed, report))) = timeout_at(deadline, answers.next()).await {
            left.retain(|id| *id != observed.gitspace);
            let Some(report) = report else { continue };
            self.consider(shared, gitspaces, &observed, report.is_failed());
            asked.reports.push(report);
        }
        drop(answers);
        // In the order of their turn, whichever were answered first.
        self.begin = left.first().copied();
        asked.unasked = left.len();
        asked
    }

    /// When to ask next where nobody else does: a silence that becomes too long is not waited for.
    fn own_turn(&self, limit: Duration, now: Instant) -> Instant {
        let silences = self.silent.values().map(|silence| silence.since + limit);
        let next = silences.chain([now + OWN_PERIOD]).min();
        next.map_or(now, |next| next.max(now + FRESH))
    }

    /// The gitspace's own task decides; it hears where something is otherwise than it said.
    fn consider(
        &mut self,
        shared: &Shared,
        gitspaces: &Gitspaces,
        observed: &Observed,
        is_silent: bool,
    ) {
        let id = observed.gitspace;
        // While a task is carried out on it, that one sees to it.
        if observed.task.is_some() {
            self.silent.remove(&id);
            return;
        }
        let known = observed
            .failure
            .as_ref()
            .is_some_and(|failure| failure.code == FailureCode::AgentSilent);
        if is_silent != known {
            gitspaces.look(id);
        }
        let (limit, now) = (shared.config.silence_limit(), Instant::now());
        if let Some(silent) = self.note(id, is_silent, limit, now) {
            gitspaces.replace_agent(id, silent);
        }
    }

    /// Whether it is silent for long enough to be replaced; the time for that begins again then.
    fn note(
        &mut self,
        gitspace: GitspaceUuid,
        is_silent: bool,
        limit: Duration,
        now: Instant,
    ) -> Option<Silent> {
        if !is_silent {
            self.silent.remove(&gitspace);
            return None;
        }
        let silence = self.silent.entry(gitspace).or_insert(Silence {
            since: now,
            was_replaced: false,
        });
        if now.duration_since(silence.since) < limit {
            return None;
        }
        silence.since = now;
        let was_replaced = std::mem::replace(&mut silence.was_replaced, true);
        Some(if was_replaced {
            Silent::Still
        } else {
            Silent::ForLong
        })
    }
}

/// All of them, from `begin` on.
fn turn(mut agents: Vec<GitspaceUuid>, begin: Option<GitspaceUuid>) -> Vec<GitspaceUuid> {
    agents.sort_unstable();
    let first = agents.partition_point(|id| begin.is_some_and(|begin| *id < begin));
    // The one it would have begun with may be gone, and with it all behind it.
    if first < agents.len() {
        agents.rotate_left(first);
    }
    agents
}

/// `None` where it stopped to run, or is not in the ledger.
async fn ask_agent(shared: &Shared, id: GitspaceUuid) -> Option<HopReport> {
    let machine = shared.ledger.get(id)?.machine?;
    let agent = Agent::new(&shared.names.dev_run_dir(&machine.key));
    let begun = Instant::now();
    let report = match agent.health().await {
        Ok(_) => HopReport::good(Hop::Agent, begun.elapsed()),
        Err(error) => HopReport::failed(
            Hop::Agent,
            begun.elapsed(),
            &ErrorChain(&error).to_string(),
            Some(silence::hint(&error)),
        ),
    };
    Some(report.of(id))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::{IdsExt as _, SequentialIds};
    use tokio::net::UnixListener;

    fn ids(number: usize) -> Vec<GitspaceUuid> {
        let made = SequentialIds::default();
        let mut ids: Vec<_> = (0..number).map(|_| made.typed()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn an_agent_that_is_silent_for_long_is_replaced_not_again_at_once_and_told_once() {
        let mut agents = Agents::default();
        let id = ids(1)[0];
        let (limit, begun) = (Duration::from_secs(120), Instant::now());
        let mut note = |second, is_silent| {
            agents.note(id, is_silent, limit, begun + Duration::from_secs(second))
        };
        assert_eq!(note(0, true), None);
        assert_eq!(note(119, true), None, "not yet");
        assert_eq!(note(119, false), None, "it answered once");
        assert_eq!(note(121, true), None, "it begins again");
        assert_eq!(note(241, true), Some(Silent::ForLong));
        assert_eq!(note(242, true), None, "the new one needs a while to start");
        assert_eq!(note(361, true), Some(Silent::Still));
        assert_eq!(note(362, false), None);
        assert_eq!(note(363, true), None);
        assert_eq!(note(483, true), Some(Silent::ForLong), "another silence");
    }

    #[test]
    fn a_silence_that_becomes_too_long_is_not_waited_for() {
        let mut agents = Agents::default();
        let (limit, now) = (Duration::from_secs(30), Instant::now());
        assert_eq!(agents.own_turn(limit, now), now + OWN_PERIOD);
        agents.note(ids(1)[0], true, limit, now);
        let later = now + Duration::from_secs(20);
        assert_eq!(agents.own_turn(limit, later), now + limit);
        assert_eq!(agents.own_turn(limit, now + limit), now + limit + FRESH);
    }

    #[test]
    fn the_next_look_begins_with_the_first_agent_that_had_no_turn() {
        let [a, b, c, d] = ids(4)[..] else { panic!() };
        let all = || vec![d, b, a, c];
        assert_eq!(turn(all(), None), [a, b, c, d]);
        assert_eq!(turn(all(), Some(c)), [c, d, a, b]);
        assert_eq!(turn(vec![b, a, d], Some(c)), [d, a, b], "c is gone");
        assert_eq!(
            turn(vec![b, a], Some(c)),
            [a, b],
            "so is what was behind it"
        );
        assert_eq!(turn(Vec::new(), Some(c)), []);
    }

    #[test]
    fn of_many_silent_agents_the_first_are_told_and_all_are_counted() {
        let hop = |id, is_silent: bool| {
            let took = Duration::from_millis(1);
            if is_silent {
                HopReport::failed(Hop::Agent, took, "no answer", None).of(id)
            } else {
                HopReport::good(Hop::Agent, took).of(id)
            }
        };
        let reports = ids(100)
            .into_iter()
            .enumerate()
            .map(|(index, id)| hop(id, index % 2 == 1))
            .collect();
        let asked = Asked {
            reports,
            unasked: 7,
        };
        let docker = HopReport::good(Hop::Docker, Duration::ZERO);
        let whole = report(docker, asked, Duration::from_millis(9));
        let counts = (whole.agents, whole.silent_agents, whole.unasked_agents);
        assert_eq!((counts, whole.hops.len()), ((107, 50, 7), 101));
        assert_eq!(told(&whole, true), whole);
        let few = told(&whole, false);
        assert_eq!((few.agents, few.silent_agents), (107, 50));
        assert_eq!(few.hops.len(), 1 + MAX_SILENT);
        assert!(few.hops.iter().skip(1).all(HopReport::is_failed), "{few}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_docker_that_takes_calls_and_answers_none_is_named_in_time_however_often_it_is_asked()
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        // Its queue takes the calls, and nobody answers them.
        let _hangs = UnixListener::bind(&path).unwrap();
        let docker = Docker::new(&format!("unix://{}", path.display()));
        for _ in 0..2 {
            let begun = Instant::now();
            let found = ask_docker(&docker).await;
            assert!(found.is_failed(), "{found:?}");
            let took = begun.elapsed();
            assert!(took < DOCKER_LIMIT + Duration::from_millis(100), "{took:?}");
        }
    }
}
