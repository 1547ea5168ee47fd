//! Peers that do not keep to the protocol.

use super::*;

#[tokio::test]
async fn a_violation_ends_the_tunnel_at_both_ends() {
    use crate::frame::{Frame, Head, head, put};
    let tunnel = Tunnel::new(Role::Accepts, Budget::new(0));
    let (one, other) = duplex(1 << 20);
    let socket = WebSocketStream::from_raw_socket(one, End::Server, None).await;
    let mut far = WebSocketStream::from_raw_socket(other, End::Client, None).await;
    let mut line = JoinSet::new();
    let carried = tunnel.clone();
    line.spawn(async move { carried.carry(carried.begin(), socket, 0).await });
    let mut batch = bytes::BytesMut::new();
    batch.extend_from_slice(&head(Head {
        numbered: true,
        ack: 0,
    }));
    put(&mut batch, &Frame::Opened, 1);
    far.send(Message::binary(batch.freeze())).await.unwrap();
    let close = within(async {
        loop {
            if let Message::Close(close) = far.next().await.unwrap().unwrap() {
                return close.unwrap();
            }
        }
    })
    .await;
    assert_eq!(u16::from(close.code), 4001, "{close:?}");
    let cut = within(line.join_next()).await.unwrap().unwrap();
    assert!(matches!(cut, Cut::Violation { .. }), "{cut:?}");
    assert!(tunnel.is_ended());
}

/// What a line ends with whose other end sends `message` for ever.
async fn flooded(message: Message) -> Cut {
    let tunnel = Tunnel::new(Role::Opens, Budget::new(0));
    let (one, other) = duplex(64 * 1024);
    let socket = WebSocketStream::from_raw_socket(one, End::Server, Some(websocket_config())).await;
    let mut far = WebSocketStream::from_raw_socket(other, End::Client, None).await;
    let flood = async {
        // It reads nothing.
        while far.send(message.clone()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        cut = within(tunnel.carry(tunnel.begin(), socket, 0)) => cut,
        () = flood => unreachable!("it has no end"),
    }
}

#[tokio::test]
async fn whoever_says_nothing_again_and_again_is_cut_off() {
    use crate::frame::{Head, head};
    let batch = |numbered| {
        let head = head(Head { numbered, ack: 0 });
        Message::binary(Bytes::copy_from_slice(&head))
    };
    for message in [
        Message::Ping(Bytes::from_static(&[0; 125])),
        Message::Pong(Bytes::new()),
        Message::text(""),
        batch(false),
        batch(true),
    ] {
        let cut = flooded(message.clone()).await;
        assert!(matches!(cut, Cut::Violation { .. }), "{message:?}: {cut:?}");
    }
}

#[tokio::test]
async fn what_a_peer_must_not_do_ends_the_line() {
    use crate::frame::{Frame, Head, head, put};
    let cases: VecDeque<(Role, u32, Frame)> = [
        (Role::Opens, 1, Frame::Open(Bytes::new())),
        (Role::Accepts, 1, Frame::Opened),
        (Role::Accepts, 1, Frame::Data(Bytes::from_static(b"x"))),
    ]
    .into();
    for (role, id, frame) in cases {
        let mut mux = crate::mux::Mux::new(role, Budget::new(0));
        let mut batch = bytes::BytesMut::new();
        let numbered = Head {
            numbered: true,
            ack: 0,
        };
        batch.extend_from_slice(&head(numbered));
        put(&mut batch, &frame, id);
        assert!(
            mux.take(batch.freeze(), tokio::time::Instant::now())
                .is_err(),
            "{role:?} {frame:?}"
        );
    }
    // More than there is room for.
    let mut mux = crate::mux::Mux::new(Role::Accepts, Budget::new(0));
    let mut send = |frame: Frame| {
        let mut batch = bytes::BytesMut::new();
        let numbered = Head {
            numbered: true,
            ack: 0,
        };
        batch.extend_from_slice(&head(numbered));
        put(&mut batch, &frame, 1);
        mux.take(batch.freeze(), tokio::time::Instant::now())
    };
    send(Frame::Open(Bytes::new())).unwrap();
    let full = Frame::Data(Bytes::from(vec![0; 16 * 1024]));
    for _ in 0..4 {
        send(full.clone()).unwrap();
    }
    assert!(send(full).is_err());
    assert!(send(Frame::Window(u32::MAX)).is_err());
}
