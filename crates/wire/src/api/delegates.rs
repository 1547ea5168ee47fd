//! Delegates, join tokens and infra providers.

use crate::{
    control::{Disconnect, DisconnectCode, Hop, Inventory, KeyState, ProbeReport},
    gitspace::ObservedState,
    ids::{DelegateUuid, GitspaceUuid, InfraProviderUuid, JoinTokenUuid},
    secret::Secret,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delegate {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: DelegateUuid,
    pub name: String,
    pub tags: Vec<String>,
    pub connected: bool,
    pub draining: bool,
    pub runner_ready: bool,
    /// Starts that failed in a row for a reason of the host's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_starts: u32,
    /// It failed so many that others are preferred until then at least, and until a probe finds the way whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub suspect_until: Option<Timestamp>,
    /// Why starts go to others where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_rotation: Option<String>,
    /// The way through it into its gitspaces; missing before the first probe of a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_path: Option<DataPath>,
    pub revoked: bool,
    /// Which key it proves itself with; `None` from a control plane that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// Gitspaces placed on it.
    pub gitspaces: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_seen: Option<Timestamp>,
    /// Why its last connection ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_disconnect: Option<Disconnect>,
    /// Why the control plane last refused a peer that said to be this delegate; forgotten when the delegate gets in, where it was the delegate's
    /// own fault, and when the control plane restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refused: Option<RefusedDelegate>,
    /// Another process has its identity: the two throw each other out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<ClonedDelegate>,
    /// What its host holds of gitspaces that no record accounts for: they are kept until an administrator has them removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unaccounted_gitspaces: Vec<UnaccountedGitspace>,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The way from the control plane into a delegate's gitspaces, as the last probe found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DataPath {
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Since when each probe finds it so.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// The part at which it ends, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_at: Option<Hop>,
    pub report: ProbeReport,
}

/// A connection of a delegate that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedDelegate {
    pub code: DisconnectCode,
    /// In words.
    pub reason: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
}

/// Two processes with one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClonedDelegate {
    /// Names of the hosts they run on, as they say; two hosts made of one image may have the same.
    pub hosts: Vec<String>,
    /// When one of them was last seen to throw the other out.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub seen: Timestamp,
}

/// A gitspace on a delegate's host of which the control plane has no record, or one on a delegate that is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnaccountedGitspace {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: GitspaceUuid,
    pub state: ObservedState,
    /// Since when the host's runner sees it so.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// Its removal was ordered and is under way.
    pub removing: bool,
}

/// `POST /join-tokens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateJoinToken {
    /// Seconds from now; a day where missing, 30 days at most.
    #[serde(default)]
    pub expires_in: Option<u32>,
    /// Enrolments it is good for; 1 where missing.
    #[serde(default)]
    pub uses: Option<u32>,
    #[serde(default)]
    pub comment: Option<String>,
    /// Name of a revoked delegate that is to come back, with its gitspaces; good for nothing else then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinToken {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: JoinTokenUuid,
    /// Only in the answer to its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub token: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The delegate that comes back by it; missing where it makes delegates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub delegate: Option<DelegateUuid>,
    pub uses_left: u32,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub exp: Timestamp,
    pub revoked: bool,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}

/// Where machines come from: delegates that match all selectors, through one kind of provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InfraProvider {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: InfraProviderUuid,
    pub name: String,
    pub kind: InfraProviderKind,
    /// All have to match a delegate's tags or name.
    pub selectors: Vec<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InfraProviderKind {
    /// The delegate's host and its Docker.
    Host,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateInfraProvider {
    pub name: String,
    pub kind: InfraProviderKind,
    #[serde(default)]
    pub selectors: Vec<String>,
}
