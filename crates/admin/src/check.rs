//! One condition that a daemon needs or wants, and how it is.

use serde::{Deserialize, Serialize};

/// Where every check has its paragraph, by its code.
const DOCS: &str = "docs/operations.md";

/// What it means where a check fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; everything works.
    Info,
    /// Something works worse, or will stop to work.
    Warning,
    /// The daemon is not ready.
    Error,
}

/// One condition. Build it with [`Check::good`] or [`Check::bad`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable, `snake_case`.
    pub code: String,
    pub ok: bool,
    /// Of its failure.
    pub severity: Severity,
    /// How it is, in a few words.
    pub summary: String,
    /// Why it failed, as the failing part said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What the operator can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The check whose failure made this one fail: mend that first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because_of: Option<String>,
    /// Where to read more.
    pub doc: String,
}

impl Check {
    /// A condition that holds.
    #[must_use]
    pub fn good(code: &'static str, severity: Severity, summary: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            ok: true,
            severity,
            summary: summary.into(),
            cause: None,
            fix: None,
            because_of: None,
            doc: format!("{DOCS}#{code}"),
        }
    }

    /// A condition that does not hold.
    #[must_use]
    pub fn bad(code: &'static str, severity: Severity, summary: impl Into<String>) -> Self {
        Self {
            ok: false,
            ..Self::good(code, severity, summary)
        }
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    #[must_use]
    pub fn because_of(mut self, code: &'static str) -> Self {
        self.because_of = Some(code.to_owned());
        self
    }

    /// Whether the daemon cannot do its work because of it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !self.ok && self.severity == Severity::Error
    }
}

/// Body of `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    pub checks: Vec<Check>,
}

impl Readiness {
    #[must_use]
    pub fn of(checks: Vec<Check>) -> Self {
        Self {
            ready: !checks.iter().any(Check::is_fatal),
            checks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_check_of_the_highest_severity_makes_a_daemon_unready() {
        let warning = Check::bad("disk", Severity::Warning, "90 % full");
        let good = Check::good("docker", Severity::Error, "answers");
        assert!(Readiness::of(vec![warning.clone(), good]).ready);
        let bad = Check::bad("docker", Severity::Error, "does not answer");
        assert!(!Readiness::of(vec![warning, bad]).ready);
    }
}
