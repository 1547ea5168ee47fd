//! A thin layer over Docker's API: every call has a deadline, and every error says what failed and what to do.
//!
//! Responsible for: connecting (and connecting again with another API version when Docker was upgraded), and turning Docker's
//! answers into the few facts that the runner uses. It decides nothing.

mod calls;
mod create;
mod error;
mod stray;

pub(crate) use calls::{ContainerFacts, ImageFacts, KILLED, Labels};
pub(crate) use create::ContainerPlan;
pub(crate) use error::DockerError;

use bollard::ClientVersion;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// For calls that only look.
pub(crate) const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// For calls that make, start or remove something; a busy disk can make them slow.
pub(crate) const CHANGE_DEADLINE: Duration = Duration::from_secs(120);
/// What this code is written for; Docker 20.10 and later have it or negotiate.
const API: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 47,
};

/// One Docker endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    host: Arc<str>,
    client: Arc<Mutex<Option<bollard::Docker>>>,
}

impl Docker {
    /// Connects at the first call, and not before.
    pub(crate) fn new(host: &str) -> Self {
        Self {
            host: Arc::from(host),
            client: Arc::default(),
        }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    async fn client(&self) -> Result<bollard::Docker, DockerError> {
        if let Some(client) = self.cached() {
            return Ok(client);
        }
        let what = "connect to Docker";
        let error = |source| DockerError::new(what, source);
        let client = if self.host.starts_with("unix://") {
            bollard::Docker::connect_with_unix(&self.host, CHANGE_DEADLINE.as_secs(), &API)
        } else {
            bollard::Docker::connect_with_http(&self.host, CHANGE_DEADLINE.as_secs(), &API)
        }
        .map_err(error)?;
        let client = tokio::time::timeout(LOOK_DEADLINE, client.negotiate_version())
            .await
            .map_err(|_| DockerError::timeout(what, LOOK_DEADLINE))?
            .map_err(error)?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    fn cached(&self) -> Option<bollard::Docker> {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs one call within its deadline, the connecting included. After a failure to reach Docker the version is negotiated again.
    async fn call<T, F>(
        &self,
        what: &str,
        deadline: Duration,
        work: impl FnOnce(bollard::Docker) -> F + Send,
    ) -> Result<T, DockerError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>> + Send,
    {
        let whole = async {
            let client = self.client().await?;
            Box::pin(work(client))
                .await
                .map_err(|source| DockerError::new(what, source))
        };
        let result = match tokio::time::timeout(deadline, whole).await {
            Ok(result) => result,
            Err(_) => Err(DockerError::timeout(what, deadline)),
        };
        if let Err(error) = &result
            && error.is_unavailable()
        {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }
}
