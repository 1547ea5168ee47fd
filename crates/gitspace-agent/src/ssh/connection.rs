//! One client: its packets, in and out.

use super::{
    Watch,
    channels::{ChannelError, Channels, Offered},
    requests::Requests,
};
use crate::agent::Agent;
use ssh_transport::{
    Disconnect, FieldError, HostKey, Packet, Transport, TransportError, Writer, number,
};
use std::{future::poll_fn, io, pin::Pin, sync::Arc, task::Poll, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tokio_util::{io::poll_read_buf, sync::CancellationToken};

const SOFTWARE: &str = concat!("gitspaces_", env!("CARGO_PKG_VERSION"));
/// From the first byte to the right to open channels.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// A client that says nothing for so long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(30);
const UNANSWERED_KEEPALIVES: u32 = 4;
/// RFC 4253 asks for new keys after an hour.
const REKEY_AFTER: Duration = Duration::from_hours(1);
/// For the last words.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// Read at once.
const READ: usize = 32 * 1024;
/// Sealed and not sent. More would only be in the way of what is more urgent.
const AHEAD: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("a message of the client is malformed")]
    Field(#[from] FieldError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the connection broke: {source}")]
    Broken {
        #[source]
        source: io::Error,
    },
    #[error("message {number} is not expected")]
    Unexpected { number: u8 },
    #[error("the login took longer than {} s", LOGIN_LIMIT.as_secs())]
    Slow,
    #[error("the client does not answer any more")]
    Silent,
    #[error("the gitspace is being stopped")]
    Stopping,
}

impl ConnectionError {
    /// What the client is told.
    const fn reason(&self) -> Option<Disconnect> {
        match self {
            Self::Transport(error) => error.reason(),
            Self::Field(_) | Self::Channel(_) | Self::Unexpected { .. } => {
                Some(Disconnect::ProtocolError)
            }
            Self::Slow | Self::Silent => Some(Disconnect::ConnectionLost),
            Self::Stopping => Some(Disconnect::ByApplication),
            Self::Broken { .. } => None,
        }
    }
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    LoggingIn,
    In,
}

/// Bytes, to or from the client.
enum Moved {
    In(usize),
    Out(usize),
}

pub(super) struct Connection<'a, S> {
    stream: &'a mut S,
    watch: Watch,
    transport: Transport,
    stage: Stage,
    channels: Channels,
    requests: Requests,
    stopping: CancellationToken,
    /// Signs of life that were asked for since the client last said anything.
    unanswered: u32,
    heard: Instant,
}

