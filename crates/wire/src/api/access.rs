//! Users, personal access tokens, Git credentials, SSH public keys.

use crate::{
    gitspace::GitScheme,
    ids::{AccessTokenUuid, GitCredentialUuid, SshKeyUuid, UserUuid},
    secret::Secret,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: UserUuid,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    pub role: Role,
    pub disabled: bool,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, everybody's gitspaces included.
    Admin,
    /// Own gitspaces.
    Developer,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    pub name: String,
    #[serde(default)]
    pub email: Option<String>,
    pub role: Role,
}

/// `PATCH /users/{id}` (admin).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    #[serde(default)]
    pub disabled: Option<bool>,
    #[serde(default)]
    pub role: Option<Role>,
}

/// `POST /tokens` for oneself; `POST /users/{id}/tokens` by an admin.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateAccessToken {
    pub name: String,
    /// Seconds from now; 90 days where missing, a year at most.
    #[serde(default)]
    pub expires_in: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessToken {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: AccessTokenUuid,
    pub name: String,
    /// Only in the answer to its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub token: Option<Secret>,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub exp: Timestamp,
    pub revoked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_used: Option<Timestamp>,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}

/// `PUT /git-credentials`: one per user, scheme and host; sealed in the store, never shown again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PutGitCredential {
    /// It is never sent over another one. `https` where missing.
    #[serde(default, skip_serializing_if = "GitScheme::is_https")]
    pub scheme: GitScheme,
    /// `host` or `host:port`.
    pub host: String,
    pub username: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub secret: Secret,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GitCredentialInfo {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: GitCredentialUuid,
    #[serde(default)]
    pub scheme: GitScheme,
    pub host: String,
    pub username: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}

/// `POST /ssh-keys`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateSshKey {
    /// The key's comment where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One line, as in an `id_*.pub` file. A secret, because a private key that is pasted by mistake is one.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub key: Secret,
}

/// A registered SSH public key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SshKey {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: SshKeyUuid,
    pub name: String,
    /// `ssh-ed25519`, for instance.
    pub key_type: String,
    /// `SHA256:` and base64, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_used: Option<Timestamp>,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}
