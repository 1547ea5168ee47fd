//! The lines of tunnels: each from its hello to its end.

use super::{Place, Tunnels};
use crate::{dial::Stream, gateway::Shared, live::SWEEP_PERIOD};
use bytes::Bytes;
use daemon::ErrorChain;
use futures_util::{SinkExt as _, StreamExt as _};
use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};
use tunnel::{Cut, websocket_config};
use wire::{
    ids::DelegateUuid,
    tunnel::{MAX_HELLO, TunnelClaims, TunnelHello, TunnelWelcome},
};

/// For each side's first words.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// At once, in all, and of one delegate.
const MAX_GREETING: usize = 512;
const MAX_GREETING_OF_ONE: usize = 16;

/// A connection that has become a line, not yet on a tunnel.
pub(crate) struct Joining {
    pub(crate) stream: Box<dyn Stream>,
    /// What of the line came with its head.
    pub(crate) first: Vec<u8>,
    pub(crate) claims: Arc<TunnelClaims>,
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joining")
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

/// Held by what serves users: lines are there until all of it has ended.
pub(crate) type Served = mpsc::Sender<Infallible>;

/// Why a connection did not come onto a tunnel.
#[derive(Debug, thiserror::Error)]
enum HelloError {
    #[error("it said no hello in time")]
    Silent,
    #[error("it left")]
    Gone,
    #[error("it broke")]
    Broken {
        #[source]
        source: Box<tungstenite::Error>,
    },
    #[error("its hello cannot be read")]
    Unreadable {
        #[source]
        source: serde_json::Error,
    },
    #[error("it said something else than a hello")]
    NoHello,
}

impl Tunnels {
    /// Gives a connection to the task that owns lines. It is dropped where that has too many to begin.
    pub(crate) fn take(&self, joining: Joining) {
        if self.joining.try_send(joining).is_err() {
            tracing::warn!("Too many tunnels begin at once; one was dropped, and comes again");
        }
    }
}

/// A connection that has said where it belongs.
struct Greeted {
    socket: Socket,
    hello: TunnelHello,
    claims: Arc<TunnelClaims>,
}

/// Connections that have a ticket and have not said where they belong: they have left the count of connections, and each has a buffer.
#[derive(Default)]
struct Greetings {
    tasks: JoinSet<(DelegateUuid, Option<Greeted>)>,
    of: HashMap<DelegateUuid, usize>,
}

impl Greetings {
    fn begin(&mut self, joining: Joining) {
        let delegate = joining.claims.delegate;
        let of = self.of.get(&delegate).copied().unwrap_or_default();
        if of >= MAX_GREETING_OF_ONE || self.tasks.len() >= MAX_GREETING {
            tracing::warn!(%delegate, "Too many tunnels begin at once; one was dropped, and comes again");
            return;
        }
        self.of.insert(delegate, of + 1);
        self.tasks.spawn(async move {
            match greeted(joining).await {
                Ok(greeted) => (delegate, Some(greeted)),
                Err(error) => {
                    tracing::warn!(%delegate, error = %ErrorChain(&error), "A tunnel did not begin");
                    (delegate, None)
                }
            }
        });
    }

    /// The next one that has said it. `None` where there is none: that is no reason to wait.
    async fn next(&mut self) -> Option<Greeted> {
        loop {
            // None of them is aborted, and none panics.
            let (delegate, greeted) = self.tasks.join_next().await?.ok()?;
            if let Some(of) = self.of.get_mut(&delegate) {
                *of -= 1;
                if *of == 0 {
                    self.of.remove(&delegate);
                }
            }
            if greeted.is_some() {
                return greeted;
            }
        }
    }
}

/// Owns every line, and looks after the lanes, for as long as anybody is served.
pub(crate) async fn run(
    shared: Arc<Shared>,
    tunnels: Arc<Tunnels>,
    mut joined: mpsc::Receiver<Joining>,
    mut served: mpsc::Receiver<Infallible>,
) -> Result<(), Infallible> {
    let mut greetings = Greetings::default();
    let mut lines = JoinSet::new();
    let mut ticks = interval(SWEEP_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut voided = shared.known.voided();
    loop {
        tokio::select! {
            Some(joining) = joined.recv() => greetings.begin(joining),
            Some(greeted) = greetings.next() => {
                lines.spawn(line(Arc::clone(&tunnels), greeted));
            }
            Some(_) = lines.join_next() => {}
            _ = ticks.tick() => tunnels.sweep(&shared.known),
            Ok(()) = voided.changed() => tunnels.sweep(&shared.known),
            None = served.recv() => break,
        }
    }
    tunnels.end("the gateway stops");
    while lines.join_next().await.is_some() {}
    Ok(())
}

async fn line(tunnels: Arc<Tunnels>, greeted: Greeted) {
    let Greeted {
        mut socket,
        hello,
        claims,
    } = greeted;
    let (delegate, lane) = (claims.delegate, hello.lane);
    let begun = Instant::now();
    let Place {
        tunnel,
        next,
        welcome,
    } = match tunnels.join(&claims, &hello) {
        Ok(place) => place,
        Err(error) => {
            tracing::warn!(%delegate, lane, %error, "A tunnel did not begin");
            let close = CloseFrame {
                code: CloseCode::Policy,
                reason: error.to_string().into(),
            };
            // Whoever does not wait for it knows less.
            drop(timeout(HELLO_LIMIT, socket.close(Some(close))).await);
            return;
        }
    };
    // What the delegate has of another one is nothing of this.
    let received = match welcome {
        TunnelWelcome::Resumed { .. } => hello.received,
        TunnelWelcome::Begun { .. } => 0,
    };
    let cut = match say(&mut socket, &welcome).await {
        Ok(()) => {
            let is_resumed = matches!(welcome, TunnelWelcome::Resumed { .. });
            tracing::info!(%delegate, lane, is_resumed, "Tunnel is up");
            tunnel.carry(next, socket, received).await
        }
        Err(cut) => cut,
    };
    tunnels.left(delegate, &hello);
    tracing::info!(
        %delegate, lane,
        s = begun.elapsed().as_secs(),
        why = %ErrorChain(&cut),
        "Tunnel is down"
    );
}

async fn say(socket: &mut Socket, welcome: &TunnelWelcome) -> Result<(), Cut> {
    // What is here is received by nobody where it cannot be written: the delegate hangs up.
    let text = serde_json::to_string(welcome).unwrap_or_default();
    match timeout(HELLO_LIMIT, socket.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(Cut::Broken {
            source: Box::new(source),
        }),
        Err(_) => Err(Cut::Silent),
    }
}

type Socket = WebSocketStream<Box<dyn Stream>>;

async fn greeted(joining: Joining) -> Result<Greeted, HelloError> {
    let claims = joining.claims;
    let mut socket = WebSocketStream::from_partially_read(
        joining.stream,
        joining.first,
        Role::Server,
        Some(websocket_config()),
    )
    .await;
    let first = timeout(HELLO_LIMIT, socket.next())
        .await
        .map_err(|_| HelloError::Silent)?
        .ok_or(HelloError::Gone)?
        .map_err(|source| HelloError::Broken {
            source: Box::new(source),
        })?;
    let Message::Text(text) = first else {
        return Err(HelloError::NoHello);
    };
    let text: Bytes = text.into();
    if text.len() > MAX_HELLO {
        return Err(HelloError::NoHello);
    }
    let hello =
        serde_json::from_slice(&text).map_err(|source| HelloError::Unreadable { source })?;
    Ok(Greeted {
        socket,
        hello,
        claims,
    })
}
