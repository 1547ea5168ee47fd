//! A session whose channels are raw streams to gitspaces' own SSH servers: `ssh -J`.
//!
//! All of it runs in the session's task. A channel holds what the client has sent and the gitspace has not taken, up to a window; room in the
//! window is given back as the gitspace takes it. A channel that stands still holds up no other.

mod channel;

use super::{
    board::Live,
    door::{self, Shut},
    keep_alive::{self, KeepAlive},
    leg::{Leg, LegError},
    listener::Service,
    permit::Permit,
};
use crate::Upstream;
use channel::Channel;
use daemon::ErrorChain;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use ssh_transport::{FieldError, Packet, TransportError, Writer, number};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    ops::Bound,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite};
use wire::{
    gateway::SshGrant,
    ids::GitspaceUuid,
    shown,
    text::{GitspaceName, Slug},
};

/// Of one session, with those that are being opened.
const MAX_CHANNELS: usize = 10;
const SSH_PORT: u32 = 22;
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
    keep_alive: KeepAlive,
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
            keep_alive: KeepAlive::new(),
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
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LegError>> {
        while let Poll::Ready(ask) = self.keep_alive.poll_tick(cx) {
            self.leg.relax();
            self.scratch = Vec::new();
            if ask? {
                self.leg.send(&keep_alive::question())?;
            }
        }
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
            let kept: Vec<GitspaceUuid> = self.channels.values().map(Channel::gitspace).collect();
            self.live.keep(&kept);
        }
    }

    fn take(&mut self, packet: &Packet) -> Result<(), LegError> {
        self.keep_alive.heard();
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
        let Opened {
            destination,
            result,
        } = opened;
        let (stream, gitspace) = match result {
            Ok(opened) => opened,
            Err(shut) => {
                return self.refuse(destination.theirs, CONNECT_FAILED, &shut.to_string());
            }
        };
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let channel = Channel::new(&destination, gitspace, stream, self.service.board.window());
        self.leg.send(&channel.confirmation(id))?;
        self.channels.insert(id, channel);
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
