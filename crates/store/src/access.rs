//! What lets a user in, and what makes a repeated request harmless.

use crate::{Answer, Hash, UserRecord};
use jiff::Timestamp;
use wire::gitspace::GitScheme;
use wire::ids::{AccessTokenUuid, GitCredentialUuid, GitspaceUuid, UserUuid};

/// A personal access token, without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenRecord {
    pub id: AccessTokenUuid,
    pub user: UserUuid,
    pub name: String,
    pub hash: Hash,
    pub exp: Timestamp,
    pub revoked: bool,
    pub last_used: Option<Timestamp>,
    pub created: Timestamp,
}

/// A browser's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Of the cookie's value.
    pub hash: Hash,
    pub user: UserUuid,
    /// What a form or script has to send back.
    pub csrf: String,
    pub exp: Timestamp,
    pub created: Timestamp,
}

/// A one-time code: becomes a grant for one origin, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRecord {
    pub hash: Hash,
    pub gitspace: GitspaceUuid,
    /// `None` for the workspace's origin.
    pub port: Option<u16>,
    pub user: UserUuid,
    pub return_to: String,
    pub exp: Timestamp,
    pub created: Timestamp,
}

/// The first sight of a request that may be repeated.
#[derive(Clone, Debug)]
pub struct IdempotencyClaim {
    pub user: UserUuid,
    pub key: String,
    /// Of method, path and body.
    pub request: Hash,
    pub now: Timestamp,
    /// A claim made before this whose request never ended (its process died) is free again.
    pub abandoned_before: Timestamp,
    /// The answer is kept until this.
    pub exp: Timestamp,
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing: carry the request out, then complete or release the claim.
    Fresh,
    /// The first request is still being carried out.
    InProgress { request: Hash },
    /// It was carried out; this was its answer.
    Done {
        request: Hash,
        status: u16,
        body: Vec<u8>,
    },
}

/// User and secret for one Git host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitCredentialRecord {
    pub id: GitCredentialUuid,
    pub user: UserUuid,
    pub scheme: GitScheme,
    /// `host` or `host:port`; one per user, scheme and host.
    pub host: String,
    pub username: String,
    /// Sealed by the caller.
    pub sealed: Vec<u8>,
    pub created: Timestamp,
}

pub trait AccessStore {
    fn create_access_token<'a>(&'a self, token: &'a AccessTokenRecord) -> Answer<'a, ()>;
    /// With its user. Whether it has expired, is revoked or its user is disabled is for the caller to see.
    fn access_token_by_hash<'a>(
        &'a self,
        hash: &'a Hash,
    ) -> Answer<'a, Option<(AccessTokenRecord, UserRecord)>>;
    /// A user's, newest first.
    fn access_tokens(&self, user: UserUuid) -> Answer<'_, Vec<AccessTokenRecord>>;
    /// Whether there was such a token of that user (`None`: of any).
    fn revoke_access_token(&self, id: AccessTokenUuid, user: Option<UserUuid>) -> Answer<'_, bool>;
    /// Whose it is.
    fn access_token_owner(&self, id: AccessTokenUuid) -> Answer<'_, Option<UserUuid>>;
    /// Never goes back.
    fn touch_access_token(&self, id: AccessTokenUuid, at: Timestamp) -> Answer<'_, ()>;

    fn create_session<'a>(&'a self, session: &'a SessionRecord) -> Answer<'a, ()>;
    fn session_by_hash<'a>(
        &'a self,
        hash: &'a Hash,
    ) -> Answer<'a, Option<(SessionRecord, UserRecord)>>;
    fn delete_session<'a>(&'a self, hash: &'a Hash) -> Answer<'a, ()>;
    fn delete_sessions_of(&self, user: UserUuid) -> Answer<'_, ()>;

    fn create_code<'a>(&'a self, code: &'a CodeRecord) -> Answer<'a, ()>;
    /// Takes the code if it is for this gitspace and port, unused and not expired. Of two calls at once, one gets it.
    /// A code presented at another origin is void afterwards.
    fn consume_code<'a>(
        &'a self,
        hash: &'a Hash,
        gitspace: GitspaceUuid,
        port: Option<u16>,
        now: Timestamp,
    ) -> Answer<'a, Option<CodeRecord>>;

    /// Of two calls at once, one gets `Fresh`.
    fn claim_idempotency<'a>(&'a self, claim: &'a IdempotencyClaim) -> Answer<'a, Claimed>;
    fn complete_idempotency<'a>(
        &'a self,
        user: UserUuid,
        key: &'a str,
        status: u16,
        body: &'a [u8],
    ) -> Answer<'a, ()>;
    /// The request was refused before anything was done: the key may be used again.
    fn release_idempotency<'a>(&'a self, user: UserUuid, key: &'a str) -> Answer<'a, ()>;

    /// Replaces the user's credential for that host. Answers with the one stored (the id of the first is kept).
    fn put_git_credential<'a>(
        &'a self,
        credential: &'a GitCredentialRecord,
    ) -> Answer<'a, GitCredentialRecord>;
    fn git_credentials(&self, user: UserUuid) -> Answer<'_, Vec<GitCredentialRecord>>;
    /// Whether that user had it.
    fn delete_git_credential(&self, user: UserUuid, id: GitCredentialUuid) -> Answer<'_, bool>;
}
