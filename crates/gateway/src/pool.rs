//! Connections to apps that wait for their next request.
//!
//! They have no task: whether one was closed meanwhile is seen when it is taken, by a read that must find nothing.

use crate::{buffer::Buffer, dial::Upstream};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead as _, ReadBuf};
use wire::{ids::GitspaceUuid, runner::DialTarget};

/// Kept for one target.
const MAX_PER_TARGET: usize = 128;
/// Kept in all.
const MAX_IDLE: usize = 2048;
/// Ticks of the sweeper that one is kept.
const IDLE_MS: u64 = 30_000;

pub(crate) type Key = (GitspaceUuid, DialTarget);

/// A connection to an app, with its buffer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Upstream,
    pub(crate) buffer: Buffer,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since_ms: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    idle: HashMap<Key, Vec<Idle>>,
    count: usize,
    /// Nobody comes who could use them.
    closed: bool,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one used last: it is the likeliest to be open.
    pub(crate) fn take(&self, key: Key) -> Option<Link> {
        loop {
            let mut link = {
                let mut inner = self.lock();
                let idle = inner.idle.get_mut(&key)?.pop()?;
                inner.count -= 1;
                idle.link
            };
            if is_quiet(&mut link.stream) {
                return Some(link);
            }
        }
    }

    pub(crate) fn put(&self, key: Key, link: Link, now_ms: u64) {
        let mut inner = self.lock();
        if inner.closed || inner.count >= MAX_IDLE {
            return;
        }
        let idle = inner.idle.entry(key).or_default();
        if idle.len() < MAX_PER_TARGET {
            idle.push(Idle {
                link,
                since_ms: now_ms,
            });
            inner.count += 1;
        }
    }

    /// Keeps nothing from here on.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.retain(|_, _| false);
    }

    /// Closes those that have waited too long.
    pub(crate) fn sweep(&self, now_ms: u64) {
        self.retain(|_, idle| now_ms.saturating_sub(idle.since_ms) < IDLE_MS);
    }

    /// Closes those to a gitspace that cannot be reached any more.
    pub(crate) fn forget(&self, gitspace: GitspaceUuid) {
        self.retain(|key, _| key.0 != gitspace);
    }

    fn retain(&self, keep: impl Fn(&Key, &Idle) -> bool) {
        let mut inner = self.lock();
        inner.idle.retain(|key, idle| {
            idle.retain(|one| keep(key, one));
            !idle.is_empty()
        });
        inner.count = inner.idle.values().map(Vec::len).sum();
    }
}

/// Nothing to read: neither its end nor bytes that nobody asked for.
fn is_quiet(stream: &mut Upstream) -> bool {
    let mut byte = [0_u8];
    let mut room = ReadBuf::new(&mut byte);
    let mut cx = Context::from_waker(Waker::noop());
    matches!(
        Pin::new(stream).poll_read(&mut cx, &mut room),
        Poll::Pending
    )
}
