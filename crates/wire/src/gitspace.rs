//! What is desired of a gitspace and what was observed of it.

use crate::{
    failure::Failure,
    ids::{GitspaceUuid, TaskUuid},
    secret::Secret,
    text::{GitRef, GitspaceName, RepoUrl, Slug, SshPublicKey},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Counts the user's actions on one gitspace; a task or an observation of an older generation changes nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a user's last action wants the gitspace to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DesiredState {
    Running,
    Stopped,
    /// Reset: no container, the workspace's volume kept.
    Uninitialized,
    Deleted,
}

/// Who may come to a port of a gitspace, besides its owner and administrators. Each includes the ones before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PortVisibility {
    #[default]
    Private,
    /// Everybody who can log in to this deployment.
    Project,
    /// Everybody who knows the URL.
    Public,
}

impl PortVisibility {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Project => "project",
            Self::Public => "public",
        }
    }
}

impl std::fmt::Display for PortVisibility {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for PortVisibility {
    type Err = UnknownVisibility;

    fn from_str(text: &str) -> Result<Self, UnknownVisibility> {
        [Self::Private, Self::Project, Self::Public]
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or(UnknownVisibility)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is `private`, `project` or `public`")]
pub struct UnknownVisibility;

/// A port that others than its owner may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPort {
    pub port: u16,
    pub visibility: PortVisibility,
}

/// What the runner sees on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ObservedState {
    /// Nothing of it exists on the host.
    Absent,
    /// Network and volume exist and hold a whole clone; there is no dev container.
    Provisioned,
    /// The dev container exists and does not run.
    Stopped,
    /// The dev container runs and its agent answers.
    Running,
}

/// One observation by a runner. A later one has a higher `revision`, also across restarts of the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub gitspace: GitspaceUuid,
    pub state: ObservedState,
    /// Generation of the last task that was carried out.
    pub generation: Generation,
    pub revision: u64,
    pub at: Timestamp,
    /// Why it is not where it was: the container died, the image is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Set while a task is carried out on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskUuid>,
    /// Known once the dev container exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev_container: Option<DevContainer>,
}

/// What a user needs to know of a dev container to work in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DevContainer {
    pub image: String,
    /// Name or numeric id of the user whose shell a terminal opens.
    pub remote_user: String,
    /// Absolute path inside the container.
    pub workspace_folder: String,
    #[serde(default)]
    pub forward_ports: Vec<u16>,
    /// Whether its once-only lifecycle commands have all ended well.
    pub initialized: bool,
    /// Public host key of its SSH server, as `known_hosts` has it: `ssh-ed25519 AAAA…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ssh_host_key: Option<SshPublicKey>,
}

/// State as a user sees it, derived from what is desired and observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GitspaceState {
    Uninitialized,
    Starting,
    Running,
    Stopping,
    Stopped,
    /// Reset under way.
    Resetting,
    Deleting,
    Deleted,
    Error,
}

impl GitspaceState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uninitialized => "uninitialized",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Resetting => "resetting",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Error => "error",
        }
    }

    /// Whether work is under way: a second action is refused.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        match self {
            Self::Starting | Self::Stopping | Self::Resetting | Self::Deleting => true,
            Self::Uninitialized | Self::Running | Self::Stopped | Self::Deleted | Self::Error => {
                false
            }
        }
    }
}

impl std::fmt::Display for GitspaceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// All a runner needs to make a gitspace. Sent whole with every task that may need it, so that a runner that lost its ledger can go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitspaceSpec {
    pub name: GitspaceName,
    pub slug: Slug,
    pub repo: RepoSpec,
    pub resources: Resources,
    /// For clone and later fetches and pushes. Never written to a disk by a runner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub git_credentials: Vec<GitCredential>,
    /// Author of commits made inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_identity: Option<GitIdentity>,
}

impl GitspaceSpec {
    /// The same without what must not lie on a disk.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        Self {
            git_credentials: Vec::new(),
            ..self.clone()
        }
    }
}

/// Which repository, and where in its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RepoSpec {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub url: RepoUrl,
    /// Branch, tag or commit; the repository's default branch where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reference: Option<GitRef>,
}

/// Limits of one dev container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// What a Git credential may be sent over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GitScheme {
    #[default]
    Https,
    /// Readable by everybody on the way: only where a user has said so.
    Http,
}

impl GitScheme {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    #[must_use]
    pub fn is_https(&self) -> bool {
        matches!(self, Self::Https)
    }

    /// As a user writes it: `host` is for https, `http://host` for plain http.
    #[must_use]
    pub fn spell(self, host: &str) -> String {
        match self {
            Self::Https => host.to_owned(),
            Self::Http => format!("http://{host}"),
        }
    }

    /// Reads what [`Self::spell`] writes, with the scheme of https where it is written out.
    #[must_use]
    pub fn split(text: &str) -> (Self, &str) {
        let (scheme, host) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(host), _) => (Self::Http, host),
            (None, Some(host)) => (Self::Https, host),
            (None, None) => return (Self::Https, text),
        };
        (scheme, host.strip_suffix('/').unwrap_or(host))
    }
}

impl std::str::FromStr for GitScheme {
    type Err = UnknownGitScheme;

    fn from_str(text: &str) -> Result<Self, UnknownGitScheme> {
        match text {
            "https" => Ok(Self::Https),
            "http" => Ok(Self::Http),
            _ => Err(UnknownGitScheme),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheme of a Git credential is `https` or `http`")]
pub struct UnknownGitScheme;

/// User and password (or token) for one Git host, over one scheme.
///
/// An older writer says no scheme, which is https; an older reader takes what is for https, and refuses what is for http.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitCredential {
    #[serde(default, skip_serializing_if = "GitScheme::is_https")]
    pub scheme: GitScheme,
    /// `host` or `host:port`, compared exactly.
    pub host: String,
    pub username: String,
    pub secret: Secret,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitIdentity {
    pub name: String,
    pub email: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_without_a_scheme_is_for_https_and_is_written_as_it_was() {
        let text = r#"{"host":"example.com","username":"u","secret":"s"}"#;
        let read: GitCredential = serde_json::from_str(text).expect("reads");
        assert_eq!(read.scheme, GitScheme::Https);
        assert_eq!(serde_json::to_string(&read).expect("writes"), text);
        let plain = GitCredential {
            scheme: GitScheme::Http,
            ..read
        };
        let written = serde_json::to_string(&plain).expect("writes");
        let again: GitCredential = serde_json::from_str(&written).expect("reads");
        assert_eq!(again.scheme, GitScheme::Http);
    }

    #[test]
    fn a_host_is_for_https_unless_it_says_http() {
        for (text, scheme, host) in [
            ("example.com", GitScheme::Https, "example.com"),
            ("https://example.com/", GitScheme::Https, "example.com"),
            ("http://git.lan:3000", GitScheme::Http, "git.lan:3000"),
            ("HTTP://example.com", GitScheme::Https, "HTTP://example.com"),
        ] {
            assert_eq!(GitScheme::split(text), (scheme, host));
        }
        assert_eq!(
            GitScheme::split(&GitScheme::Http.spell("h")),
            (GitScheme::Http, "h")
        );
    }
}
