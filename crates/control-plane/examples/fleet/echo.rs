//! The baseline: a server that does nothing but hold WebSockets and echo what comes.

use crate::delegate::{config, connect};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{net::Ipv4Addr, time::Duration};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_tungstenite::{accept_async_with_config, client_async_with_config, tungstenite::Message};

/// As long as a ping of the link.
const PING: &str = r#"{"type":"ping","epoch":1,"id":1}"#;

pub(crate) async fn serve(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        connections.spawn(async move {
            // Whoever only looks whether it listens.
            let Ok(mut socket) = accept_async_with_config(stream, Some(config())).await else {
                return;
            };
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() && socket.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Connections that say something once a heartbeat, and hear it.
pub(crate) async fn dial(port: u16, links: usize, heartbeat: Duration) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (dialled, mut count) = mpsc::channel(64);
    for number in 0..links {
        let stream = connect(number, port).await.unwrap();
        let dialled = dialled.clone();
        tasks.spawn(async move {
            let url = format!("ws://127.0.0.1:{port}/");
            let (mut socket, _) = client_async_with_config(url, stream, Some(config()))
                .await
                .unwrap();
            dialled.send(()).await.unwrap();
            drop(dialled);
            let mut beats = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beats.tick().await;
                socket.send(Message::text(PING)).await.unwrap();
                socket.next().await.unwrap().unwrap();
            }
        });
        // One by one: the listener's queue is the bare default.
        count.recv().await.unwrap();
    }
    tasks
}
