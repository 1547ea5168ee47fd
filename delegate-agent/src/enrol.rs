//! Enrolment: a join token for the registration of a key this host made itself.
//!
//! The key is kept before the control plane is asked. Where the answer gets lost, the same name and key are registered once. A key that is to
//! take the place of an identity lies beside it until the control plane has taken it: whatever is refused, the identity stays as it is.

use crate::{
    ask::{CallError, call},
    identity::{Identity, IdentityError, IdentityFile},
    transport::Transport,
};
use daemon::{Clock, Exit, Hint};
use http::Method;
use std::time::Duration;
use token::Validity;
use wire::{
    control::{ENROL_PURPOSE, EnrolClaims, EnrolRequest, EnrolResponse},
    ids::DelegateUuid,
    secret::Secret,
};

const PATH: &str = "/api/v1/delegates/enroll";
const PROOF_LIFE: Duration = Duration::from_secs(60);

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
    Call(#[from] CallError),
    #[error("the control plane gave this host no id")]
    NoDelegate,
    #[error("cannot sign the request")]
    Sign {
        #[source]
        source: token::SignError,
    },
}

impl Hint for EnrolError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::AlreadyEnrolled { .. } => Some(
                "nothing is to be done; to enrol anew, run `gitspace delegate revoke NAME`, stop delegate-agent, pass --again, and start it".to_owned(),
            ),
            Self::Call(error) => error.hint(),
            Self::NoDelegate | Self::Sign { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Identity(error) => error.exit(),
            Self::AlreadyEnrolled { .. } => Exit::Usage,
            Self::Call(error) => error.exit(),
            Self::NoDelegate | Self::Sign { .. } => Exit::Failure,
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
    /// In place of an identity of before, with a key of its own.
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
    let is_beside = again && known.is_some();
    let begun = match known {
        None => None,
        Some(identity) if again => {
            file.tidy(&identity)?;
            file.load_enrolling()?
        }
        Some(identity) => match identity.delegate {
            Some(delegate) => {
                return Err(EnrolError::AlreadyEnrolled {
                    control_plane: identity.control_plane,
                    name: identity.name,
                    delegate,
                });
            }
            None => Some(identity),
        },
    };
    let mut identity = match begun {
        Some(begun) => {
            step("using the key that an unfinished enrolment made");
            Identity {
                name: name.to_owned(),
                control_plane: control_plane.clone(),
                ..begun
            }
        }
        None => {
            step("making a key");
            Identity::generate(name, &control_plane)?
        }
    };
    if is_beside {
        step(&format!("keeping the key in {}", file.next_path()));
        file.save_next(&identity)?;
    } else {
        step(&format!("keeping the key in {}", file.path()));
        file.save(&identity)?;
    }

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
    let answer: Result<EnrolResponse, CallError> =
        call(transport, Method::POST, PATH, &request, || {
            step("registering the key");
        })
        .await;
    if is_beside && matches!(&answer, Err(error) if error.is_without_effect()) {
        file.forget_next()?;
    }
    let answer = answer?;
    identity.delegate = Some(answer.delegate);
    identity.name = answer.name;
    file.save(&identity)?;
    // This key, or one of the identity before.
    file.forget_next()?;
    step(&format!(
        "enrolled as `{}` ({})",
        identity.name, answer.delegate
    ));
    Ok(identity)
}
