//! One request and its answer, between the client's connection and the app's.
//!
//! ```text
//! request:  head and what of the body is here already --> body, piece by piece
//! answer:   head (after any interim ones) --> body, piece by piece --> done
//!                                         \-> switched: a tunnel
//! ```
//!
//! Both directions run in one task, from one `poll`. Invariants: a direction reads only when what it read before was
//! written, so that a slow reader slows its writer; at most one buffer of each direction is held.

use crate::{
    answer::{self, Answer, BadAnswer, Question},
    buffer::{Buffer, poll_some},
    framing::{Framing, FramingError},
};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// First size of a buffer: most heads with a small body fit.
pub(crate) const SMALL: usize = 8 * 1024;
/// Size for a body that does not fit there.
pub(crate) const LARGE: usize = 64 * 1024;
/// Of those in a row: a stream that is always ready lets others have the thread.
const TURN: usize = 4;
/// Interim answers to one request.
const MAX_INTERIM: u8 = 16;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("the client went away")]
    ClientGone,
    #[error("the client's body is malformed")]
    ClientBody {
        #[source]
        source: FramingError,
    },
    #[error("the app closed the connection")]
    UpstreamClosed,
    #[error("the connection to the app broke")]
    UpstreamIo {
        #[source]
        source: io::Error,
    },
    #[error("the app's answer cannot be passed on")]
    BadAnswer {
        #[source]
        source: BadAnswer,
    },
    #[error("the body of the app's answer is malformed")]
    AnswerBody {
        #[source]
        source: FramingError,
    },
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The answer went out whole.
    Answered {
        client_stays: bool,
        upstream_stays: bool,
    },
    /// The answer to an upgrade was 101, and it went out.
    Switched,
}

/// Which end a pump failed at.
enum PumpError {
    From(io::Error),
    Framing(FramingError),
    To(io::Error),
}

#[derive(Debug)]
enum Down {
    Head,
    Body {
        framing: Framing,
        ready: usize,
        client_stays: bool,
        upstream_stays: bool,
    },
    Switched,
}

/// What was sent of a request, and how the rest comes.
pub(crate) struct Exchange<'a, C, U> {
    pub(crate) client: &'a mut C,
    /// What the client sent and nobody has used yet.
    pub(crate) inbound: &'a mut Buffer,
    pub(crate) upstream: &'a mut U,
    pub(crate) outbound: &'a mut Buffer,
    pub(crate) question: Question,
    request: &'a [u8],
    up: Framing,
    up_ready: usize,
    up_over: bool,
    up_failed: bool,
    down: Down,
    out: &'a mut Vec<u8>,
    out_at: usize,
    interim: u8,
    /// Of the answer, once its head is here.
    pub(crate) status: Option<u16>,
    /// Whether a byte of the answer came.
    pub(crate) answered: bool,
    /// Whether a byte of the answer may have gone to the client.
    pub(crate) begun: bool,
}

impl<C, U> std::fmt::Debug for Exchange<'_, C, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

/// The two ends and their buffers.
pub(crate) struct Ends<'a, C, U> {
    pub(crate) client: &'a mut C,
    pub(crate) inbound: &'a mut Buffer,
    pub(crate) upstream: &'a mut U,
    pub(crate) outbound: &'a mut Buffer,
}

