//! A probe of the whole way into gitspaces, and what it found.
//!
//! Each part asks the next one and puts itself in front of what that answers. A probe is about this moment: nothing of it is numbered, kept,
//! or sent again.

use crate::{ids::GitspaceUuid, shown};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Agents whose times are told one by one; of more, only how many answer.
pub const MAX_PROBE_AGENTS: usize = 256;

/// Longest reason and hint, in bytes.
pub const MAX_PROBE_WORDS: usize = 512;

/// A part of the way, in the order in which a probe comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Hop {
    /// Between control plane and delegate.
    Link,
    Delegate,
    Runner,
    Docker,
    /// gitspace-agent in a gitspace that runs.
    Agent,
    /// Between a gateway and a delegate. Only a gateway's own probe has it.
    Tunnel,
    /// A part that this reader does not know.
    #[serde(other)]
    Other,
}

impl Hop {
    /// The stable code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Delegate => "delegate",
            Self::Runner => "runner",
            Self::Docker => "docker",
            Self::Agent => "agent",
            Self::Tunnel => "tunnel",
            Self::Other => "other",
        }
    }

    /// Whether nothing can be started on the host without it. An agent is one gitspace's matter, and of a part that is not known here nobody
    /// can say it.
    #[must_use]
    pub const fn is_of_the_host(self) -> bool {
        match self {
            Self::Link | Self::Delegate | Self::Runner | Self::Docker => true,
            Self::Agent | Self::Tunnel | Self::Other => false,
        }
    }
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a probe found of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HopReport {
    pub hop: Hop,
    /// Whose agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub gitspace: Option<GitspaceUuid>,
    /// Microseconds that the probe spent on this part alone.
    pub took_us: u64,
    /// Missing where it answered well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<HopProblem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HopProblem {
    /// It did not answer in its time, or said that it cannot work.
    Failed {
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// It is of a version that cannot be probed. That says nothing of its health.
    NotSupported { reason: String },
    /// A kind that this reader does not know: it says nothing either.
    #[serde(other)]
    Other,
}

impl HopReport {
    #[must_use]
    pub fn good(hop: Hop, took: Duration) -> Self {
        Self {
            hop,
            gitspace: None,
            took_us: micros(took),
            problem: None,
        }
    }

    #[must_use]
    pub fn failed(hop: Hop, took: Duration, reason: &str, hint: Option<&str>) -> Self {
        Self {
            problem: Some(HopProblem::Failed {
                reason: shown::bounded(reason, MAX_PROBE_WORDS),
                hint: hint.map(|hint| shown::bounded(hint, MAX_PROBE_WORDS)),
            }),
            ..Self::good(hop, took)
        }
    }

    #[must_use]
    pub fn not_supported(hop: Hop, reason: &str) -> Self {
        Self {
            problem: Some(HopProblem::NotSupported {
                reason: shown::bounded(reason, MAX_PROBE_WORDS),
            }),
            ..Self::good(hop, Duration::ZERO)
        }
    }

    #[must_use]
    pub fn of(self, gitspace: GitspaceUuid) -> Self {
        Self {
            gitspace: Some(gitspace),
            ..self
        }
    }

    #[must_use]
    pub const fn is_failed(&self) -> bool {
        matches!(self.problem, Some(HopProblem::Failed { .. }))
    }

    fn bound(&mut self) {
        match &mut self.problem {
            Some(HopProblem::Failed { reason, hint }) => {
                bound(reason);
                hint.iter_mut().for_each(bound);
            }
            Some(HopProblem::NotSupported { reason }) => bound(reason),
            Some(HopProblem::Other) | None => {}
        }
    }
}

/// What a probe found from some part on, that part included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProbeReport {
    /// Microseconds until it was there.
    pub took_us: u64,
    /// In the order of the way, as far as it went. Of the agents the first that are silent, and all where that was asked for.
    pub hops: Vec<HopReport>,
    /// Agents of the gitspaces that run on the host.
    #[serde(default)]
    pub agents: u32,
    /// Of these, how many did not answer.
    #[serde(default)]
    pub silent_agents: u32,
    /// Of these, how many had no turn in the time that a probe has. They come first the next time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unasked_agents: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl ProbeReport {
    /// The part of the host's at which the way ends, where it does.
    #[must_use]
    pub fn broken_at(&self) -> Option<&HopReport> {
        self.hops
            .iter()
            .find(|report| report.hop.is_of_the_host() && report.is_failed())
    }

    /// A report of one part alone.
    #[must_use]
    pub fn only(hop: HopReport, took: Duration) -> Self {
        Self {
            took_us: micros(took),
            hops: vec![hop],
            ..Self::default()
        }
    }

    /// The same without its parts.
    #[must_use]
    pub const fn counts(&self) -> Self {
        Self {
            took_us: self.took_us,
            hops: Vec::new(),
            agents: self.agents,
            silent_agents: self.silent_agents,
            unasked_agents: self.unasked_agents,
        }
    }

    #[must_use]
    pub fn taken(self, took: Duration) -> Self {
        Self {
            took_us: micros(took),
            ..self
        }
    }

    /// Puts the part in front that this report was asked through. `took` is what the whole took, and what of that this report does not have
    /// is the part's own.
    #[must_use]
    pub fn through(mut self, hop: Hop, took: Duration) -> Self {
        let beyond = Duration::from_micros(self.took_us);
        self.hops
            .insert(0, HopReport::good(hop, took.saturating_sub(beyond)));
        self.took_us = micros(took);
        self
    }

    /// The part that cannot be probed, where there is one.
    #[must_use]
    pub fn unsupported_at(&self) -> Option<&HopReport> {
        self.hops
            .iter()
            .find(|report| matches!(report.problem, Some(HopProblem::NotSupported { .. })))
    }

    /// The same within the limits, for one that came from elsewhere.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        // Beside the agents, each part once.
        self.hops.truncate(MAX_PROBE_AGENTS + 4);
        self.hops.iter_mut().for_each(HopReport::bound);
        self
    }

    /// The parts of the host's, and of the rest those that failed; `most` at most.
    #[must_use]
    pub fn brief(mut self, most: usize) -> Self {
        self.hops
            .retain(|report| report.hop.is_of_the_host() || report.is_failed());
        self.hops.truncate(most);
        self.bounded()
    }
}

