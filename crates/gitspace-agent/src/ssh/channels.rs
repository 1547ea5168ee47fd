//! The channels of one connection (RFC 4254): what each has to read, and what each may still send.
//!
//! A channel's window is opened again for what has been *taken*, so that whoever does not read holds up nobody but itself; and channels that
//! have something to say take turns, a packet each, so that a keystroke waits for one packet of each transfer at most.
//!
//! Shared by the connection, which moves packets, and the tasks of its channels, which never see one.

mod channel;
mod slot;

pub(super) use channel::{Channel, Control, Gone};

use bytes::BytesMut;
use slot::{Out, Slot, Theirs};
use ssh_transport::{FieldError, Packet, Reader, Writer, number};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::{Notify, oneshot};

/// Open at once, of one connection.
const MAX_CHANNELS: usize = 512;
/// Bytes on their way to us in one channel. At 100 ms that is 20 MiB a second.
pub(super) const WINDOW: u32 = 2 << 20;
/// Of data in one packet, in both directions.
pub(super) const PACKET: u32 = 32 * 1024;
/// Messages that answer a peer and have not gone out. One that asks on without reading is sent away.
const MAX_ANSWERS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChannelError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("a message is for a channel that is not there")]
    NoChannel,
    #[error("more was sent in a channel than its window allows")]
    Window,
    #[error("more is asked than is answered")]
    Flood,
}

/// Why a channel is not opened, as RFC 4254 numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Refused {
    Prohibited = 1,
    ConnectFailed = 2,
    UnknownType = 3,
    Shortage = 4,
}

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Channels {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Something is to be sent.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u32, Slot>,
    last: u32,
    /// Asked for by the peer, and not answered.
    offered: usize,
    /// Answers, and whatever else needs no window.
    control: VecDeque<Vec<u8>>,
    /// Channels that may have something to send.
    ready: VecDeque<u32>,
    over: bool,
}

impl State {
    fn add(&mut self, slot: Slot) -> u32 {
        while self.open.contains_key(&self.last) {
            self.last = self.last.wrapping_add(1);
        }
        let id = self.last;
        self.last = self.last.wrapping_add(1);
        self.open.insert(id, slot);
        id
    }

    fn slot(&mut self, id: u32) -> Result<&mut Slot, ChannelError> {
        self.open.get_mut(&id).ok_or(ChannelError::NoChannel)
    }