impl<'a, C, U> Exchange<'a, C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// `request` is the head and what followed it of the body; `rest` is what is still to come. `out` is room for heads of answers.
    pub(crate) fn new(
        ends: Ends<'a, C, U>,
        request: &'a [u8],
        rest: Framing,
        question: Question,
        out: &'a mut Vec<u8>,
    ) -> Self {
        out.clear();
        let Ends {
            client,
            inbound,
            upstream,
            outbound,
        } = ends;
        Self {
            client,
            inbound,
            upstream,
            outbound,
            question,
            request,
            up: rest,
            up_ready: 0,
            up_over: false,
            up_failed: false,
            down: Down::Head,
            out,
            out_at: 0,
            interim: 0,
            status: None,
            answered: false,
            begun: false,
        }
    }

    /// `touched` is called whenever a byte may have moved.
    pub(crate) async fn run(&mut self, touched: impl Fn()) -> Result<Ended, ExchangeError> {
        poll_fn(|cx| {
            touched();
            self.poll(cx)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, ExchangeError>> {
        if !self.up_over {
            match self.poll_up(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.up_over = true,
                Poll::Ready(Err(PumpError::From(_))) => {
                    return Poll::Ready(Err(ExchangeError::ClientGone));
                }
                Poll::Ready(Err(PumpError::Framing(FramingError::Short))) => {
                    return Poll::Ready(Err(ExchangeError::ClientGone));
                }
                Poll::Ready(Err(PumpError::Framing(source))) => {
                    return Poll::Ready(Err(ExchangeError::ClientBody { source }));
                }
                Poll::Ready(Err(PumpError::To(_))) => {
                    // The app may have answered before it stopped reading.
                    self.up_over = true;
                    self.up_failed = true;
                }
            }
        }
        if let Poll::Ready(result) = self.poll_down(cx) {
            return Poll::Ready(result);
        }
        // Nobody else reads the client, and its going away has to end the app's work.
        if self.up_over && !self.up_failed {
            while !self.inbound.is_full(SMALL) {
                match self.inbound.poll_fill(cx, self.client, SMALL) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => {
                        return Poll::Ready(Err(ExchangeError::ClientGone));
                    }
                }
            }
        }
        Poll::Pending
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        while !self.request.is_empty() {
            let written = ready!(poll_some(cx, self.upstream, self.request));
            let written = match written {
                Ok(written) => written,
                Err(error) => return Poll::Ready(Err(PumpError::To(error))),
            };
            self.request = self.request.get(written..).unwrap_or_default();
        }
        poll_pump(
            cx,
            self.client,
            self.inbound,
            &mut self.up_ready,
            &mut self.up,
            self.upstream,
        )
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, ExchangeError>> {
        loop {
            while let Some(rest) = self.out.get(self.out_at..).filter(|rest| !rest.is_empty()) {
                self.begun = true;
                match ready!(poll_some(cx, self.client, rest)) {
                    Ok(written) => self.out_at += written,
                    Err(_) => return Poll::Ready(Err(ExchangeError::ClientGone)),
                }
            }
            self.out.clear();
            self.out_at = 0;
            match &mut self.down {
                Down::Head => ready!(self.poll_head(cx))?,
                Down::Switched => return Poll::Ready(Ok(Ended::Switched)),
                Down::Body {
                    framing,
                    ready,
                    client_stays,
                    upstream_stays,
                } => {
                    let ended = Ended::Answered {
                        client_stays: *client_stays,
                        upstream_stays: *upstream_stays,
                    };
                    let pumped = ready!(poll_pump(
                        cx,
                        self.upstream,
                        self.outbound,
                        ready,
                        framing,
                        self.client
                    ));
                    return Poll::Ready(match pumped {
                        Ok(()) => Ok(self.finish(ended)),
                        Err(PumpError::From(source)) => Err(ExchangeError::UpstreamIo { source }),
                        Err(PumpError::Framing(source)) => {
                            Err(ExchangeError::AnswerBody { source })
                        }
                        Err(PumpError::To(_)) => Err(ExchangeError::ClientGone),
                    });
                }
            }
        }
    }

    /// Reads until a head is whole and puts what the client gets of it into `out`.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        loop {
            if !self.outbound.is_empty() {
                // An answer that comes before its request was sent whole ends both connections.
                let question = Question {
                    keep_alive: self.question.keep_alive && self.up_over && !self.up_failed,
                    ..self.question
                };
                let passed = answer::pass(self.outbound.filled(), question, self.out)
                    .map_err(|source| ExchangeError::BadAnswer { source })?;
                if let Some((length, answer)) = passed {
                    self.outbound.consume(length);
                    return Poll::Ready(self.head(answer));
                }
            }
            let size = if self.outbound.is_full(SMALL) {
                answer::MAX_HEAD
            } else {
                SMALL
            };
            match self.outbound.poll_fill(cx, self.upstream, size) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ExchangeError::UpstreamClosed)),
                Poll::Ready(Ok(_)) => self.answered = true,
                Poll::Ready(Err(source)) => {
                    return Poll::Ready(Err(ExchangeError::UpstreamIo { source }));
                }
                Poll::Pending => {
                    // An interim answer is waited for.
                    if let Poll::Ready(Err(_)) = Pin::new(&mut *self.client).poll_flush(cx) {
                        return Poll::Ready(Err(ExchangeError::ClientGone));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn head(&mut self, answer: Answer) -> Result<(), ExchangeError> {
        match answer {
            Answer::Interim => {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(ExchangeError::BadAnswer {
                        source: BadAnswer::TooManyInterim,
                    });
                }
            }
            Answer::Switch => {
                self.status = Some(101);
                self.down = Down::Switched;
            }
            Answer::Final {
                status,
                mut framing,
                upstream_stays,
                client_stays,
            } => {
                self.status = Some(status);
                // What is here of the body goes out with the head.
                let here = framing
                    .take(self.outbound.filled())
                    .map_err(|source| ExchangeError::AnswerBody { source })?;
                let bytes = self.outbound.filled().get(..here).unwrap_or_default();
                self.out.extend_from_slice(bytes);
                self.outbound.consume(here);
                self.down = Down::Body {
                    framing,
                    ready: 0,
                    client_stays,
                    upstream_stays,
                };
            }
        }
        Ok(())
    }

    fn finish(&self, ended: Ended) -> Ended {
        match ended {
            Ended::Answered {
                client_stays,
                upstream_stays,
            } => {
                let whole = self.up_over && !self.up_failed;
                Ended::Answered {
                    client_stays: client_stays && whole,
                    // Bytes after an answer belong to no request.
                    upstream_stays: upstream_stays && whole && self.outbound.is_empty(),
                }
            }
            Ended::Switched => Ended::Switched,
        }
    }
}

/// Moves a body until its end. `ready` counts bytes at the buffer's start that are checked and not written.
fn poll_pump<R, W>(
    cx: &mut Context<'_>,
    from: &mut R,
    buffer: &mut Buffer,
    ready: &mut usize,
    framing: &mut Framing,
    to: &mut W,
) -> Poll<Result<(), PumpError>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut fills = 0;
    loop {
        while *ready > 0 {
            match ready!(buffer.poll_drain(cx, to, *ready)) {
                Ok(written) => *ready -= written,
                Err(error) => return Poll::Ready(Err(PumpError::To(error))),
            }
        }
        if framing.is_done() {
            return Pin::new(to).poll_flush(cx).map_err(PumpError::To);
        }
        if !buffer.is_empty() {
            *ready = framing.take(buffer.filled()).map_err(PumpError::Framing)?;
            continue;
        }
        if fills == TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        fills += 1;
        match buffer.poll_fill(cx, from, LARGE) {
            Poll::Ready(Ok(0)) => framing.end().map_err(PumpError::Framing)?,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(PumpError::From(error))),
            Poll::Pending => {
                // Nothing may lie in a writer while we wait for more.
                if let Poll::Ready(Err(error)) = Pin::new(to).poll_flush(cx) {
                    return Poll::Ready(Err(PumpError::To(error)));
                }
                return Poll::Pending;
            }
        }
    }
}

