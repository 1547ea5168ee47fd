//! The control plane and the gateway as libraries in this process, for one host.
//!
//! Each still speaks its real protocol: the delegate enrols and connects to its own control plane over loopback, the gateway connects to it
//! over HTTP and WebSocket. Only tokens are handed over directly.

use crate::{
    config::{Embedded, Origin},
    enrol::{EnrolError, Enrolment, enrol},
    identity::{Identity, IdentityFile},
    runner::Runner,
    transport::Transport,
};
use camino::{Utf8Path, Utf8PathBuf};
use control_plane::{
    Bootstrap, BuildError, ControlPlane, ControlPlaneConfig, Deps, MintError, StartError,
};
use daemon::{Clock, Exit, Hint, Ids, Lifecycle};
use gateway::{Gateway, GatewayConfig, GatewayError, Listen, SshConfig};
use runner_dial::RunnerDial;
use rustls::{ClientConfig, ServerConfig};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tls_server::{ServedCertificate, TlsStartError};
use wire::ids::{DelegateUuid, GatewayUuid};

/// The token is used within the second.
const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("cannot build the embedded control plane")]
    Build {
        #[source]
        source: BuildError,
    },
    #[error("cannot start the embedded control plane")]
    Start {
        #[source]
        source: StartError,
    },
    #[error("cannot make a token for the embedded parts")]
    Mint {
        #[source]
        source: MintError,
    },
    #[error("cannot enrol at the embedded control plane")]
    Enrol {
        #[source]
        source: EnrolError,
    },
    #[error("the embedded control plane gave the delegate no id")]
    NoDelegate,
    #[error(transparent)]
    Tls(#[from] TlsStartError),
    #[error("cannot start the embedded gateway")]
    Gateway {
        #[source]
        source: GatewayError,
    },
}

impl Hint for EmbeddedError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Build { source } => source.hint(),
            Self::Start { source } => source.hint(),
            Self::Enrol { source } => source.hint(),
            Self::Gateway { source } => source.hint(),
            Self::Tls(error) => error.hint(),
            Self::Mint { .. } | Self::NoDelegate => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Build { source } => source.exit(),
            Self::Start { source } => source.exit(),
            Self::Enrol { source } => source.exit(),
            Self::Gateway { source } => source.exit(),
            Self::Tls(error) => error.exit(),
            Self::Mint { .. } | Self::NoDelegate => Exit::Failure,
        }
    }
}

/// In the control plane's folder, so that a backup of that one keeps it.
pub(crate) fn ssh_host_key(state_dir: &Utf8Path) -> Utf8PathBuf {
    state_dir.join("ssh_host_ed25519_key")
}

/// A control plane that is served by this process.
#[derive(Debug)]
pub struct EmbeddedControlPlane {
    control_plane: ControlPlane,
    config: Embedded,
    address: SocketAddr,
    certificate: Option<ServedCertificate>,
    clock: Arc<dyn Clock>,
}

impl EmbeddedControlPlane {
    /// Builds and starts it.
    ///
    /// # Errors
    /// Says which part failed.
    pub async fn start(
        config: Embedded,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        lifecycle: &Lifecycle,
    ) -> Result<Self, EmbeddedError> {
        let mut settings = ControlPlaneConfig::new(config.state_dir.clone());
        settings.listen = config.listen;
        settings.public_url = config.public_url.ascii();
        settings.wake_on_connect = config.wake_on_connect;
        settings.max_port_visibility = config.max_port_visibility;
        if let Some(gateway) = &config.gateway {
            settings.gateway_url = gateway.public_url.ascii();
        }
        let certificate = config
            .tls
            .start(
                config.names(),
                &config.state_dir,
                Arc::clone(&clock),
                lifecycle,
            )
            .await?;
        let deps = Deps {
            clock: Arc::clone(&clock),
            ids,
            listener: None,
            seal_key: None,
            tls: server_config(certificate.as_ref())?,
        };
        let mut control_plane = Box::pin(ControlPlane::build(settings, deps))
            .await
            .map_err(|source| EmbeddedError::Build { source })?;
        let address = control_plane
            .start(lifecycle)
            .map_err(|source| EmbeddedError::Start { source })?;
        Ok(Self {
            control_plane,
            config,
            address,
            certificate,
            clock,
        })
    }

    /// What both it and the gateway show.
    #[must_use]
    pub fn certificate(&self) -> Option<&ServedCertificate> {
        self.certificate.as_ref()
    }

