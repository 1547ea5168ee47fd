//! The gitspace's own SSH server, so that an image needs none.
//!
//! | asked for | who does it |
//! |---|---|
//! | shell, command, SFTP, with or without a terminal | [`process`], as the remote user |
//! | `-L`, `-D`, `-J` through the gitspace | [`forward`] dials from its network |
//! | `-R` | [`listen`] on its loopback addresses |
//! | `-A` | [`auth_agent`]: a socket of the remote user |
//!
//! [`connection`] moves packets, [`channels`] says whose turn it is, [`requests`] decides.
//!
//! Whoever reaches this server has been let in by the gateway, so that it asks for no proof of its own. What it proves is itself: the client
//! knows its host key from the control plane, and nobody in between reads what is said.
//!
//! Invariants: nothing that a client names is opened, run or bound with the agent's own rights; whoever does not read, client or program, holds
//! up its own channel alone.

mod auth_agent;
mod channels;
mod connection;
mod environment;
mod forward;
mod host_key;
mod listen;
mod modes;
mod process;
mod requests;

pub(crate) use auth_agent::sweep;
pub(crate) use host_key::{HostKeyError, open_or_make};

use crate::agent::Agent;
use connection::Connection;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use local_rpc::server::{Body, RequestError, prepare_upgrade};
use std::sync::Arc;
use tokio::net::UnixStream;
use wire::workspace::SSH_PROTOCOL;

/// Answers `101`; the connection goes on as SSH.
pub(crate) fn answer(
    agent: &Arc<Agent>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, RequestError> {
    let upgrade = prepare_upgrade(&mut request, SSH_PROTOCOL)?;
    let response = upgrade.response(HeaderMap::new());
    let shared = Arc::clone(agent);
    agent.ssh_sessions.spawn(async move {
        match upgrade.stream().await {
            Ok(upgraded) if upgraded.leftover.is_empty() => serve(shared, upgraded.stream).await,
            Ok(_) => tracing::debug!("A client of SSH did not wait for the answer"),
            Err(error) => tracing::debug!(%error, "A connection did not become SSH"),
        }
    });
    Ok(response)
}

/// Serves one connection to its end.
pub(crate) async fn serve(agent: Arc<Agent>, stream: UnixStream) {
    let key = match agent.host_key().await {
        Ok(key) => key,
        Err(error) => {
            tracing::error!(%error, "Cannot serve SSH without a host key");
            return;
        }
    };
    agent.dialled.workspace_opened();
    let served = match Connection::new(Arc::clone(&agent), key, stream) {
        Ok(connection) => connection.run().await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::debug!(%error, "An SSH connection ended with an error");
    }
    agent.dialled.workspace_closed();
}
