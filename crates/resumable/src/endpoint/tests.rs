use super::*;
use futures_util::{FutureExt as _, future::join};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::mpsc,
};

/// Lines that a test gives.
struct Given(mpsc::UnboundedReceiver<Box<dyn Line>>);

impl Lines for Given {
    fn poll_next(&mut self, cx: &mut Context<'_>, is_cut: bool) -> Poll<io::Result<Box<dyn Line>>> {
        match ready!(self.0.poll_recv(cx)) {
            Some(line) => Poll::Ready(Ok(line)),
            None if is_cut => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            None => Poll::Pending,
        }
    }
}

type End = Endpoint<Given>;

fn called() -> (End, mpsc::UnboundedSender<Box<dyn Line>>) {
    let (give, given) = mpsc::unbounded_channel();
    (Endpoint::new(Side::Called(Given(given))), give)
}

/// A line that breaks when so many bytes have gone through it, both ways counted.
struct Brittle {
    stream: DuplexStream,
    left: Arc<Mutex<usize>>,
}

impl Brittle {
    fn pair(size: usize, left: usize) -> [Box<dyn Line>; 2] {
        let (one, other) = duplex(size);
        let left = Arc::new(Mutex::new(left));
        [one, other].map(|stream| -> Box<dyn Line> {
            Box::new(Self {
                stream,
                left: Arc::clone(&left),
            })
        })
    }
}

impl AsyncRead for Brittle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if *self.left.lock().unwrap() == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, room)
    }
}

impl AsyncWrite for Brittle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = *self.left.lock().unwrap();
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let bytes = &bytes[..left.min(bytes.len())];
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        *self.left.lock().unwrap() -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Makes brittle lines, and gives each one's other end to the called endpoint.
struct Making {
    give: mpsc::UnboundedSender<Box<dyn Line>>,
    lives: Vec<usize>,
    size: usize,
    made: Arc<Mutex<usize>>,
}

impl Lines for Making {
    fn poll_next(&mut self, _: &mut Context<'_>, is_cut: bool) -> Poll<io::Result<Box<dyn Line>>> {
        if !is_cut {
            return Poll::Pending;
        }
        let life = self.lives.pop().unwrap_or(usize::MAX);
        *self.made.lock().unwrap() += 1;
        let [own, other] = Brittle::pair(self.size, life);
        // The other endpoint may have ended.
        if self.give.send(other).is_err() {
            return Poll::Ready(Err(io::ErrorKind::NotFound.into()));
        }
        Poll::Ready(Ok(own))
    }
}

