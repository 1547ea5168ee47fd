//! What an operator sets up: infra providers, machines, gateways; and small things with a key.

use crate::{Answer, Hash};
use jiff::Timestamp;
use wire::{
    api::InfraProviderKind,
    gateway::Revocation,
    gitspace::Resources,
    ids::{GatewayUuid, InfraProviderUuid, MachineUuid},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfraProviderRecord {
    pub id: InfraProviderUuid,
    /// Unique.
    pub name: String,
    pub kind: InfraProviderKind,
    /// All have to match a delegate's name or tags.
    pub selectors: Vec<String>,
    pub created: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineRecord {
    pub id: MachineUuid,
    /// Unique.
    pub name: String,
    pub infra_provider: InfraProviderUuid,
    /// Read only: it is the provider's.
    pub infra_provider_name: String,
    pub resources: Resources,
    pub is_default: bool,
    pub created: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRecord {
    pub id: GatewayUuid,
    /// Unique.
    pub name: String,
    pub token_hash: Hash,
    pub created: Timestamp,
}

pub trait CatalogStore {
    /// `Conflict` where the name is taken.
    fn create_infra_provider<'a>(&'a self, provider: &'a InfraProviderRecord) -> Answer<'a, ()>;
    fn infra_provider(&self, id: InfraProviderUuid) -> Answer<'_, Option<InfraProviderRecord>>;
    /// By name.
    fn infra_providers(&self) -> Answer<'_, Vec<InfraProviderRecord>>;

    /// Whether there was one. `Conflict` where machines or gitspaces (deleted ones too) refer to it.
    fn delete_infra_provider(&self, id: InfraProviderUuid) -> Answer<'_, bool>;

    /// Where it is the default one, the others are no longer. `Conflict` where the name is taken, `NotFound` without its provider.
    fn create_machine<'a>(&'a self, machine: &'a MachineRecord) -> Answer<'a, ()>;
    fn machine_by_name<'a>(&'a self, name: &'a str) -> Answer<'a, Option<MachineRecord>>;
    fn default_machine(&self) -> Answer<'_, Option<MachineRecord>>;
    /// Whether there was one. Gitspaces made of it keep what they have.
    fn delete_machine(&self, id: MachineUuid) -> Answer<'_, bool>;
    /// By name.
    fn machines(&self) -> Answer<'_, Vec<MachineRecord>>;

    /// Replaces the token of the gateway of that name; the id of the first is kept. Answers with the one stored.
    fn put_gateway<'a>(&'a self, gateway: &'a GatewayRecord) -> Answer<'a, GatewayRecord>;
    /// `Conflict` where the name is taken.
    fn create_gateway<'a>(&'a self, gateway: &'a GatewayRecord) -> Answer<'a, ()>;
    /// Whether there was one. Its token opens nothing any more.
    fn delete_gateway(&self, id: GatewayUuid) -> Answer<'_, bool>;
    fn gateway_by_hash<'a>(&'a self, hash: &'a Hash) -> Answer<'a, Option<GatewayRecord>>;
    fn gateways(&self) -> Answer<'_, Vec<GatewayRecord>>;

    fn setting<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>>;
    fn put_setting<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()>;
    /// Stores `value` where there is none, and answers with what is stored: of two first starts one wins.
    fn setting_or<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, Vec<u8>>;

    /// Kept until `exp`, when no grant it is about can be valid any more. A later one of the same subject replaces an earlier one.
    fn revoke_grants<'a>(&'a self, revocation: &'a Revocation, exp: Timestamp) -> Answer<'a, ()>;
    fn revocations(&self, now: Timestamp) -> Answer<'_, Vec<Revocation>>;
}
