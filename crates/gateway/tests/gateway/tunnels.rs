//! Tunnels of delegates, with a real end of one.

use crate::harness::{HOST, World, snapshot, uuid, within};
use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use jiff::{SignedDuration, Timestamp};
use token::SigningKey;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _, handshake::client::Request},
};
use tunnel::{Budget, Cut, NextLine, Role, Tunnel, TunnelStream};
use wire::{
    agent::ListeningPort,
    gateway::{GRANT_PURPOSE, Revocation, RevokedSubject, ToGateway},
    ids::{DelegateUuid, StreamUuid},
    problem::Problem,
    tunnel::{
        PATH, SUBPROTOCOL, StreamRefusal, StreamRequest, TICKET_PURPOSE, TunnelClaims, TunnelHello,
        TunnelWelcome,
    },
};

fn claims(delegate: DelegateUuid) -> TunnelClaims {
    let now = Timestamp::now();
    TunnelClaims {
        delegate,
        gateway: uuid(1),
        iat: now - SignedDuration::from_secs(1),
        exp: now + SignedDuration::from_secs(600),
    }
}

fn sign(key: &SigningKey, claims: &TunnelClaims) -> String {
    token::sign(claims, key, TICKET_PURPOSE).unwrap()
}

fn request(host: &str, ticket: &str) -> Request {
    let mut request = format!("ws://{host}{PATH}").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    headers.insert("authorization", format!("Bearer {ticket}").parse().unwrap());
    request
}

/// Status and code of the refusal, where it is one.
async fn enter(
    world: &World,
    request: Request,
) -> Result<WebSocketStream<TcpStream>, (u16, String)> {
    let stream = world.connect().await;
    match within("an answer", client_async(request, stream)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            let problem: Problem = serde_json::from_slice(&body).unwrap();
            Err((answer.status().as_u16(), problem.code))
        }
        Err(error) => panic!("{error}"),
    }
}

/// Of the first line of a lane.
fn hello(process: u128) -> TunnelHello {
    TunnelHello {
        process: uuid(process),
        lane: 0,
        line: 1,
        tunnel: None,
        received: 0,
    }
}

async fn greet(
    socket: &mut WebSocketStream<TcpStream>,
    hello: &TunnelHello,
) -> Option<TunnelWelcome> {
    let text = serde_json::to_string(hello).unwrap();
    socket.send(Message::text(text)).await.unwrap();
    match within("a welcome", socket.next()).await? {
        Ok(Message::Text(text)) => Some(serde_json::from_str(&text).unwrap()),
        Ok(Message::Close(_)) | Err(_) => None,
        Ok(other) => panic!("{other:?}"),
    }
}

/// One delegate's end of a tunnel, which answers every request of a gitspace with its own name.
struct End {
    number: u128,
    /// As the gateway calls it.
    id: StreamUuid,
    lines: u64,
    tunnel: Tunnel,
    line: JoinSet<Cut>,
    _serving: JoinSet<()>,
}

impl End {
    async fn open(world: &World, number: u128, name: &'static str) -> Self {
        Self::open_with(world, number, name, hello(number)).await
    }

    async fn open_with(
        world: &World,
        number: u128,
        name: &'static str,
        hello: TunnelHello,
    ) -> Self {
        let mut socket = connect(world, number).await;
        let Some(TunnelWelcome::Begun { tunnel: id }) = greet(&mut socket, &hello).await else {
            panic!("it does not begin");
        };
        let tunnel = Tunnel::new(Role::Accepts, Budget::new(1 << 20));
        let mut serving = JoinSet::new();
        serving.spawn(serve(tunnel.clone(), name));
        let mut end = Self {
            number,
            id,
            lines: hello.line,
            tunnel,
            line: JoinSet::new(),
            _serving: serving,
        };
        let next = end.tunnel.begin();
        end.carry(next, socket, 0);
        end
    }

    fn carry(&mut self, next: NextLine, socket: WebSocketStream<TcpStream>, received: u64) {
        let carried = self.tunnel.clone();
        self.line
            .spawn(async move { carried.carry(next, socket, received).await });
    }

    /// The line is cut, and there is another.
    async fn go_on(&mut self, world: &World) {
        self.line.abort_all();
        while self.line.join_next().await.is_some() {}
        self.lines += 1;
        let next = self.tunnel.begin();
        let hello = TunnelHello {
            line: self.lines,
            tunnel: Some(self.id),
            received: next.received,
            ..hello(self.number)
        };
        let mut socket = connect(world, self.number).await;
        let Some(TunnelWelcome::Resumed { received }) = greet(&mut socket, &hello).await else {
            panic!("it does not go on");
        };
        self.carry(next, socket, received);
    }

    async fn cut(mut self) -> Cut {
        within("the end of the line", self.line.join_next())
            .await
            .unwrap()
            .unwrap()
    }
}

async fn connect(world: &World, number: u128) -> WebSocketStream<TcpStream> {
    let ticket = sign(&world.key, &claims(uuid(number)));
    enter(world, request("localhost:7080", &ticket))
        .await
        .unwrap()
}

