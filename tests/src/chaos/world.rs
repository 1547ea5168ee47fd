//! Gitspaces that are churned while somebody is killed, and what has to be true of them after each kill.

use super::{Tally, count, count::Counted, points, points::State, seed::Seed};
use crate::{
    deployment::{Daemon, Deployment, PATIENCE, Said, pause, text},
    own_docker::OwnDocker,
    small_disk::SmallDisk,
};
use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// Churned at the same time.
const CHURNED: usize = 3;
/// From the first of a round's actions to the kill: longer than any of them takes on a host that has nothing else to do.
const LONGEST_DELAY: Duration = Duration::from_millis(2500);
/// Actions before a fail point counts as out of reach: each kind of action is among them.
const STEPS: usize = 12;
/// Before a killed dockerd is started again: a service manager waits about as long.
const LONGEST_ABSENCE: Duration = Duration::from_millis(2000);
/// That a disk is full: a task is tried again once or twice in it.
const LONGEST_FULL: Duration = Duration::from_millis(3000);
/// How a daemon's own commands end where it does not answer.
const NOT_THERE: i32 = 69;

const REPOSITORY: &[(&str, &str)] = &[(
    ".devcontainer/devcontainer.json",
    r#"{
      "onCreateCommand": "echo on-create >> /tmp/.count",
      "postCreateCommand": "echo post-create >> /tmp/.count",
      "postStartCommand": "echo post-start >> /tmp/.count; nohup tail -f /dev/null >/dev/null 2>&1 &"
    }"#,
)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Absent,
    Running,
    Stopped,
    Reset,
}

impl Want {
    /// As the API says it; a deleted one is not listed.
    const fn state(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::Running => Some("running"),
            Self::Stopped => Some("stopped"),
            Self::Reset => Some("uninitialized"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Create,
    Start,
    Stop,
    Reset,
    Delete,
}

impl Action {
    const fn wants(self) -> Want {
        match self {
            Self::Create | Self::Start => Want::Running,
            Self::Stop => Want::Stopped,
            Self::Reset => Want::Reset,
            Self::Delete => Want::Absent,
        }
    }

    const fn from(want: Want) -> &'static [Self] {
        match want {
            Want::Absent => &[Self::Create],
            Want::Running => &[Self::Stop, Self::Reset, Self::Delete],
            Want::Stopped => &[Self::Start, Self::Start, Self::Reset, Self::Delete],
            Want::Reset => &[Self::Start, Self::Start, Self::Delete],
        }
    }
}

#[derive(Debug)]
struct Churned {
    name: String,
    want: Want,
    /// What it may be as well: its last action was not acknowledged.
    or: Option<Want>,
    /// Its container was killed by us since it was made: a command that ran then may have run again.
    killed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Daemons(&'static [Daemon]),
    Container(usize),
}

#[derive(Debug)]
struct Asked {
    of: usize,
    action: Action,
    child: Child,
}

/// The disks first: the host's folder is removed when they are not mounted in it any more.
pub(super) struct World {
    disks: Vec<(State, SmallDisk)>,
    host: Deployment,
    token: String,
    url: String,
    churned: Vec<Churned>,
    made: usize,
    bystander: (String, Vec<String>),
    tally: Tally,
}

impl World {
    pub(super) fn new(host: Deployment, seed: &mut Seed) -> Result<Self> {
        let url = host.git.repository("app", REPOSITORY)?;
        host.ok(&["create", &url, "--name", "bystander", "--wait"])?;
        let token = host.token()?;
        let mut world = Self {
            disks: Vec::new(),
            host,
            token,
            url,
            churned: Vec::new(),
            made: 0,
            bystander: Default::default(),
            tally: Tally::default(),
        };
        let counted = Counted::of(&world.host)?;
        let [container] = &counted.dev[..] else {
            bail!("one dev container: {counted:?}");
        };
        world.bystander = (container.id.clone(), count::processes(&container.id)?);
        for _ in 0..CHURNED {
            let name = world.name();
            world.churned.push(Churned {
                name,
                want: Want::Absent,
                or: None,
                killed: false,
            });
        }
        let asked = world.ask(seed)?;
        world.hear(asked)?;
        world.settle("the start", Instant::now())?;
        Ok(world)
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("g{}", self.made)
    }

