//! The streams that a gateway opens through a tunnel.

use super::Common;
use daemon::ErrorChain;
use gateway::{DialError, Upstream};
use runner_dial::RunnerDial;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{Instant, timeout},
};
use tunnel::{Incoming, Tunnel, pump};
use wire::{
    ids::GitspaceUuid,
    runner::DialTarget,
    shown,
    tunnel::{MAX_LISTED, StreamRefusal, StreamRequest},
};

/// For the runner to open the way into a gitspace.
const DIAL_LIMIT: Duration = Duration::from_secs(8);
/// Characters of why there is no stream.
const MAX_CAUSE: usize = 1000;

/// Serves the streams of `tunnel` to its end.
pub(super) async fn serve(common: Arc<Common>, tunnel: Tunnel) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            incoming = tunnel.incoming() => match incoming {
                Some(incoming) => {
                    streams.spawn(one(Arc::clone(&common), incoming));
                }
                None => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn one(common: Arc<Common>, incoming: Incoming) {
    match serde_json::from_slice(incoming.words()) {
        Ok(StreamRequest::Dial { gitspace, to }) => match to.parse::<DialTarget>() {
            Ok(to) => dial(&common.runner, incoming, gitspace, to).await,
            Err(error) => refuse(incoming, &unreachable(&error.to_string())),
        },
        Ok(StreamRequest::Probe {}) => probe(&common, incoming).await,
        Err(error) => {
            let cause = format!("the delegate does not know what the gateway asks for: {error}");
            refuse(incoming, &unreachable(&cause));
        }
    }
}

async fn dial(runner: &RunnerDial, incoming: Incoming, gitspace: GitspaceUuid, to: DialTarget) {
    let opened = match timeout(DIAL_LIMIT, runner.open(gitspace, to)).await {
        Ok(opened) => opened,
        Err(_) => {
            let cause = format!("no stream within {} s", DIAL_LIMIT.as_secs());
            return refuse(incoming, &unreachable(&cause));
        }
    };
    let socket: Upstream = match opened {
        Ok(socket) => socket,
        Err(error) => return refuse(incoming, &refusal(error)),
    };
    if let Err(error) = pump(incoming.accept(), socket).await {
        tracing::debug!(%gitspace, %to, %error, "A stream broke off");
    }
}

async fn probe(common: &Common, incoming: Incoming) {
    let report = common.prober.answer(Instant::now(), false).await;
    let text = match serde_json::to_vec(&report) {
        Ok(text) => text,
        Err(error) => return refuse(incoming, &unreachable(&error.to_string())),
    };
    let mut stream = incoming.accept();
    let told = async {
        stream.write_all(&text).await?;
        stream.shutdown().await
    };
    if let Err(error) = told.await {
        tracing::debug!(%error, "A gateway did not wait for what a probe found");
    }
}

fn refusal(error: DialError) -> StreamRefusal {
    match error {
        DialError::PortClosed { mut listening } => {
            listening.truncate(MAX_LISTED);
            StreamRefusal::PortClosed { listening }
        }
        // What this host's runner does not know does not run here.
        DialError::NotRunning | DialError::Elsewhere => StreamRefusal::NotRunning {},
        DialError::Unreachable { cause } => unreachable(&cause),
    }
}

fn unreachable(cause: &str) -> StreamRefusal {
    StreamRefusal::Unreachable {
        // It has to fit into one word of a stream.
        cause: shown::bounded(cause, MAX_CAUSE),
    }
}

fn refuse(incoming: Incoming, refusal: &StreamRefusal) {
    match serde_json::to_vec(refusal) {
        Ok(words) => incoming.refuse(words.into()),
        Err(error) => {
            tracing::error!(error = %ErrorChain(&error), "Cannot say why a stream is refused");
            incoming.refuse(bytes::Bytes::new());
        }
    }
}
