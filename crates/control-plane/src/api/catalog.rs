//! Infra providers and machines.

pub(crate) mod create_infra_provider;
pub(crate) mod create_machine;
pub(crate) mod delete_infra_provider;
pub(crate) mod delete_machine;
pub(crate) mod list_infra_providers;
pub(crate) mod list_machines;

use store::{InfraProviderRecord, MachineRecord};
use wire::api::{InfraProvider, Machine};

fn show_infra_provider(record: InfraProviderRecord) -> InfraProvider {
    InfraProvider {
        id: record.id,
        name: record.name,
        kind: record.kind,
        selectors: record.selectors,
        created: record.created,
    }
}

fn show_machine(record: MachineRecord) -> Machine {
    Machine {
        id: record.id,
        name: record.name,
        infra_provider: record.infra_provider_name,
        resources: record.resources,
        is_default: record.is_default,
    }
}