    fn make_ready(&mut self, id: u32) {
        if let Some(slot) = self.open.get_mut(&id)
            && !slot.is_ready
        {
            slot.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn forget_closed(&mut self, id: u32) {
        if self.open.get(&id).is_some_and(Slot::is_over) {
            self.open.remove(&id);
        }
    }
}

/// A channel that the peer asks for. Dropped, it is refused.
#[derive(Debug)]
pub(super) struct Offered {
    channels: Channels,
    theirs: Theirs,
    answered: bool,
}

impl Offered {
    /// It was refused already: too many are open.
    pub(super) const fn is_answered(&self) -> bool {
        self.answered
    }

    /// `None` where the connection has ended meanwhile.
    pub(super) fn accept(mut self) -> Option<Channel> {
        self.answered = true;
        let id = {
            let mut state = self.channels.lock();
            if state.over {
                return None;
            }
            let theirs = self.theirs.id;
            let id = state.add(Slot::open(self.theirs));
            state.control.push_back(
                Writer::message(number::CHANNEL_OPEN_CONFIRMATION)
                    .number(theirs)
                    .number(id)
                    .number(WINDOW)
                    .number(PACKET)
                    .finish(),
            );
            id
        };
        self.channels.inner.wake.notify_one();
        Some(Channel::new(self.channels.clone(), id))
    }

    pub(super) fn refuse(mut self, reason: Refused, words: &str) {
        self.say_no(reason, words);
    }

    fn say_no(&mut self, reason: Refused, words: &str) {
        self.answered = true;
        self.channels.send(
            Writer::message(number::CHANNEL_OPEN_FAILURE)
                .number(self.theirs.id)
                .number(reason as u32)
                .string(words)
                .string("")
                .finish(),
        );
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if !self.answered {
            self.say_no(Refused::Prohibited, "");
        }
        let mut state = self.channels.lock();
        state.offered = state.offered.saturating_sub(1);
    }
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, State> {
        crate::agent::lock(&self.inner.state)
    }

    /// Until there may be something to send.
    pub(super) async fn woken(&self) {
        self.inner.wake.notified().await;
    }

    /// Answers the peer. One that asks on without reading is sent away.
    pub(super) fn reply(&self, message: Vec<u8>) -> Result<(), ChannelError> {
        let mut state = self.lock();
        if state.control.len() >= MAX_ANSWERS {
            return Err(ChannelError::Flood);
        }
        state.control.push_back(message);
        drop(state);
        self.inner.wake.notify_one();
        Ok(())
    }

    /// Sends a message that needs no window.
    pub(super) fn send(&self, message: Vec<u8>) {
        self.lock().control.push_back(message);
        self.inner.wake.notify_one();
    }

    /// The peer's wish for a channel, after its type.
    pub(super) fn offered(&self, fields: &mut Reader<'_>) -> Result<Offered, ChannelError> {
        let theirs = Theirs {
            id: fields.number()?,
            window: fields.number()?,
            packet: fields.number()?.min(PACKET),
        };
        let mut offered = Offered {
            channels: self.clone(),
            theirs,
            answered: false,
        };
        let (open, answers) = {
            let mut state = self.lock();
            state.offered += 1;
            (state.open.len() + state.offered, state.control.len())
        };
        if answers >= MAX_ANSWERS {
            return Err(ChannelError::Flood);
        }
        if open > MAX_CHANNELS || theirs.packet == 0 {
            offered.say_no(Refused::Shortage, "too many channels are open");
        }
        Ok(offered)
    }

    /// Asks the peer for a channel.
    pub(super) async fn open(
        &self,
        kind: &str,
        about: impl FnOnce(Writer) -> Writer,
    ) -> Result<Channel, Gone> {
        let (opened, answer) = oneshot::channel();
        let id = {
            let mut state = self.lock();
            if state.over || state.open.len() >= MAX_CHANNELS {
                return Err(Gone);
            }
            let id = state.add(Slot::asked(opened));
            let message = Writer::message(number::CHANNEL_OPEN)
                .string(kind)
                .number(id)
                .number(WINDOW)
                .number(PACKET);
            state.control.push_back(about(message).finish());
            id
        };
        self.inner.wake.notify_one();
        // Refused, it is gone already.
        let channel = Channel::new(self.clone(), id);
        match answer.await {
            Ok(()) => Ok(channel),
            Err(_) => Err(Gone),
        }
    }

    /// A message of a channel that is open, but for its requests.
    pub(super) fn take(&self, packet: Packet) -> Result<(), ChannelError> {
        let mut fields = packet.fields();
        let id = fields.number()?;
        match packet.number() {
            number::CHANNEL_DATA => {
                let length = fields.string()?.len();
                fields.end()?;
                self.data(id, packet.tail(length))
            }
            number::CHANNEL_EXTENDED_DATA => {
                // Nothing here reads it; its window is opened again.
                fields.number()?;
                let length = fields.string()?.len();
                self.data_for_nobody(id, length)
            }
            number::CHANNEL_WINDOW_ADJUST => {
                let more = fields.number()?;
                let mut state = self.lock();
                state.slot(id)?.widen(more);
                state.make_ready(id);
                Ok(())
            }
            number::CHANNEL_EOF => {
                self.lock().slot(id)?.end_input();
                Ok(())
            }
            number::CHANNEL_CLOSE => {
                let mut state = self.lock();
                state.slot(id)?.close_by_peer();
                state.make_ready(id);
                state.forget_closed(id);
                Ok(())
            }
            number::CHANNEL_OPEN_CONFIRMATION => {
                let theirs = Theirs {
                    id: fields.number()?,
                    window: fields.number()?,
                    packet: fields.number()?.min(PACKET),
                };
                let mut state = self.lock();
                state.slot(id)?.confirm(theirs);
                // Whoever asked may have gone.
                state.make_ready(id);
                Ok(())
            }
            number::CHANNEL_OPEN_FAILURE => {
                let mut state = self.lock();
                if state.slot(id)?.theirs.is_none() {
                    state.open.remove(&id);
                }
                Ok(())
            }
            // Answers to requests, of which none is made here.
            _ => Ok(()),
        }
    }

    fn data(&self, id: u32, data: BytesMut) -> Result<(), ChannelError> {
        if data.is_empty() {
            return self.lock().slot(id).map(|_| ());
        }
        let mut state = self.lock();
        let slot = state.slot(id)?;
        slot.charge(data.len())?;
        if slot.takes_input() {
            slot.push_input(data);
            return Ok(());
        }
        let length = data.len();
        drop(state);
        self.grant(id, length);
        Ok(())
    }

    fn data_for_nobody(&self, id: u32, length: usize) -> Result<(), ChannelError> {
        self.lock().slot(id)?.charge(length)?;
        self.grant(id, length);
        Ok(())
    }

    /// So much was taken: the peer may send as much more, and hears of it when it is worth a message.
    fn grant(&self, id: u32, length: usize) {
        let mut state = self.lock();
        let Some(message) = state.open.get_mut(&id).and_then(|slot| slot.grant(length)) else {
            return;
        };
        state.control.push_back(message);
        drop(state);
        self.inner.wake.notify_one();
    }

    /// For a channel's task: a signal, or a new size of its terminal.
    pub(super) fn control(&self, id: u32, control: Control) {
        if let Some(slot) = self.lock().open.get_mut(&id) {
            slot.push_control(control);
        }
    }

    /// The peer's answer, where it wants one.
    pub(super) fn answer(&self, id: u32, good: bool) -> Result<(), ChannelError> {
        let Some(theirs) = self.lock().slot(id)?.theirs else {
            return Err(ChannelError::NoChannel);
        };
        let kind = if good {
            number::CHANNEL_SUCCESS
        } else {
            number::CHANNEL_FAILURE
        };
        self.reply(Writer::message(kind).number(theirs.id).finish())
    }

    /// What is to be sent next. Channels take turns.
    pub(super) fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        if let Some(message) = state.control.pop_front() {
            return Some(message);
        }
        while let Some(id) = state.ready.pop_front() {
            let Some(slot) = state.open.get_mut(&id) else {
                continue;
            };
            slot.is_ready = false;
            let message = slot.next();
            if slot.has_more() {
                state.make_ready(id);
            }
            state.forget_closed(id);
            if message.is_some() {
                return message;
            }
        }
        None
    }

    /// The connection is over: nothing more comes, and nothing goes.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        for slot in state.open.values_mut() {
            slot.close_by_peer();
        }
        state.open.clear();
    }

    fn push(&self, id: u32, out: Out) {
        let mut state = self.lock();
        if let Some(slot) = state.open.get_mut(&id)
            && !slot.is_closed()
        {
            slot.out.push_back(out);
            state.make_ready(id);
        }
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Nobody has it any more.
    fn dropped(&self, id: u32) {
        let mut state = self.lock();
        if let Some(slot) = state.open.get_mut(&id) {
            slot.drop_by_us();
            state.make_ready(id);
            state.forget_closed(id);
        }
        drop(state);
        self.inner.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
