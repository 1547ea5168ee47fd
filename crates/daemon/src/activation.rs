//! Sockets that the service manager bound and handed over, by the names of their units (`FileDescriptorName=`).

use std::{io, net::TcpListener, os::unix::net::UnixListener};

#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    #[error("cannot read which sockets the service manager handed over")]
    Environment {
        #[source]
        source: io::Error,
    },
    #[error("cannot use the socket `{name}` that the service manager handed over")]
    Take {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the service manager handed over a socket `{name}`, which is not one of this daemon's")]
    Unknown { name: String },
}

impl crate::Hint for ActivationError {
    fn hint(&self) -> Option<String> {
        Some("compare the `.socket` units with those of the package, `systemctl cat`".to_owned())
    }

    fn exit(&self) -> crate::Exit {
        crate::Exit::Config
    }
}

/// What was handed over and not taken yet.
pub struct PassedSockets {
    names: Vec<String>,
    sockets: listenfd::ListenFd,
}

impl std::fmt::Debug for PassedSockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PassedSockets")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl PassedSockets {
    /// Of this process; none where it was started otherwise.
    ///
    /// # Errors
    /// Fails where the environment says something that cannot be.
    pub fn of_process() -> Result<Self, ActivationError> {
        let names = sd_notify::listen_fds_with_names()
            .map_err(|source| ActivationError::Environment { source })?
            .map(|(_, name)| name)
            .collect();
        Ok(Self {
            names,
            sockets: listenfd::ListenFd::from_env(),
        })
    }

    /// The Unix socket of that name.
    ///
    /// # Errors
    /// Refuses a socket of another kind.
    pub fn unix(&mut self, name: &str) -> Result<Option<UnixListener>, ActivationError> {
        self.take(name, listenfd::ListenFd::take_unix_listener)
    }

    /// The TCP socket of that name.
    ///
    /// # Errors
    /// Refuses a socket of another kind.
    pub fn tcp(&mut self, name: &str) -> Result<Option<TcpListener>, ActivationError> {
        self.take(name, listenfd::ListenFd::take_tcp_listener)
    }

    fn take<T>(
        &mut self,
        name: &str,
        take: impl Fn(&mut listenfd::ListenFd, usize) -> io::Result<Option<T>>,
    ) -> Result<Option<T>, ActivationError> {
        let Some(index) = self.names.iter().position(|known| known == name) else {
            return Ok(None);
        };
        let taken = take(&mut self.sockets, index).map_err(|source| ActivationError::Take {
            name: name.to_owned(),
            source,
        })?;
        if let Some(known) = self.names.get_mut(index) {
            // Its place stays, because the others are taken by theirs.
            known.clear();
        }
        Ok(taken)
    }

    /// Everything was taken: a socket that nobody serves would swallow its clients.
    ///
    /// # Errors
    /// Names one that was not.
    pub fn finish(self) -> Result<(), ActivationError> {
        match self.names.into_iter().find(|name| !name.is_empty()) {
            Some(name) => Err(ActivationError::Unknown { name }),
            None => Ok(()),
        }
    }
}
