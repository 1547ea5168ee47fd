//! `PUT /git-credentials`

use crate::{
    api::{
        error::ApiError,
        extract::{Body, check_label},
    },
    identity::{caller::Caller, credentials::seal_credential},
    state::AppState,
};
use axum::{Json, extract::State};
use daemon::IdsExt as _;
use store::GitCredentialRecord;
use url::Url;
use wire::{
    api::{GitCredentialInfo, PutGitCredential},
    gitspace::GitScheme,
    problem::Problem,
};

const MAX_SECRET: usize = 8 * 1024;
/// Of one user; all of them go with every task.
const MAX_CREDENTIALS: usize = 50;

/// Store user and password (or token) for a Git host. It replaces the one before and is never shown again.
#[utoipa::path(put, path = "/git-credentials", tag = "users", request_body = PutGitCredential, responses(
    (status = 200, body = GitCredentialInfo),
    (status = 400, body = Problem),
    (status = 401, body = Problem),
))]
pub(crate) async fn put_git_credential(
    State(state): State<AppState>,
    caller: Caller,
    Body(body): Body<PutGitCredential>,
) -> Result<Json<GitCredentialInfo>, ApiError> {
    check_host(body.scheme, &body.host)?;
    check_label("username", &body.username, 255)?;
    let length = body.secret.expose().len();
    if !(1..=MAX_SECRET).contains(&length) {
        return Err(ApiError::invalid(
            "`secret`",
            format!("it has {length} bytes; 1 to {MAX_SECRET} are taken"),
        ));
    }
    let user = caller.user.id;
    let stored = state.store.git_credentials(user).await?;
    let is_replacement = stored
        .iter()
        .any(|found| found.host == body.host && found.scheme == body.scheme);
    if !is_replacement && stored.len() >= MAX_CREDENTIALS {
        return Err(ApiError::Refused {
            code: "too_many_credentials",
            message: format!("the user has {} Git credentials", stored.len()),
            why: Some(format!("{MAX_CREDENTIALS} are the most")),
            hint: Some("delete those that are not used".to_owned()),
        });
    }
    let sealed = seal_credential(&state.seal, user, (body.scheme, &body.host), &body.secret)
        .map_err(|error| ApiError::internal("sealing a Git credential", error))?;
    let record = state
        .store
        .put_git_credential(&GitCredentialRecord {
            id: state.ids.typed(),
            user,
            scheme: body.scheme,
            host: body.host,
            username: body.username,
            sealed,
            created: state.now(),
        })
        .await?;
    Ok(Json(super::list_git_credentials::show(record)))
}

/// `host` or `host:port`, spelled as `RepoUrl::host_and_port` spells it, because the two are compared exactly.
fn check_host(scheme: GitScheme, text: &str) -> Result<(), ApiError> {
    let spelled = Url::parse(&format!("{}://{text}/", scheme.as_str()))
        .ok()
        .filter(|url| url.path() == "/" && url.username().is_empty() && url.password().is_none())
        .and_then(|url| match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => Some(format!("{host}:{port}")),
            (Some(host), None) => Some(host.to_owned()),
            (None, _) => None,
        });
    if text.len() <= 255 && spelled.as_deref() == Some(text) {
        Ok(())
    } else {
        Err(ApiError::Invalid {
            what: "`host`".to_owned(),
            why: "it is not `host` or `host:port`".to_owned(),
            hint: Some(
                "write it in lower case, with the scheme in `scheme`, and without the port where it is the scheme's own"
                    .to_owned(),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_spelled_as_repository_urls_spell_it() {
        for good in [
            "example.com",
            "127.0.0.1:3000",
            "git.example.com:8443",
            "[::1]:3000",
        ] {
            check_host(GitScheme::Https, good).expect(good);
        }
        for bad in [
            "",
            "Example.com",
            "https://example.com",
            "example.com/x",
            "example.com:443",
            "u@example.com",
            "example.com:99999",
            "a b",
            "example.com#x",
            "example.com?x",
        ] {
            assert!(check_host(GitScheme::Https, bad).is_err(), "took {bad:?}");
        }
        check_host(GitScheme::Http, "example.com:443").expect("not the port of http");
        assert!(check_host(GitScheme::Http, "example.com:80").is_err());
    }
}
