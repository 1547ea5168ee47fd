//! Users, personal access tokens, Git credentials.

pub(crate) mod create_token;
pub(crate) mod create_token_for;
pub(crate) mod create_user;
pub(crate) mod delete_git_credential;
pub(crate) mod list_git_credentials;
pub(crate) mod list_tokens;
pub(crate) mod list_tokens_of;
pub(crate) mod list_users;
pub(crate) mod put_git_credential;
pub(crate) mod revoke_token;
pub(crate) mod update_user;

use store::{AccessTokenRecord, UserRecord};
use wire::api::{AccessToken, User};

pub(crate) fn show_user(user: UserRecord) -> User {
    User {
        id: user.id,
        name: user.name,
        email: user.email,
        role: user.role,
        disabled: user.disabled,
        created: user.created,
    }
}

fn show_token(record: AccessTokenRecord) -> AccessToken {
    AccessToken {
        id: record.id,
        name: record.name,
        token: None,
        exp: record.exp,
        revoked: record.revoked,
        last_used: record.last_used,
        created: record.created,
    }
}
