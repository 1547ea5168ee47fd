//! The gitspace's own SSH server, so that an image needs none.
//!
//! | asked for | who does it |
//! |---|---|
//! | shell, command, SFTP, with or without a terminal | [`process`], as the remote user |
//! | `-L`, `-D`, `-J` through the gitspace | [`forward`] dials from its network |
//! | `-R` | [`listen`] on its loopback addresses |
//! | `-A` | [`auth_agent`]: a socket of the remote user |
//!
//! Whoever reaches this server has been let in by the gateway, so that it asks for no proof of its own. What it proves is itself: the client
//! knows its host key from the control plane, and nobody in between reads what is said.
//!
//! Invariant: nothing that a client names is opened, run or bound with the agent's own rights.
//!
//! A client that does not read one of its channels holds up that channel; one whose process here does not read holds up its whole connection
//! when [`CHANNEL_MESSAGES`] have piled up, because the library opens a channel's window anew before its data has been taken.

mod auth_agent;
mod connection;
mod environment;
mod forward;
mod host_key;
mod listen;
mod modes;
mod process;

pub(crate) use auth_agent::sweep;
pub(crate) use host_key::{HostKey, HostKeyError};

use crate::agent::Agent;
use connection::Connection;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use local_rpc::server::{Body, RequestError, prepare_upgrade};
use russh::{
    Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac,
    server::{self, Config},
};
use std::{borrow::Cow, sync::Arc, time::Duration};
use tokio::net::UnixStream;
use wire::workspace::SSH_PROTOCOL;

const BANNER: &str = concat!("SSH-2.0-gitspaces_", env!("CARGO_PKG_VERSION"));
/// A client that says nothing for so long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(30);
const UNANSWERED_KEEPALIVES: usize = 4;
/// Bytes of one channel on their way. At 100 ms that is 20 MiB a second.
const WINDOW: u32 = 2 << 20;
const PACKET: u32 = 32 * 1024;
/// Of a client, waiting to be taken. The longest is a packet.
const CHANNEL_MESSAGES: usize = 256;
/// What processes say, waiting to be sent. The longest is a packet.
const EVENTS: usize = 16;
/// RFC 4253 asks for new keys after a gigabyte or an hour.
const REKEY_BYTES: usize = 1 << 30;
const REKEY_AFTER: Duration = Duration::from_hours(1);

/// What is weak, or stronger and slower than what everybody has, is left out.
const PREFERRED: Preferred = Preferred {
    kex: Cow::Borrowed(&[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ]),
    key: Preferred::DEFAULT.key,
    host_key_certificates: Cow::Borrowed(&[]),
    cipher: Cow::Borrowed(&[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]),
    mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
    compression: Cow::Borrowed(&[compression::NONE]),
};

/// Answers `101`; the connection goes on as SSH.
pub(crate) fn answer(
    agent: &Arc<Agent>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, RequestError> {
    let upgrade = prepare_upgrade(&mut request, SSH_PROTOCOL)?;
    let response = upgrade.response(HeaderMap::new());
    let shared = Arc::clone(agent);
    agent.tasks.spawn(async move {
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
            tracing::error!(error = %error, "Cannot serve SSH without a host key");
            return;
        }
    };
    agent.dialled.workspace_opened();
    let connection = Connection::new(Arc::clone(&agent));
    match server::run_stream(Arc::new(config(&key)), stream, connection).await {
        Ok(running) => {
            if let Err(error) = running.await {
                tracing::debug!(%error, "An SSH connection ended with an error");
            }
        }
        Err(error) => tracing::debug!(%error, "An SSH connection did not begin"),
    }
    agent.dialled.workspace_closed();
}

fn config(key: &HostKey) -> Config {
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::None);
    Config {
        server_id: SshId::Standard(Cow::Borrowed(BANNER)),
        methods,
        auth_rejection_time: Duration::ZERO,
        keys: vec![key.private().clone()],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: CHANNEL_MESSAGES,
        event_buffer_size: EVENTS,
        limits: Limits::new(REKEY_BYTES, REKEY_BYTES, REKEY_AFTER),
        preferred: PREFERRED,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: UNANSWERED_KEEPALIVES,
        ..Config::default()
    }
}
