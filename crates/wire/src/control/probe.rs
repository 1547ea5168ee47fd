//! A probe of the whole way into gitspaces, and what it found.
//!
//! Each part asks the next one and puts itself in front of what that answers. A probe is about this moment: nothing of it is numbered, kept,
//! or sent again.

use crate::ids::GitspaceUuid;
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
        }
    }

    /// Whether nothing can be started on the host without it. An agent is one gitspace's matter.
    #[must_use]
    pub const fn is_of_the_host(self) -> bool {
        match self {
            Self::Link | Self::Delegate | Self::Runner | Self::Docker => true,
            Self::Agent => false,
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
    pub const fn good(hop: Hop, took_us: u64) -> Self {
        Self {
            hop,
            gitspace: None,
            took_us,
            problem: None,
        }
    }

    #[must_use]
    pub fn failed(hop: Hop, took_us: u64, reason: &str, hint: Option<&str>) -> Self {
        Self {
            problem: Some(HopProblem::Failed {
                reason: head(reason).to_owned(),
                hint: hint.map(|hint| head(hint).to_owned()),
            }),
            ..Self::good(hop, took_us)
        }
    }

    #[must_use]
    pub fn not_supported(hop: Hop, reason: impl Into<String>) -> Self {
        Self {
            problem: Some(HopProblem::NotSupported {
                reason: reason.into(),
            }),
            ..Self::good(hop, 0)
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
                cut(reason);
                hint.iter_mut().for_each(cut);
            }
            Some(HopProblem::NotSupported { reason }) => cut(reason),
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
    /// In the order of the way, as far as it went. Of the agents those that are silent, and all where that was asked for.
    pub hops: Vec<HopReport>,
    /// Agents that were asked: those of the gitspaces that run on the host.
    #[serde(default)]
    pub agents: u32,
    /// Of these, how many did not answer.
    #[serde(default)]
    pub silent_agents: u32,
}

impl ProbeReport {
    /// The part of the host's at which the way ends, where it does.
    #[must_use]
    pub fn broken_at(&self) -> Option<&HopReport> {
        self.hops
            .iter()
            .find(|report| report.hop.is_of_the_host() && report.is_failed())
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
                    write!(f, ": {reason}")?;
                    if let Some(hint) = hint {
                        write!(f, "\n          hint: {hint}")?;
                    }
                }
                Some(HopProblem::NotSupported { reason }) => write!(f, ": {reason}")?,
                Some(HopProblem::Other) | None => {}
            }
            f.write_str("\n")?;
        }
        if self.agents > 0 {
            let answer = self.agents.saturating_sub(self.silent_agents);
            writeln!(f, "{answer} of {} agents answer", self.agents)?;
        }
        Ok(())
    }
}

fn head(text: &str) -> &str {
    let mut end = text.len().min(MAX_PROBE_WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn cut(text: &mut String) {
    text.truncate(head(text).len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_agent_does_not_break_the_way_to_its_host_and_a_silent_docker_does() {
        let report = |hop| ProbeReport {
            hops: vec![
                HopReport::good(Hop::Runner, 1),
                HopReport::failed(hop, 1, "no answer", None),
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
                HopReport::good(Hop::Delegate, 45),
                HopReport::good(Hop::Runner, 456),
                HopReport::good(Hop::Docker, 1_234),
            ],
            agents: 12,
            silent_agents: 0,
        };
        let text = serde_json::to_string(&good).expect("writes");
        assert!(text.len() < 200, "{} bytes: {text}", text.len());
        assert_eq!(
            serde_json::from_str::<ProbeReport>(&text).expect("reads"),
            good
        );

        let long = "é".repeat(MAX_PROBE_WORDS);
        let hostile = ProbeReport {
            hops: vec![
                HopReport {
                    problem: Some(HopProblem::NotSupported { reason: long }),
                    ..HopReport::good(Hop::Agent, 0)
                };
                10 * MAX_PROBE_AGENTS
            ],
            ..ProbeReport::default()
        }
        .bounded();
        let text = serde_json::to_string(&hostile).expect("writes");
        assert!(text.len() < crate::control::MAX_FRAME / 2, "{}", text.len());
    }

    #[test]
    fn a_person_sees_each_part_with_its_time_and_where_the_way_ends() {
        let id: GitspaceUuid = "0198c0de-0000-7000-8000-000000000001"
            .parse()
            .expect("an id");
        let report = ProbeReport {
            hops: vec![
                HopReport::good(Hop::Link, 1_234),
                HopReport::failed(Hop::Agent, 2_000_000, "no answer", Some("wait")).of(id),
            ],
            agents: 3,
            silent_agents: 1,
            took_us: 0,
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
}
