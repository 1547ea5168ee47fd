//! Windows, turns and ends, without a connection.

use super::*;
use bytes::Bytes;
use std::task::Poll;

fn open(channels: &Channels, theirs: u32, window: u32) -> Channel {
    let fields = Writer::default()
        .number(theirs)
        .number(window)
        .number(PACKET)
        .finish();
    let channel = channels
        .offered(&mut Reader::new(&fields))
        .unwrap()
        .accept()
        .unwrap();
    let confirmed = channels.next().unwrap();
    assert_eq!(confirmed[0], number::CHANNEL_OPEN_CONFIRMATION);
    channel
}

fn told(channels: &Channels, message: Writer) -> Result<(), ChannelError> {
    channels.take(Packet::from(&message.finish()[..]))
}

fn data_for(channel: &Channel, bytes: &[u8]) -> Writer {
    Writer::message(number::CHANNEL_DATA)
        .number(channel.id())
        .string(bytes)
}

fn all(channels: &Channels) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| channels.next()).collect()
}

/// Of data: the channel, and how much.
fn data_of(message: &[u8]) -> Option<(u32, usize)> {
    let mut fields = Reader::new(&message[1..]);
    (message[0] == number::CHANNEL_DATA)
        .then(|| (fields.number().unwrap(), fields.string().unwrap().len()))
}

#[tokio::test]
async fn a_window_is_opened_again_for_what_was_taken_and_never_for_what_was_not() {
    let channels = Channels::default();
    let channel = open(&channels, 7, WINDOW);
    let packet = vec![1; PACKET as usize];
    for _ in 0..WINDOW / PACKET {
        told(&channels, data_for(&channel, &packet)).unwrap();
    }
    assert_eq!(channels.next(), None, "nothing was taken");
    assert_eq!(
        told(&channels, data_for(&channel, b"x")),
        Err(ChannelError::Window)
    );
    for _ in 0..WINDOW / PACKET / 4 {
        assert_eq!(channel.input().await.unwrap().len(), packet.len());
    }
    let granted = Writer::message(number::CHANNEL_WINDOW_ADJUST)
        .number(7)
        .number(WINDOW / 4)
        .finish();
    assert_eq!(all(&channels), [granted]);
    told(&channels, data_for(&channel, &packet)).unwrap();
}

#[tokio::test]
async fn channels_take_turns_and_none_sends_more_than_its_window() {
    let channels = Channels::default();
    let (bulk, small) = (open(&channels, 1, 3 * PACKET), open(&channels, 2, 100));
    let bytes = Bytes::from(vec![0; 4 * PACKET as usize]);
    bulk.write(None, bytes).await.unwrap();
    small.write(None, Bytes::from_static(b"key")).await.unwrap();
    let sent: Vec<_> = all(&channels).iter().filter_map(|m| data_of(m)).collect();
    let whole = PACKET as usize;
    assert_eq!(sent, [(1, whole), (2, 3), (1, whole), (1, whole)]);
    told(
        &channels,
        Writer::message(number::CHANNEL_WINDOW_ADJUST)
            .number(bulk.id())
            .number(5),
    )
    .unwrap();
    let sent: Vec<_> = all(&channels).iter().filter_map(|m| data_of(m)).collect();
    assert_eq!(sent, [(1, 5)]);
}

#[tokio::test]
async fn whoever_writes_faster_than_the_peer_reads_waits() {
    let channels = Channels::default();
    let channel = open(&channels, 1, 0);
    let bytes = Bytes::from(vec![0; 1 << 20]);
    channel.write(None, bytes.clone()).await.unwrap();
    let mut second = std::pin::pin!(channel.write(None, bytes));
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    told(
        &channels,
        Writer::message(number::CHANNEL_CLOSE).number(channel.id()),
    )
    .unwrap();
    assert_eq!(
        futures_util::poll!(second.as_mut()),
        Poll::Ready(Err(Gone)),
        "and no longer than the peer is there"
    );
}