/// Writes all of `bytes` and reads to the end, both at once.
async fn talk<C: Lines>(
    mut end: Endpoint<C>,
    bytes: &[u8],
    chunk: usize,
) -> (Vec<u8>, io::Result<()>) {
    let mut heard = Vec::new();
    let mut rest = bytes;
    let mut buffer = vec![0; chunk];
    let mut is_over = false;
    std::future::poll_fn(|cx| {
        loop {
            let mut moved = false;
            if !rest.is_empty() {
                let piece = &rest[..chunk.min(rest.len())];
                if let Poll::Ready(count) = Pin::new(&mut end).poll_write(cx, piece) {
                    rest = &rest[count.unwrap()..];
                    moved = true;
                }
            }
            if rest.is_empty() {
                // It goes on below.
                drop(Pin::new(&mut end).poll_shutdown(cx));
            }
            if !is_over {
                let mut room = ReadBuf::new(&mut buffer);
                if let Poll::Ready(done) = Pin::new(&mut end).poll_read(cx, &mut room) {
                    done.unwrap();
                    is_over = room.filled().is_empty();
                    heard.extend_from_slice(room.filled());
                    moved = true;
                }
            }
            if is_over && rest.is_empty() {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
    // The other end may be done already, and its last word lost with a line: then there are none any more.
    (heard, end.finish().await)
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| {
            (at as u8)
                .wrapping_mul(31)
                .wrapping_add(seed)
                .wrapping_add((at >> 8) as u8)
        })
        .collect()
}

fn exchange(
    up: usize,
    down: usize,
    chunks: (usize, usize),
    size: usize,
    lives: Vec<usize>,
) -> usize {
    let (up, down) = (bytes(1, up), bytes(2, down));
    let made = Arc::new(Mutex::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let is_whole = lives.is_empty();
    let ((heard_here, last_here), (heard_there, last_there)) = runtime.block_on(async {
        let (there, give) = called();
        let here = Endpoint::new(Side::Calling(Making {
            give,
            lives,
            size,
            made: Arc::clone(&made),
        }));
        let both = join(talk(here, &up, chunks.0), talk(there, &down, chunks.1));
        tokio::time::timeout(Duration::from_secs(3600), both)
            .await
            .expect("neither waits for ever")
    });
    if is_whole {
        last_here.unwrap();
        last_there.unwrap();
    }
    assert!(heard_there == up, "{} of {}", heard_there.len(), up.len());
    assert!(heard_here == down, "{} of {}", heard_here.len(), down.len());
    *made.lock().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_lost_or_said_twice_wherever_lines_break(
        up in 0_usize..200_000,
        down in 0_usize..200_000,
        chunks in (1_usize..70_000, 1_usize..70_000),
        size in 16_usize..100_000,
        lives in prop::collection::vec(0_usize..60_000, 0..12),
    ) {
        exchange(up, down, chunks, size, lives);
    }
}

#[test]
fn streams_longer_than_a_window_go_both_ways_at_once() {
    let much = 3 * WINDOW + 17;
    assert_eq!(
        exchange(much, much, (50_000, 30_000), 64 * 1024, Vec::new()),
        1
    );
    let lives = vec![WINDOW / 2, 2 * WINDOW, 100, 7];
    assert_eq!(exchange(much, much, (64 * 1024, 1000), 64 * 1024, lives), 5);
}

#[test]
fn lines_that_break_in_every_byte_of_hello_and_headers_lose_nothing() {
    for life in 0..64 {
        let made = exchange(20, 20, (7, 3), 1024, vec![life, life]);
        assert!(made >= 1, "{life}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_line_takes_the_place_of_one_that_is_dead_and_does_not_look_it() {
    let (mut there, give) = called();
    let (mut dead, other) = duplex(1024);
    give.send(Box::new(other)).unwrap();
    dead.write_all(&0_u64.to_be_bytes()).await.unwrap();
    dead.write_all(&Frame::Data(3).header()).await.unwrap();
    dead.write_all(b"abc").await.unwrap();
    let mut heard = [0; 3];
    there.read_exact(&mut heard).await.unwrap();
    there.write_all(b"xyz").await.unwrap();

    let (mut fresh, other) = duplex(1024);
    give.send(Box::new(other)).unwrap();
    // It has heard nothing of `xyz`.
    fresh.write_all(&0_u64.to_be_bytes()).await.unwrap();
    fresh.write_all(&Frame::Data(1).header()).await.unwrap();
    fresh.write_all(b"d").await.unwrap();
    assert_eq!(there.read_u8().await.unwrap(), b'd');
    assert_eq!(fresh.read_u64().await.unwrap(), 3);
    there.flush().await.unwrap();
    let mut said = [0; 7];
    fresh.read_exact(&mut said).await.unwrap();
    assert_eq!(&said[..4], Frame::Data(3).header());
    assert_eq!(&said[4..], b"xyz");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_gives_no_sign_of_life_is_given_up_by_who_made_it() {
    let (give, mut given) = mpsc::unbounded_channel();
    let made = Arc::new(Mutex::new(0));
    let mut here = Endpoint::new(Side::Calling(Making {
        give,
        lives: Vec::new(),
        size: 1024,
        made: Arc::clone(&made),
    }));
    let reading = async {
        let _nothing = here.read_u8().await;
    };
    let silent = async {
        let mut first: Box<dyn Line> = given.recv().await.unwrap();
        let second = given.recv().await;
        assert!(second.is_some());
        let mut hello = [0; 8];
        first.read_exact(&mut hello).await.unwrap();
    };
    let started = Instant::now();
    tokio::select! {
        () = reading => panic!("there is nothing to read"),
        () = silent => {}
    }
    let given_up = started.elapsed();
    let soon = 2 * SILENCE..2 * SILENCE + Duration::from_millis(10);
    assert!(soon.contains(&given_up), "{given_up:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_line_that_answers_is_kept() {
    let (there, give) = called();
    let made = Arc::new(Mutex::new(0));
    let mut here = Endpoint::new(Side::Calling(Making {
        give,
        lives: Vec::new(),
        size: 1024,
        made: Arc::clone(&made),
    }));
    let mut there = there;
    let idle = tokio::time::sleep(20 * SILENCE);
    tokio::select! {
        _ = here.read_u8() => panic!("there is nothing to read"),
        _ = there.read_u8() => panic!("there is nothing to read"),
        () = idle => {}
    }
    assert_eq!(*made.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn impossible_words_end_the_stream() {
    let data = |length: usize| Frame::Data(length).header().to_vec();
    let hello = 0_u64.to_be_bytes().to_vec();
    for said in [
        1_u64.to_be_bytes().to_vec(),
        // More than the end that it hears.
        [hello.clone(), Frame::Taken(2).header().to_vec()].concat(),
        [hello.clone(), (1_u32 << 20).to_be_bytes().to_vec()].concat(),
        [
            hello.clone(),
            Frame::End.header().to_vec(),
            data(1),
            b"x".to_vec(),
        ]
        .concat(),
    ] {
        let (mut there, give) = called();
        let (mut line, other) = duplex(1024);
        give.send(Box::new(other)).unwrap();
        line.write_all(&said).await.unwrap();
        // Also what is said after the stream's own end.
        let error = there.finish().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{said:?}");
        let (_line, other) = duplex(1024);
        give.send(Box::new(other)).unwrap();
        there.read_u8().await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn without_lines_the_stream_ends_with_the_reason() {
    let (mut there, give) = called();
    assert!(
        there
            .write_all(b"kept for later")
            .now_or_never()
            .unwrap()
            .is_ok()
    );
    drop(give);
    let error = there.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    there.write_all(b"x").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_writer_alone_goes_on_over_a_cut_with_a_full_window() {
    let (there, give) = called();
    let (mut reader, mut writer) = (there, {
        let made = Arc::new(Mutex::new(0));
        Endpoint::new(Side::Calling(Making {
            give,
            lives: vec![WINDOW + 1000],
            size: 64 * 1024,
            made,
        }))
    });
    let much = bytes(3, 2 * WINDOW);
    let writing = async {
        writer.write_all(&much).await.unwrap();
        writer.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    };
    let mut heard = Vec::new();
    tokio::select! {
        () = writing => {}
        read = reader.read_to_end(&mut heard) => { read.unwrap(); }
    }
    assert!(heard == much, "{} of {}", heard.len(), much.len());
}