async fn serve(tunnel: Tunnel, name: &'static str) {
    let mut streams = JoinSet::new();
    while let Some(incoming) = tunnel.incoming().await {
        let asked: StreamRequest = serde_json::from_slice(incoming.words()).unwrap();
        if asked != StreamRequest::dial(uuid(7), "8000".parse().unwrap()) {
            let refusal = StreamRefusal::PortClosed {
                listening: vec![ListeningPort {
                    port: 8000,
                    address: "127.0.0.1".to_owned(),
                    process: Some(name.to_owned()),
                    pid: None,
                    forwarded: false,
                }],
            };
            incoming.refuse(serde_json::to_vec(&refusal).unwrap().into());
            continue;
        }
        let stream = incoming.accept();
        streams.spawn(async move {
            // The gateway may leave at any time.
            drop(answer(stream, name).await);
        });
    }
}

async fn answer(mut stream: TunnelStream, name: &str) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let length = name.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// The gitspace is on the host of delegate 4, which is not this one.
async fn elsewhere() -> World {
    let world = World::start_unconnected("http://localhost:7080").await;
    let mut first = snapshot(&world.key);
    if let ToGateway::Snapshot { routes, .. } = &mut first {
        routes[0].delegate = Some(uuid(4));
    }
    world.tell.send(Some(first)).await.unwrap();
    world.until_connected().await;
    world
}

#[tokio::test]
async fn a_gitspace_is_reached_through_the_tunnel_of_its_own_delegate_alone() {
    let world = elsewhere().await;
    let _other = End::open(&world, 5, "another's").await;
    let answer = world.granted("/", "").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let _own = End::open(&world, 4, "its own").await;
    let answer = world.granted("/", "").await;
    assert!(answer.ends_with("\r\n\r\nits own"), "{answer}");
    let closed = world
        .ask(format!(
            "GET / HTTP/1.1\r\nhost: 9--{}\r\nconnection: close\r\ngitspaces-grant: {}\r\n\r\n",
            HOST.trim_start_matches("8000--"),
            world.grant()
        ))
        .await;
    assert!(closed.contains("port_closed"), "{closed}");
    assert!(closed.contains("its own"), "what listens there: {closed}");
}

#[tokio::test]
async fn nobody_opens_a_tunnel_without_a_good_ticket() {
    let world = elsewhere().await;
    let now = Timestamp::now();
    let good = claims(uuid(4));
    let foreign = SigningKey::generate().unwrap();
    let refused = [
        ("v4.public.AAAA", "ticket_invalid"),
        (&sign(&foreign, &good), "ticket_invalid"),
        (
            &token::sign(&good, &world.key, GRANT_PURPOSE).unwrap(),
            "ticket_invalid",
        ),
        (&world.grant(), "ticket_invalid"),
        (
            &sign(
                &world.key,
                &TunnelClaims {
                    gateway: uuid(2),
                    ..good.clone()
                },
            ),
            "ticket_other_gateway",
        ),
        (
            &sign(
                &world.key,
                &TunnelClaims {
                    iat: now - SignedDuration::from_secs(3600),
                    exp: now - SignedDuration::from_secs(1),
                    ..good.clone()
                },
            ),
            "ticket_expired",
        ),
    ];
    for (ticket, code) in refused {
        let refusal = enter(&world, request("localhost:7080", ticket)).await;
        assert_eq!(refusal.unwrap_err(), (401, code.to_owned()), "{ticket}");
    }

    let good = sign(&world.key, &good);
    let mut none = request("localhost:7080", &good);
    none.headers_mut().remove("authorization");
    assert_eq!(
        enter(&world, none).await.unwrap_err(),
        (401, "ticket_required".to_owned())
    );
    let mut two = request("localhost:7080", &good);
    let again = format!("Bearer {good}").parse().unwrap();
    two.headers_mut().append("authorization", again);
    assert_eq!(
        enter(&world, two).await.unwrap_err(),
        (401, "ticket_required".to_owned())
    );
    let mut later = request("localhost:7080", &good);
    let protocol = "gitspaces.tunnel.v9".parse().unwrap();
    later
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    assert_eq!(
        enter(&world, later).await.unwrap_err(),
        (400, "websocket_required".to_owned())
    );
    let site = enter(&world, request(HOST, &good)).await;
    assert_ne!(
        site.unwrap_err().0,
        101,
        "a gitspace's host is none for tunnels"
    );
    let plain = world
        .ask(format!(
            "GET {PATH} HTTP/1.1\r\nhost: localhost:7080\r\nauthorization: Bearer {good}\r\nconnection: close\r\n\r\n"
        ))
        .await;
    assert!(plain.contains("websocket_required"), "{plain}");

    // The same one is good, and as often as its delegate wants.
    for host in ["localhost:7080", "10.0.0.5:7080", "edge.internal"] {
        enter(&world, request(host, &good)).await.unwrap();
    }
}