/// Whatever ends it: what runs for its channels ends with them.
impl<S> Drop for Connection<'_, S> {
    fn drop(&mut self) {
        self.channels.end();
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    pub(super) fn new(
        agent: Arc<Agent>,
        key: Arc<HostKey>,
        stream: &'a mut S,
        watch: Watch,
    ) -> Result<Self, ConnectionError> {
        let channels = Channels::default();
        Ok(Self {
            stream,
            watch,
            transport: Transport::server(key, SOFTWARE)?,
            stage: Stage::New,
            stopping: agent.stopping.clone(),
            requests: Requests::new(agent, channels.clone()),
            channels,
            unanswered: 0,
            heard: Instant::now(),
        })
    }

    /// To its end.
    pub(super) async fn run(mut self) -> Result<(), ConnectionError> {
        let done = self.serve().await;
        self.channels.end();
        if let Err(error) = &done
            && let Some(reason) = error.reason()
        {
            self.transport.disconnect(reason, &error.to_string());
            // Nobody waits for a client that is in the wrong.
            let said = self.stream.write_all(self.transport.output());
            drop(timeout(FAREWELL_LIMIT, said).await);
        }
        match done {
            // An orderly goodbye.
            Err(ConnectionError::Transport(TransportError::Disconnected { .. })) => Ok(()),
            done => done,
        }
    }

    async fn serve(&mut self) -> Result<(), ConnectionError> {
        let began = Instant::now();
        let mut keepalive = interval_at(began + KEEPALIVE, KEEPALIVE);
        keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rekey = interval_at(began + REKEY_AFTER, REKEY_AFTER);
        rekey.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(packet) = self.transport.next()? {
                self.take(packet)?;
            }
            self.fill()?;
            let has_output = !self.transport.output().is_empty();
            let wants_input = self.transport.wants_input();
            let (stream, transport) = (&mut *self.stream, &mut self.transport);
            let moving = poll_fn(|cx| {
                if has_output {
                    let written = Pin::new(&mut *stream).poll_write(cx, transport.output());
                    if let Poll::Ready(written) = written {
                        return Poll::Ready(written.map(Moved::Out));
                    }
                }
                if !wants_input {
                    return Poll::Pending;
                }
                let inbound = transport.inbound();
                inbound.reserve(READ);
                poll_read_buf(Pin::new(&mut *stream), cx, inbound).map_ok(Moved::In)
            });
            tokio::select! {
                moved = moving => match moved.map_err(broken)? {
                    Moved::In(0) => return Ok(()),
                    Moved::In(_) => {
                        self.unanswered = 0;
                        self.heard = Instant::now();
                    }
                    Moved::Out(count) => self.transport.sent(count),
                },
                () = self.channels.woken() => {}
                () = self.stopping.cancelled() => return Err(ConnectionError::Stopping),
                () = sleep_until(began + LOGIN_LIMIT), if self.stage != Stage::In => {
                    return Err(ConnectionError::Slow);
                }
                _ = keepalive.tick() => self.stay_awake()?,
                _ = rekey.tick() => self.transport.rekey()?,
            }
        }
    }

    /// Seals what is to be sent, as far as it is good to.
    fn fill(&mut self) -> Result<(), ConnectionError> {
        while self.transport.can_send() && self.transport.output().len() < AHEAD {
            match self.channels.next() {
                Some(message) => self.transport.send(&message)?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn stay_awake(&mut self) -> Result<(), ConnectionError> {
        self.transport.relax();
        let is_ours = self.watch == Watch::Client && self.stage == Stage::In;
        if !is_ours || self.heard.elapsed() < KEEPALIVE {
            return Ok(());
        }
        if self.unanswered >= UNANSWERED_KEEPALIVES {
            return Err(ConnectionError::Silent);
        }
        self.unanswered += 1;
        self.channels.send(
            Writer::message(number::GLOBAL_REQUEST)
                .string("keepalive@openssh.com")
                .boolean(true)
                .finish(),
        );
        Ok(())
    }

    fn take(&mut self, packet: Packet) -> Result<(), ConnectionError> {
        let number = packet.number();
        match (self.stage, number) {
            (Stage::New, number::SERVICE_REQUEST) => {
                let mut fields = packet.fields();
                let service = fields.text()?;
                fields.end()?;
                if service != "ssh-userauth" {
                    return Err(ConnectionError::Unexpected { number });
                }
                self.stage = Stage::LoggingIn;
                let accepted = Writer::message(number::SERVICE_ACCEPT).string(service);
                Ok(self.transport.send(&accepted.finish())?)
            }
            (Stage::LoggingIn, number::USERAUTH_REQUEST) => self.log_in(&packet),
            // Requests that were on their way when the first was granted: RFC 4252 has them ignored.
            (Stage::In, number::USERAUTH_REQUEST) => Ok(()),
            (Stage::In, number::GLOBAL_REQUEST) => {
                let answer = self.requests.global(&mut packet.fields())?;
                match answer {
                    Some(answer) => Ok(self.channels.reply(answer)?),
                    None => Ok(()),
                }
            }
            // Of our signs of life.
            (Stage::In, number::REQUEST_SUCCESS | number::REQUEST_FAILURE) => Ok(()),
            (Stage::In, number::CHANNEL_OPEN) => {
                let mut fields = packet.fields();
                let kind = fields.text()?;
                let offered: Offered = self.channels.offered(&mut fields)?;
                Ok(self.requests.open(kind, offered, &mut fields)?)
            }
            (Stage::In, number::CHANNEL_REQUEST) => {
                let mut fields = packet.fields();
                let channel = fields.number()?;
                let kind = fields.text()?;
                let wants_answer = fields.boolean()?;
                let good = self.requests.request(channel, kind, &mut fields)?;
                if wants_answer {
                    self.channels.answer(channel, good)?;
                }
                self.requests.go(channel);
                Ok(())
            }
            (Stage::In, 90..=100) => Ok(self.channels.take(packet)?),
            _ => Err(ConnectionError::Unexpected { number }),
        }
    }

    /// Whoever comes this far was let in: see the module.
    fn log_in(&mut self, packet: &Packet) -> Result<(), ConnectionError> {
        let mut fields = packet.fields();
        let _user = fields.string()?;
        let service = fields.text()?;
        let method = fields.text()?;
        if service != "ssh-connection" {
            return Err(ConnectionError::Unexpected {
                number: packet.number(),
            });
        }
        let answer = if method == "none" {
            self.stage = Stage::In;
            vec![number::USERAUTH_SUCCESS]
        } else {
            Writer::message(number::USERAUTH_FAILURE)
                .string("none")
                .boolean(false)
                .finish()
        };
        Ok(self.transport.send(&answer)?)
    }
}

fn broken(source: io::Error) -> ConnectionError {
    ConnectionError::Broken { source }
}