/// Passes bytes both ways until both ends have closed, first what is in the buffers. `half_closed` is called when one has.
pub(crate) async fn tunnel<C, U>(ends: Ends<'_, C, U>, half_closed: impl Fn())
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut up = Way::default();
    let mut down = Way::default();
    poll_fn(|cx| {
        let upward = up.poll(cx, ends.client, ends.inbound, ends.upstream);
        let downward = down.poll(cx, ends.upstream, ends.outbound, ends.client);
        match (upward, downward) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Pending) | (Poll::Pending, Poll::Ready(Ok(()))) => {
                half_closed();
                Poll::Pending
            }
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
}

/// One direction of a tunnel.
struct Way {
    framing: Framing,
    ready: usize,
    pumped: bool,
    closed: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            framing: Framing::UntilEnd,
            ready: 0,
            pumped: false,
            closed: false,
        }
    }
}

impl Way {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        buffer: &mut Buffer,
        to: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if !self.pumped {
            match ready!(poll_pump(
                cx,
                from,
                buffer,
                &mut self.ready,
                &mut self.framing,
                to
            )) {
                Ok(()) => self.pumped = true,
                Err(PumpError::From(error) | PumpError::To(error)) => {
                    return Poll::Ready(Err(error));
                }
                Err(PumpError::Framing(error)) => {
                    return Poll::Ready(Err(io::Error::other(error)));
                }
            }
        }
        if !self.closed {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            self.closed = true;
        }
        Poll::Ready(Ok(()))
    }
}
