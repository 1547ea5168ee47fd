//! `token`, `user`, `git-credential`.

use super::{Context, input};
use crate::{
    api::Object,
    args::{GitCredentialCommand, TokenCommand, UserCommand},
    error::CliError,
    output::Format,
    text,
};
use wire::{
    api::{
        AccessToken, CreateAccessToken, CreateUser, GitCredentialInfo, PutGitCredential, Role,
        UpdateUser, User,
    },
    gitspace::GitScheme,
    secret::Secret,
};

/// Something that is shown once: alone on stdout, so that it can go to a file, with a remark on stderr.
pub(super) fn once<T>(
    context: &Context,
    whole: &Object<T>,
    secret: Option<&Secret>,
    remark: &str,
) -> Result<(), CliError> {
    match (context.out.format, secret) {
        (Format::Json, _) => context.out.json(whole),
        (Format::Text, Some(secret)) => {
            context
                .out
                .raw(&format!("{}\n", text::line(secret.expose())))?;
            context.out.note(remark);
            Ok(())
        }
        (Format::Text, None) => Err(CliError::NoToken {
            url: context.api.url(),
        }),
    }
}

pub(super) async fn token(context: &Context, args: TokenCommand) -> Result<(), CliError> {
    match args {
        TokenCommand::Create {
            name,
            expires,
            user,
        } => {
            let body = CreateAccessToken {
                name,
                expires_in: expires,
            };
            let path = match &user {
                None => "/tokens".to_owned(),
                Some(user) => format!("/users/{}/tokens", find_user(context, user).await?.it.id),
            };
            let token: Object<AccessToken> = context.api.post(&path, &body).await?;
            let remark = format!(
                "token {} expires {:.0}; shown this once",
                token.it.id, token.it.exp
            );
            once(context, &token, token.it.token.as_ref(), &remark)
        }
        TokenCommand::List => {
            let tokens: Vec<Object<AccessToken>> = context.api.list("/tokens").await?;
            context.out.show(&tokens, || {
                let now = context.clock.now();
                let rows: Vec<_> = tokens
                    .iter()
                    .map(|token| {
                        let it = &token.it;
                        let used = it.last_used.map(|time| text::relative(time, now));
                        vec![
                            it.id.to_string(),
                            it.name.clone(),
                            if it.revoked { "revoked" } else { "" }.to_owned(),
                            text::relative(it.exp, now),
                            used.unwrap_or_default(),
                        ]
                    })
                    .collect();
                Ok(text::table(
                    &["ID", "NAME", "STATE", "EXPIRES", "LAST USED"],
                    &rows,
                ))
            })
        }
        TokenCommand::Revoke { id } => {
            context.api.delete(&format!("/tokens/{id}")).await?;
            Ok(())
        }
    }
}

async fn find_user(context: &Context, name: &str) -> Result<Object<User>, CliError> {
    let users: Vec<Object<User>> = context.api.list("/users").await?;
    users
        .into_iter()
        .find(|user| user.it.name == name || user.it.id.to_string() == name)
        .ok_or_else(|| CliError::NotFound {
            what: "user",
            name: name.to_owned(),
        })
}

pub(super) async fn user(context: &Context, args: UserCommand) -> Result<(), CliError> {
    match args {
        UserCommand::Create { name, email, role } => {
            let body = CreateUser {
                name,
                email,
                role: role.into(),
            };
            let user: Object<User> = context.api.post("/users", &body).await?;
            users(context, &user, std::slice::from_ref(&user))
        }
        UserCommand::List => {
            let all: Vec<Object<User>> = context.api.list("/users").await?;
            users(context, &all, &all)
        }
        UserCommand::Disable { name } => set_disabled(context, &name, true).await,
        UserCommand::Enable { name } => set_disabled(context, &name, false).await,
    }
}

async fn set_disabled(context: &Context, name: &str, disabled: bool) -> Result<(), CliError> {
    let id = find_user(context, name).await?.it.id;
    let body = UpdateUser {
        disabled: Some(disabled),
        ..UpdateUser::default()
    };
    let user: Object<User> = context.api.patch(&format!("/users/{id}"), &body).await?;
    users(context, &user, std::slice::from_ref(&user))
}

fn users<T: serde::Serialize>(
    context: &Context,
    json: &T,
    users: &[Object<User>],
) -> Result<(), CliError> {
    context.out.show(json, || {
        let rows: Vec<_> = users
            .iter()
            .map(|user| {
                let it = &user.it;
                let role = match it.role {
                    Role::Admin => "admin",
                    Role::Developer => "developer",
                };
                vec![
                    it.name.clone(),
                    role.to_owned(),
                    it.email.clone().unwrap_or_default(),
                    if it.disabled { "disabled" } else { "" }.to_owned(),
                ]
            })
            .collect();
        Ok(text::table(&["NAME", "ROLE", "EMAIL", "STATE"], &rows))
    })
}

pub(super) async fn git_credential(
    context: &Context,
    args: GitCredentialCommand,
) -> Result<(), CliError> {
    match args {
        GitCredentialCommand::Set { host, user } => {
            let (scheme, host) = GitScheme::split(&host);
            let body = PutGitCredential {
                scheme,
                host: host.to_owned(),
                username: user,
                secret: input::secret("Git password or token")?,
            };
            let kept: Object<GitCredentialInfo> =
                context.api.put("/git-credentials", &body).await?;
            credentials(context, &kept, std::slice::from_ref(&kept))
        }
        GitCredentialCommand::List => {
            let all: Vec<Object<GitCredentialInfo>> = context.api.list("/git-credentials").await?;
            credentials(context, &all, &all)
        }
        GitCredentialCommand::Delete { id } => {
            context
                .api
                .delete(&format!("/git-credentials/{id}"))
                .await?;
            Ok(())
        }
    }
}

fn credentials<T: serde::Serialize>(
    context: &Context,
    json: &T,
    credentials: &[Object<GitCredentialInfo>],
) -> Result<(), CliError> {
    context.out.show(json, || {
        let now = context.clock.now();
        let rows: Vec<_> = credentials
            .iter()
            .map(|credential| {
                let it = &credential.it;
                vec![
                    it.id.to_string(),
                    it.scheme.spell(&it.host),
                    it.username.clone(),
                    text::relative(it.created, now),
                ]
            })
            .collect();
        Ok(text::table(&["ID", "HOST", "USER", "CREATED"], &rows))
    })
}
