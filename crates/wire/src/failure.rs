//! Why something did not work: what a user's timeline shows and what the orchestrator decides by.

use serde::{Deserialize, Serialize};

/// Longest `detail` kept, in bytes: the tail of a command's output, not all of it (that is in the log).
pub const MAX_DETAIL: usize = 8 * 1024;

/// Longest `message` and `hint` kept, in bytes.
pub const MAX_WORDS: usize = 2 * 1024;

/// A failure with its cause and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct Failure {
    pub code: FailureCode,
    /// What failed, on what: a lower-case fragment without a full stop.
    pub message: String,
    /// Why, as the failing part said it (an error chain, or the tail of an output).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What the user can do from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// The message is cut to its first [`MAX_WORDS`] bytes.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: head(message.into()),
            detail: None,
            hint: None,
        }
    }

    /// Adds the cause, cut to its last [`MAX_DETAIL`] bytes.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL {
            let mut from = detail.len() - MAX_DETAIL;
            while !detail.is_char_boundary(from) {
                from += 1;
            }
            detail = detail.split_off(from);
        }
        self.detail = Some(detail);
        self
    }

    /// Cut to its first [`MAX_WORDS`] bytes.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(head(hint.into()));
        self
    }

    /// The same within the limits, for one that came from elsewhere.
    #[must_use]
    pub fn bounded(self) -> Self {
        let Self {
            code,
            message,
            detail,
            hint,
        } = self;
        let mut bounded = Self::new(code, message);
        if let Some(detail) = detail {
            bounded = bounded.detail(detail);
        }
        match hint {
            Some(hint) => bounded.hint(hint),
            None => bounded,
        }
    }
}

fn head(mut text: String) -> String {
    let mut end = text.len().min(MAX_WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Stable reasons. A code an older reader does not know is read as [`FailureCode::Internal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The Git server's name, address or port does not answer.
    GitUnreachable,
    /// The Git server wants credentials, or refused those it got.
    GitAuthentication,
    /// The repository does not exist (or hides itself from these credentials).
    GitRepositoryNotFound,
    /// The branch, tag or commit does not exist.
    GitRefNotFound,
    /// Git failed in another way.
    GitFailed,
    /// A tool that is needed is not in the image.
    ToolMissing,
    /// devcontainer.json cannot be parsed, or says something of the wrong type.
    DevcontainerInvalid,
    /// devcontainer.json asks for what this version, or this host's policy, does not give.
    DevcontainerUnsupported,
    /// The image is not on the host and cannot be pulled.
    ImageMissing,
    /// A lifecycle command ended with a failing code.
    LifecycleCommandFailed,
    /// Docker does not answer.
    DockerUnavailable,
    /// Docker refused.
    DockerFailed,
    /// A disk is full.
    DiskFull,
    /// The dev container ended by itself.
    ContainerExited,
    /// The kernel killed the dev container's processes for want of memory.
    OutOfMemory,
    /// gitspace-agent does not answer, and a task needs it.
    AgentUnreachable,
    /// The dev container runs on, and its agent does not answer.
    AgentSilent,
    /// No connected delegate has the selectors or the free capacity.
    NoCapacity,
    /// The delegate that holds the gitspace is not connected.
    DelegateUnavailable,
    /// The runner does not answer its delegate.
    RunnerUnavailable,
    /// The task did not end in its time.
    DeadlineExceeded,
    /// The task was cancelled by a later action.
    Cancelled,
    /// A later action on the gitspace was taken before this one.
    Superseded,
    /// What the task needs (a provisioned workspace) is not there.
    PreconditionFailed,
    /// A defect of ours.
    #[serde(other)]
    Internal,
}

impl FailureCode {
    /// Whether the same attempt can work later without anybody changing anything.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        match self {
            Self::DockerUnavailable
            | Self::AgentUnreachable
            | Self::AgentSilent
            | Self::NoCapacity
            | Self::DelegateUnavailable
            | Self::RunnerUnavailable => true,
            Self::GitUnreachable
            | Self::GitAuthentication
            | Self::GitRepositoryNotFound
            | Self::GitRefNotFound
            | Self::GitFailed
            | Self::ToolMissing
            | Self::DevcontainerInvalid
            | Self::DevcontainerUnsupported
            | Self::ImageMissing
            | Self::LifecycleCommandFailed
            | Self::DockerFailed
            | Self::DiskFull
            | Self::ContainerExited
            | Self::OutOfMemory
            | Self::DeadlineExceeded
            | Self::Cancelled
            | Self::Superseded
            | Self::PreconditionFailed
            | Self::Internal => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_is_read_as_internal() {
        let code: FailureCode = serde_json::from_str("\"from_the_future\"").expect("reads");
        assert_eq!(code, FailureCode::Internal);
    }

    #[test]
    fn long_words_keep_their_start() {
        let long = "é".repeat(MAX_WORDS);
        let failure = Failure {
            code: FailureCode::Internal,
            message: long.clone(),
            detail: None,
            hint: Some(long.clone()),
        };
        let bounded = failure.bounded();
        assert!(bounded.message.len() <= MAX_WORDS && long.starts_with(&bounded.message));
        assert_eq!(bounded.hint, Some(bounded.message));
    }

    #[test]
    fn a_long_detail_keeps_its_end() {
        let failure =
            Failure::new(FailureCode::Internal, "x").detail("é".repeat(MAX_DETAIL) + "end");
        let detail = failure.detail.expect("set");
        assert!(detail.len() <= MAX_DETAIL && detail.ends_with("end"));
    }
}
