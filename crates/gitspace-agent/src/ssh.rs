//! The gitspace's own SSH server, so that an image needs none.
//!
//! | asked for | who does it |
//! |---|---|
//! | shell, command, SFTP, with or without a terminal | [`process`], as the remote user |
//! | `-L`, `-D`, `-J` through the gitspace | [`forward`] dials from its network |
//! | `-R` | [`listen`] on its loopback addresses |
//! | `-A` | [`auth_agent`]: a socket of the remote user |
//!
//! A client of ours comes with a session whose line may be cut and replaced ([`lines`]); another one with a connection.
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
mod lines;
mod listen;
mod modes;
mod process;
mod requests;

pub(crate) use auth_agent::sweep;
pub(crate) use host_key::{HostKeyError, open_or_make};
pub(crate) use lines::Sessions;

use crate::agent::Agent;
use connection::Connection;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use local_rpc::server::{Body, RequestError, prepare_upgrade, query_value};
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use wire::workspace::SSH_PROTOCOL;

/// Answers `101`; the connection goes on as SSH, or as a line of it.
pub(crate) fn answer(
    agent: &Arc<Agent>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, RequestError> {
    if let Some(session) = query_value(request.uri(), "session")? {
        return lines::answer(agent, request, session);
    }
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
pub(crate) async fn serve(agent: Arc<Agent>, mut stream: UnixStream) {
    agent.dialled.workspace_opened();
    serve_on(&agent, &mut stream, Watch::Client).await;
    agent.dialled.workspace_closed();
}

/// Who notices that a client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// This server: it asks a silent one for a sign of life.
    Client,
    /// What the stream lies on.
    Line,
}

async fn serve_on<S: AsyncRead + AsyncWrite + Unpin>(
    agent: &Arc<Agent>,
    stream: &mut S,
    watch: Watch,
) {
    let key = match agent.host_key().await {
        Ok(key) => key,
        Err(error) => {
            tracing::error!(%error, "Cannot serve SSH without a host key");
            return;
        }
    };
    let served = match Connection::new(Arc::clone(agent), key, stream, watch) {
        Ok(connection) => connection.run().await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::debug!(%error, "An SSH connection ended with an error");
    }
}
