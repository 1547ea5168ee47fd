//! `POST /ssh-keys`

use super::{fingerprint, show};
use crate::{
    api::{
        error::ApiError,
        extract::{Body, check_label},
    },
    identity::caller::Caller,
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::IdsExt as _;
use http::StatusCode;
use store::{SshKeyRecord, StoreError};
use wire::{
    api::{CreateSshKey, SshKey},
    problem::Problem,
    text::SshPublicKey,
};

/// Of one user.
const MAX_KEYS: usize = 50;
const MAX_NAME: usize = 100;

/// Register an SSH public key of one's own.
///
/// A key belongs to one user. What is not a public key is refused, and neither stored nor logged.
#[utoipa::path(post, path = "/ssh-keys", tag = "users", request_body = CreateSshKey, responses(
    (status = 201, body = SshKey),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
    (status = 409, description = "The key is registered already, whoever has it.", body = Problem),
))]
pub(crate) async fn create_ssh_key(
    State(state): State<AppState>,
    caller: Caller,
    Body(body): Body<CreateSshKey>,
) -> Result<(StatusCode, Json<SshKey>), ApiError> {
    let (key, comment) =
        SshPublicKey::parse_line(body.key.expose()).map_err(|error| ApiError::Invalid {
            what: "`key`".to_owned(),
            why: error.to_string(),
            hint: Some(error.hint().to_owned()),
        })?;
    let name = match body.name {
        Some(name) => name,
        // A comment is no promise: what cannot be a name is none.
        None if check_label("name", comment, MAX_NAME).is_ok() => comment.to_owned(),
        None => key.key_type().to_owned(),
    };
    check_label("name", &name, MAX_NAME)?;
    let user = caller.user.id;
    let registered = state.store.ssh_keys(user).await?.len();
    if registered >= MAX_KEYS {
        return Err(ApiError::Refused {
            code: "too_many_ssh_keys",
            message: format!("the user has {registered} SSH keys"),
            why: Some(format!("{MAX_KEYS} are the most")),
            hint: Some("delete those that are not used".to_owned()),
        });
    }
    let record = SshKeyRecord {
        id: state.ids.typed(),
        user,
        name,
        fingerprint: fingerprint(&key),
        key,
        last_used: None,
        created: state.now(),
    };
    match state.store.create_ssh_key(&record).await {
        Ok(()) => {}
        Err(StoreError::Conflict { .. }) => {
            return Err(ApiError::Taken {
                what: "the SSH key".to_owned(),
                hint: Some(
                    "`gitspace ssh-key list` shows your own; a key belongs to one user: make another with `ssh-keygen -t ed25519`"
                        .to_owned(),
                ),
            });
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(%user, key = %record.id, kind = record.key.key_type(), "SSH key registered");
    Ok((StatusCode::CREATED, Json(show(record))))
}
