//! What a daemon tells of itself.

use crate::{Check, DrainRequest, DrainState};
use http::{Method, Response, StatusCode};
use local_rpc::{
    Peer,
    server::{self, Body},
};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::problem::Problem;

/// Which program this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// As its binary is called.
    pub daemon: String,
    pub version: String,
}

/// The daemon behind an admin socket. Cheap to clone; every method may be called at any time and by many at once.
pub trait Subject: Clone + Send + Sync + 'static {
    fn about(&self) -> About;

    /// Each in bounded time: what does not answer is a check that failed.
    fn checks(&self) -> impl Future<Output = Vec<Check>> + Send;

    fn status(&self) -> impl Future<Output = Value> + Send;

    fn tasks(&self) -> impl Future<Output = Value> + Send;

    /// Adds what it measures.
    fn metrics(&self, registry: &mut Registry);

    /// A daemon that cannot be drained never is.
    fn drain_state(&self) -> DrainState {
        DrainState::default()
    }

    /// Takes nothing more from here on.
    ///
    /// # Errors
    /// Says why it cannot; some daemons never can.
    fn drain(
        &self,
        request: DrainRequest,
    ) -> impl Future<Output = Result<DrainState, (StatusCode, Problem)>> + Send {
        let _ = request;
        std::future::ready(Err(no_drain(&self.about())))
    }

    /// Takes work again.
    ///
    /// # Errors
    /// Says why it cannot.
    fn undrain(&self) -> impl Future<Output = Result<DrainState, (StatusCode, Problem)>> + Send {
        std::future::ready(Err(no_drain(&self.about())))
    }

    /// Makes its link anew.
    ///
    /// # Errors
    /// A daemon without a link says so.
    fn reconnect(&self) -> Result<(), (StatusCode, Problem)> {
        Err((
            StatusCode::NOT_FOUND,
            Problem::new(
                "no_link",
                format!("{} has no link to make anew", self.about().daemon),
            ),
        ))
    }

    /// A route that this daemon alone has. Its request has no body.
    fn own_route(
        &self,
        method: &Method,
        path: &[&str],
        peer: &Peer,
    ) -> impl Future<Output = Option<Response<Body>>> + Send {
        let _ = (method, path, peer);
        async { None }
    }

    /// The configuration files in force, as they are on the disk; they are redacted before anybody sees them.
    fn config_files(&self) -> Vec<camino::Utf8PathBuf>;
}

fn no_drain(about: &About) -> (StatusCode, Problem) {
    (
        StatusCode::NOT_FOUND,
        Problem::new("no_drain", format!("{} cannot be drained", about.daemon))
            .hint("hosts are drained: `delegate-agent drain`; this daemon ends in order when it is stopped"),
    )
}

/// Root and the daemon's own user may do what the socket's group may not: look and drain is the group's.
///
/// # Errors
/// The refusal, as an answer.
pub fn owner_only(peer: &Peer) -> Result<(), Box<Response<Body>>> {
    if peer.uid == 0 || peer.uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let problem = Problem::new("owner_only", "the socket's group may not do that")
        .hint("run it as root, or as the daemon's user");
    Err(Box::new(server::problem(StatusCode::FORBIDDEN, &problem)))
}
