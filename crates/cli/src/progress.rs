//! Waiting for an action, with the timeline's own phases on stderr.
//!
//! What decides is the gitspace itself, looked at again after each event that may be the last one, and now and then without one:
//! the timeline is for people.

use crate::{
    api::{Api, Object, segment},
    error::{CliError, indented},
    follow::Follow,
    output, text,
};
use http::StatusCode;
use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use wire::{
    api::{Gitspace, TimelineEvent, TimelineKind},
    gitspace::GitspaceState,
    task::Phase,
};

/// How often the gitspace is looked at although no event came.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often the running phase's time is redrawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// More phases than that at once are not shown live.
const MAX_LIVE: usize = 8;

/// Where an action leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    State(GitspaceState),
    Gone,
    /// Wherever it can rest.
    Rest,
}

/// The last event of a gitspace's timeline: what comes after it is what an action led to.
pub(crate) async fn last_event(api: &Api, path: &str) -> Result<u64, CliError> {
    let events = api.list::<TimelineEvent>(&format!("{path}/events")).await?;
    Ok(events.iter().map(|event| event.it.id).max().unwrap_or(0))
}

/// Waits until the action that led to `gitspace` has ended, and shows its events, which come `after` one. Gives the gitspace as it is then, or
/// nothing where it is gone.
pub(crate) async fn wait(
    api: &Api,
    gitspace: Object<Gitspace>,
    goal: Goal,
    after: u64,
) -> Result<Option<Object<Gitspace>>, CliError> {
    let name = gitspace.it.name.to_string();
    let generation = gitspace.it.generation;
    let path = format!("/gitspaces/{}", gitspace.it.id);
    if is_done(&gitspace.it, goal)? {
        return Ok((goal != Goal::Gone).then_some(gitspace));
    }
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Signals)?;
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.reset();
    let mut draw = interval(DRAW_EVERY);
    draw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut screen = Screen::new(output::stderr_is_terminal());
    let mut events = Follow::<TimelineEvent>::new(api, format!("{path}/events"), after);
    loop {
        let may_be_last = {
            let next = events.next();
            tokio::pin!(next);
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {
                        screen.clear();
                        return Err(CliError::Interrupted { name });
                    }
                    event = &mut next => match event? {
                        Some(event) if event.it.generation < generation => break false,
                        Some(event) => {
                            screen.show(&event.it);
                            break !event.it.state.is_busy();
                        }
                        None => break true,
                    },
                    _ = look.tick() => break true,
                    _ = draw.tick() => screen.draw(),
                }
            }
        };
        if !may_be_last {
            continue;
        }
        let answer = match api.get::<Gitspace>(&path).await {
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => None,
            // The server is away for a moment: the events' own limit says when that is too long.
            Err(error) if error.is_passing() => continue,
            answer => Some(answer?),
        };
        screen.clear();
        let seen = match answer {
            Some(seen) => seen,
            None if goal == Goal::Gone => return Ok(None),
            None => {
                return Err(CliError::Overtaken {
                    name,
                    state: GitspaceState::Deleted.to_string(),
                });
            }
        };
        if seen.it.generation > generation {
            return Err(CliError::Overtaken {
                name,
                state: seen.it.state.to_string(),
            });
        }
        if is_done(&seen.it, goal)? {
            return Ok((goal != Goal::Gone).then_some(seen));
        }
        if !seen.it.delegate_connected && seen.it.delegate.is_some() {
            screen.say_once("the delegate that holds it is away; waiting for it");
        }
    }
}

/// Whether the wait is over, well or badly.
fn is_done(gitspace: &Gitspace, goal: Goal) -> Result<bool, CliError> {
    if gitspace.state.is_busy() {
        return Ok(false);
    }
    let name = gitspace.name.to_string();
    let state = gitspace.state.to_string();
    match (goal, gitspace.state) {
        (Goal::State(goal), reached) if goal == reached => Ok(true),
        (Goal::Rest, _) | (Goal::Gone, GitspaceState::Deleted) => Ok(true),
        (Goal::State(_) | Goal::Gone, GitspaceState::Error) => Err(CliError::Ended {
            name,
            state,
            failure: gitspace.error.clone().map(Box::new),
        }),
        (Goal::State(_) | Goal::Gone, _) => Err(CliError::Overtaken { name, state }),
    }
}

/// Lines of ended phases, and on a terminal a last line of those that run.
#[derive(Debug)]
struct Screen {
    live: bool,
    running: Vec<(Phase, Instant)>,
    drawn: bool,
    said: bool,
}

impl Screen {
    const fn new(live: bool) -> Self {
        Self {
            live,
            running: Vec::new(),
            drawn: false,
            said: false,
        }
    }

    fn show(&mut self, event: &TimelineEvent) {
        match (event.kind, event.phase) {
            (TimelineKind::PhaseStarted, Some(phase)) => {
                self.running.retain(|(running, _)| *running != phase);
                if self.running.len() < MAX_LIVE {
                    self.running.push((phase, Instant::now()));
                }
            }
            (TimelineKind::PhaseCompleted | TimelineKind::PhaseFailed, Some(phase)) => {
                self.running.retain(|(running, _)| *running != phase);
            }
            (TimelineKind::StateChanged, _) => self.running.clear(),
            _ => {}
        }
        self.clear();
        if let Some(line) = event_line(event) {
            output::note(&line);
        }
        self.draw();
    }