    /// Asks for something, somebody is killed meanwhile, comes back, and everything is looked at.
    pub(super) fn round(&mut self, seed: &mut Seed) -> Result<()> {
        let asked = self.ask(seed)?;
        let delay = seed.up_to(LONGEST_DELAY);
        wait(delay);
        let victim = match seed.below(10) {
            0..4 => Victim::Daemons(&[Daemon::Runner]),
            4..7 => Victim::Daemons(&[Daemon::Delegate]),
            7..9 => Victim::Daemons(&[Daemon::Delegate, Daemon::Runner]),
            _ => Victim::Container(seed.below(CHURNED)),
        };
        let what = format!(
            "{victim:?} was killed {} ms after {}",
            delay.as_millis(),
            self.words(&asked)
        );
        match victim {
            Victim::Daemons(daemons) => {
                for daemon in daemons {
                    self.host.kill(*daemon)?;
                }
                for daemon in daemons {
                    self.host.run(*daemon)?;
                }
                match daemons {
                    [Daemon::Runner] => self.tally.runner += 1,
                    [Daemon::Delegate] => self.tally.delegate += 1,
                    _ => self.tally.both += 1,
                }
            }
            Victim::Container(of) => self.kill_container(of)?,
        }
        let restarted = Instant::now();
        self.hear(asked)?;
        self.settle(&what, restarted)
    }

    /// The same, and it is dockerd that is killed.
    pub(super) fn docker_round(&mut self, seed: &mut Seed, docker: &mut OwnDocker) -> Result<()> {
        let asked = self.ask(seed)?;
        let delay = seed.up_to(LONGEST_DELAY);
        wait(delay);
        let away = seed.up_to(LONGEST_ABSENCE);
        let what = format!(
            "dockerd was killed {} ms after {}, and away for {} ms",
            delay.as_millis(),
            self.words(&asked),
            away.as_millis()
        );
        docker.kill()?;
        self.tally.docker += 1;
        wait(away);
        docker.run()?;
        let restarted = Instant::now();
        self.hear(asked)?;
        self.settle(&what, restarted)
    }

    /// With disks of their own under the state of daemons.
    pub(super) fn with_disks(mut self, disks: Vec<(State, SmallDisk)>) -> Self {
        self.disks = disks;
        self
    }

    /// Asks for something, a disk is full for a while, a daemon may be killed on it, and everything is looked at.
    pub(super) fn disk_round(&mut self, seed: &mut Seed) -> Result<()> {
        let asked = self.ask(seed)?;
        let delay = seed.up_to(LONGEST_DELAY);
        wait(delay);
        let of = seed.below(self.disks.len());
        let (state, disk) = self.disks.get(of).context("a disk")?;
        let (daemon, killed) = (state.daemon(), seed.below(3) == 0);
        let full = seed.up_to(LONGEST_FULL);
        disk.fill(0)?;
        if killed {
            self.host.kill(daemon)?;
            self.host.run(daemon)?;
        }
        wait(full);
        disk.free()?;
        let healed = Instant::now();
        self.until_it_answers(daemon)?;
        let what = format!(
            "the disk of {daemon:?} was full {} ms after {}, for {} ms{}",
            delay.as_millis(),
            self.words(&asked),
            full.as_millis(),
            if killed { ", and it was killed" } else { "" }
        );
        self.hear_from_full_disk(asked)?;
        self.settle(&what, healed)
    }

    fn hear_from_full_disk(&mut self, asked: Vec<Asked>) -> Result<()> {
        self.tally.full_disks += 1;
        for churned in &mut self.churned {
            // A start that met a full disk is an error with that cause, and its user's to decide.
            churned.killed = true;
        }
        self.hear(asked)
    }

    /// A disk is full from a named point of what is done next, for a while.
    pub(super) fn fill_at(&mut self, seed: &mut Seed, point: &str) -> Result<()> {
        let (victim, visits) = (points::victim(point), 1 + seed.below(2));
        let full = seed.up_to(LONGEST_FULL);
        let state = State::of(point);
        let of = self.disks.iter().position(|(of, _)| *of == state);
        let of = of.context("a disk")?;
        self.host.kill(victim)?;
        let ballast = self.disk(of)?.ballast();
        self.host
            .run_to_fill(victim, &format!("{point}:{visits}"), &ballast)?;
        for _ in 0..STEPS {
            let asked = self.ask(seed)?;
            let what = format!(
                "the disk of {state:?} was full at {point}:{visits} in {}, for {} ms",
                self.words(&asked),
                full.as_millis()
            );
            let limit = Instant::now() + PATIENCE;
            while !self.disk(of)?.is_full() && !self.is_settled_but_for(&asked).unwrap_or(false) {
                ensure!(Instant::now() < limit, "{what}: neither came nor ended");
                pause();
            }
            // What is tidied up afterwards may come to it as well.
            let mut asked = Some(asked);
            if !self.disk(of)?.is_full() {
                self.hear(asked.take().unwrap_or_default())?;
                loop {
                    let settled = self.look()?.is_none() && self.is_whole()?;
                    if settled || self.disk(of)?.is_full() {
                        break;
                    }
                    ensure!(Instant::now() < limit, "{what}: neither came nor settled");
                    pause();
                }
            }
            if self.disk(of)?.is_full() {
                wait(full);
                self.disk(of)?.free()?;
                let healed = Instant::now();
                self.until_it_answers(victim)?;
                self.hear_from_full_disk(asked.unwrap_or_default())?;
                return self.settle(&what, healed);
            }
            self.count(&what)?;
        }
        self.tally.not_reached.push(point.to_owned());
        self.settle(point, Instant::now())
    }

