//! What a client asks for, and who does it.

use super::{
    auth_agent::AuthAgent,
    channels::{Channel, Channels, Control, Offered, Refused},
    environment::{self, MAX_VARIABLES},
    forward,
    listen::Listeners,
    modes,
    process::{self, Asked, Running, Terminal, signal_of},
};
use crate::{agent::Agent, pty::Pty};
use ssh_transport::{FieldError, Reader, Writer, number};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use wire::{failure::Failure, workspace::Size};

pub(super) struct Requests {
    agent: Arc<Agent>,
    channels: Channels,
    /// Sessions whose program has not been named.
    waiting: HashMap<u32, Waiting>,
    /// Its program was started, and the client is to be told so first.
    started: Option<(Waiting, Result<Running, Failure>)>,
    listeners: Listeners,
    auth_agent: Option<Arc<AuthAgent>>,
}

struct Waiting {
    channel: Channel,
    variables: BTreeMap<String, Option<String>>,
    terminal: Option<Terminal>,
    auth_agent: Option<Arc<AuthAgent>>,
}

impl Requests {
    pub(super) fn new(agent: Arc<Agent>, channels: Channels) -> Self {
        Self {
            listeners: Listeners::new(Arc::clone(&agent), channels.clone()),
            agent,
            channels,
            waiting: HashMap::new(),
            started: None,
            auth_agent: None,
        }
    }

    /// A channel is asked for.
    pub(super) fn open(
        &mut self,
        kind: &str,
        offered: Offered,
        fields: &mut Reader<'_>,
    ) -> Result<(), FieldError> {
        if offered.is_answered() {
            return Ok(());
        }
        match kind {
            "session" => {
                // One that was closed before it was used is not waited for any longer.
                self.waiting
                    .retain(|_, waiting| !waiting.channel.is_closed());
                let Some(channel) = offered.accept() else {
                    return Ok(());
                };
                self.waiting.insert(
                    channel.id(),
                    Waiting {
                        channel,
                        variables: BTreeMap::new(),
                        terminal: None,
                        auth_agent: None,
                    },
                );
            }
            "direct-tcpip" => {
                let (host, port) = (fields.text()?.to_owned(), fields.number()?);
                let agent = Arc::clone(&self.agent);
                // The dial may take its time, and others must not wait for it.
                self.agent.tasks.spawn(async move {
                    forward::tcp(&agent, offered, &host, port).await;
                });
            }
            "direct-streamlocal@openssh.com" => {
                // As the remote user, who may not open what the agent can.
                let asked = Asked::Socket(fields.text()?.to_owned());
                let started = process::start(&self.agent, asked, &BTreeMap::new(), None);
                if let Some(channel) = offered.accept() {
                    self.agent.tasks.spawn(process::run(started, channel));
                }
            }
            _ => offered.refuse(Refused::UnknownType, "it is not known here"),
        }
        Ok(())
    }

    /// Of a session. Whether it is granted.
    pub(super) fn request(
        &mut self,
        id: u32,
        kind: &str,
        fields: &mut Reader<'_>,
    ) -> Result<bool, FieldError> {
        let Some(waiting) = self.waiting.get_mut(&id) else {
            // Its program runs.
            return self.of_running(id, kind, fields);
        };
        Ok(match kind {
            "env" => {
                let (name, value) = (fields.string()?, fields.string()?);
                match (std::str::from_utf8(name), std::str::from_utf8(value)) {
                    (Ok(name), Ok(value))
                        if waiting.variables.len() < MAX_VARIABLES
                            && environment::is_taken(name, value) =>
                    {
                        let value = Some(value.to_owned());
                        waiting.variables.insert(name.to_owned(), value);
                        true
                    }
                    _ => false,
                }
            }
            "pty-req" => {
                let term = fields.text()?.to_owned();
                let size = size(fields)?;
                match open_terminal(&self.agent, size, fields.string()?) {
                    Ok(terminal) => {
                        waiting.variables.insert("TERM".to_owned(), Some(term));
                        waiting.terminal = Some(terminal);
                        true
                    }
                    Err(error) => {
                        tracing::warn!(
                            error,
                            "A terminal was asked for over SSH and cannot be opened"
                        );
                        false
                    }
                }
            }
            "window-change" => {
                let size = size(fields)?;
                if let Some(terminal) = &waiting.terminal {
                    terminal.pty.resize(size);
                }
                true
            }
            "auth-agent-req@openssh.com" => self.forward_auth_agent(id),
            "shell" => self.start(id, Asked::Shell),
            "exec" => {
                let command = fields.string()?.to_vec();
                self.start(id, Asked::Command(command))
            }
            "subsystem" if fields.string()? == b"sftp" => self.start(id, Asked::Sftp),
            _ => false,
        })
    }

