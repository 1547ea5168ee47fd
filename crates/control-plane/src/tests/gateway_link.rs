//! What a gateway hears over its link, on a real socket.

use super::support::TestPlane;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Method;
use serde_json::json;
use std::time::Duration;
use token::SigningKey;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};
use wire::{
    gateway::{FromGateway, RevokedSubject, SUBPROTOCOL, SshEndpoint, ToGateway},
    gitspace::GitspaceState,
};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) async fn dial(plane: &TestPlane, token: &str, protocol: &str) -> Result<Socket, u16> {
    let url = format!("ws://{}/api/v1/gateways/connect", plane.address);
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

pub(super) async fn heard(socket: &mut Socket) -> ToGateway {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), socket.next())
            .await
            .expect("nothing was heard for 10 s");
        if let Message::Text(text) = message.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// `tunnels`: where it takes them.
async fn hello(socket: &mut Socket, tunnels: Option<&str>) {
    let hello = FromGateway::Hello {
        version: "1".to_owned(),
        domain: "localhost".to_owned(),
        origin: Some("http://localhost:7080".to_owned()),
        ssh: Some(SshEndpoint {
            host: "localhost".to_owned(),
            port: 7022,
            host_key: super::ssh::KEY.parse().unwrap(),
        }),
        tunnels: tunnels.map(str::to_owned),
    };
    let hello = serde_json::to_string(&hello).unwrap();
    socket.send(Message::Text(hello.into())).await.unwrap();
}

