//! A session whose channels are raw streams to gitspaces' own SSH servers: `ssh -J`.
//!
//! All of it runs in the session's task. A channel holds what the client has sent and the gitspace has not taken, up to a window; room in the
//! window is given back as the gitspace takes it. A channel that stands still holds up no other.

use super::{
    board::{Live, Window},
    door::{self, Shut},
    leg::{Leg, LegError},
    listener::Service,
    permit::Permit,
    splice::{are_you_there, keepalive},
};
use crate::Upstream;
use bytes::{Buf as _, BytesMut};
use daemon::ErrorChain;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use ssh_transport::{FieldError, Packet, Reader, TransportError, Writer, number};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    ops::Bound,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::{
    gateway::SshGrant,
    ids::GitspaceUuid,
    shown,
    text::{GitspaceName, Slug},
};

/// Of one session, with those that are being opened.
const MAX_CHANNELS: usize = 10;
const MAX_DATA: u32 = 32 * 1024;
/// Number of a message of data, of its channel, and its length.
const DATA_HEAD: usize = 9;
const SSH_PORT: u32 = 22;
const MAX_UNANSWERED: u32 = 3;
/// Reads and messages in one turn: others want theirs.
const TURN: usize = 128;

/// Reasons in a `CHANNEL_OPEN_FAILURE` (RFC 4254, section 5.1).
const PROHIBITED: u32 = 1;
const CONNECT_FAILED: u32 = 2;

/// What a client asks for that wants to go on to somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    theirs: u32,
    window: u32,
    max_data: u32,
    host: String,
    port: u32,
}

impl Destination {
    /// `None` where `packet` opens another kind of channel.
    pub(super) fn of(packet: &Packet) -> Result<Option<Self>, FieldError> {
        let mut fields = packet.fields();
        if packet.number() != number::CHANNEL_OPEN || fields.text()? != "direct-tcpip" {
            return Ok(None);
        }
        let (theirs, window, max_data) = (fields.number()?, fields.number()?, fields.number()?);
        let (host, port) = (fields.text()?, fields.number()?);
        Ok(Some(Self {
            theirs,
            window,
            max_data,
            host: host.to_owned(),
            port,
        }))
    }

    /// The gitspace that it may be.
    pub(super) fn gitspace(&self) -> Option<&str> {
        let is_name =
            self.host.parse::<GitspaceName>().is_ok() || self.host.parse::<Slug>().is_ok();
        (self.port == SSH_PORT && is_name).then_some(&self.host)
    }
}

struct Opened {
    destination: Destination,
    result: Result<(Upstream, GitspaceUuid), Shut>,
}

#[derive(Debug)]
struct Channel {
    theirs: u32,
    gitspace: GitspaceUuid,
    stream: Upstream,
    /// From the client, for the gitspace.
    pending: BytesMut,
    room: Window,
    /// What the client may still send, and what it may send again.
    inwards: u32,
    credit: u32,
    /// What we may still send.
    outwards: u32,
    max_data: u32,
    /// The client sends no more.
    ended: bool,
    shut: bool,
    /// We have said that it is over; the client has.
    said_close: bool,
    heard_close: bool,
}

pub(super) struct Jump<'a, U> {
    service: &'a Service,
    live: &'a Live,
    permit: &'a Permit,
    leg: &'a mut Leg<U>,
    channels: BTreeMap<u32, Channel>,
    opening: FuturesUnordered<BoxFuture<'a, Opened>>,
    next: u32,
    /// The channel that had something last.
    last: u32,
    heard: bool,
    unanswered: u32,
    scratch: Vec<u8>,
    /// Passed on, in both directions.
    bytes: &'a mut u64,
}

