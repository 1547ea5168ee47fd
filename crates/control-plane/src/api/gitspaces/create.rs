//! `POST /gitspaces`

use super::show_record;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, check_name},
        guard::Trace,
        idempotency::IdempotencyKey,
    },
    identity::caller::Caller,
    orchestrator::{CreateDenied, NewGitspace},
    state::AppState,
};
use axum::{Extension, Json, extract::State};
use daemon::IdsExt as _;
use http::StatusCode;
use jiff::SignedDuration;
use newtype_uuid::GenericUuid as _;
use sha2::{Digest as _, Sha256};
use store::{GitspaceRecord, MachineSnapshot};
use wire::{
    api::{CreateGitspace, Gitspace},
    ids::{GitspaceUuid, UserUuid},
    problem::Problem,
    text::{GitspaceName, MAX_NAME, Slug},
};

/// Names tried for a gitspace whose user gave none, and slugs tried for each.
const MAX_TRIES: u32 = 32;
/// Within this a repeated request means the gitspace that the first one made.
const REPEATED_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// Make a gitspace from a repository, and start it.
#[utoipa::path(post, path = "/gitspaces", tag = "gitspaces", request_body = CreateGitspace, responses(
    (status = 201, body = Gitspace),
    (status = 400, description = "The URL, ref, name or machine is not taken.", body = Problem),
    (status = 401, body = Problem),
    (status = 409, description = "An own gitspace has this name.", body = Problem),
    (status = 503, description = "No gateway leads into gitspaces.", body = Problem),
))]
pub(crate) async fn create_gitspace(
    State(state): State<AppState>,
    caller: Caller,
    trace: Trace,
    key: Option<Extension<IdempotencyKey>>,
    Body(body): Body<CreateGitspace>,
) -> Result<(StatusCode, Json<Gitspace>), ApiError> {
    let machine = machine(&state, body.machine.as_deref()).await?;
    let id = match key {
        None => state.ids.typed(),
        Some(Extension(key)) => {
            let id = id_of_key(caller.user.id, &key.0);
            match state.store.gitspace(id).await? {
                None => id,
                Some(made) if is_repetition(&state, &caller, &made) => {
                    return Ok((StatusCode::CREATED, Json(show_record(&state, made))));
                }
                // The key is an old one, used again.
                Some(_) => state.ids.typed(),
            }
        }
    };
    state.gateways.check()?;
    let wanted = NewGitspace {
        id,
        owner: caller.user.id,
        owner_name: caller.user.name.clone(),
        name: body
            .name
            .clone()
            .unwrap_or_else(|| GitspaceName::nearest(body.repo.url.repository_name())),
        slug: slug(&state, &GitspaceName::nearest("x"))?,
        repo: body.repo,
        machine,
        start: body.start,
        trace: trace.0,
    };
    let record = make(&state, wanted, body.name.is_some()).await?;
    Ok((StatusCode::CREATED, Json(show_record(&state, record))))
}

async fn machine(state: &AppState, name: Option<&str>) -> Result<MachineSnapshot, ApiError> {
    let found = match name {
        Some(name) => {
            check_name("machine", name, 64)?;
            state.store.machine_by_name(name).await?
        }
        None => state.store.default_machine().await?,
    };
    let machine = found.ok_or_else(|| ApiError::Invalid {
        what: "`machine`".to_owned(),
        why: match name {
            Some(name) => format!("there is no machine `{name}`"),
            None => "no machine is the default one".to_owned(),
        },
        hint: Some("`GET /api/v1/machines` lists them".to_owned()),
    })?;
    Ok(MachineSnapshot {
        name: machine.name,
        resources: machine.resources,
        infra_provider: machine.infra_provider,
    })
}

/// Made under one key, a gitspace has one id.
fn id_of_key(user: UserUuid, key: &str) -> GitspaceUuid {
    let mut digest = Sha256::new();
    digest.update(b"gitspaces idempotent create v1");
    digest.update(user.into_untyped_uuid().as_bytes());
    digest.update(key.as_bytes());
    let hash: [u8; 32] = digest.finalize().into();
    let (start, _) = hash.split_at(16);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(start);
    GitspaceUuid::from_untyped_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

fn is_repetition(state: &AppState, caller: &Caller, made: &GitspaceRecord) -> bool {
    made.owner == caller.user.id
        && made.deleted.is_none()
        && state.now().duration_since(made.created) < REPEATED_WITHIN
}

/// Makes it under the name wanted, or, where the user wants none, under one that is free.
async fn make(
    state: &AppState,
    wanted: NewGitspace,
    is_named: bool,
) -> Result<GitspaceRecord, ApiError> {
    let base = wanted.name.clone();
    let mut number = 1;
    for _ in 0..MAX_TRIES {
        let name = numbered(&base, number);
        let try_it = NewGitspace {
            slug: slug(state, &name)?,
            name,
            ..wanted.clone()
        };
        let name = try_it.name.clone();
        match state.orchestrator.create(try_it).await {
            Ok(record) => return Ok(record),
            Err(CreateDenied::Orchestrator(error)) => return Err(error.into()),
            Err(CreateDenied::Conflict { .. }) => {
                let taken = state
                    .store
                    .gitspace_by_name(wanted.owner, &name)
                    .await?
                    .is_some();
                match (taken, is_named) {
                    // It was the slug.
                    (false, _) => {}
                    (true, true) => {
                        return Err(ApiError::Taken {
                            what: format!("the name `{name}`"),
                            hint: Some("choose another name, or delete that gitspace".to_owned()),
                        });
                    }
                    (true, false) => number += 1,
                }
            }
        }
    }
    Err(ApiError::Taken {
        what: format!("every name like `{base}`"),
        hint: Some("choose a name".to_owned()),
    })
}

fn numbered(base: &GitspaceName, number: u32) -> GitspaceName {
    if number == 1 {
        return base.clone();
    }
    let end = format!("-{number}");
    let start: String = base
        .as_str()
        .chars()
        .take(MAX_NAME.saturating_sub(end.len()))
        .collect();
    GitspaceName::nearest(&format!("{}{end}", start.trim_end_matches('-')))
}

/// `<name>-<6 random characters>`.
fn slug(state: &AppState, name: &GitspaceName) -> Result<Slug, ApiError> {
    const ALPHABET: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r',
        's', 't', 'u', 'v', 'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7',
    ];
    let mut bits = state.ids.uuid().as_u128();
    let mut text = format!("{name}-");
    for _ in 0..6 {
        let index = usize::try_from(bits & 31).unwrap_or_default();
        text.push(ALPHABET.get(index).copied().unwrap_or('a'));
        bits >>= 5;
    }
    Slug::try_from(text).map_err(|error| ApiError::internal("making a slug", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_name_is_still_a_name() {
        for base in [
            "demo",
            "x",
            &"x".repeat(MAX_NAME),
            "abcdefghijklmnopqrstuvwxyz-abc-a",
        ] {
            let base: GitspaceName = base.parse().unwrap();
            for number in [1, 2, 32] {
                let name = numbered(&base, number);
                name.as_str().parse::<GitspaceName>().unwrap();
                assert_eq!(number == 1, name == base, "{name}");
            }
        }
    }
}
