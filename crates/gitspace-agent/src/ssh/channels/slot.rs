//! One channel, as the connection sees it.

use super::{ChannelError, Control, PACKET, WINDOW};
use bytes::{Bytes, BytesMut};
use ssh_transport::{Writer, number};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{Notify, oneshot};

/// What waits to be sent of one channel, before whoever writes has to wait.
const MAX_OUT: usize = 128 * 1024;
/// Input that is put together.
const SMALL: usize = 4 * 1024;
/// Of one channel: a user who turns a window's corner makes many.
const MAX_CONTROLS: usize = 64;

/// The peer's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Theirs {
    pub(super) id: u32,
    /// It takes so many bytes more.
    pub(super) window: u32,
    pub(super) packet: u32,
}

/// In the order in which it goes out.
#[derive(Debug)]
pub(super) enum Out {
    Data {
        /// 1 is standard error.
        extended: Option<u32>,
        bytes: Bytes,
    },
    /// Fields of a request that wants no answer, from its type on.
    Request(Vec<u8>),
    Eof,
    Close,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// `None` until the peer has confirmed what we asked for.
    pub(super) theirs: Option<Theirs>,
    opened: Option<oneshot::Sender<()>>,
    pub(super) out: VecDeque<Out>,
    out_bytes: usize,
    pub(super) is_ready: bool,
    /// The peer may send so many bytes more.
    granted: u32,
    /// Taken, and not granted again.
    taken: u32,
    input: VecDeque<BytesMut>,
    input_ended: bool,
    controls: VecDeque<Control>,
    closed_by_peer: bool,
    close_sent: bool,
    /// Its task is gone.
    dropped: bool,
    pub(super) changed: Arc<Notify>,
}

impl Slot {
    pub(super) fn open(theirs: Theirs) -> Self {
        Self::new(Some(theirs), None)
    }

    pub(super) fn asked(opened: oneshot::Sender<()>) -> Self {
        Self::new(None, Some(opened))
    }

    fn new(theirs: Option<Theirs>, opened: Option<oneshot::Sender<()>>) -> Self {
        Self {
            theirs,
            opened,
            out: VecDeque::new(),
            out_bytes: 0,
            is_ready: false,
            granted: WINDOW,
            taken: 0,
            input: VecDeque::new(),
            input_ended: false,
            controls: VecDeque::new(),
            closed_by_peer: false,
            close_sent: false,
            dropped: false,
            changed: Arc::default(),
        }
    }

    pub(super) fn confirm(&mut self, theirs: Theirs) {
        if self.theirs.is_none() {
            self.theirs = Some(theirs);
            if let Some(opened) = self.opened.take() {
                // Whoever asked may have gone: then it is closed again.
                let (Ok(()) | Err(())) = opened.send(());
            }
        }
    }

    /// The peer sends so many bytes.
    pub(super) fn charge(&mut self, length: usize) -> Result<(), ChannelError> {
        let length = u32::try_from(length).map_err(|_| ChannelError::Window)?;
        self.granted = self
            .granted
            .checked_sub(length)
            .filter(|_| length <= PACKET)
            .ok_or(ChannelError::Window)?;
        Ok(())
    }

    /// The message that grants what was taken, where it is worth one.
    pub(super) fn grant(&mut self, length: usize) -> Option<Vec<u8>> {
        self.taken = self
            .taken
            .saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        if self.taken < WINDOW / 4 || self.closed_by_peer {
            return None;
        }
        let theirs = self.theirs?;
        let more = std::mem::take(&mut self.taken);
        self.granted = self.granted.saturating_add(more);
        Some(
            Writer::message(number::CHANNEL_WINDOW_ADJUST)
                .number(theirs.id)
                .number(more)
                .finish(),
        )
    }

    pub(super) const fn takes_input(&self) -> bool {
        !self.dropped && !self.input_ended
    }

    pub(super) fn push_input(&mut self, data: BytesMut) {
        // What comes byte by byte would cost many times what its window allows.
        match self.input.back_mut() {
            Some(last) if last.len() + data.len() <= SMALL => last.extend_from_slice(&data),
            _ => self.input.push_back(data),
        }
        self.changed.notify_waiters();
    }

    pub(super) fn end_input(&mut self) {
        self.input_ended = true;
        self.changed.notify_waiters();
    }

