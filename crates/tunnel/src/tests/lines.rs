//! Lines that are cut, replaced and given up.

use super::*;

#[tokio::test]
async fn streams_outlive_their_line() {
    let mut pair = Pair::new().await;
    let _echo = pair.echo();
    let mut transfers = JoinSet::new();
    for number in 0..20 {
        let stream = pair.open().await;
        let bytes = noise(500_000 + number);
        transfers.spawn(async move {
            let back = there_and_back(stream, &bytes).await.unwrap();
            assert!(back == bytes, "{number}");
        });
    }
    let mut shell = pair.open().await;
    for round in 0..12_u8 {
        // Somewhere in the middle: the lines are of different sizes, and cut after different steps.
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
        pair.cut().await;
        pair.connect(1000 + usize::from(round) * 7000).await;
        shell.write_all(&[round]).await.unwrap();
        let mut back = [0];
        within(shell.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, [round]);
    }
    within(async {
        while let Some(done) = transfers.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_given_up_before_the_peer_knows_of_it_leaves_nothing() {
    let mut pair = Pair::new().await;
    pair.cut().await;
    for _ in 0..40_000 {
        let mut opening = Box::pin(pair.opens.open(Bytes::from_static(b"where")));
        assert!(
            opening
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }
    assert_eq!(pair.opens.streams(), 0);
    pair.connect(4096).await;
    let _echo = pair.echo();
    let back = within(there_and_back(pair.open().await, b"hello")).await;
    assert_eq!(back.unwrap(), b"hello");
}

#[test]
fn what_came_is_acknowledged_also_where_a_stream_had_its_turn_and_is_gone() {
    use crate::{
        frame::{Frame, Head, head, put, take_head},
        mux::Mux,
    };
    let mut mux = Mux::new(Role::Accepts, Budget::new(0));
    let numbered = Head {
        numbered: true,
        ack: 0,
    };
    let batch = |frames: &[Frame]| {
        let mut batch = bytes::BytesMut::new();
        batch.extend_from_slice(&head(numbered));
        for frame in frames {
            put(&mut batch, frame, 1);
        }
        batch.freeze()
    };
    let cx = Context::from_waker(Waker::noop());
    mux.take(
        batch(&[Frame::Open(Bytes::new())]),
        tokio::time::Instant::now(),
    )
    .unwrap();
    mux.accept(1);
    let Poll::Ready(opened) = mux.poll_batch(&cx, tokio::time::Instant::now()) else {
        panic!("it is said that the stream is open");
    };
    assert_eq!(take_head(&mut opened.clone()).unwrap().ack, 1);
    mux.push(1, b"has a turn").unwrap();
    mux.take(batch(&[Frame::Reset]), tokio::time::Instant::now())
        .unwrap();
    mux.acknowledge();
    mux.dropped(1, tokio::time::Instant::now());
    let Poll::Ready(mut ack) = mux.poll_batch(&cx, tokio::time::Instant::now()) else {
        panic!("what came is not acknowledged");
    };
    assert_eq!(take_head(&mut ack).unwrap().ack, 2);
}

#[tokio::test]
async fn a_stream_is_opened_while_there_is_no_line() {
    let mut pair = Pair::new().await;
    let _echo = pair.echo();
    pair.cut().await;
    let opens = pair.opens.clone();
    let mut opening = Box::pin(opens.open(Bytes::new()));
    assert!(
        timeout(Duration::from_millis(10), &mut opening)
            .await
            .is_err()
    );
    pair.connect(4096).await;
    let back = within(there_and_back(within(opening).await.unwrap(), b"hello")).await;
    assert_eq!(back.unwrap(), b"hello");
}

#[tokio::test]
async fn the_end_of_a_tunnel_breaks_its_streams_and_says_why() {
    let pair = Pair::new().await;
    let _echo = pair.echo();
    let mut stream = pair.open().await;
    pair.opens.end("revoked");
    let error = within(stream.read_u8()).await.unwrap_err();
    assert_eq!(error.to_string(), "the tunnel ended: revoked");
    assert!(pair.opens.open(Bytes::new()).await.is_err());
    let Pair {
        mut lines,
        accepts: pair_accepts,
        ..
    } = pair;
    let mut cuts = Vec::new();
    for _ in 0..2 {
        cuts.push(within(lines.join_next()).await.unwrap().unwrap());
    }
    cuts.sort_by_key(|cut| matches!(cut, Cut::Over { .. }));
    assert!(
        matches!(&cuts[..], [Cut::Ended { .. }, Cut::Over { why }] if why == "revoked"),
        "{cuts:?}"
    );
    assert!(pair_accepts.is_ended(), "the other end knows");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_says_nothing_is_given_up() {
    let tunnel = Tunnel::new(Role::Opens, Budget::new(0));
    let (one, _other) = duplex(1 << 20);
    let socket = WebSocketStream::from_raw_socket(one, End::Server, None).await;
    let cut = tunnel.carry(tunnel.begin(), socket, 0).await;
    assert!(matches!(cut, Cut::Silent), "{cut:?}");
}

#[tokio::test]
async fn a_line_whose_place_is_taken_moves_nothing_more() {
    let mut pair = Pair::new().await;
    let _echo = pair.echo();
    let bytes = noise(2_000_000);
    let mut transfers = JoinSet::new();
    for _ in 0..4 {
        let (stream, bytes) = (pair.open().await, bytes.clone());
        transfers.spawn(async move { there_and_back(stream, &bytes).await.unwrap() == bytes });
    }
    // The lines of before are not cut: they find out.
    for _ in 0..20 {
        tokio::task::yield_now().await;
        pair.connect(8 * 1024).await;
    }
    while let Some(done) = within(transfers.join_next()).await {
        assert!(done.unwrap());
    }
    for _ in 0..20 {
        let first = within(pair.lines.join_next()).await.unwrap().unwrap();
        assert!(!matches!(first, Cut::Violation { .. }), "{first:?}");
    }
}

#[tokio::test]
async fn an_end_that_forgot_is_not_gone_on_with() {
    let mut pair = Pair::new().await;
    let _echo = pair.echo();
    there_and_back(pair.open().await, b"x").await.unwrap();
    // Until both know what the other has.
    within(async {
        while pair.opens.begin().received < 2 {
            pair.connect(4096).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    pair.cut().await;
    let (one, _other) = duplex(1 << 20);
    let socket = WebSocketStream::from_raw_socket(one, End::Server, None).await;
    let cut = within(pair.opens.carry(pair.opens.begin(), socket, 0)).await;
    assert!(matches!(cut, Cut::Violation { .. }), "{cut:?}");
}
