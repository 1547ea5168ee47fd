//! A hello as frames: what does not fit beside the proof follows it.
//!
//! A server reads no more than [`MAX_GREETING_FRAME`] of a peer that has not proved who it is. What a host holds can be many times that, so
//! the rest of a long hello comes in frames of its own, which are read once the proof is good. Counts and size are bounded at both ends.

use crate::{codec, limits::ENVELOPE};
use serde::Serialize;
use std::collections::VecDeque;
use wire::{
    control::{
        Frame, Hello, MAX_FRAME, MAX_GREETING_FRAME, MAX_HELLO, MAX_HELLO_GITSPACES,
        MAX_HELLO_TASKS, TaskStatus, Up,
    },
    gitspace::Observed,
    ids::StreamUuid,
};

/// Why a hello is not sent, or not taken.
#[derive(Debug, thiserror::Error)]
pub enum HelloRefused {
    #[error("the hello tells of {count} {what}, more than {limit}")]
    TooMany {
        what: &'static str,
        count: usize,
        limit: usize,
    },
    #[error("the hello has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("one of the hello's {what} has {length} bytes, more than {limit}")]
    ItemTooLarge {
        what: &'static str,
        length: usize,
        limit: usize,
    },
    #[error("the hello has no JSON form")]
    Encoding {
        #[source]
        source: serde_json::Error,
    },
}

/// # Errors
/// Refuses what is over the counts.
fn check_counts(tasks: usize, gitspaces: usize) -> Result<(), HelloRefused> {
    for (what, count, limit) in [
        ("tasks", tasks, MAX_HELLO_TASKS),
        ("gitspaces", gitspaces, MAX_HELLO_GITSPACES),
    ] {
        if count > limit {
            return Err(HelloRefused::TooMany { what, count, limit });
        }
    }
    Ok(())
}

/// What goes into one frame.
#[derive(Default)]
struct Part {
    tasks: Vec<TaskStatus>,
    gitspaces: Vec<Observed>,
}

/// Fills parts in order, each as far as it has room.
struct Filler {
    full: Vec<Part>,
    open: Part,
    room: usize,
    total: usize,
}

/// Of a [`Frame::HelloRest`], for its items.
const REST_ROOM: usize = MAX_FRAME - ENVELOPE;

impl Filler {
    fn make_room<T: Serialize>(
        &mut self,
        what: &'static str,
        item: &T,
    ) -> Result<(), HelloRefused> {
        let text = serde_json::to_vec(item).map_err(|source| HelloRefused::Encoding { source })?;
        // With its comma.
        let length = text.len().saturating_add(1);
        self.total = self.total.saturating_add(length);
        if length > REST_ROOM {
            return Err(HelloRefused::ItemTooLarge {
                what,
                length,
                limit: REST_ROOM,
            });
        }
        if length > self.room {
            self.full.push(std::mem::take(&mut self.open));
            self.room = REST_ROOM;
        }
        self.room = self.room.saturating_sub(length);
        Ok(())
    }
}

/// The frames of a hello, in order.
pub(crate) fn frames(
    proof: String,
    (stream, acked): (StreamUuid, u64),
    mut hello: Box<Hello>,
) -> Result<VecDeque<String>, HelloRefused> {
    let (tasks, gitspaces) = (
        std::mem::take(&mut hello.tasks),
        std::mem::take(&mut hello.gitspaces),
    );
    check_counts(tasks.len(), gitspaces.len())?;
    let encode = |frame: &Frame<Up>| {
        codec::encode(frame).map_err(|source| HelloRefused::Encoding { source })
    };
    let first = Frame::<Up>::Hello {
        proof,
        stream,
        acked: Some(acked),
        hello,
        more: true,
    };
    let bare = encode(&first)?.len();
    let Some(room) = MAX_GREETING_FRAME.checked_sub(bare) else {
        return Err(HelloRefused::ItemTooLarge {
            what: "texts",
            length: bare,
            limit: MAX_GREETING_FRAME,
        });
    };
    let mut filler = Filler {
        full: Vec::new(),
        open: Part::default(),
        room,
        total: bare,
    };
    for task in tasks {
        filler.make_room("tasks", &task)?;
        filler.open.tasks.push(task);
    }
    for observed in gitspaces {
        filler.make_room("gitspaces", &observed)?;
        filler.open.gitspaces.push(observed);
    }
    let Filler {
        mut full,
        open,
        total,
        ..
    } = filler;
    full.push(open);
    if total.saturating_add(full.len().saturating_mul(ENVELOPE)) > MAX_HELLO {
        return Err(HelloRefused::TooLarge { limit: MAX_HELLO });
    }
    let mut first = Some(first);
    let last = full.len().saturating_sub(1);
    full.into_iter()
        .enumerate()
        .map(|(index, part)| {
            let Part { tasks, gitspaces } = part;
            let is_more = index < last;
            let frame = match first.take() {
                Some(Frame::Hello {
                    proof,
                    stream,
                    acked,
                    mut hello,
                    ..
                }) => {
                    hello.tasks = tasks;
                    hello.gitspaces = gitspaces;
                    Frame::Hello {
                        proof,
                        stream,
                        acked,
                        hello,
                        more: is_more,
                    }
                }
                Some(_) | None => Frame::HelloRest {
                    tasks,
                    gitspaces,
                    more: is_more,
                },
            };
            encode(&frame)
        })
        .collect()
}

/// A hello that is being read.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) hello: Box<Hello>,
    bytes: usize,
}

impl Collected {
    /// Of the first frame, which had `bytes`.
    pub(crate) fn begin(hello: Box<Hello>, bytes: usize) -> Result<Self, HelloRefused> {
        check_counts(hello.tasks.len(), hello.gitspaces.len())?;
        Ok(Self { hello, bytes })
    }

    /// Another frame, which had `bytes`.
    pub(crate) fn add(
        &mut self,
        tasks: Vec<TaskStatus>,
        gitspaces: Vec<Observed>,
        bytes: usize,
    ) -> Result<(), HelloRefused> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_HELLO {
            return Err(HelloRefused::TooLarge { limit: MAX_HELLO });
        }
        self.hello.tasks.extend(tasks);
        self.hello.gitspaces.extend(gitspaces);
        check_counts(self.hello.tasks.len(), self.hello.gitspaces.len())
    }
}

#[cfg(test)]
mod tests;
