//! Two ends, and lines between them that are cut.

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

#[tokio::test]
async fn bytes_come_as_they_went_and_an_end_is_an_end() {
    let pair = Pair::new().await;
    let _echo = pair.echo();
    for length in [0, 1, 70_000, 3_000_000] {
        let bytes = noise(length);
        let back = within(there_and_back(pair.open().await, &bytes)).await;
        assert!(back.unwrap() == bytes, "{length}");
    }
    within(async {
        while pair.opens.streams() + pair.accepts.streams() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_refused_has_the_reason() {
    let pair = Pair::new().await;
    let (opened, ()) = tokio::join!(pair.opens.open(Bytes::from_static(b"where")), async {
        let incoming = pair.accepts.incoming().await.unwrap();
        assert_eq!(incoming.words(), b"where");
        incoming.refuse(Bytes::from_static(b"not there"));
    });
    let why = OpenError::Refused(Bytes::from_static(b"not there"));
    assert_eq!(opened.unwrap_err(), why);
    assert_eq!(pair.opens.streams(), 0);
}

#[tokio::test]
async fn an_answer_that_is_over_before_the_asker_looks_is_an_answer() {
    let pair = Pair::new().await;
    let mut opening = Box::pin(pair.opens.open(Bytes::from_static(b"what")));
    assert!(
        opening
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    let mut answers = within(pair.accepts.incoming()).await.unwrap().accept();
    answers.write_all(b"that").await.unwrap();
    answers.shutdown().await.unwrap();
    drop(answers);
    within(async {
        while pair.accepts.streams() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // What was said is here when the asker looks.
    let (ping, mut pong) = tokio::join!(pair.open(), async {
        within(pair.accepts.incoming()).await.unwrap().accept()
    });
    pong.write_all(b"x").await.unwrap();
    let mut ping = ping;
    within(ping.read_u8()).await.unwrap();
    let mut stream = within(opening).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"that");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_not_taken_for_whole() {
    let pair = Pair::new().await;
    let (stream, other) = tokio::join!(pair.open(), async {
        pair.accepts.incoming().await.unwrap().accept()
    });
    let (mut stream, mut other) = (stream, other);
    other.write_all(b"half").await.unwrap();
    let mut some = [0; 4];
    within(stream.read_exact(&mut some)).await.unwrap();
    drop(other);
    let mut rest = Vec::new();
    let error = within(stream.read_to_end(&mut rest)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(error.to_string(), "the other end broke off");
}

#[tokio::test]
async fn what_was_written_before_the_end_comes_also_where_the_handle_is_dropped() {
    let pair = Pair::new().await;
    let (stream, other) = tokio::join!(pair.open(), async {
        pair.accepts.incoming().await.unwrap().accept()
    });
    let (mut stream, mut other) = (stream, other);
    let bytes = noise(50_000);
    stream.write_all(&bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let mut all = Vec::new();
    within(other.read_to_end(&mut all)).await.unwrap();
    assert!(all == bytes);
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_up_nobody_else_and_little_is_held_for_it() {
    let pair = Pair::new().await;
    let _echo = pair.echo();
    let mut stalled = pair.open().await;
    let mut sent = 0;
    let chunk = [0; 16 * 1024];
    while let Ok(wrote) = timeout(Duration::from_millis(100), stalled.write(&chunk)).await {
        sent += wrote.unwrap();
    }
    // Two windows, and what waits at both ends.
    assert!(sent <= 512 * 1024, "{sent}");
    let bytes = noise(1_000_000);
    let back = within(there_and_back(pair.open().await, &bytes)).await;
    assert!(back.unwrap() == bytes);
}

#[tokio::test]
async fn a_key_waits_for_little_however_much_bulk_there_is() {
    const KEYS: usize = 50;
    let mut pair = Pair::new().await;
    pair.cut().await;
    // A line that is full at once, so that what waits waits here.
    pair.connect(4 * 1024).await;
    let _echo = pair.echo();
    let read = Arc::new(AtomicUsize::new(0));
    let mut bulk = JoinSet::new();
    for _ in 0..20 {
        let (mut reader, mut writer) = tokio::io::split(pair.open().await);
        bulk.spawn(async move {
            loop {
                writer.write_all(&[0; 16 * 1024]).await.unwrap();
            }
        });
        let read = Arc::clone(&read);
        bulk.spawn(async move {
            let mut room = vec![0; 16 * 1024];
            loop {
                read.fetch_add(reader.read(&mut room).await.unwrap(), Ordering::Relaxed);
            }
        });
    }
    let mut typing = pair.open().await;
    within(async {
        while read.load(Ordering::Relaxed) < 8 << 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let before = read.load(Ordering::Relaxed);
    for _ in 0..KEYS {
        typing.write_all(b"k").await.unwrap();
        let mut key = [0];
        within(typing.read_exact(&mut key)).await.unwrap();
        assert_eq!(key, *b"k");
    }
    let passed = (read.load(Ordering::Relaxed) - before) / KEYS;
    // Batches that were made already and that it is in itself, in each direction; a round of all would be 320 KiB more, each way.
    assert!(passed <= 320 * 1024, "{passed} bytes went before a key");
    assert!(passed > 0, "bulk goes on meanwhile");
}

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
async fn a_socket_is_joined_to_a_stream_with_its_end_and_its_break() {
    use crate::pump;
    let pair = Pair::new().await;
    for breaks in [false, true] {
        let (socket, mut far) = duplex(1000);
        let (stream, accepted) = tokio::join!(pair.open(), async {
            pair.accepts.incoming().await.unwrap().accept()
        });
        let mut pumped = JoinSet::new();
        pumped.spawn(pump(accepted, socket));
        let bytes = noise(300_000);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut there = vec![0; bytes.len()];
        let (wrote, read) =
            within(async { tokio::join!(writer.write_all(&bytes), far.read_exact(&mut there)) })
                .await;
        wrote.unwrap();
        read.unwrap();
        assert!(there == bytes);
        let mut back = Vec::new();
        if breaks {
            drop((reader, writer));
            assert!(within(pumped.join_next()).await.unwrap().unwrap().is_err());
            assert_eq!(far.read_to_end(&mut back).await.unwrap(), 0);
        } else {
            writer.shutdown().await.unwrap();
            let answer = async {
                let mut rest = Vec::new();
                assert_eq!(far.read_to_end(&mut rest).await.unwrap(), 0);
                far.write_all(&bytes).await.unwrap();
                far.shutdown().await.unwrap();
            };
            let ((), read) =
                within(async { tokio::join!(answer, reader.read_to_end(&mut back)) }).await;
            read.unwrap();
            assert!(back == bytes);
            within(pumped.join_next()).await.unwrap().unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn what_came_before_an_end_reaches_the_socket_also_where_a_break_follows() {
    use crate::pump;
    let pair = Pair::new().await;
    let (socket, mut far) = duplex(1000);
    let (mut stream, accepted) = tokio::join!(pair.open(), async {
        pair.accepts.incoming().await.unwrap().accept()
    });
    let bytes = noise(50_000);
    stream.write_all(&bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    within(async {
        while pair.opens.streams() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut pumped = JoinSet::new();
    pumped.spawn(pump(accepted, socket));
    let mut all = Vec::new();
    within(far.read_to_end(&mut all)).await.unwrap();
    assert!(all == bytes, "{} bytes", all.len());
    assert!(within(pumped.join_next()).await.unwrap().unwrap().is_err());
    assert_eq!(pair.accepts.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_left_are_not_kept_for_ever() {
    use crate::pump;
    let pair = Pair::new().await;
    // An app that writes and never reads, for a user who sent more than it took, and left.
    let (socket, mut app) = duplex(1000);
    let (mut stream, accepted) = tokio::join!(pair.open(), async {
        pair.accepts.incoming().await.unwrap().accept()
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        drop(pump(accepted, socket).await);
    });
    tasks.spawn(async move {
        let mut writes = app;
        while writes.write_all(&[1; 1000]).await.is_ok() {}
        app = writes;
        drop(app);
    });
    while timeout(Duration::from_millis(100), stream.write_all(&[2; 1000]))
        .await
        .is_ok()
    {}
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!((pair.opens.streams(), pair.accepts.streams()), (1, 1));
    timeout(Duration::from_secs(120), async {
        while pair.opens.streams() + pair.accepts.streams() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("they are gone");
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

#[tokio::test]
async fn nothing_is_written_after_the_end() {
    let pair = Pair::new().await;
    let _echo = pair.echo();
    let mut stream = pair.open().await;
    stream.shutdown().await.unwrap();
    let error = stream.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
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
