//! A client that keeps to no window but those it wants to.

use crate::harness::{World, within};
use ssh_transport::{Packet, Reader, Transport, TransportError, Writer, number};
use std::sync::atomic::Ordering;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

struct Raw {
    stream: TcpStream,
    transport: Transport,
}

impl Raw {
    /// Logged in as ada, by an access token.
    async fn log_in(world: &World, user: &str) -> Self {
        world
            .seen
            .credentials
            .lock()
            .unwrap()
            .insert("gsp_ada".to_owned());
        let mut raw = Self {
            stream: TcpStream::connect(world.ssh).await.unwrap(),
            transport: Transport::client("raw").unwrap(),
        };
        raw.send(Writer::message(number::SERVICE_REQUEST).string("ssh-userauth"));
        raw.send(
            Writer::message(number::USERAUTH_REQUEST)
                .string(user)
                .string("ssh-connection")
                .string("password")
                .boolean(false)
                .string("gsp_ada"),
        );
        assert_eq!(raw.hear().await.unwrap().number(), number::SERVICE_ACCEPT);
        assert_eq!(raw.hear().await.unwrap().number(), number::USERAUTH_SUCCESS);
        raw
    }

    fn send(&mut self, writer: Writer) {
        self.transport.send(&writer.finish()).unwrap();
    }

    async fn flush(&mut self) {
        let out = self.transport.output().to_vec();
        // It may have hung up meanwhile: what it said is still there to be read.
        self.stream.write_all(&out).await.ok();
        self.transport.sent(out.len());
    }

    async fn hear(&mut self) -> Result<Packet, TransportError> {
        within("a message", async {
            loop {
                if let Some(packet) = self.transport.next()? {
                    return Ok(packet);
                }
                self.flush().await;
                let read = self.stream.read_buf(self.transport.inbound()).await;
                assert!(matches!(read, Ok(1..)), "it ended without a word: {read:?}");
            }
        })
        .await
    }

    fn open(&mut self, id: u32, host: &str) {
        self.send(
            Writer::message(number::CHANNEL_OPEN)
                .string("direct-tcpip")
                .number(id)
                .number(1 << 20)
                .number(32768)
                .string(host)
                .number(22)
                .string("127.0.0.1")
                .number(1),
        );
    }

    /// The gateway's number of the channel, and its window.
    async fn opened(&mut self) -> (u32, u32) {
        let packet = self.hear().await.unwrap();
        assert_eq!(packet.number(), number::CHANNEL_OPEN_CONFIRMATION);
        let mut fields = packet.fields();
        fields.number().unwrap();
        (fields.number().unwrap(), fields.number().unwrap())
    }

    /// What comes over the channel `id` of ours next.
    async fn data(&mut self, id: u32) -> Vec<u8> {
        let packet = self.hear().await.unwrap();
        let mut fields = packet.fields();
        assert_eq!(
            (packet.number(), fields.number().unwrap()),
            (number::CHANNEL_DATA, id)
        );
        fields.string().unwrap().to_vec()
    }

    fn say(&mut self, theirs: u32, bytes: usize) {
        let data = Writer::message(number::CHANNEL_DATA).number(theirs);
        self.send(data.string(vec![0; bytes]));
    }
}

#[tokio::test]
async fn a_jump_that_is_not_read_holds_up_no_other_and_takes_no_more_than_its_window() {
    let world = World::start().await;
    world.ssh_server.deaf.store(true, Ordering::SeqCst);
    let mut raw = Raw::log_in(&world, "ada").await;
    raw.open(7, "demo");
    let (first, window) = raw.opened().await;
    assert_eq!(raw.data(7).await, b"hello");
    // What the kernel takes for the gitspace is given back; the rest stays until nothing is left of the window.
    let mut left = window;
    let mut quiet = 0;
    while quiet < 2 {
        while left >= 32768 {
            raw.say(first, 32768);
            raw.flush().await;
            left -= 32768;
        }
        // Whatever of it was taken has been given back before this is answered.
        raw.send(
            Writer::message(number::GLOBAL_REQUEST)
                .string("sync@test")
                .boolean(true),
        );
        quiet += 1;
        loop {
            let packet = raw.hear().await.unwrap();
            match packet.number() {
                number::REQUEST_FAILURE => break,
                number::CHANNEL_WINDOW_ADJUST => {
                    let mut fields = packet.fields();
                    assert_eq!(fields.number().unwrap(), 7);
                    left += fields.number().unwrap();
                    quiet = 0;
                }
                other => panic!("message {other}"),
            }
        }
    }
    raw.open(8, "demo");
    let (second, _) = raw.opened().await;
    assert_eq!(raw.data(8).await, b"hello", "the other one is not held up");
    raw.say(second, 1000);
    for _ in 0..3 {
        raw.say(first, 32768);
    }
    let ended = loop {
        if let Err(error) = raw.hear().await {
            break error;
        }
    };
    let TransportError::Disconnected { reason, text } = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(
        (reason, text.as_str()),
        (2, "the peer sends more than it may")
    );
}

#[tokio::test]
async fn a_jump_has_a_bound_of_channels_and_none_but_streams_to_gitspaces() {
    let world = World::start().await;
    world.ssh_server.deaf.store(true, Ordering::SeqCst);
    let mut raw = Raw::log_in(&world, "ada").await;
    for id in 0..10 {
        raw.open(id, "demo");
    }
    let mut opened = 0;
    while opened < 10 {
        if raw.hear().await.unwrap().number() == number::CHANNEL_OPEN_CONFIRMATION {
            opened += 1;
        }
    }
    let refused = async |raw: &mut Raw| loop {
        let packet = raw.hear().await.unwrap();
        if packet.number() == number::CHANNEL_OPEN_FAILURE {
            let mut fields: Reader<'_> = packet.fields();
            fields.number().unwrap();
            fields.number().unwrap();
            return fields.text().unwrap().to_owned();
        }
    };
    raw.open(10, "demo");
    let words = refused(&mut raw).await;
    assert!(words.contains("10 connections are open"), "{words}");
    raw.send(
        Writer::message(number::CHANNEL_OPEN)
            .string("session")
            .number(11)
            .number(1)
            .number(1),
    );
    let words = refused(&mut raw).await;
    assert!(words.contains("ssh <gitspace>@gateway"), "{words}");
    // A message that ends in the middle is the end.
    raw.send(Writer::message(number::CHANNEL_OPEN).number(99));
    let ended = loop {
        if let Err(error) = raw.hear().await {
            break error;
        }
    };
    assert!(
        matches!(ended, TransportError::Disconnected { reason: 2, .. }),
        "{ended:?}"
    );
}
