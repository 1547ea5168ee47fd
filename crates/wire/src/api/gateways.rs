//! Gateways in processes of their own.

use crate::{control::ProbeReport, ids::GatewayUuid, secret::Secret};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `POST /gateways`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterGateway {
    /// Unique; letters, digits, `.`, `_` and `-`.
    pub name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gateway {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: GatewayUuid,
    pub name: String,
    /// Only in the answer to its registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub token: Option<Secret>,
    pub connected: bool,
    /// What its URLs end with, as it says itself while it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Its own way into its host's gitspaces, from the runner on, as it said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_path: Option<ProbeReport>,
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}
