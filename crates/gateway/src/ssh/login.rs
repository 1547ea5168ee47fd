//! Who the user is: RFC 4252, with a registered public key or an access token.

use super::{
    leg::{Leg, LegError},
    listener::Service,
    permit::{Permit, may_go_on},
};
use crate::ask::AskError;
use daemon::ErrorChain;
use ssh_transport::{
    Disconnect, FieldError, Packet, Reader, TransportError, Writer, number, verify,
};
use tokio::io::{AsyncRead, AsyncWrite};
use wire::{
    gateway::{SshCredential, SshGrant},
    secret::Secret,
    text::SshPublicKey,
};

/// Keys that a client may offer: it tries all that its agent has.
const MAX_OFFERS: usize = 20;
/// Signatures and passwords that are not taken.
const MAX_FAILURES: usize = 6;
/// Longest user name: any slug, and more than any user of a system.
const MAX_USER: usize = 128;
/// Longest token.
const MAX_PASSWORD: usize = 512;
const CONNECTION: &str = "ssh-connection";
const KEY: &str = "publickey";
const PASSWORD: &str = "password";

#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error(transparent)]
    Leg(#[from] LegError),
    #[error("the service `{0}` is not offered here")]
    Service(String),
    #[error("the user name is longer than {MAX_USER} bytes")]
    User,
    #[error("the user name was changed during the login")]
    OtherUser,
    #[error("too many keys were offered; choose one with `ssh -o IdentitiesOnly=yes -i FILE`")]
    Offers,
    #[error("too many logins failed")]
    Failures,
    #[error("the control plane cannot be asked who you are; try again in a moment")]
    ControlPlane {
        #[source]
        source: AskError,
    },
}

impl From<TransportError> for LoginError {
    fn from(error: TransportError) -> Self {
        Self::Leg(error.into())
    }
}

impl From<FieldError> for LoginError {
    fn from(error: FieldError) -> Self {
        Self::from(TransportError::from(error))
    }
}

impl From<AskError> for LoginError {
    fn from(source: AskError) -> Self {
        Self::ControlPlane { source }
    }
}

impl LoginError {
    /// What the client is told; `None` where it is gone, or what it sent shows that it would not understand.
    pub(super) fn farewell(&self) -> Option<(Disconnect, String)> {
        let reason = match self {
            Self::Leg(LegError::Transport(error)) => error.reason()?,
            Self::Leg(LegError::Closed | LegError::Silent(_) | LegError::Io { .. }) => return None,
            Self::Service(_) => Disconnect::ServiceNotAvailable,
            Self::User | Self::OtherUser => Disconnect::ProtocolError,
            Self::Offers | Self::Failures => Disconnect::NoMoreAuthMethods,
            Self::ControlPlane { .. } => Disconnect::ByApplication,
        };
        Some((reason, self.to_string()))
    }
}

/// Somebody who may come in.
#[derive(Debug)]
pub(super) struct Entrant {
    pub(super) permit: Permit,
    /// What was written before the `@`.
    pub(super) wanted: String,
    /// For the gitspace of that name, where there is one.
    pub(super) grant: Option<SshGrant>,
}

/// What a request comes to.
enum Answer {
    Entrant(Box<(Permit, Option<SshGrant>)>),
    /// The key may be proven.
    GoOn {
        algorithm: String,
        blob: Vec<u8>,
    },
    /// The client asks what there is.
    Asked,
    NotOffered,
    Failed,
}

