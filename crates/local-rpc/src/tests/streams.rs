//! NDJSON, upgrades, descriptors, frames.

use super::support::TestServer;
use crate::{
    ClientError, Peer,
    client::SILENCE_LIMIT,
    fd::{FdError, PassedStream, PassedStreamError, recv_fd, send_fd},
    frames::{Frame, FrameError, FrameReader, FrameWriter},
    server::{Body, MAX_LINE, ndjson, prepare_upgrade, stream},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream as futures};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use std::{
    io::{IoSlice, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[tokio::test]
async fn lines_arrive_one_by_one_and_the_stream_ends() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<u32>(1);
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let server = TestServer::start(move |_, _| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        async move {
            ndjson(futures::unfold(receiver, |mut receiver| async move {
                Some((receiver.recv().await?, receiver))
            }))
        }
    });
    let mut items = server.client().stream_ndjson::<u32>("/").await.unwrap();
    for number in 0..3 {
        sender.send(number).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), number);
    }
    drop(sender);
    assert!(items.next().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_dropped_stream_is_seen_by_the_server() {
    let dropped = CancellationToken::new();
    let seen = dropped.clone();
    let server = TestServer::start(move |_, _| {
        let guard = dropped.clone().drop_guard();
        async move {
            ndjson(futures::iter([1]).chain(futures::once(async move {
                let _guard = guard;
                std::future::pending().await
            })))
        }
    });
    let mut items = server.client().stream_ndjson::<u32>("/").await.unwrap();
    items.next().await.unwrap().unwrap();
    drop(items);
    seen.cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn keepalives_hold_a_silent_stream_open() {
    let end = CancellationToken::new();
    let ended = end.clone();
    let server = TestServer::start(move |_, _| {
        let ended = ended.clone();
        async move {
            ndjson(futures::once(async move {
                ended.cancelled().await;
                7_u32
            }))
        }
    });
    let mut items = server
        .client()
        .with_deadline(Duration::from_secs(3600))
        .stream_ndjson::<u32>("/")
        .await
        .unwrap();
    let item = items.next();
    tokio::pin!(item);
    tokio::time::timeout(SILENCE_LIMIT * 10, &mut item)
        .await
        .unwrap_err();
    end.cancel();
    assert_eq!(item.await.unwrap().unwrap(), 7);
}

/// Chunks as they are, without keep-alives.
fn raw(chunks: &'static [&'static str], then_hang: bool) -> TestServer {
    TestServer::start(move |_, _| async move {
        let chunks = futures::iter(
            chunks
                .iter()
                .map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))),
        );
        let tail = futures::pending().take(usize::from(then_hang));
        let chunks = if then_hang {
            chunks.chain(tail).boxed()
        } else {
            chunks.boxed()
        };
        stream(StatusCode::OK, "application/x-ndjson", chunks)
    })
}

#[tokio::test]
async fn lines_are_found_across_and_within_chunks() {
    let server = raw(&["1\n2", "3\n\n", "\n4\n5\n"], false);
    let items = server.client().stream_ndjson::<u32>("/").await.unwrap();
    let items: Vec<u32> = items.map(Result::unwrap).collect().await;
    assert_eq!(items, [1, 23, 4, 5]);
}

#[tokio::test]
async fn a_stream_that_ends_within_a_line_is_an_error() {
    let server = raw(&["1\n2"], false);
    let mut items = server.client().stream_ndjson::<u32>("/").await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap(), 1);
    let error = items.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
    assert!(items.next().await.is_none());
}

#[tokio::test]
async fn a_line_over_the_limit_is_an_error() {
    let server = TestServer::start(|_, _| async {
        let chunk = Bytes::from(vec![b'1'; MAX_LINE + 1]);
        stream(
            StatusCode::OK,
            "application/x-ndjson",
            futures::iter([Ok::<_, std::io::Error>(chunk)]).chain(futures::pending()),
        )
    });
    let mut items = server.client().stream_ndjson::<u32>("/").await.unwrap();
    let error = items.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_noticed() {
    let server = raw(&["1\n"], true);
    let mut items = server
        .client()
        .with_deadline(Duration::from_secs(3600))
        .stream_ndjson::<u32>("/")
        .await
        .unwrap();
    assert_eq!(items.next().await.unwrap().unwrap(), 1);
    let error = items.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}

/// Answers `GET /` with an upgrade to `test`, and hands the stream to `then` at once.
fn upgrading<T, F>(then: T) -> TestServer
where
    T: Fn(UnixStream, Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    TestServer::start(move |mut request: Request<Incoming>, _: Peer| {
        let (tasks, then) = (tasks.clone(), then.clone());
        async move { upgrade(&mut request, &tasks, then) }
    })
}

fn upgrade<T, F>(request: &mut Request<Incoming>, tasks: &TaskTracker, then: T) -> Response<Body>
where
    T: Fn(UnixStream, Bytes) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    match prepare_upgrade(request, "test") {
        Ok(pending) => {
            let mut headers = HeaderMap::new();
            headers.insert("gitspaces-stream", HeaderValue::from_static("fd"));
            let response = pending.response(headers);
            tasks.spawn(async move {
                let upgraded = pending.stream().await.unwrap();
                then(upgraded.stream, upgraded.leftover).await;
            });
            response
        }
        Err(error) => error.into_response(),
    }
}