    fn disk(&self, of: usize) -> Result<&SmallDisk> {
        self.disks.get(of).map(|(_, disk)| disk).context("a disk")
    }

    /// As its service manager does: it is started again where it has ended, which may be a moment from now, of what it met before.
    fn until_it_answers(&mut self, daemon: Daemon) -> Result<()> {
        let begun = Instant::now();
        while self.host.daemon(daemon, &["health"])?.code == NOT_THERE {
            if self.host.has_ended(daemon)? {
                self.host.run(daemon)?;
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{daemon:?} does not answer: {}",
                self.host.logs()
            );
            pause();
        }
        Ok(())
    }

    fn kill_container(&mut self, of: usize) -> Result<()> {
        let listed = self.list()?.unwrap_or_default();
        let Some(churned) = self.churned.get_mut(of) else {
            return Ok(());
        };
        let id = listed
            .iter()
            .find(|one| text(one, "/name") == churned.name)
            .map(|one| text(one, "/id"))
            .unwrap_or_default();
        churned.killed = true;
        self.tally.container += 1;
        for container in Counted::of(&self.host)?.dev_of(&id) {
            let format = "{{.State.Pid}}";
            let pid = crate::docker::lines(&["inspect", "-f", format, &container.id]);
            // It may have been removed since.
            if let Ok(pid) = pid
                && let Some(pid) = pid.first().and_then(|pid| pid.parse::<i32>().ok())
                && pid > 1
            {
                match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(error) => bail!("cannot kill {pid}: {error}"),
                }
            }
        }
        Ok(())
    }

    /// A daemon dies at a named point of what is done next, and comes back.
    pub(super) fn die_at(&mut self, seed: &mut Seed, point: &str) -> Result<()> {
        let victim = points::victim(point);
        let visits = 1 + seed.below(2);
        self.host.kill(victim)?;
        self.host.run_armed(victim, &format!("{point}:{visits}"))?;
        for _ in 0..STEPS {
            let asked = self.ask(seed)?;
            let what = format!("{point}:{visits} in {}", self.words(&asked));
            let limit = Instant::now() + PATIENCE;
            let died = loop {
                if self.host.has_ended(victim)? {
                    break true;
                }
                // Between the answers of a process that may die at any of them, a look that fails says nothing.
                if self.is_settled_but_for(&asked).unwrap_or(false) {
                    break self.host.has_ended(victim)?;
                }
                ensure!(Instant::now() < limit, "{what} neither died nor ended");
                pause();
            };
            if died {
                self.tally.points += 1;
                self.host.kill(victim)?;
                self.host.run(victim)?;
                let restarted = Instant::now();
                self.hear(asked)?;
                return self.settle(&what, restarted);
            }
            self.hear(asked)?;
            let before = self.tally.points;
            self.settle_armed(&what, victim)?;
            if self.tally.points > before {
                return Ok(());
            }
        }
        self.tally.not_reached.push(point.to_owned());
        self.host.kill(victim)?;
        self.host.run(victim)?;
        self.settle(point, Instant::now())
    }

    /// Whether every action has come about.
    fn is_settled_but_for(&self, asked: &[Asked]) -> Result<bool> {
        let Some(listed) = self.list()? else {
            return Ok(false);
        };
        Ok(asked.iter().all(|asked| {
            self.churned.get(asked.of).is_some_and(|churned| {
                state(&listed, &churned.name).as_deref() == asked.action.wants().state()
            })
        }) && count::tasks(&self.host)? == Some(0))
    }