/// Carries the login through to its success, which is not told yet.
pub(super) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    service: &Service,
    leg: &mut Leg<S>,
    refused: &mut usize,
) -> Result<Entrant, LoginError> {
    let packet = leg.packet().await?;
    expect(&packet, number::SERVICE_REQUEST)?;
    let asked = packet.fields().text()?.to_owned();
    if asked != "ssh-userauth" {
        return Err(LoginError::Service(asked));
    }
    leg.send(
        &Writer::message(number::SERVICE_ACCEPT)
            .string(asked)
            .finish(),
    )?;
    let mut wanted: Option<String> = None;
    let (mut offers, mut failures) = (0, 0);
    loop {
        let packet = leg.packet().await?;
        expect(&packet, number::USERAUTH_REQUEST)?;
        let mut fields = packet.fields();
        let user = fields.text()?;
        let asked = fields.text()?;
        if user.len() > MAX_USER {
            return Err(LoginError::User);
        }
        if asked != CONNECTION {
            return Err(LoginError::Service(asked.chars().take(MAX_USER).collect()));
        }
        if wanted.get_or_insert_with(|| user.to_owned()) != user {
            return Err(LoginError::OtherUser);
        }
        let session = leg.transport.session_id().copied().unwrap_or_default();
        let request = Request {
            service,
            session: &session,
            packet: &packet,
            user,
        };
        match request.judge(fields).await? {
            Answer::Entrant(entrant) => {
                let (permit, grant) = *entrant;
                return Ok(Entrant {
                    permit,
                    wanted: user.to_owned(),
                    grant,
                });
            }
            Answer::GoOn { algorithm, blob } => {
                let message = Writer::message(number::USERAUTH_PK_OK);
                leg.send(&message.string(algorithm).string(blob).finish())?;
                offers += 1;
                if offers >= MAX_OFFERS {
                    return Err(LoginError::Offers);
                }
                continue;
            }
            Answer::Asked => {}
            Answer::NotOffered => {
                offers += 1;
                *refused += 1;
                if offers >= MAX_OFFERS {
                    return Err(LoginError::Offers);
                }
            }
            Answer::Failed => {
                failures += 1;
                *refused += 1;
                if failures >= MAX_FAILURES {
                    return Err(LoginError::Failures);
                }
            }
        }
        let methods = if service.passwords {
            format!("{KEY},{PASSWORD}")
        } else {
            KEY.to_owned()
        };
        let message = Writer::message(number::USERAUTH_FAILURE);
        leg.send(&message.string(methods).boolean(false).finish())?;
    }
}

pub(super) fn success() -> Vec<u8> {
    Writer::message(number::USERAUTH_SUCCESS).finish()
}

fn expect(packet: &Packet, wanted: u8) -> Result<(), TransportError> {
    let number = packet.number();
    if number == wanted {
        Ok(())
    } else {
        Err(TransportError::OutOfTurn { number })
    }
}

struct Request<'a> {
    service: &'a Service,
    session: &'a [u8; 32],
    packet: &'a Packet,
    user: &'a str,
}

impl Request<'_> {
    /// `fields` stand at the method.
    async fn judge(&self, mut fields: Reader<'_>) -> Result<Answer, LoginError> {
        match fields.text()? {
            "none" => Ok(Answer::Asked),
            KEY => self.judge_key(fields).await,
            PASSWORD if self.service.passwords => {
                let is_change = fields.boolean()?;
                let password = fields.text()?;
                if is_change || password.is_empty() || password.len() > MAX_PASSWORD {
                    return Ok(Answer::Failed);
                }
                let token = Secret::new(password);
                self.enter(SshCredential::Token { token }).await
            }
            _ => Ok(Answer::Failed),
        }
    }

    async fn judge_key(&self, mut fields: Reader<'_>) -> Result<Answer, LoginError> {
        let is_signed = fields.boolean()?;
        let (algorithm, blob) = (fields.text()?, fields.string()?);
        let Ok(key) = SshPublicKey::from_blob(blob) else {
            return Ok(Answer::NotOffered);
        };
        if verify(algorithm, blob, None).is_err() {
            return Ok(Answer::NotOffered);
        }
        if !is_signed {
            fields.end()?;
            let credential = SshCredential::Key { key };
            return Ok(if may_go_on(self.service, credential).await? {
                Answer::GoOn {
                    algorithm: algorithm.to_owned(),
                    blob: blob.to_vec(),
                }
            } else {
                Answer::NotOffered
            });
        }
        // Everything before the signature was signed, after the session's id.
        let before = self.packet.len() - fields.rest().len();
        let signature = fields.string()?;
        fields.end()?;
        let signed = Writer::default()
            .string(self.session)
            .raw(self.packet.get(..before).unwrap_or_default())
            .finish();
        if let Err(error) = verify(algorithm, blob, Some((&signed, signature))) {
            tracing::info!(error = %ErrorChain(&error), "An SSH signature is not taken");
            return Ok(Answer::Failed);
        }
        self.enter(SshCredential::Key { key }).await
    }

    async fn enter(&self, credential: SshCredential) -> Result<Answer, LoginError> {
        let entered = Permit::get(self.service, credential, self.user).await?;
        Ok(match entered {
            Some(entered) => Answer::Entrant(Box::new(entered)),
            None => Answer::Failed,
        })
    }
}