#[tokio::test]
async fn a_descriptor_sent_right_behind_the_upgrade_arrives_and_works() {
    let server = upgrading(|stream, _| async move {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_fd(&stream, &theirs, b'!').await.unwrap();
        drop(theirs);
        let mut ours = ours;
        ours.write_all(b"hello").await.unwrap();
    });
    // The head and the descriptor race; either order has to work.
    for _ in 0..200 {
        let upgraded = server
            .client()
            .upgrade(Method::GET, "/", "test", None::<&()>)
            .await
            .unwrap();
        assert_eq!(upgraded.headers.get("gitspaces-stream").unwrap(), "fd");
        let (fd, byte) = recv_fd(&upgraded.stream).await.unwrap();
        assert_eq!(byte, b'!');
        let flags = FdFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        let mut text = String::new();
        PassedStream::new(fd)
            .unwrap()
            .read_to_string(&mut text)
            .await
            .unwrap();
        assert_eq!(text, "hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_descriptor_is_not_lost_when_it_is_there_before_the_head_is_read() {
    let (_guard, dir) = super::support::temp_dir();
    let path = dir.join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].ends_with(b"\r\n\r\n"));
        let head =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n";
        let (head, rest) = head.split_at(30);
        stream.write_all(head).await.unwrap();
        stream.write_all(rest).await.unwrap();
        send_fd(&stream, std::io::stderr().as_fd(), 1)
            .await
            .unwrap();
        stream
    };
    let client = crate::Client::new(&path);
    let call = client.upgrade(Method::GET, "/", "test", None::<&()>);
    let (upgraded, _stream) = tokio::join!(call, serve);
    recv_fd(&upgraded.unwrap().stream).await.unwrap();
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let server = upgrading(|mut stream, leftover| async move {
        assert!(leftover.is_empty());
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    });
    let mut upgraded = server
        .client()
        .upgrade(Method::GET, "/", "test", None::<&()>)
        .await
        .unwrap();
    upgraded.stream.write_all(b"echo").await.unwrap();
    upgraded.stream.shutdown().await.unwrap();
    let mut text = String::new();
    upgraded.stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "echo");
}

#[tokio::test]
async fn an_upgrade_survives_the_stop_of_the_server() {
    let server = upgrading(|mut stream, _| async move {
        stream.read_u8().await.unwrap();
        stream.write_all(b"still here").await.unwrap();
    });
    let mut upgraded = server
        .client()
        .upgrade(Method::GET, "/", "test", None::<&()>)
        .await
        .unwrap();
    server.stop().await;
    upgraded.stream.write_u8(1).await.unwrap();
    let mut text = String::new();
    upgraded.stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still here");
}

#[tokio::test]
async fn another_protocol_gets_426_and_a_plain_answer_is_no_upgrade() {
    let server = upgrading(|_, _| async {});
    let error = server
        .client()
        .upgrade(Method::GET, "/", "other", None::<&()>)
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::UPGRADE_REQUIRED));
    let server = TestServer::start(|_, _| async { crate::server::json(StatusCode::OK, &1) });
    let error = server
        .client()
        .upgrade(Method::GET, "/", "test", None::<&()>)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
}

fn send_raw(stream: &UnixStream, fds: &[std::os::fd::RawFd]) {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&[0])],
        control,
        MsgFlags::empty(),
        None,
    )
    .unwrap();
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter(|entry| {
            std::fs::read_link(entry.as_ref().unwrap().path())
                .is_ok_and(|target| target.ends_with("null-marker"))
        })
        .count()
}

#[tokio::test]
async fn any_number_of_descriptors_but_one_is_refused_and_closed() {
    let (_guard, dir) = super::support::temp_dir();
    let marker = std::fs::File::create(dir.join("null-marker")).unwrap();
    let raw = marker.as_raw_fd();
    let (one, two) = UnixStream::pair().unwrap();
    for (fds, found) in [(vec![], 0), (vec![raw; 2], 2), (vec![raw; 253], 253)] {
        send_raw(&one, &fds);
        let error = recv_fd(&two).await.unwrap_err();
        assert!(
            matches!(error, FdError::NotOne { found: other } if other == found),
            "{error:?}"
        );
        assert_eq!(open_descriptors(), 1);
    }
    drop(one);
    assert!(matches!(recv_fd(&two).await, Err(FdError::Closed)));
}