impl<'a, U: AsyncRead + AsyncWrite + Unpin> Jump<'a, U> {
    pub(super) fn new(
        service: &'a Service,
        live: &'a Live,
        permit: &'a Permit,
        leg: &'a mut Leg<U>,
        bytes: &'a mut u64,
    ) -> Self {
        Self {
            service,
            live,
            permit,
            leg,
            channels: BTreeMap::new(),
            opening: FuturesUnordered::new(),
            next: 0,
            last: 0,
            heard: false,
            unanswered: 0,
            scratch: Vec::new(),
            bytes,
        }
    }

    /// Until the client is gone. `first` is asked for already, with what was answered where that was asked. Cancel-safe.
    pub(super) async fn run(
        &mut self,
        first: Destination,
        grant: Option<SshGrant>,
    ) -> Result<(), LegError> {
        self.open(first, grant)?;
        let mut ticks = keepalive();
        loop {
            tokio::select! {
                ended = poll_fn(|cx| self.poll_turn(cx)) => return ended,
                _ = ticks.tick() => {
                    self.leg.relax();
                    self.scratch = Vec::new();
                    if std::mem::take(&mut self.heard) {
                        self.unanswered = 0;
                    } else if self.unanswered >= MAX_UNANSWERED {
                        return Err(LegError::Silent);
                    } else {
                        self.unanswered += 1;
                        self.leg.send(&are_you_there())?;
                    }
                }
            }
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LegError>> {
        for _ in 0..TURN {
            let mut moved = self.leg.poll_move(cx)?;
            let before = self.leg.transport.output().len();
            // Also while keys are changed: that goes on by what is read.
            if self.leg.reads()
                && let Some(packet) = self.leg.transport.next()?
            {
                self.take(&packet)?;
                moved = true;
            }
            while self.leg.is_free()
                && let Poll::Ready(Some(opened)) = self.opening.poll_next_unpin(cx)
            {
                self.opened(opened)?;
                moved = true;
            }
            moved |= self.carry(cx)?;
            self.forget();
            if moved || self.leg.transport.output().len() != before {
                continue;
            }
            if self.leg.is_closed() {
                return Poll::Ready(Ok(()));
            }
            return Poll::Pending;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Each channel in turn, the one behind the last that had something first.
    fn carry(&mut self, cx: &mut Context<'_>) -> Result<bool, LegError> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let turns: Vec<u32> = self
            .channels
            .range(behind)
            .chain(self.channels.range(..=self.last))
            .map(|(id, _)| *id)
            .collect();
        let mut moved = false;
        for id in turns {
            let Some(channel) = self.channels.get_mut(&id) else {
                continue;
            };
            if let Some(carried) = channel.poll_carry(cx, self.leg, &mut self.scratch)? {
                moved = true;
                *self.bytes += carried;
                self.last = id;
            }
        }
        Ok(moved)
    }

    /// What is over, and the grants that were held for it alone: their end is not the end of the others.
    fn forget(&mut self) {
        let before = self.channels.len();
        self.channels.retain(|_, channel| !channel.is_over());
        // One that is being opened holds its own already.
        if self.channels.len() < before && self.opening.is_empty() {
            let kept: Vec<GitspaceUuid> = self
                .channels
                .values()
                .map(|channel| channel.gitspace)
                .collect();
            self.live.keep(&kept);
        }
    }

    fn take(&mut self, packet: &Packet) -> Result<(), LegError> {
        self.heard = true;
        let mut fields = packet.fields();
        let malformed = TransportError::from;
        match packet.number() {
            number::CHANNEL_OPEN => match Destination::of(packet).map_err(malformed)? {
                Some(destination) => self.open(destination, None),
                None => {
                    fields.text().map_err(malformed)?;
                    let theirs = fields.number().map_err(malformed)?;
                    self.refuse(
                        theirs,
                        PROHIBITED,
                        "this connection leads on to gitspaces; for a shell in one, its name is the user: ssh <gitspace>@gateway",
                    )
                }
            },
            number::GLOBAL_REQUEST => {
                fields.text().map_err(malformed)?;
                if fields.boolean().map_err(malformed)? {
                    self.leg.send(&[number::REQUEST_FAILURE])?;
                }
                Ok(())
            }
            // To what we ask now and then.
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => Ok(()),
            number::CHANNEL_WINDOW_ADJUST..=number::CHANNEL_REQUEST => {
                let id = fields.number().map_err(malformed)?;
                let Some(channel) = self.channels.get_mut(&id) else {
                    // It may have been on its way when we closed.
                    return Ok(());
                };
                channel.take(packet.number(), fields, self.leg)
            }
            number => Err(TransportError::OutOfTurn { number }.into()),
        }
    }

    fn open(&mut self, destination: Destination, grant: Option<SshGrant>) -> Result<(), LegError> {
        let Some(gitspace) = destination.gitspace().map(str::to_owned) else {
            let words = format!(
                "`{}` port {} is no gitspace's SSH: connect to <gitspace>:22",
                shown::line(&destination.host),
                destination.port
            );
            return self.refuse(destination.theirs, PROHIBITED, &words);
        };
        if self.channels.len() + self.opening.len() >= MAX_CHANNELS {
            let words = format!("{MAX_CHANNELS} connections are open through this one already");
            return self.refuse(destination.theirs, PROHIBITED, &words);
        }
        if self.service.shared.is_draining() {
            return self.refuse(destination.theirs, PROHIBITED, "the gateway is stopping");
        }
        let (service, live, permit) = (self.service, self.live, self.permit);
        self.opening.push(Box::pin(async move {
            let result = async {
                let grant = match grant {
                    Some(grant) => grant,
                    None => permit
                        .grant(service, &gitspace)
                        .await
                        .map_err(|error| Shut(ErrorChain(&error).to_string()))?
                        .ok_or_else(|| no_gitspace(&gitspace))?,
                };
                door::open(service, live, &grant).await
            }
            .await;
            Opened {
                destination,
                result,
            }
        }));
        Ok(())
    }

    fn opened(&mut self, opened: Opened) -> Result<(), LegError> {
        let Destination {
            theirs,
            window,
            max_data,
            ..
        } = opened.destination;
        let (stream, gitspace) = match opened.result {
            Ok(opened) => opened,
            Err(shut) => return self.refuse(theirs, CONNECT_FAILED, &shut.to_string()),
        };
        let room = self.service.board.window();
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let confirmation = Writer::message(number::CHANNEL_OPEN_CONFIRMATION)
            .number(theirs)
            .number(id)
            .number(room.size)
            .number(MAX_DATA);
        self.leg.send(&confirmation.finish())?;
        self.channels.insert(
            id,
            Channel {
                theirs,
                gitspace,
                stream,
                pending: BytesMut::new(),
                inwards: room.size,
                room,
                credit: 0,
                outwards: window,
                max_data: max_data.min(MAX_DATA),
                ended: false,
                shut: false,
                said_close: false,
                heard_close: false,
            },
        );
        Ok(())
    }

    fn refuse(&mut self, theirs: u32, reason: u32, words: &str) -> Result<(), LegError> {
        let failure = Writer::message(number::CHANNEL_OPEN_FAILURE)
            .number(theirs)
            .number(reason)
            .string(words)
            .string("en");
        self.leg.send(&failure.finish())
    }
}

/// The same for one of somebody else.
pub(super) fn no_gitspace(name: &str) -> Shut {
    Shut(format!(
        "there is no gitspace `{}` of yours; `gitspace list` shows them",
        shown::line(name)
    ))
}

impl Channel {
    fn is_over(&self) -> bool {
        self.heard_close && self.said_close && self.pending.is_empty()
    }

    fn take<U: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        number: u8,
        mut fields: Reader<'_>,
        leg: &mut Leg<U>,
    ) -> Result<(), LegError> {
        let malformed = TransportError::from;
        match number {
            number::CHANNEL_WINDOW_ADJUST => {
                let more = fields.number().map_err(malformed)?;
                self.outwards = self
                    .outwards
                    .checked_add(more)
                    .ok_or(TransportError::Flood)?;
            }
            number::CHANNEL_DATA => {
                let data = fields.string().map_err(malformed)?;
                let length = u32::try_from(data.len()).map_err(|_| TransportError::Flood)?;
                self.inwards = self
                    .inwards
                    .checked_sub(length)
                    .filter(|_| !self.ended)
                    .ok_or(TransportError::Flood)?;
                if !self.said_close {
                    self.pending.extend_from_slice(data);
                }
            }
            // A raw stream has no second one.
            number::CHANNEL_EXTENDED_DATA => {
                return Err(TransportError::OutOfTurn { number }.into());
            }
            number::CHANNEL_EOF => self.ended = true,
            number::CHANNEL_CLOSE => {
                self.ended = true;
                self.heard_close = true;
                self.say_close(leg)?;
            }
            number::CHANNEL_REQUEST => {
                fields.text().map_err(malformed)?;
                if fields.boolean().map_err(malformed)? {
                    let failure = Writer::message(number::CHANNEL_FAILURE).number(self.theirs);
                    leg.send(&failure.finish())?;
                }
            }
            number => return Err(TransportError::OutOfTurn { number }.into()),
        }
        Ok(())
    }

    fn say_close<U: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        leg: &mut Leg<U>,
    ) -> Result<(), LegError> {
        if !std::mem::replace(&mut self.said_close, true) {
            let close = Writer::message(number::CHANNEL_CLOSE).number(self.theirs);
            leg.send(&close.finish())?;
        }
        Ok(())
    }

    /// The gitspace's end is gone.
    fn give_up<U: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        leg: &mut Leg<U>,
    ) -> Result<(), LegError> {
        self.pending.clear();
        self.shut = true;
        self.say_close(leg)
    }

    /// Moves what can be moved; answers with how much, where anything did.
    fn poll_carry<U: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg<U>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<u64>, LegError> {
        let mut carried = None;
        while !self.pending.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.pending) {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.pending.advance(written);
                    self.credit += u32::try_from(written).unwrap_or(u32::MAX);
                    *carried.get_or_insert(0) += u64::try_from(written).unwrap_or(u64::MAX);
                }
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.give_up(leg)?;
                    carried.get_or_insert(0);
                }
                Poll::Pending => break,
            }
        }
        if self.credit >= self.room.size / 2 && !self.ended && leg.is_free() {
            let adjust = Writer::message(number::CHANNEL_WINDOW_ADJUST)
                .number(self.theirs)
                .number(self.credit);
            leg.send(&adjust.finish())?;
            self.inwards += self.credit;
            self.credit = 0;
        }
        if self.ended && self.pending.is_empty() && !self.shut {
            // Whatever it answers: nothing more is said there.
            self.shut = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
        }
        if !self.said_close && self.outwards > 0 && self.max_data > 0 && leg.is_free() {
            let most = usize::try_from(self.outwards.min(self.max_data)).unwrap_or(0);
            scratch.resize(DATA_HEAD + most, 0);
            let (head, room) = scratch.split_at_mut(DATA_HEAD);
            let mut room = ReadBuf::new(room);
            match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                    let read = room.filled().len();
                    let length = u32::try_from(read).map_err(|_| TransportError::Flood)?;
                    let fields = Writer::message(number::CHANNEL_DATA)
                        .number(self.theirs)
                        .number(length)
                        .finish();
                    head.copy_from_slice(&fields);
                    self.outwards -= length;
                    leg.send(scratch.get(..DATA_HEAD + read).unwrap_or_default())?;
                    *carried.get_or_insert(0) += u64::from(length);
                }
                Poll::Ready(_) => {
                    let eof = Writer::message(number::CHANNEL_EOF).number(self.theirs);
                    leg.send(&eof.finish())?;
                    self.give_up(leg)?;
                    carried.get_or_insert(0);
                }
                Poll::Pending => {}
            }
        }
        Ok(carried)
    }
}
