//! `login`, `logout`.

use super::input;
use crate::{
    api::{Api, Object},
    config::{self, ConfigError, Environment, Login, Overrides, Stored},
    error::CliError,
    output::Output,
    text,
};
use daemon::RandomIds;
use std::{io, sync::Arc};
use wire::{
    api::{AccessToken, BOOTSTRAP_PREFIX, CreateAccessToken, Role, User},
    secret::Secret,
};

pub(super) async fn login(
    out: Output,
    overrides: &Overrides,
    environment: &Environment,
) -> Result<(), CliError> {
    let file = environment.file()?;
    // A file that cannot be read is about to be written again.
    let known = Stored::load(&file).ok().flatten();
    let url = overrides
        .url
        .clone()
        .or_else(|| known.map(|known| known.url))
        .ok_or_else(|| {
            CliError::usage(
                "the URL of the control plane is missing",
                "gitspace login --url URL < TOKEN_FILE",
            )
        })?;
    let base = config::base(&url, "--url")?;
    if !base.origin.https && !base.origin.is_loopback() {
        out.note(&format!(
            "warning: {} is not encrypted: the token crosses the network in clear",
            text::line(&base.to_string())
        ));
    }
    let token = match (&overrides.token_file, &environment.token) {
        (Some(path), _) => config::token_from_file(path)?,
        (None, Some(token)) => config::check_token(token, "GITSPACES_TOKEN")?,
        (None, None) => {
            config::check_token(input::secret("personal access token")?.expose(), "stdin")?
        }
    };
    let ca_file = match &overrides.ca_file {
        // The next command may run in another folder.
        Some(path) => Some(
            path.canonicalize_utf8()
                .map_err(|source| ConfigError::Read {
                    path: path.clone(),
                    source,
                })?,
        ),
        None => None,
    };
    let login = |token: &Secret| Login {
        base: base.clone(),
        token: token.clone(),
        ca_file: ca_file.clone(),
    };
    let save = |token: &Secret| {
        Stored {
            url: base.to_string(),
            token: token.clone(),
            ca_file: ca_file.clone(),
        }
        .save(&file)
    };
    let api = Api::new(login(&token), Arc::new(RandomIds));
    let me: Object<User> = if token.expose().starts_with(BOOTSTRAP_PREFIX) {
        let own = own_token(&api).await?;
        // Kept before it is used: its first use ends the bootstrap token.
        save(&own)?;
        Api::new(login(&own), Arc::new(RandomIds))
            .get("/me")
            .await?
    } else {
        let me = api.get("/me").await?;
        save(&token)?;
        me
    };
    out.show(&me, || {
        let role = match me.it.role {
            Role::Admin => "admin",
            Role::Developer => "developer",
        };
        Ok(format!(
            "logged in to {base} as {} ({role})\n",
            text::line(&me.it.name)
        ))
    })
}

/// A token of one's own in exchange for the bootstrap token, which is not for keeping.
async fn own_token(api: &Api) -> Result<Secret, CliError> {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    let body = CreateAccessToken {
        name: format!("gitspace login {host}").trim().to_owned(),
        expires_in: None,
    };
    let made: Object<AccessToken> = api.post("/tokens", &body).await?;
    made.it
        .token
        .ok_or_else(|| CliError::NoToken { url: api.url() })
}

pub(super) fn logout(out: Output, environment: &Environment) -> Result<(), CliError> {
    let file = environment.file()?;
    match std::fs::remove_file(&file) {
        Ok(()) => {
            out.note(
                "logged out; the token itself is still good: `gitspace token revoke` ends one",
            );
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CliError::Write { path: file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::Format,
        test_server::{full, json, serve},
    };
    use camino::Utf8PathBuf;
    use daemon::write_atomic;
    use serde_json::json;

    #[tokio::test]
    async fn a_bootstrap_token_is_exchanged_for_one_to_keep() {
        let id = "00000000-0000-4000-8000-00000000000a";
        let time = "2026-01-01T00:00:00Z";
        let port = serve(move |request| async move {
            let header = request.headers().get("authorization").unwrap();
            let asked = (request.method().as_str(), request.uri().path());
            Ok(match (asked, header.to_str().unwrap()) {
                (("POST", "/api/v1/tokens"), "Bearer gsb_first") => json(
                    201,
                    &json!({"id": id, "name": "x", "token": "gsp_own", "exp": time, "revoked": false, "created": time}),
                ),
                (("GET", "/api/v1/me"), "Bearer gsp_own") => json(
                    200,
                    &json!({"id": id, "name": "admin", "role": "admin", "disabled": false, "created": time}),
                ),
                _ => full(401, "{}"),
            })
        })
        .await;
        let guard = tempfile::tempdir().unwrap();
        let home = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
        let token_file = home.join("admin-token");
        write_atomic(&token_file, b"gsb_first\n", 0o600).unwrap();
        let environment = Environment {
            config_home: Some(home),
            ..Environment::default()
        };
        let overrides = Overrides {
            url: Some(format!("http://127.0.0.1:{port}")),
            token_file: Some(token_file),
            ca_file: None,
        };
        let out = Output {
            format: Format::Json,
        };
        login(out, &overrides, &environment).await.unwrap();
        let kept = Stored::load(&environment.file().unwrap()).unwrap().unwrap();
        assert_eq!(kept.token.expose(), "gsp_own");
    }
}
