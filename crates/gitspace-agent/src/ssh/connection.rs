//! One client: what it asks for, and who does it.

use super::{
    auth_agent::AuthAgent,
    environment::{self, MAX_VARIABLES},
    forward,
    listen::{Listeners, Place},
    modes,
    process::{self, Asked, Terminal},
};
use crate::{agent::Agent, pty::Pty as Terminals};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Pty,
    server::{Auth, ChannelOpenHandle, Handler, Msg, Session},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::sync::Semaphore;
use wire::workspace::Size;

/// Open at once: shells, forwarded connections, transfers.
const MAX_CHANNELS: usize = 512;

pub(super) struct Connection {
    agent: Arc<Agent>,
    /// Sessions whose program has not been named yet.
    waiting: HashMap<ChannelId, Waiting>,
    channels: Arc<Semaphore>,
    listeners: Listeners,
    auth_agent: Option<Arc<AuthAgent>>,
}

struct Waiting {
    channel: Channel<Msg>,
    variables: BTreeMap<String, Option<String>>,
    terminal: Option<Terminal>,
    auth_agent: Option<Arc<AuthAgent>>,
    place: Place,
}

impl Connection {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self {
            listeners: Listeners::new(Arc::clone(&agent)),
            agent,
            waiting: HashMap::new(),
            channels: Arc::new(Semaphore::new(MAX_CHANNELS)),
            auth_agent: None,
        }
    }

    /// A channel's place, until it is dropped.
    fn place(&self) -> Option<Place> {
        Arc::clone(&self.channels).try_acquire_owned().ok()
    }

    /// The program of a session is named. A second one is refused.
    fn start(
        &mut self,
        id: ChannelId,
        asked: Asked,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(waiting) = self.waiting.remove(&id) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let mut variables = waiting.variables;
        if let Some(auth_agent) = &waiting.auth_agent {
            variables.insert(
                "SSH_AUTH_SOCK".to_owned(),
                Some(auth_agent.path().to_string()),
            );
        }
        // Started here and not in its task, so that programs start in the order in which they were asked for.
        let started = process::start(&self.agent, asked, &variables, waiting.terminal);
        let (agent, handle) = (Arc::clone(&self.agent), session.handle());
        let (channel, place) = (waiting.channel, waiting.place);
        self.agent.tasks.spawn(async move {
            agent.note_exec();
            process::run(started, channel, handle).await;
            agent.note_exec();
            drop((place, waiting.auth_agent));
        });
        Ok(())
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    /// Whoever comes this far was let in: see the module.
    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(place) = self.place() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        self.waiting.insert(
            channel.id(),
            Waiting {
                channel,
                variables: BTreeMap::new(),
                terminal: None,
                auth_agent: None,
                place,
            },
        );
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.waiting.remove(&channel);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(waiting) = self.waiting.get_mut(&channel) else {
            return session.channel_failure(channel);
        };
        let opened = self
            .agent
            .remote_user()
            .map_err(|problem| problem.message)
            .and_then(|(_, account)| {
                Terminals::open(size(columns, rows), &account).map_err(|error| error.to_string())
            });
        match opened {
            Ok((pty, slave)) => {
                modes::apply(&slave, modes);
                waiting
                    .variables
                    .insert("TERM".to_owned(), Some(term.to_owned()));
                waiting.terminal = Some(Terminal { pty, slave });
                session.channel_success(channel)
            }
            Err(error) => {
                tracing::warn!(
                    error,
                    "A terminal was asked for over SSH and cannot be opened"
                );
                session.channel_failure(channel)
            }
        }
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        // Of one that runs, its own task hears it.
        if let Some(terminal) = self
            .waiting
            .get(&channel)
            .and_then(|waiting| waiting.terminal.as_ref())
        {
            terminal.pty.resize(size(columns, rows));
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.waiting.get_mut(&channel) {
            Some(waiting)
                if waiting.variables.len() < MAX_VARIABLES
                    && environment::is_taken(name, value) =>
            {
                waiting
                    .variables
                    .insert(name.to_owned(), Some(value.to_owned()));
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, Asked::Shell, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, Asked::Command(command.to_vec()), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == "sftp" {
            self.start(channel, Asked::Sftp, session)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Some(waiting) = self.waiting.get_mut(&channel) else {
            return Ok(false);
        };
        if self.auth_agent.is_none() {
            match AuthAgent::open(&self.agent, session.handle()) {
                Ok(opened) => self.auth_agent = Some(opened),
                Err(error) => {
                    tracing::warn!(%error, "A client's SSH agent cannot be forwarded");
                    return Ok(false);
                }
            }
        }
        waiting.auth_agent.clone_from(&self.auth_agent);
        Ok(true)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (Some(place), Ok(port)) = (self.place(), u16::try_from(port)) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (agent, host) = (Arc::clone(&self.agent), host.to_owned());
        // The dial may take its time, and others must not wait for it.
        self.agent.tasks.spawn(async move {
            forward::tcp(&agent, channel, &host, port, reply).await;
            drop(place);
        });
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(place) = self.place() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        // As the remote user, who may not open what the agent can.
        let asked = Asked::Socket(path.to_owned());
        let started = process::start(&self.agent, asked, &BTreeMap::new(), None);
        reply.accept().await;
        let handle = session.handle();
        self.agent.tasks.spawn(async move {
            process::run(started, channel, handle).await;
            drop(place);
        });
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let listening = self
            .listeners
            .listen(address, *port, session.handle(), &self.channels)
            .await;
        match listening {
            Ok(bound) => {
                *port = bound.into();
                Ok(true)
            }
            Err(error) => {
                tracing::info!(%error, address, port = *port, "A port cannot be forwarded to a client");
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listeners.cancel(address, port))
    }
}

pub(super) fn size(columns: u32, rows: u32) -> Size {
    let bounded = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    // A client without a terminal of its own says 0.
    let or = |cells: u32, usual: u16| if cells == 0 { usual } else { bounded(cells) };
    Size {
        rows: or(rows, 24),
        cols: or(columns, 80),
    }
}