    fn of_running(&self, id: u32, kind: &str, fields: &mut Reader<'_>) -> Result<bool, FieldError> {
        let control = match kind {
            "window-change" => Control::Resize(size(fields)?),
            "signal" => match signal_of(fields.text()?) {
                Some(signal) => Control::Signal(signal),
                None => return Ok(false),
            },
            _ => return Ok(false),
        };
        self.channels.control(id, control);
        Ok(true)
    }

    fn start(&mut self, id: u32, asked: Asked) -> bool {
        let Some(mut waiting) = self.waiting.remove(&id) else {
            return false;
        };
        let mut variables = std::mem::take(&mut waiting.variables);
        if let Some(auth_agent) = &waiting.auth_agent {
            let path = auth_agent.path().to_string();
            variables.insert("SSH_AUTH_SOCK".to_owned(), Some(path));
        }
        let terminal = waiting.terminal.take();
        let running = process::start(&self.agent, asked, &variables, terminal);
        self.started = Some((waiting, running));
        true
    }

    /// After the answer to a request: a program that it started is followed.
    pub(super) fn go(&mut self, _id: u32) {
        let Some((waiting, running)) = self.started.take() else {
            return;
        };
        let agent = Arc::clone(&self.agent);
        self.agent.tasks.spawn(async move {
            agent.note_exec();
            process::run(running, waiting.channel).await;
            agent.note_exec();
            drop(waiting.auth_agent);
        });
    }

    fn forward_auth_agent(&mut self, id: u32) -> bool {
        if self.auth_agent.is_none() {
            match AuthAgent::open(&self.agent, self.channels.clone()) {
                Ok(opened) => self.auth_agent = Some(opened),
                Err(error) => {
                    tracing::warn!(%error, "A client's SSH agent cannot be forwarded");
                    return false;
                }
            }
        }
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.auth_agent.clone_from(&self.auth_agent);
        }
        true
    }

    /// Of the whole connection. The answer, where one is wanted.
    pub(super) fn global(
        &mut self,
        fields: &mut Reader<'_>,
    ) -> Result<Option<Vec<u8>>, FieldError> {
        let kind = fields.text()?;
        let wants_answer = fields.boolean()?;
        let mut success = Writer::message(number::REQUEST_SUCCESS);
        let good = match kind {
            "tcpip-forward" => {
                let (address, port) = (fields.text()?, fields.number()?);
                match self.listeners.listen(address, port) {
                    Ok(bound) => {
                        if port == 0 {
                            success = success.number(bound.into());
                        }
                        true
                    }
                    Err(error) => {
                        tracing::info!(%error, address, port, "A port cannot be forwarded to a client");
                        false
                    }
                }
            }
            "cancel-tcpip-forward" => {
                let (address, port) = (fields.text()?, fields.number()?);
                self.listeners.cancel(address, port)
            }
            _ => false,
        };
        Ok(wants_answer.then(|| {
            if good {
                success.finish()
            } else {
                vec![number::REQUEST_FAILURE]
            }
        }))
    }
}

fn open_terminal(agent: &Agent, size: Size, wanted: &[u8]) -> Result<Terminal, String> {
    let (_, account) = agent.remote_user().map_err(|problem| problem.message)?;
    let (pty, slave) = Pty::open(size, &account).map_err(|error| error.to_string())?;
    modes::apply(&slave, wanted);
    Ok(Terminal { pty, slave })
}

/// Columns, rows, and two measures in pixels.
fn size(fields: &mut Reader<'_>) -> Result<Size, FieldError> {
    let (columns, rows) = (fields.number()?, fields.number()?);
    fields.number()?;
    fields.number()?;
    let bounded = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    // A client without a terminal of its own says 0.
    let or = |cells: u32, usual: u16| if cells == 0 { usual } else { bounded(cells) };
    Ok(Size {
        rows: or(rows, 24),
        cols: or(columns, 80),
    })
}