    fn say_once(&mut self, text: &str) {
        if !std::mem::replace(&mut self.said, true) {
            self.clear();
            output::note(&format!("… {text}"));
        }
    }

    fn draw(&mut self) {
        if !self.live || self.running.is_empty() {
            return;
        }
        let mut line = "… ".to_owned();
        for (index, (phase, since)) in self.running.iter().enumerate() {
            let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let comma = if index == 0 { "" } else { " · " };
            line.push_str(&format!(
                "{comma}{}  {}.{} s",
                phase.as_str(),
                ms / 1000,
                ms % 1000 / 100
            ));
        }
        let width = terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| width.0);
        let line: String = line
            .chars()
            .take(usize::from(width).saturating_sub(1))
            .collect();
        self.write(&format!("\r\x1b[2K{line}"));
        self.drawn = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            self.write("\r\x1b[2K");
        }
    }

    fn write(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        drop(
            stderr
                .write_all(text.as_bytes())
                .and_then(|()| stderr.flush()),
        );
    }
}

/// One line of a wait: what ended, failed, or needs patience. `None` for what only starts.
fn event_line(event: &TimelineEvent) -> Option<String> {
    let mark = match event.kind {
        TimelineKind::PhaseCompleted => "✓",
        TimelineKind::PhaseFailed => "✗",
        TimelineKind::Retrying => "↻",
        TimelineKind::Action
        | TimelineKind::TaskAssigned
        | TimelineKind::PhaseStarted
        | TimelineKind::StateChanged
        | TimelineKind::Other => return None,
    };
    Some(marked_line(mark, event, outcome(event)))
}

/// What came of a phase. The words before it say what mark and phase say already.
fn outcome(event: &TimelineEvent) -> &str {
    let (end, middle) = match event.kind {
        TimelineKind::PhaseCompleted => (" completed", " completed: "),
        TimelineKind::PhaseFailed => (" failed", " failed: "),
        _ => return &event.message,
    };
    match event.message.split_once(middle) {
        Some((_, outcome)) => outcome,
        None if event.message.ends_with(end) => "",
        None => &event.message,
    }
}

fn marked_line(mark: &str, event: &TimelineEvent, message: &str) -> String {
    let mut line = mark.to_owned();
    if let Some(phase) = event.phase {
        line.push_str(&format!(" {}", phase.as_str()));
    }
    if let Some(ms) = event.duration_ms {
        line.push_str(&format!("  {}", text::milliseconds(ms)));
    }
    if !message.is_empty() {
        line.push_str(&format!("  {}", text::line(message)));
    }
    line
}

/// An entry of the timeline, whole, for `gitspace events`.
pub(crate) fn timeline_entry(event: &TimelineEvent) -> String {
    let mark = match event.kind {
        TimelineKind::PhaseCompleted => "✓",
        TimelineKind::PhaseFailed => "✗",
        TimelineKind::PhaseStarted => "…",
        TimelineKind::Retrying => "↻",
        TimelineKind::Action => ">",
        TimelineKind::TaskAssigned | TimelineKind::StateChanged | TimelineKind::Other => "·",
    };
    let mut entry = format!(
        "{:.0}  {}\n",
        event.at,
        marked_line(mark, event, &event.message)
    );
    if let Some(failure) = &event.failure {
        if failure.message != event.message {
            entry.push_str(&format!("    cause: {}\n", text::line(&failure.message)));
        }
        if let Some(detail) = &failure.detail {
            indented(&mut entry, detail);
        }
        if let Some(hint) = &failure.hint {
            entry.push_str(&format!("    hint: {}\n", text::line(hint)));
        }
    }
    entry
}

/// Path of a gitspace that the user named.
pub(crate) fn path_of(name: &str) -> String {
    format!("/gitspaces/{}", segment(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str) -> TimelineEvent {
        serde_json::from_value(serde_json::json!({
            "id": 1, "at": "2026-01-01T00:00:00.123456Z", "kind": kind, "message": "cloned 1a2b3c4 of main\u{1b}[2J",
            "phase": "clone", "duration_ms": 120, "generation": 1, "state": "starting",
            "trace": "00000000-0000-4000-8000-000000000001",
        }))
        .unwrap()
    }

    #[test]
    fn an_ended_phase_is_one_line() {
        assert_eq!(
            event_line(&event("phase_completed")).unwrap(),
            "✓ clone  120 ms  cloned 1a2b3c4 of main\\x1b[2J"
        );
        let mut named = event("phase_completed");
        named.message = "Clone completed: cloned 1a2b3c4 of main".to_owned();
        assert_eq!(
            event_line(&named).unwrap(),
            "✓ clone  120 ms  cloned 1a2b3c4 of main"
        );
        named.message = "Clone completed".to_owned();
        assert_eq!(event_line(&named).unwrap(), "✓ clone  120 ms");
        assert!(event_line(&event("phase_started")).is_none());
        assert!(event_line(&event("a_kind_of_the_future")).is_none());
    }

    #[test]
    fn a_timeline_entry_has_its_time_cause_output_and_hint() {
        let mut event = event("phase_failed");
        event.failure = Some(
            wire::failure::Failure::new(wire::failure::FailureCode::GitFailed, "git failed")
                .detail("fatal: no\n")
                .hint("look"),
        );
        assert_eq!(
            timeline_entry(&event),
            "2026-01-01T00:00:00Z  ✗ clone  120 ms  cloned 1a2b3c4 of main\\x1b[2J\n    cause: git failed\n    fatal: no\n    hint: look\n"
        );
    }
}
