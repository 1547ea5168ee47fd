//! The host itself: every gitspace runs on one configured Docker.

use super::Machine;
use crate::docker::Docker;
use futures_util::{FutureExt as _, future::BoxFuture};
use wire::{failure::Failure, ids::GitspaceUuid};

#[derive(Debug)]
pub(crate) struct HostMachine {
    docker: Docker,
}

impl HostMachine {
    pub(crate) fn new(docker: Docker) -> Self {
        Self { docker }
    }
}

impl Machine for HostMachine {
    fn provider(&self) -> &'static str {
        "host"
    }

    fn docker(&self, _gitspace: GitspaceUuid) -> BoxFuture<'_, Result<Docker, Failure>> {
        std::future::ready(Ok(self.docker.clone())).boxed()
    }
}
