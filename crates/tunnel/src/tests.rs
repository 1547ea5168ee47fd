//! Two ends, and lines between them that are cut.

mod hostile;
mod lines;
mod streams;

use crate::{Budget, Cut, OpenError, Role, Tunnel, TunnelStream, websocket_config};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role as End},
};

const LIMIT: Duration = Duration::from_secs(20);

struct Pair {
    opens: Tunnel,
    accepts: Tunnel,
    lines: JoinSet<Cut>,
}

impl Pair {
    async fn new() -> Self {
        let budget = Budget::new(64 << 20);
        let mut pair = Self {
            opens: Tunnel::new(Role::Opens, budget.clone()),
            accepts: Tunnel::new(Role::Accepts, budget),
            lines: JoinSet::new(),
        };
        pair.connect(64 * 1024).await;
        pair
    }

    /// A line that holds so many bytes in each direction.
    async fn connect(&mut self, room: usize) {
        let (one, other) = duplex(room);
        self.carry(one, other).await;
    }

    async fn carry(&mut self, one: DuplexStream, other: DuplexStream) {
        let (opens, accepts) = (self.opens.begin(), self.accepts.begin());
        let (to, from) = (opens.received, accepts.received);
        for (tunnel, next, end, stream, received) in [
            (&self.opens, opens, End::Server, one, from),
            (&self.accepts, accepts, End::Client, other, to),
        ] {
            let socket = WebSocketStream::from_raw_socket(stream, end, None).await;
            let tunnel = tunnel.clone();
            self.lines
                .spawn(async move { tunnel.carry(next, socket, received).await });
        }
    }

    /// As a cable that is pulled: what is under way is lost.
    async fn cut(&mut self) {
        self.lines.abort_all();
        while self.lines.join_next().await.is_some() {}
    }

    /// Answers every stream with what it says, and ends when it does.
    fn echo(&self) -> JoinSet<()> {
        let tunnel = self.accepts.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Some(incoming) = tunnel.incoming().await {
                streams.spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(incoming.accept());
                    tokio::io::copy(&mut reader, &mut writer).await.ok();
                    writer.shutdown().await.ok();
                });
            }
        });
        tasks
    }

    async fn open(&self) -> TunnelStream {
        within(self.opens.open(Bytes::from_static(b"echo")))
            .await
            .unwrap()
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it does not end")
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect()
}

/// Sends `bytes`, and reads until the end meanwhile.
async fn there_and_back(stream: TunnelStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut back = Vec::new();
    let write = async {
        writer.write_all(bytes).await?;
        writer.shutdown().await
    };
    let (wrote, read) = tokio::join!(write, reader.read_to_end(&mut back));
    wrote?;
    read?;
    Ok(back)
}
