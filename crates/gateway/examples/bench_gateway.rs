//! A gateway in front of one local address, for measuring it: `bench_gateway UPSTREAM [tcp|passed]`.
//!
//! Prints one line of JSON (pid, url, host, grant) and serves until it is terminated. `passed`, the default, wraps each
//! connection as one that another process handed over, which is what a deployment on one host has.

use anyhow::{Context as _, Result};
use daemon::{Lifecycle, SystemClock};
use futures_util::{SinkExt as _, StreamExt as _, future::BoxFuture};
use gateway::{Authorized, Dial, DialError, Gateway, GatewayConfig, Listen, Target, Upstream};
use jiff::{SignedDuration, Timestamp};
use local_rpc::fd::PassedStream;
use newtype_uuid::{GenericUuid as _, TypedUuid, TypedUuidKind};
use std::{
    io::Write as _, net::SocketAddr, os::fd::OwnedFd, process::ExitCode, sync::Arc, time::Duration,
};
use token::SigningKey;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Request, Response},
};
use uuid::Uuid;
use wire::{
    gateway::{GRANT_PURPOSE, GrantClaims, PortSet, Route, SUBPROTOCOL, ToGateway},
    gitspace::GitspaceState,
    secret::Secret,
};

fn id<K: TypedUuidKind>(n: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(Uuid::from_u128(n))
}

struct Local {
    address: SocketAddr,
    passed: bool,
}

impl Local {
    async fn open(&self) -> Result<Upstream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        if !self.passed {
            return Ok(Upstream::Tcp(stream));
        }
        Ok(Upstream::Passed(PassedStream::new(OwnedFd::from(
            stream.into_std()?,
        ))?))
    }
}

impl Dial for Local {
    fn dial(&self, _: Authorized<Target>) -> BoxFuture<'_, Result<Upstream, DialError>> {
        Box::pin(async move {
            self.open().await.map_err(|error| DialError::Unreachable {
                cause: error.to_string(),
            })
        })
    }
}

/// Says once what a control plane would say, and listens for the gateway's pings.
async fn control_plane(listener: TcpListener, snapshot: String) -> Result<(), std::io::Error> {
    loop {
        let (stream, _) = listener.accept().await?;
        let agree = |_: &Request, mut answer: Response| {
            if let Ok(protocol) = SUBPROTOCOL.parse() {
                answer
                    .headers_mut()
                    .insert("sec-websocket-protocol", protocol);
            }
            Ok(answer)
        };
        let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, agree).await else {
            continue;
        };
        let mut told = socket.send(Message::text(snapshot.clone())).await.is_ok();
        while told {
            told = matches!(socket.next().await, Some(Ok(_)));
        }
    }
}

async fn serve() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .context("usage: bench_gateway UPSTREAM [tcp|passed]")?;
    let passed = arguments.next().as_deref() != Some("tcp");
    let control = TcpListener::bind("127.0.0.1:0").await?;
    let control_address = control.local_addr()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let key = SigningKey::generate()?;
    let now = Timestamp::now();
    let claims = GrantClaims {
        id: id(5),
        gateway: id(1),
        gitspace: id(7),
        slug: "bench-ab12cd".parse()?,
        user: id(9),
        ports: PortSet::All {},
        workspace: true,
        iat: now,
        exp: now + SignedDuration::from_hours(1),
    };
    let snapshot = ToGateway::Snapshot {
        gateway: id(1),
        keys: vec![key.public().to_string()],
        authorize_url: "http://localhost/authorize".to_owned(),
        routes: vec![Route {
            slug: claims.slug.clone(),
            gitspace: id(7),
            name: "bench".to_owned(),
            state: GitspaceState::Running,
            reachable: true,
            delegate: Some(id(3)),
            error: None,
        }],
        revocations: Vec::new(),
    };
    let lifecycle = Lifecycle::new(Duration::from_secs(1));
    lifecycle.spawn(
        "control-plane",
        control_plane(control, serde_json::to_string(&snapshot)?),
    );
    let gateway = Gateway::build(
        GatewayConfig {
            listen: Listen::Listener(listener),
            public_url: format!("http://localhost:{port}").parse()?,
            control_plane_url: format!("http://{control_address}").parse()?,
            gateway_token: Secret::new("bench"),
            control_connect: Some(control_address),
            control_tls: None,
        },
        Arc::new(Local {
            address: address.parse()?,
            passed,
        }),
        Arc::new(SystemClock),
    )?;
    gateway.start(&lifecycle);
    let line = serde_json::json!({
        "pid": std::process::id(),
        "url": format!("http://127.0.0.1:{port}"),
        "host": format!("8000--{}.localhost:{port}", claims.slug),
        "grant": token::sign(&claims, &key, GRANT_PURPOSE)?,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(lifecycle.run().await)
}

fn main() -> Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve())
}