    /// The next piece: `Some(None)` at the end.
    pub(super) fn next_input(&mut self) -> Option<Option<Bytes>> {
        match self.input.pop_front() {
            Some(bytes) => Some(Some(bytes.freeze())),
            None if self.input_ended || self.closed_by_peer => Some(None),
            None => None,
        }
    }

    pub(super) fn push_control(&mut self, control: Control) {
        if self.controls.len() < MAX_CONTROLS {
            self.controls.push_back(control);
            self.changed.notify_waiters();
        }
    }

    /// The next one: `Some(None)` where the peer has closed the channel.
    pub(super) fn next_control(&mut self) -> Option<Option<Control>> {
        match self.controls.pop_front() {
            Some(control) => Some(Some(control)),
            None if self.closed_by_peer => Some(None),
            None => None,
        }
    }

    pub(super) fn widen(&mut self, more: u32) {
        if let Some(theirs) = &mut self.theirs {
            theirs.window = theirs.window.saturating_add(more);
        }
    }

    pub(super) fn close_by_peer(&mut self) {
        self.closed_by_peer = true;
        self.opened = None;
        self.out.clear();
        self.out_bytes = 0;
        if !self.close_sent {
            self.out.push_back(Out::Close);
        }
        self.changed.notify_waiters();
    }

    pub(super) fn drop_by_us(&mut self) {
        self.dropped = true;
        self.input.clear();
        if !self.close_sent && !self.closed_by_peer {
            self.out.push_back(Out::Close);
        }
    }

    /// Both ends have closed it, and nobody reads what came before.
    pub(super) const fn is_over(&self) -> bool {
        self.close_sent && self.closed_by_peer && self.dropped
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.close_sent || self.closed_by_peer
    }

    /// Whether whoever writes may go on.
    pub(super) const fn has_room(&self) -> bool {
        self.out_bytes < MAX_OUT
    }

    pub(super) fn write(&mut self, extended: Option<u32>, bytes: Bytes) {
        self.out_bytes += bytes.len();
        self.out.push_back(Out::Data { extended, bytes });
    }

    /// Whether the next thing could be sent now.
    pub(super) fn has_more(&self) -> bool {
        match (self.out.front(), self.theirs) {
            (Some(Out::Data { .. }), Some(theirs)) => theirs.window > 0,
            (Some(_), Some(_)) => true,
            (None, _) | (_, None) => false,
        }
    }

    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        if !self.has_more() {
            return None;
        }
        let Theirs { id, window, packet } = self.theirs?;
        let message = match self.out.pop_front()? {
            Out::Data {
                extended,
                mut bytes,
            } => {
                let most = usize::try_from(window.min(packet)).unwrap_or(usize::MAX);
                let now = bytes.split_to(most.min(bytes.len()));
                let sent = u32::try_from(now.len()).unwrap_or(window);
                self.theirs = Some(Theirs {
                    id,
                    window: window.saturating_sub(sent),
                    packet,
                });
                self.out_bytes = self.out_bytes.saturating_sub(now.len());
                if !bytes.is_empty() {
                    self.out.push_front(Out::Data { extended, bytes });
                }
                if self.has_room() {
                    self.changed.notify_waiters();
                }
                data(id, extended, &now)
            }
            Out::Request(fields) => Writer::message(number::CHANNEL_REQUEST)
                .number(id)
                .raw(&fields)
                .finish(),
            Out::Eof => Writer::message(number::CHANNEL_EOF).number(id).finish(),
            Out::Close => {
                self.close_sent = true;
                self.out.clear();
                Writer::message(number::CHANNEL_CLOSE).number(id).finish()
            }
        };
        Some(message)
    }
}

fn data(channel: u32, extended: Option<u32>, bytes: &[u8]) -> Vec<u8> {
    /// Number, channel, kind and length.
    const HEAD: usize = 13;
    let mut message = Vec::with_capacity(HEAD + bytes.len());
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    match extended {
        None => {
            message.push(number::CHANNEL_DATA);
            message.extend_from_slice(&channel.to_be_bytes());
        }
        Some(kind) => {
            message.push(number::CHANNEL_EXTENDED_DATA);
            message.extend_from_slice(&channel.to_be_bytes());
            message.extend_from_slice(&kind.to_be_bytes());
        }
    }
    message.extend_from_slice(&length);
    message.extend_from_slice(bytes);
    message
}