    /// Like [`World::settle`], for a process that may still die.
    fn settle_armed(&mut self, what: &str, victim: Daemon) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            if self.host.has_ended(victim)? {
                return self.come_back(what, victim);
            }
            match self.look() {
                // The spare is refilled by then, or it dies at that.
                Ok(None) if self.is_whole()? => return self.count(what),
                Ok(None) => {
                    ensure!(Instant::now() < limit, "{what}: waits for the spare");
                }
                Ok(Some(waits_for)) => {
                    ensure!(Instant::now() < limit, "{what}: waits for {waits_for}");
                }
                Err(error) => ensure!(Instant::now() < limit, "{what}: {error:#}"),
            }
            pause();
        }
    }

    fn come_back(&mut self, what: &str, victim: Daemon) -> Result<()> {
        self.tally.points += 1;
        self.host.kill(victim)?;
        self.host.run(victim)?;
        self.settle(what, Instant::now())
    }

    /// Whether Docker holds what it should, and one spare.
    fn is_whole(&self) -> Result<bool> {
        Ok(self.is_right(&Counted::of(&self.host)?))
    }

    fn machines(&self) -> usize {
        let wanted = self.churned.iter().filter(|one| one.want != Want::Absent);
        // And the bystander's.
        1 + wanted.count()
    }

    fn is_right(&self, counted: &Counted) -> bool {
        // One that was killed may not have been missed yet.
        let running = counted.dev.iter().filter(|one| one.running).count();
        let wanted = self.churned.iter().filter(|one| one.want == Want::Running);
        running == 1 + wanted.count()
            && counted.sandboxes == 1
            && counted.networks.len() == self.machines() + 1
            && counted.networks == counted.volumes
    }

    /// Begins some actions at once.
    fn ask(&mut self, seed: &mut Seed) -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        let surely = seed.below(CHURNED);
        for of in 0..CHURNED {
            if of != surely && seed.below(3) == 0 {
                continue;
            }
            let Some(want) = self.churned.get(of).map(|one| one.want) else {
                continue;
            };
            let Some(action) = seed.one_of(Action::from(want)) else {
                continue;
            };
            if action == Action::Create {
                let name = self.name();
                if let Some(churned) = self.churned.get_mut(of) {
                    churned.name = name;
                    churned.killed = false;
                }
            }
            let Some(churned) = self.churned.get(of) else {
                continue;
            };
            let name = churned.name.as_str();
            let arguments = match action {
                Action::Create => vec!["create", &self.url, "--name", name, "--no-wait"],
                Action::Start => vec!["start", name],
                Action::Stop => vec!["stop", name],
                Action::Reset => vec!["reset", name],
                Action::Delete => vec!["delete", name],
            };
            let child = self
                .host
                .command(&arguments)?
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            asked.push(Asked { of, action, child });
        }
        Ok(asked)
    }

    fn words(&self, asked: &[Asked]) -> String {
        let words: Vec<String> = asked
            .iter()
            .map(|asked| {
                let name = self.churned.get(asked.of).map(|one| one.name.as_str());
                format!("{:?} {}", asked.action, name.unwrap_or_default())
            })
            .collect();
        words.join(", ")
    }

    /// Which of the actions were acknowledged.
    fn hear(&mut self, asked: Vec<Asked>) -> Result<()> {
        for Asked { of, action, child } in asked {
            let said: Said = child.wait_with_output()?.into();
            let churned = self.churned.get_mut(of).context("it is there")?;
            if said.code == 0 {
                self.tally.acknowledged += 1;
                churned.want = action.wants();
            } else {
                churned.or = Some(action.wants());
            }
        }
        Ok(())
    }

    /// All gitspaces; `None` while the control plane does not answer.
    fn list(&self) -> Result<Option<Vec<Value>>> {
        let said = self.host.curl(&[
            "--header",
            &format!("Authorization: Bearer {}", self.token),
            &format!("{}/api/v1/gitspaces", self.host.control_url()),
        ])?;
        if said.code != 0 {
            return Ok(None);
        }
        let page: Value = serde_json::from_str(&said.out)?;
        Ok(page.pointer("/items").and_then(Value::as_array).cloned())
    }

    /// What is waited for still; `None` where everything is as it should be for its users.
    fn look(&mut self) -> Result<Option<String>> {
        let Some(listed) = self.list()? else {
            return Ok(Some("the control plane".to_owned()));
        };
        for churned in &mut self.churned {
            let found = state(&listed, &churned.name);
            let is = |want: Want| found.as_deref() == want.state();
            if let Some(or) = churned.or
                && is(or)
            {
                churned.want = or;
            }
            if !is(churned.want) {
                if churned.killed
                    && churned.want == Want::Running
                    && found.as_deref() == Some("error")
                {
                    self.tally.started_again += 1;
                    self.host.gitspace(&["start", &churned.name])?;
                }
                return Ok(Some(format!(
                    "{} to be {:?}, is {found:?}",
                    churned.name, churned.want
                )));
            }
        }
        if state(&listed, "bystander").as_deref() != Some("running") {
            return Ok(Some("the bystander".to_owned()));
        }
        match count::tasks(&self.host)? {
            None => Ok(Some("the runner".to_owned())),
            Some(0) => Ok(None),
            Some(tasks) => Ok(Some(format!("{tasks} tasks to be acknowledged"))),
        }
    }

    /// Waits until everything is where it should be, and counts.
    fn settle(&mut self, what: &str, restarted: Instant) -> Result<()> {
        let mut waited_for = String::new();
        loop {
            match self.look()? {
                None => break,
                Some(more) => waited_for = more,
            }
            if restarted.elapsed() > PATIENCE {
                self.tally
                    .lost
                    .push(format!("{what}: {waited_for}\n{}", self.host.logs()));
                bail!(
                    "{what}: waits for {waited_for}\n{}\n{}",
                    self.tally,
                    self.host.logs()
                );
            }
            pause();
        }
        self.tally
            .converged_after(restarted.elapsed(), what, &waited_for);
        self.count(what)
    }

    /// Counts what Docker holds. The spare sandbox is refilled and removed behind everybody's back, so that takes a moment.
    fn count(&mut self, what: &str) -> Result<()> {
        for churned in &mut self.churned {
            churned.or = None;
        }
        let listed = self.list()?.context("the control plane answers")?;
        let limit = Instant::now() + PATIENCE;
        let counted = loop {
            let counted = Counted::of(&self.host)?;
            if self.is_right(&counted) {
                break counted;
            }
            if Instant::now() > limit {
                self.tally.leftovers.push(format!(
                    "{what}: {} machines and one spare are wanted: {counted:#?}\n{}",
                    self.machines(),
                    self.host.logs()
                ));
                break counted;
            }
            pause();
        };
        for churned in &self.churned {
            let id = listed
                .iter()
                .find(|one| text(one, "/name") == churned.name)
                .map(|one| text(one, "/id"))
                .unwrap_or_default();
            let of = counted.dev_of(&id);
            let running = of.iter().filter(|container| container.running).count();
            let right = match churned.want {
                Want::Running => (of.len(), running) == (1, 1),
                Want::Stopped => of.len() <= 1 && running == 0,
                Want::Absent | Want::Reset => of.is_empty(),
            };
            if !right {
                self.tally
                    .duplicates
                    .push(format!("{what}: {churned:?} has {of:?}"));
            }
            if let [container] = of[..]
                && container.running
                && !churned.killed
            {
                let commands = count::commands(&container.id)?;
                let once = ["on-create", "post-create"];
                if once.iter().any(|&name| commands.get(name) != Some(&1)) {
                    self.tally
                        .repeated_hooks
                        .push(format!("{what}: {churned:?}: {commands:?}"));
                }
            }
            if churned.want == Want::Absent {
                // Of it nothing may be left, also where its name is not known any more.
                let known: Vec<String> = listed.iter().map(|one| text(one, "/id")).collect();
                let strangers = counted
                    .dev
                    .iter()
                    .filter(|one| !known.contains(&one.gitspace));
                self.tally
                    .leftovers
                    .extend(strangers.map(|one| format!("{what}: {one:?}")));
            }
        }
        let (bystander, before) = &self.bystander;
        let after = count::processes(bystander)?;
        if after != *before {
            self.tally
                .touched
                .push(format!("{what}: {before:?} became {after:?}"));
        }
        Ok(())
    }

    /// Deletes everything; what is left is told.
    pub(super) fn end(mut self) -> Result<Tally> {
        for of in 0..CHURNED {
            let churned = self.churned.get_mut(of).context("it is there")?;
            if churned.want != Want::Absent {
                self.host.ok(&["delete", &churned.name, "--wait"])?;
                churned.want = Want::Absent;
            }
        }
        self.settle("the deletes", Instant::now())?;
        self.host.ok(&["delete", "bystander", "--wait"])?;
        self.host.stop(Daemon::Delegate)?;
        self.host.stop(Daemon::Runner)?;
        let left = crate::docker::left_of(&self.host.label)?;
        self.tally.leftovers.extend(left);
        Ok(self.tally)
    }
}

fn state(listed: &[Value], name: &str) -> Option<String> {
    let found = listed.iter().find(|one| text(one, "/name") == name)?;
    Some(text(found, "/state"))
}

/// The moment of a kill is chosen by the seed; nothing is waited for here.
fn wait(delay: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a moment chosen by the seed, in a thread of its own test"
    )]
    std::thread::sleep(delay);
}
