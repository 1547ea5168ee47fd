//! The runner's configuration: what the operator may set, and its defaults.
//!
//! Read once at start; nothing else reads a file or the environment for settings.

use camino::Utf8PathBuf;
use daemon::{Exit, Gather, Hint, Wrong};
use serde::Deserialize;
use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, time::Duration};
use wire::agent::SshTrust;

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct RunnerConfig {
    /// The API's socket; the delegate connects to it.
    pub(crate) api_socket: Utf8PathBuf,
    /// `/healthz`, `/readyz`, `/status`.
    pub(crate) admin_socket: Utf8PathBuf,
    /// Group of both socket files.
    pub(crate) socket_gid: Option<u32>,
    /// Beside root and the user of this process.
    pub(crate) api_allow_uids: Vec<u32>,
    pub(crate) api_allow_gids: Vec<u32>,
    /// Names or numbers: who has one of these as its own group may open streams into gitspaces, and nothing else.
    pub(crate) dial_only_groups: Vec<String>,
    /// Ledger, task journal and copies of the agent.
    pub(crate) state_dir: Utf8PathBuf,
    /// Folders of the agents' sockets, one for each container. Survives a restart of this process.
    pub(crate) run_dir: Utf8PathBuf,
    /// `unix://` or `tcp://`.
    pub(crate) docker_host: String,
    /// Marks what this runner made; made up and kept in `state_dir` where not set.
    pub(crate) deployment: Option<String>,
    /// Mounted read-only into each container, from a copy that is named by its content.
    pub(crate) agent_binary: Utf8PathBuf,
    /// For repositories whose devcontainer.json names no image.
    pub(crate) default_image: String,
    /// For clones; the default image where not set.
    pub(crate) sandbox_image: Option<String>,
    /// Sandboxes that are kept ready.
    pub(crate) sandbox_pool: u32,
    pub(crate) capacity: CapacityConfig,
    /// Addresses of this host that gitspaces may reach over TCP.
    pub(crate) host_access: Vec<SocketAddr>,
    pub(crate) firewall: FirewallMode,
    /// Keys of ssh servers that clones trust, as lines of `known_hosts`.
    pub(crate) ssh_known_hosts: Vec<String>,
    pub(crate) ssh_unknown_hosts: SshUnknownHosts,
    /// Options of Docker's `local` volume driver, as `{ type = "xfs", device = ".." }`.
    pub(crate) volume_options: BTreeMap<String, String>,
    /// An agent that answers nothing for so many seconds is started again by the first process of its container.
    pub(crate) agent_silence_limit_s: u64,
    pub(crate) log: daemon::logging::LogConfig,
}

/// What is not set is taken from the host.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CapacityConfig {
    pub(crate) gitspaces: Option<u32>,
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
}

/// Whether gitspaces may run on a host where the packet filter cannot be set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FirewallMode {
    /// No gitspace starts without it.
    #[default]
    Required,
    /// The operator keeps gitspaces from the host's ports in another way.
    Off,
}

/// What a clone does with an ssh server of which no key is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SshUnknownHosts {
    /// It fails, and names the key's fingerprint.
    #[default]
    Refuse,
    /// It takes whatever key the server shows, each time: for a network in which nobody can stand between.
    AcceptNew,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            api_socket: "/run/gitspaces/runner/api.sock".into(),
            admin_socket: "/run/gitspaces/runner/admin.sock".into(),
            socket_gid: None,
            api_allow_uids: Vec::new(),
            api_allow_gids: Vec::new(),
            dial_only_groups: vec!["gitspaces-gateway".to_owned()],
            state_dir: "/var/lib/gitspaces/runner".into(),
            run_dir: "/run/gitspaces/runner/gs".into(),
            docker_host: "unix:///var/run/docker.sock".to_owned(),
            deployment: None,
            agent_binary: "/usr/lib/gitspaces/gitspace-agent".into(),
            default_image: "gitspaces/default:latest".to_owned(),
            sandbox_image: None,
            sandbox_pool: 1,
            capacity: CapacityConfig::default(),
            host_access: Vec::new(),
            firewall: FirewallMode::default(),
            ssh_known_hosts: Vec::new(),
            ssh_unknown_hosts: SshUnknownHosts::default(),
            volume_options: BTreeMap::new(),
            agent_silence_limit_s: 120,
            log: daemon::logging::LogConfig::default(),
        }
    }
}

/// More ready sandboxes than this would only hold memory.
const MAX_POOL: u32 = 16;
/// All lines of `ssh_known_hosts`, in bytes: they go with every clone.
const MAX_KNOWN_HOSTS: usize = 64 * 1024;
/// An agent that starts needs a moment, and one that is given a day is never replaced.
const SILENCE_LIMITS_S: RangeInclusive<u64> = 10..=86_400;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("`{key}` in the configuration is not an absolute path: `{path}`")]
    NotAbsolute {
        key: &'static str,
        path: Utf8PathBuf,
    },
    #[error("`docker_host` in the configuration is neither unix:// nor tcp://: `{host}`")]
    DockerHost { host: String },
    #[error(
        "`deployment` in the configuration is not 1 to 40 letters, digits, `.`, `_` or `-`: `{deployment}`"
    )]
    Deployment { deployment: String },
    #[error("`{key}` in the configuration is not the name of an image: `{image}`")]
    Image { key: &'static str, image: String },
    #[error("`sandbox_pool` in the configuration is {found}, more than {MAX_POOL}")]
    Pool { found: u32 },
    #[error(
        "entry {number} of `ssh_known_hosts` in the configuration is not `HOST ALGORITHM KEY`: `{line}`"
    )]
    KnownHost { number: usize, line: String },
    #[error(
        "`ssh_known_hosts` in the configuration has {found} bytes, more than {MAX_KNOWN_HOSTS}"
    )]
    KnownHosts { found: usize },
    #[error(
        "`agent_silence_limit_s` in the configuration is {found}, and has to be from {} to {}",
        SILENCE_LIMITS_S.start(),
        SILENCE_LIMITS_S.end()
    )]
    SilenceLimit { found: u64 },
}