#[tokio::test]
async fn a_gateway_hears_a_snapshot_and_then_what_changes() {
    let plane = TestPlane::start().await;
    let gateway = plane.gateway().await;
    let old = plane.gitspace(&plane.admin, "old").await;
    let mut socket = dial(&plane, gateway.token.expose(), SUBPROTOCOL)
        .await
        .unwrap();
    match heard(&mut socket).await {
        ToGateway::Snapshot {
            gateway: id,
            keys,
            authorize_url,
            routes,
            revocations,
            probes,
            wakes,
            starts,
        } => {
            assert_eq!(id, gateway.id);
            assert_eq!(keys, plane.plane.grant_keys());
            assert_eq!(authorize_url, "http://localhost:7070/authorize");
            assert_eq!(routes.len(), 1);
            assert_eq!(routes[0].slug.as_str(), old);
            assert_eq!(
                (routes[0].state, routes[0].reachable),
                (GitspaceState::Uninitialized, false)
            );
            assert_eq!(revocations, []);
            assert!(probes, "it takes what gateways find");
            assert!(wakes, "it starts what somebody comes to");
            assert!(starts, "and what somebody asks for");
        }
        other => panic!("{other:?}"),
    }
    hello(&mut socket, None).await;

    let fresh = plane.gitspace(&plane.admin, "fresh").await;
    match heard(&mut socket).await {
        ToGateway::Route { route } => assert_eq!(route.slug.as_str(), fresh),
        other => panic!("{other:?}"),
    }
    let known = plane
        .get(&plane.admin, "/ssh/known-hosts")
        .await
        .expect(200);
    assert_eq!(
        known.text,
        format!("[localhost]:7022 {}\n", super::ssh::KEY),
        "it was said before the gitspace was made"
    );
    plane
        .delete(&plane.admin, "/gitspaces/fresh")
        .await
        .expect(202);
    let (mut gone, mut revoked) = (false, false);
    while !(gone && revoked) {
        match heard(&mut socket).await {
            ToGateway::RouteGone { slug } => {
                assert_eq!(slug.as_str(), fresh);
                gone = true;
            }
            ToGateway::Revoked { revocation } => {
                assert!(matches!(
                    revocation.subject,
                    RevokedSubject::Gitspace { .. }
                ));
                revoked = true;
            }
            ToGateway::Route { route } => assert_eq!(route.slug.as_str(), fresh),
            other => panic!("{other:?}"),
        }
    }

    let user = plane.user("ada").await;
    plane
        .call(
            &plane.admin,
            Method::PATCH,
            &format!("/users/{}", user.id),
            Some(json!({"disabled": true})),
        )
        .await
        .expect(200);
    match heard(&mut socket).await {
        ToGateway::Revoked { revocation } => {
            assert!(
                matches!(revocation.subject, RevokedSubject::User { user: id } if id.to_string() == user.id)
            );
        }
        other => panic!("{other:?}"),
    }
    // Who connects later learns of it too.
    let mut later = dial(&plane, gateway.token.expose(), SUBPROTOCOL)
        .await
        .unwrap();
    match heard(&mut later).await {
        ToGateway::Snapshot { revocations, .. } => assert_eq!(revocations.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_a_gateway_with_its_token_and_the_protocol_is_connected() {
    let plane = TestPlane::start().await;
    let gateway = plane.gateway().await;
    for token in [
        "x",
        plane.admin.as_str(),
        &format!("gsg_{}", "a".repeat(52)),
    ] {
        assert_eq!(dial(&plane, token, SUBPROTOCOL).await.unwrap_err(), 401);
    }
    let other = dial(&plane, gateway.token.expose(), "gitspaces.gateway.v9").await;
    assert_eq!(other.unwrap_err(), 400);
}

#[tokio::test]
async fn a_registered_gateway_connects_with_the_token_it_was_shown_until_it_is_revoked() {
    let plane = TestPlane::start().await;
    let made = plane
        .post(&plane.admin, "/gateways", json!({"name": "edge"}))
        .await
        .expect(201)
        .json();
    let token = made["token"].as_str().unwrap().to_owned();
    for taken in ["edge", "embedded"] {
        let again = plane
            .post(&plane.admin, "/gateways", json!({"name": taken}))
            .await;
        assert!(again.status.is_client_error(), "{taken}: {}", again.text);
    }

    let mut socket = dial(&plane, &token, SUBPROTOCOL).await.unwrap();
    match heard(&mut socket).await {
        ToGateway::Snapshot { gateway, .. } => {
            assert_eq!(gateway.to_string(), made["id"].as_str().unwrap());
        }
        other => panic!("{other:?}"),
    }
    let listed = plane
        .get(&plane.admin, "/gateways")
        .await
        .expect(200)
        .json();
    assert_eq!(listed["items"][0]["connected"], true, "{listed}");
    assert!(!listed.to_string().contains(&token), "{listed}");

    plane
        .delete(&plane.admin, "/gateways/edge")
        .await
        .expect(204);
    let cut = tokio::time::timeout(Duration::from_secs(1), async {
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
    });
    cut.await.expect("the link was not cut within a second");
    assert_eq!(
        dial(&plane, &token, SUBPROTOCOL).await.err(),
        Some(401),
        "a revoked token"
    );
    plane
        .delete(&plane.admin, "/gateways/edge")
        .await
        .expect(404);
}

/// One that takes none is of a version, perhaps, that does not know of them.
#[tokio::test]
async fn a_gateway_that_takes_tunnels_and_no_other_hears_that_a_delegate_was_revoked() {
    let plane = TestPlane::start().await;
    let gateway = plane.gateway().await;
    let mut sockets = Vec::new();
    for tunnels in [None, Some("http://localhost:7080")] {
        let mut socket = dial(&plane, gateway.token.expose(), SUBPROTOCOL)
            .await
            .unwrap();
        let first = heard(&mut socket).await;
        assert!(matches!(first, ToGateway::Snapshot { .. }), "{first:?}");
        hello(&mut socket, tunnels).await;
        sockets.push(socket);
    }
    let [without, with] = &mut sockets[..] else {
        panic!("two sockets");
    };
    for name in ["host-1", "host-2"] {
        let key = SigningKey::generate().unwrap();
        let delegate = plane.delegate(name, &key).await;
        let path = format!("/delegates/{name}");
        plane.delete(&plane.admin, &path).await.expect(204);
        match heard(with).await {
            ToGateway::Revoked { revocation } => {
                assert_eq!(revocation.subject, RevokedSubject::Delegate { delegate });
            }
            other => panic!("{other:?}"),
        }
    }
    // It would have heard of those before this.
    let fresh = plane.gitspace(&plane.admin, "fresh").await;
    match heard(without).await {
        ToGateway::Route { route } => assert_eq!(route.slug.as_str(), fresh),
        other => panic!("{other:?}"),
    }
    // Who connects later learns of them after its hello: what the snapshot says is read by all.
    let mut later = dial(&plane, gateway.token.expose(), SUBPROTOCOL)
        .await
        .unwrap();
    match heard(&mut later).await {
        ToGateway::Snapshot { revocations, .. } => assert_eq!(revocations, []),
        other => panic!("{other:?}"),
    }
    hello(&mut later, Some("http://localhost:7080")).await;
    for _ in 0..2 {
        let said = heard(&mut later).await;
        assert!(matches!(said, ToGateway::Revoked { .. }), "{said:?}");
    }
}