#[tokio::test]
async fn what_is_not_a_connected_stream_is_refused() {
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    assert!(matches!(
        PassedStream::new(file),
        Err(PassedStreamError::NotAStream { .. })
    ));
    let datagram: OwnedFd = std::os::unix::net::UnixDatagram::unbound().unwrap().into();
    assert!(matches!(
        PassedStream::new(datagram),
        Err(PassedStreamError::OtherKind { .. })
    ));
    let listener: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
    assert!(matches!(
        PassedStream::new(listener),
        Err(PassedStreamError::NotConnected { .. })
    ));
}

#[tokio::test]
async fn a_passed_tcp_stream_works_and_cannot_be_made_to_block() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let fd: OwnedFd = client.into_std().unwrap().into();
    // What somebody hostile with a copy of the descriptor would do.
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let mut passed = PassedStream::new(fd).unwrap();
    let mut buffer = [0; 16];
    // On this one thread a read that blocks would never come back.
    tokio::time::timeout(Duration::from_millis(20), passed.read(&mut buffer))
        .await
        .unwrap_err();
    server.write_all(b"ping").await.unwrap();
    let read = passed.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..read], b"ping");
    passed.write_all(b"pong").await.unwrap();
    passed.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "pong");
    drop(server);
    assert_eq!(passed.read(&mut buffer).await.unwrap(), 0);
}

#[tokio::test]
async fn frames_pass_in_order_and_the_stream_ends() {
    let (one, two) = UnixStream::pair().unwrap();
    let mut writer = FrameWriter::new(one);
    let mut reader = FrameReader::new(two);
    writer.send(1, b"out").await.unwrap();
    writer.feed(2, b"").unwrap();
    writer.send(3, &[7; 60_000]).await.unwrap();
    writer.shutdown().await.unwrap();
    let frame = |kind, payload: &[u8]| Frame {
        kind,
        payload: Bytes::copy_from_slice(payload),
    };
    assert_eq!(reader.next().await.unwrap(), Some(frame(1, b"out")));
    assert_eq!(reader.next().await.unwrap(), Some(frame(2, b"")));
    assert_eq!(reader.next().await.unwrap(), Some(frame(3, &[7; 60_000])));
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_read_that_was_dropped_loses_nothing_of_its_frame() {
    let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
    two.set_nonblocking(true).unwrap();
    let leftover = Bytes::from_static(&[9, 0, 0]);
    let mut reader = FrameReader::with_leftover(UnixStream::from_std(two).unwrap(), leftover);
    for byte in [0, 2, b'o'] {
        (&one).write_all(&[byte]).unwrap();
        tokio::time::timeout(Duration::from_millis(5), reader.next())
            .await
            .unwrap_err();
    }
    (&one).write_all(b"k").unwrap();
    let frame = reader.next().await.unwrap().unwrap();
    assert_eq!((frame.kind, &*frame.payload), (9, &b"ok"[..]));
}

#[tokio::test]
async fn a_write_that_was_dropped_is_finished_by_the_next_flush() {
    let (one, two) = tokio::io::duplex(4);
    let mut writer = FrameWriter::new(one);
    let mut reader = FrameReader::new(two);
    tokio::time::timeout(
        Duration::from_millis(5),
        writer.send(1, b"a longer payload"),
    )
    .await
    .unwrap_err();
    assert!(writer.queued() > 0);
    let (flushed, frame) = tokio::join!(writer.flush(), reader.next());
    flushed.unwrap();
    assert_eq!(&*frame.unwrap().unwrap().payload, b"a longer payload");
}

#[tokio::test]
async fn a_frame_over_the_limit_and_half_a_frame_are_errors() {
    let mut writer = FrameWriter::new(Vec::new()).with_limit(4);
    assert!(matches!(
        writer.feed(1, b"12345"),
        Err(FrameError::TooLarge {
            length: 5,
            limit: 4
        })
    ));
    let mut reader = FrameReader::new(&[1, 0xff, 0xff, 0xff, 0xff][..]);
    assert!(matches!(
        reader.next().await,
        Err(FrameError::TooLarge { .. })
    ));
    let mut reader = FrameReader::new(&[1, 0, 0, 0, 4, b'a'][..]);
    assert!(matches!(reader.next().await, Err(FrameError::Truncated)));
}