    /// The way to it from this process.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn transport(&self) -> Result<Transport, EmbeddedError> {
        let (origin, tls) = (self.config.public_url.clone(), self.own_client_config()?);
        Ok(Transport::embedded(origin, self.address, tls))
    }

    fn own_client_config(&self) -> Result<Option<Arc<ClientConfig>>, EmbeddedError> {
        let config = self
            .certificate
            .as_ref()
            .map(ServedCertificate::own_client_config);
        let config = config.transpose();
        Ok(config.map_err(|source| TlsStartError::Certificate { source })?)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The way in for its first administrator.
    #[must_use]
    pub fn bootstrap(&self) -> Bootstrap {
        self.control_plane.bootstrap()
    }

    /// Whether the delegate is configured to connect to this one.
    #[must_use]
    pub fn is(&self, origin: &Origin) -> bool {
        *origin == self.config.public_url
    }

    /// The identity of before, or one that is enrolled over loopback with a token made for it.
    ///
    /// # Errors
    /// See [`EmbeddedError`].
    pub async fn identity(
        &self,
        file: &IdentityFile,
        transport: &Transport,
        name: &str,
        tags: &[String],
    ) -> Result<(Identity, DelegateUuid), EmbeddedError> {
        let known = file.load().map_err(|error| EmbeddedError::Enrol {
            source: error.into(),
        })?;
        if let Some(identity) = known
            && let Some(delegate) = identity.delegate
        {
            return Ok((identity, delegate));
        }
        let join_token = self
            .control_plane
            .mint_join_token(
                name,
                "the delegate in the control plane's process",
                JOIN_TOKEN_LIFE,
            )
            .await
            .map_err(|source| EmbeddedError::Mint { source })?;
        let enrolment = Enrolment {
            transport,
            file,
            name,
            tags,
            join_token,
            again: false,
        };
        let identity = Box::pin(enrol(enrolment, &*self.clock, |step| {
            tracing::info!(step, "Enrolling");
        }))
        .await
        .map_err(|source| EmbeddedError::Enrol { source })?;
        let Some(delegate) = identity.delegate else {
            return Err(EmbeddedError::NoDelegate);
        };
        Ok((identity, delegate))
    }

    /// Starts the gateway, where it is enabled, and answers with which it is.
    ///
    /// # Errors
    /// See [`EmbeddedError`].
    pub async fn start_gateway(
        &self,
        runner: Runner,
        delegate: DelegateUuid,
        lifecycle: &Lifecycle,
    ) -> Result<Option<GatewayUuid>, EmbeddedError> {
        let Some(config) = &self.config.gateway else {
            return Ok(None);
        };
        let embedded = self
            .control_plane
            .embedded_gateway()
            .await
            .map_err(|source| EmbeddedError::Mint { source })?;
        let direct = match self.transport()?.direct() {
            Some(direct) => direct,
            None => self.address,
        };
        let control_tls = self.own_client_config()?;
        let control_plane_url = if control_tls.is_some() {
            self.config.public_url.url().clone()
        } else {
            // In this process it is plain HTTP, whatever ends TLS in front of it.
            Origin::parse(
                "embedded.control_plane.listen",
                &format!("http://{}", self.config.public_url.authority()),
            )
            .map_or_else(
                |_| self.config.public_url.url().clone(),
                |origin| origin.url().clone(),
            )
        };
        let local = RunnerDial::new(runner.client().clone()).of_delegate(delegate);
        let gateway = Gateway::build(
            GatewayConfig {
                listen: Listen::Address(config.listen),
                tls: server_config(self.certificate.as_ref())?,
                public_url: config.public_url.url().clone(),
                control_plane_url,
                gateway_token: embedded.token,
                control_connect: Some(direct),
                control_tls,
                ssh: config.ssh.map(|ssh| SshConfig {
                    listen: Listen::Address(ssh.listen),
                    host_key: ssh_host_key(&self.config.state_dir),
                    passwords: ssh.passwords,
                    post_quantum_only: ssh.post_quantum_only,
                    public_port: ssh.public_port,
                }),
                tunnels: config.tunnels.then(|| config.public_url.url().clone()),
            },
            Some(Arc::new(local)),
            Arc::clone(&self.clock),
        )
        .map_err(|source| EmbeddedError::Gateway { source })?;
        let ssh = gateway.ssh_addr().map(tracing::field::display);
        tracing::info!(address = %gateway.local_addr(), ssh, gateway = %embedded.id, "Gateway listens");
        gateway.start(lifecycle);
        Ok(Some(embedded.id))
    }
}

fn server_config(
    certificate: Option<&ServedCertificate>,
) -> Result<Option<Arc<ServerConfig>>, EmbeddedError> {
    let config = certificate
        .map(ServedCertificate::server_config)
        .transpose();
    Ok(config.map_err(|source| TlsStartError::Certificate { source })?)
}