#[tokio::test]
async fn a_delegate_that_is_revoked_has_no_tunnel_and_opens_none() {
    let world = elsewhere().await;
    let own = End::open(&world, 4, "its own").await;
    let other = End::open(&world, 5, "another's").await;
    assert!(world.granted("/", "").await.ends_with("its own"));
    let before = sign(&world.key, &claims(uuid(4)));
    let now = Timestamp::now();
    let revocation = Revocation {
        subject: RevokedSubject::Delegate { delegate: uuid(4) },
        before: now,
    };
    world
        .tell
        .send(Some(ToGateway::Revoked { revocation }))
        .await
        .unwrap();
    let cut = own.cut().await;
    assert!(!matches!(cut, Cut::Violation { .. }), "{cut:?}");
    assert!(world.granted("/", "").await.starts_with("HTTP/1.1 502"));
    let refusal = enter(&world, request("localhost:7080", &before)).await;
    assert_eq!(refusal.unwrap_err(), (401, "delegate_revoked".to_owned()));
    assert_eq!(other.tunnel.streams(), 0);
    assert!(other.line.len() == 1, "another delegate keeps its own");
}

#[tokio::test]
async fn the_tunnels_of_a_process_end_where_another_process_opens_its_own() {
    let world = elsewhere().await;
    let old = End::open(&world, 4, "the old").await;
    let _new = End::open_with(&world, 4, "the new", hello(40)).await;
    let cut = old.cut().await;
    assert!(matches!(cut, Cut::Over { .. }), "{cut:?}");
    assert!(world.granted("/", "").await.ends_with("the new"));
}

#[tokio::test]
async fn a_tunnel_goes_on_on_another_line_and_a_late_one_changes_nothing() {
    let world = elsewhere().await;
    let mut own = End::open(&world, 4, "its own").await;
    assert!(world.granted("/", "").await.ends_with("its own"));
    own.go_on(&world).await;
    let late = TunnelHello {
        tunnel: Some(own.id),
        ..hello(4)
    };
    let mut socket = connect(&world, 4).await;
    assert_eq!(greet(&mut socket, &late).await, None);
    assert!(world.granted("/", "").await.ends_with("its own"));
    own.go_on(&world).await;
    assert!(world.granted("/", "").await.ends_with("its own"));
    assert!(!own.tunnel.is_ended());
}

#[tokio::test]
async fn what_a_delegate_has_of_a_gateway_that_was_before_is_nothing_of_this_one() {
    let world = elsewhere().await;
    let of_before = TunnelHello {
        line: 7,
        tunnel: Some(uuid(99)),
        received: 100,
        ..hello(4)
    };
    let own = End::open_with(&world, 4, "its own", of_before).await;
    assert!(world.granted("/", "").await.ends_with("its own"));
    assert_eq!(own.line.len(), 1, "the first line holds");
    // The welcome was not heard: what it began is not gone on with under the old name.
    let again = TunnelHello {
        line: 8,
        tunnel: Some(uuid(99)),
        received: 100,
        ..hello(4)
    };
    let _own = End::open_with(&world, 4, "once more", again).await;
    assert!(world.granted("/", "").await.ends_with("once more"));
}

#[tokio::test]
async fn a_gateway_that_stops_says_so_also_where_a_stream_waits_for_a_next_request() {
    let world = elsewhere().await;
    let own = End::open(&world, 4, "its own").await;
    assert!(world.granted("/", "").await.ends_with("its own"));
    assert_eq!(own.tunnel.streams(), 1, "it is kept");
    world.drain();
    let cut = own.cut().await;
    assert!(
        matches!(&cut, Cut::Over { why } if why == "the gateway stops"),
        "{cut:?}"
    );
}

#[tokio::test]
async fn a_hello_that_is_none_costs_its_line_alone() {
    let world = elsewhere().await;
    let _own = End::open(&world, 4, "its own").await;
    let ticket = sign(&world.key, &claims(uuid(4)));
    let line = async || {
        let entered = enter(&world, request("localhost:7080", &ticket)).await;
        entered.unwrap()
    };
    let too_many = TunnelHello {
        lane: 200,
        ..hello(4)
    };
    assert_eq!(greet(&mut line().await, &too_many).await, None);
    for wrong in [
        Message::text("{}"),
        Message::text("x".repeat(8 * 1024)),
        Message::binary(vec![0; 16]),
    ] {
        let mut socket = line().await;
        socket.send(wrong).await.unwrap();
        let end = within("its end", socket.next()).await;
        assert!(
            matches!(end, None | Some(Err(_) | Ok(Message::Close(_)))),
            "{end:?}"
        );
    }
    assert!(world.granted("/", "").await.ends_with("its own"));
}

#[tokio::test]
async fn many_requests_share_one_line() {
    let world = elsewhere().await;
    let _own = End::open(&world, 4, "its own").await;
    let asked = join_all((0..50).map(|_| world.granted("/", "")));
    for answer in asked.await {
        assert!(answer.ends_with("its own"), "{answer}");
    }
}
