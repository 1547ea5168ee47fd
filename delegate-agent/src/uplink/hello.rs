//! What the delegate says of itself at each connect, and the proof that it is itself.

use crate::{VERSION, config::CapacitySettings, identity::KeyInUse, inventory, runner::Runner};
use admin::DrainFile;
use daemon::{Clock, ErrorChain};
use std::{sync::Arc, time::Duration};
use token::Validity;
use wire::{
    control::{Hello, PROOF_PURPOSE, ProofClaims, TaskStatus},
    ids::DelegateUuid,
};

/// The nonce makes a proof good for one connection; the time only has to cover that.
const PROOF_LIFE: Duration = Duration::from_secs(60);
/// A runner that does not answer by then is told as not ready.
const RUNNER_LIMIT: Duration = Duration::from_secs(5);

/// What a hello said, for whoever acts on its answer.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub runner_ready: bool,
    pub draining: bool,
    /// An operator drained the runner itself.
    pub runner_draining: bool,
    pub tasks: Vec<TaskStatus>,
}

pub(super) struct Greeting {
    pub(super) proof: String,
    pub(super) hello: Box<Hello>,
    pub(super) told: Told,
}

/// All that goes into hellos.
#[derive(Debug)]
pub struct HelloSource {
    pub key: KeyInUse,
    /// Origin of the control plane that proofs are for.
    pub audience: String,
    pub tags: Vec<String>,
    pub capacity: CapacitySettings,
    pub runner: Runner,
    pub drain: DrainFile,
    pub clock: Arc<dyn Clock>,
}

impl HelloSource {
    pub(super) async fn greet(
        &self,
        delegate: DelegateUuid,
        nonce: String,
    ) -> Result<Greeting, String> {
        let runner = &self.runner;
        let asked = async {
            // The tasks first: a task that ends meanwhile has told of its gitspace before.
            let tasks = runner.tasks().await?;
            let (gitspaces, host) = tokio::try_join!(runner.gitspaces(), runner.host())?;
            Ok::<_, local_rpc::ClientError>((tasks, gitspaces, host))
        };
        let answer = tokio::time::timeout(RUNNER_LIMIT, asked).await;
        let (runner_ready, tasks, gitspaces, host) = match answer {
            Ok(Ok((tasks, gitspaces, host))) => (true, tasks, gitspaces, Some(host)),
            Ok(Err(error)) => {
                tracing::warn!(error = %ErrorChain(&error), "The runner does not answer; the control plane is told so");
                (false, Vec::new(), Vec::new(), None)
            }
            Err(_) => {
                tracing::warn!("The runner does not answer in time; the control plane is told so");
                (false, Vec::new(), Vec::new(), None)
            }
        };
        let Validity { iat, exp } = Validity::starting(self.clock.now(), PROOF_LIFE);
        let claims = ProofClaims {
            delegate,
            audience: self.audience.clone(),
            nonce,
            iat,
            exp,
        };
        let key = self.key.get().ok_or("this host is not enrolled")?;
        let proof = token::sign(&claims, &key, PROOF_PURPOSE)
            .map_err(|error| ErrorChain(&error).to_string())?;
        let runner_draining = host.as_ref().is_some_and(|host| host.draining);
        let draining = self.drain.is_draining() || runner_draining;
        let hello = Hello {
            version: VERSION.to_owned(),
            inventory: inventory::collect(host.as_ref(), self.capacity),
            tags: self.tags.clone(),
            draining,
            probes: true,
            tunnels: true,
            runner_ready,
            tasks: tasks.clone(),
            gitspaces,
        };
        Ok(Greeting {
            proof,
            hello: Box::new(hello),
            told: Told {
                runner_ready,
                draining,
                runner_draining,
                tasks,
            },
        })
    }
}