/// A line for each part, for a person: `runner       0.5 ms  ok`.
impl std::fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for report in &self.hops {
            let millis = Duration::from_micros(report.took_us).as_secs_f64() * 1000.0;
            write!(f, "{:<9} {millis:>9.1} ms  ", report.hop)?;
            let mark = match &report.problem {
                None => "ok",
                Some(HopProblem::Failed { .. }) => "FAILED",
                Some(HopProblem::NotSupported { .. }) => "not supported",
                Some(HopProblem::Other) => "not known",
            };
            f.write_str(mark)?;
            if let Some(gitspace) = report.gitspace {
                write!(f, "  gitspace {gitspace}")?;
            }
            match &report.problem {
                Some(HopProblem::Failed { reason, hint }) => {
                    write!(f, ": {}", shown::line(reason))?;
                    if let Some(hint) = hint {
                        write!(f, "\n          hint: {}", shown::line(hint))?;
                    }
                }
                Some(HopProblem::NotSupported { reason }) => {
                    write!(f, ": {}", shown::line(reason))?;
                }
                Some(HopProblem::Other) | None => {}
            }
            f.write_str("\n")?;
        }
        if self.agents > 0 {
            let (silent, unasked) = (self.silent_agents, self.unasked_agents);
            let answer = self.agents.saturating_sub(silent).saturating_sub(unasked);
            write!(f, "{answer} of {} agents answer", self.agents)?;
            if unasked > 0 {
                write!(f, ", {unasked} were not asked in time")?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// Of times that a probe can take.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn bound(text: &mut String) {
    *text = shown::bounded(text, MAX_PROBE_WORDS);
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn a_silent_agent_does_not_break_the_way_to_its_host_and_a_silent_docker_does() {
        let report = |hop| ProbeReport {
            hops: vec![
                HopReport::good(Hop::Runner, US),
                HopReport::failed(hop, US, "no answer", None),
            ],
            ..ProbeReport::default()
        };
        assert_eq!(report(Hop::Agent).broken_at(), None);
        let docker = report(Hop::Docker);
        assert_eq!(
            docker.broken_at().map(|broken| broken.hop),
            Some(Hop::Docker)
        );
    }

    #[test]
    fn what_cannot_be_probed_is_named_and_is_not_broken() {
        let report = ProbeReport {
            hops: vec![HopReport::not_supported(Hop::Runner, "too old")],
            ..ProbeReport::default()
        };
        assert_eq!(report.broken_at(), None);
        assert_eq!(
            report.unsupported_at().map(|old| old.hop),
            Some(Hop::Runner)
        );
    }

    #[test]
    fn a_report_of_a_good_way_is_a_few_bytes_and_a_long_one_is_cut() {
        let good = ProbeReport {
            took_us: 3_456,
            hops: vec![
                HopReport::good(Hop::Delegate, 45 * US),
                HopReport::good(Hop::Runner, 456 * US),
                HopReport::good(Hop::Docker, 1_234 * US),
            ],
            agents: 12,
            ..ProbeReport::default()
        };
        let text = serde_json::to_string(&good).expect("writes");
        assert!(text.len() < 200, "{} bytes: {text}", text.len());
        assert_eq!(
            serde_json::from_str::<ProbeReport>(&text).expect("reads"),
            good
        );

        let text = serde_json::to_string(&hostile().bounded()).expect("writes");
        assert!(text.len() < crate::control::MAX_FRAME, "{}", text.len());
    }

    /// As long as somebody who controls an agent can make it: a control character is six bytes of JSON, a backslash two.
    fn hostile() -> ProbeReport {
        let words = |c: char| c.to_string().repeat(2 * MAX_PROBE_WORDS);
        ProbeReport {
            hops: ['\u{1}', '\u{1b}', '\\', 'é']
                .into_iter()
                .cycle()
                .take(10 * MAX_PROBE_AGENTS)
                .map(|c| HopReport {
                    problem: Some(HopProblem::Failed {
                        reason: words(c),
                        hint: Some(words('\\')),
                    }),
                    took_us: u64::MAX,
                    gitspace: Some(id()),
                    ..HopReport::good(Hop::Delegate, US)
                })
                .collect(),
            took_us: u64::MAX,
            agents: u32::MAX,
            silent_agents: u32::MAX,
            unasked_agents: u32::MAX,
        }
    }

    fn id() -> GitspaceUuid {
        "0198c0de-0000-7000-8000-000000000001"
            .parse()
            .expect("an id")
    }

    #[test]
    fn the_longest_report_of_a_gateway_is_one_message() {
        use crate::gateway::{FromGateway, MAX_FROM_GATEWAY, MAX_PROBED_HOPS};
        let report = Box::new(hostile().brief(MAX_PROBED_HOPS));
        assert_eq!(report.hops.len(), MAX_PROBED_HOPS);
        let text = serde_json::to_string(&FromGateway::Probed { report }).expect("writes");
        assert!(text.len() <= MAX_FROM_GATEWAY, "{}", text.len());
    }

    #[test]
    fn a_brief_report_keeps_the_way_and_what_failed_on_it() {
        let report = ProbeReport {
            hops: vec![
                HopReport::good(Hop::Runner, US),
                HopReport::good(Hop::Docker, US),
                HopReport::good(Hop::Agent, US).of(id()),
                HopReport::failed(Hop::Agent, US, "no answer", None).of(id()),
            ],
            ..ProbeReport::default()
        };
        let hops = |most| {
            let brief = report.clone().brief(most);
            brief.hops.iter().map(|hop| hop.hop).collect::<Vec<_>>()
        };
        assert_eq!(hops(8), [Hop::Runner, Hop::Docker, Hop::Agent]);
        assert_eq!(hops(2), [Hop::Runner, Hop::Docker]);
    }

    #[test]
    fn no_word_of_an_agent_reaches_a_terminal_as_a_command_to_it() {
        let words = "\u{1}\u{1b}]0;owned\u{7}\nFAILED\u{202e}x\u{9b}2J";
        let mut report = ProbeReport {
            hops: vec![
                HopReport::failed(Hop::Agent, US, words, Some(words)),
                HopReport::not_supported(Hop::Runner, words),
            ],
            ..ProbeReport::default()
        };
        let text = serde_json::to_string(&report).expect("writes");
        assert!(!text.contains(['\\', '\u{202e}', '\u{9b}']), "{text}");
        let is_plain = |report: &ProbeReport| {
            let shown = report.to_string();
            assert_eq!(shown.lines().count(), 3, "two parts and a hint: {shown}");
            assert!(
                !shown.replace('\n', "").contains(shown::is_hidden),
                "{shown}"
            );
        };
        is_plain(&report);
        // One that nobody has bounded on its way.
        for hop in &mut report.hops {
            hop.problem = Some(match hop.problem {
                Some(HopProblem::NotSupported { .. }) => HopProblem::NotSupported {
                    reason: words.to_owned(),
                },
                _ => HopProblem::Failed {
                    reason: words.to_owned(),
                    hint: Some(words.to_owned()),
                },
            });
        }
        is_plain(&report);
        let bounded = report.bounded();
        let text = serde_json::to_string(&bounded).expect("writes");
        assert!(!text.contains(['\\', '\u{202e}', '\u{9b}']), "{text}");
    }

    #[test]
    fn a_person_sees_each_part_with_its_time_and_where_the_way_ends() {
        let report = ProbeReport {
            hops: vec![
                HopReport::good(Hop::Link, 1_234 * US),
                HopReport::failed(Hop::Agent, 2_000_000 * US, "no answer", Some("wait")).of(id()),
            ],
            agents: 3,
            silent_agents: 1,
            ..ProbeReport::default()
        };
        assert_eq!(
            report.to_string(),
            "link            1.2 ms  ok\n\
             agent        2000.0 ms  FAILED  gitspace 0198c0de-0000-7000-8000-000000000001: no answer\n          hint: wait\n\
             2 of 3 agents answer\n"
        );
    }

    #[test]
    fn a_problem_of_a_later_version_is_read_as_one_that_says_nothing() {
        let text = r#"{"hop":"runner","took_us":1,"problem":{"kind":"tired"}}"#;
        let report: HopReport = serde_json::from_str(text).expect("reads");
        assert!(!report.is_failed(), "{report:?}");
    }

    #[test]
    fn a_part_of_a_later_version_is_read_as_one_that_is_not_the_hosts() {
        let text = r#"{"hop":"teleport","took_us":1,"problem":{"kind":"failed","reason":"cut"}}"#;
        let report: HopReport = serde_json::from_str(text).expect("reads");
        assert_eq!((report.hop, report.is_failed()), (Hop::Other, true));
        assert_eq!(ProbeReport::only(report, US).broken_at(), None);
    }

    #[test]
    fn agents_that_had_no_turn_are_not_said_to_answer() {
        let report = ProbeReport {
            agents: 9,
            silent_agents: 2,
            unasked_agents: 3,
            ..ProbeReport::default()
        };
        let shown = report.to_string();
        assert_eq!(shown, "4 of 9 agents answer, 3 were not asked in time\n");
    }
}
