//! One channel, as its task sees it.

use super::{Channels, State, slot::Out};
use bytes::{Bytes, BytesMut};
use nix::sys::signal::Signal;
use ssh_transport::Writer;
use std::{io, pin::pin, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
};
use wire::workspace::Size;

/// Read at once: as much as a packet holds.
const READ: usize = super::PACKET as usize;

/// The peer, or the whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end of the channel is gone")]
pub(in crate::ssh) struct Gone;

/// What a client says to a program beside its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ssh) enum Control {
    Signal(Signal),
    Resize(Size),
}

/// Closed when it is dropped.
#[derive(Debug)]
pub(in crate::ssh) struct Channel {
    channels: Channels,
    id: u32,
    changed: Arc<Notify>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.channels.dropped(self.id);
    }
}

impl Channel {
    pub(super) fn new(channels: Channels, id: u32) -> Self {
        let changed = channels
            .lock()
            .open
            .get(&id)
            .map(|slot| Arc::clone(&slot.changed))
            .unwrap_or_default();
        Self {
            channels,
            id,
            changed,
        }
    }

    pub(in crate::ssh) const fn id(&self) -> u32 {
        self.id
    }

    pub(in crate::ssh) fn is_closed(&self) -> bool {
        let state = self.channels.lock();
        state.open.get(&self.id).is_none_or(|slot| slot.is_closed())
    }

    /// Asks again whenever something changes. What `ask` takes is taken only where it answers.
    async fn until<T>(&self, mut ask: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(answer) = ask(&mut self.channels.lock()) {
                return answer;
            }
            changed.await;
        }
    }

    /// The next input; `None` at its end.
    pub(in crate::ssh) async fn input(&self) -> Option<Bytes> {
        let bytes = self
            .until(|state| match state.open.get_mut(&self.id) {
                Some(slot) => slot.next_input(),
                None => Some(None),
            })
            .await?;
        self.channels.grant(self.id, bytes.len());
        Some(bytes)
    }

    /// The next word beside the input; `None` where the peer has closed the channel.
    pub(in crate::ssh) async fn control(&self) -> Option<Control> {
        self.until(|state| match state.open.get_mut(&self.id) {
            Some(slot) => slot.next_control(),
            None => Some(None),
        })
        .await
    }

    /// Waits while more lies here than is good. `extended` 1 is standard error.
    pub(in crate::ssh) async fn write(
        &self,
        extended: Option<u32>,
        bytes: Bytes,
    ) -> Result<(), Gone> {
        let mut bytes = Some(bytes);
        let written = self.until(|state| match state.open.get_mut(&self.id) {
            Some(slot) if slot.is_closed() => Some(Err(Gone)),
            None => Some(Err(Gone)),
            Some(slot) if slot.has_room() => {
                if let Some(bytes) = bytes.take() {
                    slot.write(extended, bytes);
                }
                state.make_ready(self.id);
                Some(Ok(()))
            }
            Some(_) => None,
        });
        written.await?;
        self.channels.inner.wake.notify_one();
        Ok(())
    }

    /// Says how a program ended.
    pub(in crate::ssh) fn exit_status(&self, code: u32) {
        let fields = Writer::default()
            .string("exit-status")
            .boolean(false)
            .number(code);
        self.channels.push(self.id, Out::Request(fields.finish()));
    }

    /// Says which signal ended a program, without its `SIG`.
    pub(in crate::ssh) fn exit_signal(&self, name: &str) {
        let fields = Writer::default()
            .string("exit-signal")
            .boolean(false)
            .string(name)
            .boolean(false)
            .string("")
            .string("");
        self.channels.push(self.id, Out::Request(fields.finish()));
    }

    /// No more is written.
    pub(in crate::ssh) fn end(&self) {
        self.channels.push(self.id, Out::Eof);
    }

    /// From `from` to the peer, to its end.
    pub(in crate::ssh) async fn send_all(
        &self,
        mut from: impl AsyncRead + Unpin,
        extended: Option<u32>,
    ) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ);
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            let bytes = buffer.split().freeze();
            // Nobody wants the rest.
            if self.write(extended, bytes).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Both ways, each to its own end.
    pub(in crate::ssh) async fn join(
        self,
        from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let inwards = async {
            while let Some(bytes) = self.input().await {
                to.write_all(&bytes).await?;
            }
            to.shutdown().await
        };
        let outwards = async {
            tokio::select! {
                sent = self.send_all(from, None) => sent?,
                // Whoever closes wants to hear no more; what it said before is still passed on.
                () = self.closed() => {}
            }
            self.end();
            Ok(())
        };
        tokio::try_join!(inwards, outwards).map(drop)
    }

    /// Until the peer has closed it.
    async fn closed(&self) {
        while self.control().await.is_some() {}
    }
}
