//! Gateways in processes of their own, which connect with a token.

pub(crate) mod list_gateways;
pub(crate) mod register_gateway;
pub(crate) mod revoke_gateway;

use crate::state::AppState;
use store::GatewayRecord;
use wire::api::Gateway;

fn show(state: &AppState, record: GatewayRecord) -> Gateway {
    let (connected, domain) = state.gateways.connection(record.id);
    let data_path = state.gateways.data_path(record.id);
    Gateway {
        id: record.id,
        name: record.name,
        token: None,
        connected,
        domain,
        data_path,
        created: record.created,
    }
}
