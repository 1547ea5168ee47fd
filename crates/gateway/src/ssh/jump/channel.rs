//! One channel of a jump: from the client's window to the gitspace's stream, and back.

use super::super::{
    board::Window,
    leg::{Leg, LegError},
};
use super::Destination;
use crate::Upstream;
use bytes::{Buf as _, BytesMut};
use ssh_transport::{Reader, TransportError, Writer, number};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::ids::GitspaceUuid;

const MAX_DATA: u32 = 32 * 1024;
/// Number of a message of data, of its channel, and its length.
const DATA_HEAD: usize = 9;

#[derive(Debug)]
pub(super) struct Channel {
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

impl Channel {
    pub(super) fn new(
        destination: &Destination,
        gitspace: GitspaceUuid,
        stream: Upstream,
        room: Window,
    ) -> Self {
        Self {
            theirs: destination.theirs,
            gitspace,
            stream,
            pending: BytesMut::new(),
            inwards: room.size,
            room,
            credit: 0,
            outwards: destination.window,
            max_data: destination.max_data.min(MAX_DATA),
            ended: false,
            shut: false,
            said_close: false,
            heard_close: false,
        }
    }

    /// The message that tells the client of it, by the number that it has here.
    pub(super) fn confirmation(&self, id: u32) -> Vec<u8> {
        Writer::message(number::CHANNEL_OPEN_CONFIRMATION)
            .number(self.theirs)
            .number(id)
            .number(self.inwards)
            .number(MAX_DATA)
            .finish()
    }

    pub(super) fn gitspace(&self) -> GitspaceUuid {
        self.gitspace
    }

    pub(super) fn is_over(&self) -> bool {
        self.heard_close && self.said_close && self.pending.is_empty()
    }

    /// A message of the client's, after the number of the channel.
    pub(super) fn take<U: AsyncRead + AsyncWrite + Unpin>(
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
    pub(super) fn poll_carry<U: AsyncRead + AsyncWrite + Unpin>(
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
