//! `gateway`.

use super::{Context, access::once};
use crate::{
    api::{Object, segment},
    args::GatewayCommand,
    error::CliError,
    text,
};
use wire::api::{Gateway, RegisterGateway};

pub(super) async fn gateway(context: &Context, args: GatewayCommand) -> Result<(), CliError> {
    match args {
        GatewayCommand::Register { name } => {
            let body = RegisterGateway { name };
            let made: Object<Gateway> = context.api.post("/gateways", &body).await?;
            once(
                context,
                &made,
                made.it.token.as_ref(),
                "keep it as the gateway's credential `gateway-token`; shown this once",
            )
        }
        GatewayCommand::List => {
            let gateways: Vec<Object<Gateway>> = context.api.list("/gateways").await?;
            context.out.show(&gateways, || {
                let now = context.clock.now();
                let rows: Vec<_> = gateways
                    .iter()
                    .map(|gateway| {
                        let it = &gateway.it;
                        vec![
                            it.name.clone(),
                            if it.connected { "connected" } else { "away" }.to_owned(),
                            it.domain.clone().unwrap_or_default(),
                            text::relative(it.created, now),
                            it.id.to_string(),
                        ]
                    })
                    .collect();
                Ok(text::table(
                    &["NAME", "STATE", "DOMAIN", "CREATED", "ID"],
                    &rows,
                ))
            })
        }
        GatewayCommand::Revoke { name } => {
            let path = format!("/gateways/{}", segment(&name));
            context.api.delete(&path).await?;
            Ok(())
        }
    }
}
