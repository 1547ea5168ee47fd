//! Enrolment: a join token for the registration of a key this host made itself.
//!
//! The key is kept before the control plane is asked. Where the answer gets lost, the same name and key are registered once.

use crate::{
    ask::{AskError, ask},
    identity::{Identity, IdentityError, IdentityFile},
    transport::Transport,
};
use bytes::Bytes;
use daemon::{Clock, Exit, Hint};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use std::time::Duration;
use token::Validity;
use wire::{
    control::{ENROL_PURPOSE, EnrolClaims, EnrolRequest, EnrolResponse},
    ids::DelegateUuid,
    problem::Problem,
    secret::Secret,
};

const PATH: &str = "/api/v1/delegates/enroll";
const PROOF_LIFE: Duration = Duration::from_secs(60);
/// Of an answer that is not ours.
const MAX_QUOTE: usize = 300;

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this host is enrolled at `{control_plane}` as `{name}` ({delegate})")]
    AlreadyEnrolled {
        control_plane: String,
        name: String,
        delegate: DelegateUuid,
    },
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot sign the request")]
    Sign {
        #[source]
        source: token::SignError,
    },
    #[error("cannot write the request")]
    Request {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the control plane refuses: {problem}")]
    Refused {
        status: StatusCode,
        problem: Box<Problem>,
    },
    #[error("`{control_plane}` does not answer as a control plane does: {status}: {quote}")]
    NotAControlPlane {
        control_plane: String,
        status: StatusCode,
        quote: String,
    },
}

impl Hint for EnrolError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::AlreadyEnrolled { .. } => Some(
                "nothing is to be done; to enrol anew, revoke the delegate, stop delegate-agent and pass --again".to_owned(),
            ),
            Self::Ask(error) => error.hint(),
            Self::Refused { problem, .. } => problem.hint.clone(),
            Self::NotAControlPlane { .. } => {
                Some("check the URL: it is that of the control plane, without a path".to_owned())
            }
            Self::Sign { .. } | Self::Request { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Identity(error) => error.exit(),
            Self::AlreadyEnrolled { .. } | Self::NotAControlPlane { .. } => Exit::Usage,
            Self::Ask(error) => error.exit(),
            Self::Refused { status, .. } if status.is_server_error() => Exit::TryAgain,
            Self::Refused { .. } => Exit::Refused,
            Self::Sign { .. } | Self::Request { .. } => Exit::Failure,
        }
    }
}

/// What to enrol as.
#[derive(Debug)]
pub struct Enrolment<'a> {
    pub transport: &'a Transport,
    pub file: &'a IdentityFile,
    pub name: &'a str,
    pub tags: &'a [String],
    pub join_token: Secret,
    /// Throw an identity of before away, and make a new key.
    pub again: bool,
}

/// Enrols and keeps the identity. `step` hears of each step as it is begun.
///
/// # Errors
/// See [`EnrolError`].
pub async fn enrol(
    enrolment: Enrolment<'_>,
    clock: &dyn Clock,
    mut step: impl FnMut(&str),
) -> Result<Identity, EnrolError> {
    let Enrolment {
        transport,
        file,
        name,
        tags,
        join_token,
        again,
    } = enrolment;
    let control_plane = transport.origin().ascii();
    let known = file.load()?;
    let mut identity = match known {
        Some(identity) if !again => match identity.delegate {
            Some(delegate) => {
                return Err(EnrolError::AlreadyEnrolled {
                    control_plane: identity.control_plane,
                    name: identity.name,
                    delegate,
                });
            }
            None => {
                step("using the key that an unfinished enrolment made");
                Identity {
                    name: name.to_owned(),
                    control_plane: control_plane.clone(),
                    ..identity
                }
            }
        },
        Some(_) | None => {
            step("making a key");
            Identity::generate(name, &control_plane)?
        }
    };
    step(&format!("keeping the key in {}", file.path()));
    file.save(&identity)?;

    let Validity { iat, exp } = Validity::starting(clock.now(), PROOF_LIFE);
    let claims = EnrolClaims {
        audience: control_plane.clone(),
        name: name.to_owned(),
        iat,
        exp,
    };
    let proof = token::sign(&claims, &identity.key, ENROL_PURPOSE)
        .map_err(|source| EnrolError::Sign { source })?;
    let request = EnrolRequest {
        join_token,
        name: name.to_owned(),
        tags: tags.to_vec(),
        public_key: identity.key.public().to_string(),
        proof,
    };
    step(&format!("connecting to {control_plane}"));
    let answer = post(transport, &request, || step("registering the key")).await?;
    identity.delegate = Some(answer.delegate);
    identity.name = answer.name;
    file.save(&identity)?;
    step(&format!(
        "enrolled as `{}` ({})",
        identity.name, answer.delegate
    ));
    Ok(identity)
}

async fn post(
    transport: &Transport,
    body: &EnrolRequest,
    connected: impl FnOnce(),
) -> Result<EnrolResponse, EnrolError> {
    let control_plane = transport.origin().ascii();
    let request = serde_json::to_vec(body)
        .map_err(Into::into)
        .and_then(|json| {
            Request::post(PATH)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json")
                .body(Full::new(Bytes::from(json)))
                .map_err(Into::into)
        })
        .map_err(|source| EnrolError::Request { source })?;
    let (head, bytes) = ask(transport, request, connected).await?.into_parts();
    let status = head.status;
    let quote = || {
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .take(MAX_QUOTE)
            .collect();
        text.escape_debug().to_string()
    };
    if status.is_success() {
        serde_json::from_slice(&bytes).map_err(|_| EnrolError::NotAControlPlane {
            control_plane: control_plane.clone(),
            status,
            quote: quote(),
        })
    } else {
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(EnrolError::Refused {
                status,
                problem: Box::new(problem),
            }),
            Err(_) => Err(EnrolError::NotAControlPlane {
                control_plane: control_plane.clone(),
                status,
                quote: quote(),
            }),
        }
    }
}