#[tokio::test]
async fn what_came_before_a_close_is_still_read_and_a_close_is_answered_once() {
    let channels = Channels::default();
    let channel = open(&channels, 7, WINDOW);
    told(&channels, data_for(&channel, b"last words")).unwrap();
    let close = || Writer::message(number::CHANNEL_CLOSE).number(channel.id());
    told(&channels, close()).unwrap();
    let closed = Writer::message(number::CHANNEL_CLOSE).number(7).finish();
    assert_eq!(all(&channels), [closed]);
    assert_eq!(channel.input().await.as_deref(), Some(&b"last words"[..]));
    assert_eq!(channel.input().await, None);
    assert_eq!(channel.control().await, None);
    channel.end();
    channel.exit_status(0);
    let id = channel.id();
    drop(channel);
    assert_eq!(channels.next(), None, "nothing goes after a close");
    let unknown = Writer::message(number::CHANNEL_EOF).number(id);
    assert_eq!(told(&channels, unknown), Err(ChannelError::NoChannel));
}

#[tokio::test]
async fn the_end_of_a_program_is_told_after_all_it_said() {
    let channels = Channels::default();
    let channel = open(&channels, 7, 4);
    channel
        .write(None, Bytes::from_static(b"longer"))
        .await
        .unwrap();
    channel.exit_status(3);
    channel.end();
    drop(channel);
    assert_eq!(all(&channels).len(), 1, "the window is used up");
    told(
        &channels,
        Writer::message(number::CHANNEL_WINDOW_ADJUST)
            .number(0)
            .number(100),
    )
    .unwrap();
    let numbers: Vec<u8> = all(&channels).iter().map(|message| message[0]).collect();
    assert_eq!(
        numbers,
        [
            number::CHANNEL_DATA,
            number::CHANNEL_REQUEST,
            number::CHANNEL_EOF,
            number::CHANNEL_CLOSE
        ]
    );
}

#[tokio::test]
async fn a_peer_opens_no_more_channels_than_there_may_be() {
    let channels = Channels::default();
    let held: Vec<_> = (0..512).map(|id| open(&channels, id, 1)).collect();
    let fields = Writer::default().number(600).number(1).number(PACKET);
    let fields = fields.finish();
    let offered = channels.offered(&mut Reader::new(&fields)).unwrap();
    assert!(offered.is_answered());
    drop(held);
    let offers: Vec<_> = (0..600)
        .map(|_| channels.offered(&mut Reader::new(&fields)).unwrap())
        .collect();
    let refused_too = offers.iter().filter(|offer| offer.is_answered()).count();
    assert!(refused_too >= 600 - 512, "those that wait count, too");
    let refused = channels.next().unwrap();
    assert_eq!(refused[0], number::CHANNEL_OPEN_FAILURE);
    drop((offered, offers));
}

#[tokio::test]
async fn a_channel_that_a_peer_refuses_or_that_ends_with_its_connection_is_not_waited_for() {
    let channels = Channels::default();
    let asking = channels.open("forwarded-tcpip", |message| message);
    let mut asking = std::pin::pin!(asking);
    assert!(futures_util::poll!(asking.as_mut()).is_pending());
    let asked = channels.next().unwrap();
    assert_eq!(asked[0], number::CHANNEL_OPEN);
    told(
        &channels,
        Writer::message(number::CHANNEL_OPEN_FAILURE)
            .number(0)
            .number(1)
            .string("")
            .string(""),
    )
    .unwrap();
    assert_eq!(asking.await.unwrap_err(), Gone);

    let channel = open(&channels, 1, 1);
    let mut reading = std::pin::pin!(channel.input());
    assert!(futures_util::poll!(reading.as_mut()).is_pending());
    let fields = Writer::default().number(9).number(1).number(PACKET);
    let fields = fields.finish();
    let late = channels.offered(&mut Reader::new(&fields)).unwrap();
    channels.end();
    assert!(late.accept().is_none(), "it comes too late");
    assert_eq!(reading.await, None);
    assert_eq!(
        channels.open("x", |message| message).await.unwrap_err(),
        Gone
    );
}
