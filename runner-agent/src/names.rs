//! Names and labels of what is made in Docker, and the folders that belong to it.

use crate::docker::Labels;
use camino::{Utf8Path, Utf8PathBuf};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use wire::{ids::GitspaceUuid, text::Slug};

pub(crate) const DEPLOYMENT: &str = "gitspaces.deployment";
pub(crate) const GITSPACE: &str = "gitspaces.gitspace";
pub(crate) const ROLE: &str = "gitspaces.role";
pub(crate) const KEY: &str = "gitspaces.key";
/// Of a dev container: the ledger's record of it.
pub(crate) const RECORD: &str = "gitspaces.record";

/// What a thing in Docker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Machine,
    Sandbox,
    DevContainer,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Sandbox => "sandbox",
            Self::DevContainer => "dev-container",
        }
    }
}

/// Names of one deployment: several runners can share a Docker.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    deployment: String,
    /// Four digits that stand for the deployment where a name has to be short.
    tag: String,
    run_dir: Utf8PathBuf,
}

impl Names {
    pub(crate) fn new(deployment: &str, run_dir: &Utf8Path) -> Self {
        Self {
            deployment: deployment.to_owned(),
            tag: digest(deployment.as_bytes(), 4),
            run_dir: run_dir.to_owned(),
        }
    }

    pub(crate) fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Selects everything of this deployment in Docker.
    pub(crate) fn filter(&self) -> String {
        format!("{DEPLOYMENT}={}", self.deployment)
    }

    pub(crate) fn labels(&self, role: Role, key: &str) -> Labels {
        [
            (DEPLOYMENT, self.deployment.as_str()),
            (ROLE, role.as_str()),
            (KEY, key),
        ]
        .iter()
        .map(|&(label, value)| (label.to_owned(), value.to_owned()))
        .collect()
    }

    /// Interfaces of this deployment, and of no other, begin with it.
    pub(crate) fn bridge_prefix(&self) -> String {
        format!("gs{}-", self.tag)
    }

    /// At most 15 characters, which is what the kernel takes.
    pub(crate) fn bridge(&self, key: &str) -> String {
        let short: String = key.chars().take(8).collect();
        format!("{}{short}", self.bridge_prefix())
    }

    pub(crate) fn chain(&self, purpose: &str) -> String {
        format!("GITSPACES-{}-{purpose}", self.tag)
    }

    /// Network and volume of a machine.
    pub(crate) fn machine(&self, key: &str) -> String {
        format!("gitspaces-{key}")
    }

    pub(crate) fn sandbox(&self, key: &str) -> String {
        format!("gitspaces-{key}-sandbox")
    }

    pub(crate) fn dev_container(&self, slug: &Slug, key: &str) -> String {
        format!("gitspaces-{key}-{slug}")
    }

    pub(crate) fn run_dir(&self) -> &Utf8Path {
        &self.run_dir
    }

    /// Of the agent in the sandbox.
    pub(crate) fn sandbox_run_dir(&self, key: &str) -> Utf8PathBuf {
        self.run_dir.join(format!("{key}-sandbox"))
    }

    /// Of the agent in the dev container.
    pub(crate) fn dev_run_dir(&self, key: &str) -> Utf8PathBuf {
        self.run_dir.join(key)
    }
}

/// What `${devcontainerId}` stands for: the same for a gitspace's whole life.
pub(crate) fn devcontainer_id(gitspace: GitspaceUuid) -> String {
    digest(gitspace.to_string().as_bytes(), 52)
}

/// The first `length` hexadecimal digits of a hash.
pub(crate) fn digest(bytes: &[u8], length: usize) -> String {
    HEXLOWER
        .encode(&Sha256::digest(bytes))
        .chars()
        .take(length)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_fits_into_what_the_kernel_takes() {
        let names = Names::new("quickstart-of-somebody", Utf8Path::new("/run"));
        let bridge = names.bridge("0123456789abcdef");
        assert!(bridge.len() <= 15, "{bridge}");
        assert!(bridge.starts_with(&names.bridge_prefix()));
    }
}
