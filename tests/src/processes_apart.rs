//! Control plane, gateway, delegate and runner as four processes.

use crate::{
    deployment::{Daemon, Deployment, text},
    lifecycle::APP,
};
use anyhow::{Result, ensure};

#[tokio::test(flavor = "multi_thread")]
async fn a_gitspace_is_reached_through_a_gateway_of_its_own_until_that_is_revoked() -> Result<()> {
    let mut host = Deployment::start_apart().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let said = host.ok(&["exec", "app", "--", "id", "-un"])?;
    ensure!(
        said == "developer\n",
        "exec goes through the gateway: {said}"
    );

    let slug = text(&host.show("app")?, "/slug");
    let port_host = format!("8000--{slug}.localhost");
    let header = format!("gitspaces-grant: {}", text(&host.grant("app")?, "/grant"));
    host.until("the app answers", |host| {
        Ok(host
            .gateway(&port_host, "/hello", &["--header", &header])?
            .contains("app /hello"))
    })?;

    // Neither the control plane nor the delegate is needed for what is known already.
    host.kill(Daemon::ControlPlane)?;
    host.kill(Daemon::Delegate)?;
    ensure!(
        host.gateway(&port_host, "/alone", &["--header", &header])?
            .contains("app /alone"),
        "{}",
        host.logs()
    );
    host.run(Daemon::ControlPlane)?;
    host.run(Daemon::Delegate)?;
    // A gateway that starts anew learns everything again.
    ensure!(host.stop(Daemon::Gateway)? == 0, "{}", host.logs());
    host.run(Daemon::Gateway)?;
    host.until("the app answers again", |host| {
        Ok(host
            .gateway(&port_host, "/again", &["--header", &header])?
            .contains("app /again"))
    })?;

    // The gateway goes its own way, and tells what it finds of it.
    host.until("the gateway has probed", |host| {
        let gateways = host.json(&["gateway", "list"])?;
        let hop = |at: &str| text(&gateways, &format!("/0/data_path/hops/{at}/hop"));
        Ok(
            (hop("0"), hop("1")) == ("runner".to_owned(), "docker".to_owned())
                && gateways.pointer("/0/data_path/agents") == Some(&serde_json::json!(1)),
        )
    })?;
    let health = host.daemon(Daemon::Gateway, &["health"])?;
    ensure!(
        health.code == 0 && health.out.contains("the way into gitspaces is whole"),
        "{health:#?}"
    );

    let listed = host.ok(&["gateway", "list"])?;
    ensure!(
        listed.contains("edge") && listed.contains("connected"),
        "{listed}"
    );
    host.ok(&["gateway", "revoke", "edge"])?;
    let listed = host.ok(&["gateway", "list"])?;
    ensure!(!listed.contains("edge"), "{listed}");
    host.until("the gateway is refused", |host| {
        let log = std::fs::read_to_string(host.path("gitspaces-gateway.log"))?;
        Ok(log.contains("401"))
    })
}
