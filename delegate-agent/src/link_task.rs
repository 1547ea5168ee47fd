//! The uplink, from the moment that this host is enrolled.

use crate::{
    enrol::EnrolError,
    identity::KeyInUse,
    unattended::FirstStart,
    uplink::{Uplink, UplinkError},
};
use daemon::{ErrorChain, Hint as _, Tasks};
use tokio_util::sync::CancellationToken;
use wire::ids::DelegateUuid;

/// As whom to connect.
#[derive(Debug)]
pub(crate) enum Who {
    /// By its name.
    Known(String, DelegateUuid),
    Enrolling(Box<FirstStart>),
}

impl Who {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Known(name, _) => name,
            Self::Enrolling(first) => &first.name,
        }
    }
}

#[derive(Debug)]
pub(crate) struct LinkTask {
    pub(crate) who: Who,
    pub(crate) uplink: Uplink,
    pub(crate) in_use: KeyInUse,
    pub(crate) tasks: Tasks,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkTaskError {
    #[error("this host cannot be enrolled")]
    Enrol(#[source] EnrolError),
    #[error(transparent)]
    Uplink(UplinkError),
}

impl LinkTask {
    /// Until `stop`.
    ///
    /// # Errors
    /// See [`LinkTaskError`]. Where the enrolment is refused the process ends with that error's exit code, which nothing restarts.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), LinkTaskError> {
        let delegate = match self.who {
            Who::Known(_, delegate) => delegate,
            Who::Enrolling(first) => {
                let Some(enrolled) = self.uplink.wait_for(first.run(), &stop).await else {
                    return Ok(());
                };
                let enrolled = enrolled.and_then(|identity| {
                    let delegate = identity.delegate.ok_or(EnrolError::NoDelegate)?;
                    self.in_use.set(identity.key);
                    Ok(delegate)
                });
                match enrolled {
                    Ok(delegate) => delegate,
                    Err(error) => {
                        self.tasks
                            .status(&format!("not enrolled: {}", ErrorChain(&error)));
                        if let Some(hint) = error.hint() {
                            tracing::error!(hint, "A person has to act");
                        }
                        self.tasks.stop(error.exit());
                        return Err(LinkTaskError::Enrol(error));
                    }
                }
            }
        };
        self.uplink
            .run(delegate, stop)
            .await
            .map_err(LinkTaskError::Uplink)
    }
}