impl Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAbsolute { .. } => Some("write the whole path, from `/` on".to_owned()),
            Self::DockerHost { .. } => Some("for example `unix:///run/docker.sock`".to_owned()),
            Self::KnownHost { .. } => Some(
                "write it as a line of `ssh-keyscan HOST`, after comparing its fingerprint"
                    .to_owned(),
            ),
            Self::Deployment { .. }
            | Self::Image { .. }
            | Self::Pool { .. }
            | Self::KnownHosts { .. }
            | Self::SilenceLimit { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

impl RunnerConfig {
    /// Checks what the types do not.
    pub(crate) fn check(&self) -> Result<(), Wrong<ConfigError>> {
        let mut wrong = Gather::default();
        for (key, path) in [
            ("api_socket", &self.api_socket),
            ("admin_socket", &self.admin_socket),
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("agent_binary", &self.agent_binary),
        ] {
            if !path.is_absolute() {
                wrong.push(ConfigError::NotAbsolute {
                    key,
                    path: path.clone(),
                });
            }
        }
        if !self.docker_host.starts_with("unix://") && !self.docker_host.starts_with("tcp://") {
            wrong.push(ConfigError::DockerHost {
                host: self.docker_host.clone(),
            });
        }
        if let Some(deployment) = &self.deployment
            && !is_deployment(deployment)
        {
            wrong.push(ConfigError::Deployment {
                deployment: deployment.clone(),
            });
        }
        for (key, image) in [
            ("default_image", Some(&self.default_image)),
            ("sandbox_image", self.sandbox_image.as_ref()),
        ] {
            if let Some(image) = image
                && !crate::devcontainer::is_image_name(image)
            {
                wrong.push(ConfigError::Image {
                    key,
                    image: image.clone(),
                });
            }
        }
        if self.sandbox_pool > MAX_POOL {
            wrong.push(ConfigError::Pool {
                found: self.sandbox_pool,
            });
        }
        for (index, line) in self.ssh_known_hosts.iter().enumerate() {
            if line.contains(char::is_control) || line.split_whitespace().count() < 3 {
                wrong.push(ConfigError::KnownHost {
                    number: index + 1,
                    line: line.clone(),
                });
            }
        }
        let found: usize = self.ssh_known_hosts.iter().map(String::len).sum();
        if found > MAX_KNOWN_HOSTS {
            wrong.push(ConfigError::KnownHosts { found });
        }
        if !SILENCE_LIMITS_S.contains(&self.agent_silence_limit_s) {
            wrong.push(ConfigError::SilenceLimit {
                found: self.agent_silence_limit_s,
            });
        }
        wrong.finish()
    }

    pub(crate) fn ssh_trust(&self) -> SshTrust {
        SshTrust {
            known_hosts: self.ssh_known_hosts.clone(),
            accept_new: self.ssh_unknown_hosts == SshUnknownHosts::AcceptNew,
        }
    }

    /// Of an agent, before it is replaced.
    pub(crate) const fn silence_limit(&self) -> Duration {
        Duration::from_secs(self.agent_silence_limit_s)
    }

    pub(crate) fn sandbox_image(&self) -> &str {
        self.sandbox_image.as_deref().unwrap_or(&self.default_image)
    }
}

pub(crate) fn is_deployment(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_their_own_check() {
        RunnerConfig::default().check().unwrap();
    }

    #[test]
    fn a_known_host_that_is_none_is_refused_with_its_number() {
        let config = RunnerConfig {
            ssh_known_hosts: vec![
                "[git.lan]:2222 ssh-ed25519 AAAA".to_owned(),
                "git.lan".to_owned(),
            ],
            ..RunnerConfig::default()
        };
        let error = config.check().unwrap_err().first.to_string();
        assert!(error.contains("entry 2"), "{error}");
    }

    #[test]
    fn a_silence_limit_out_of_its_range_is_refused_with_the_range() {
        for (found, is_good) in [
            (0, false),
            (9, false),
            (10, true),
            (86_400, true),
            (86_401, false),
        ] {
            let config = RunnerConfig {
                agent_silence_limit_s: found,
                ..RunnerConfig::default()
            };
            match config.check() {
                Ok(()) => assert!(is_good, "{found}"),
                Err(Wrong { first: error, .. }) => {
                    assert!(!is_good, "{error}");
                    assert!(error.to_string().contains("from 10 to 86400"), "{error}");
                }
            }
        }
    }

    #[test]
    fn everything_that_is_refused_is_named_with_its_key() {
        let config = RunnerConfig {
            state_dir: "state".into(),
            docker_host: "here".to_owned(),
            sandbox_pool: 17,
            ..RunnerConfig::default()
        };
        let wrong: Vec<_> = config.check().unwrap_err().into_iter().collect();
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        for (error, key) in wrong
            .iter()
            .zip(["state_dir", "docker_host", "sandbox_pool"])
        {
            assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        }
    }
}
