//! Streams, as those see them who read and write.

use super::*;

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
    for _ in 0..24 {
        tokio::time::advance(Duration::from_secs(5)).await;
        // Whatever is due then is done, pings and their answers too.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!((pair.opens.streams(), pair.accepts.streams()), (0, 0));
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
