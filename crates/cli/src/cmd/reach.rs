//! `ports`, `share`, `url`.

use super::Context;
use crate::{
    api::Object,
    args::{Share, UrlArgs},
    error::CliError,
    progress::path_of,
    text,
};
use http::StatusCode;
use serde_json::Value;
use url::Url;
use wire::{
    agent::ListeningPort,
    api::{CreateLink, Gitspace, Link, PortShare, PortShares, SharePort},
    gitspace::PortVisibility,
};

pub(super) async fn ports(context: &Context, name: &str) -> Result<(), CliError> {
    let gitspace: Object<Gitspace> = context.api.get(&path_of(name)).await?;
    let entry = context.api.grant(name).await?;
    let ports: Object<Vec<ListeningPort>> =
        entry.get(context.api.client(), "/api/v1/ports").await?;
    let shared: Vec<PortShare> = match context.api.get::<PortShares>(&shares_of(name)).await {
        Ok(shared) => shared.it.items,
        // A control plane of before ports could be shared.
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    context.out.show(&ports, || {
        let visibility = |port| {
            let shared = shared.iter().find(|shared| shared.port == port);
            shared.map_or(PortVisibility::Private, |shared| shared.effective)
        };
        let mut rows: Vec<_> = ports
            .it
            .iter()
            .map(|port| {
                let process = match (&port.process, port.pid) {
                    (Some(name), Some(pid)) => format!("{name} ({pid})"),
                    (Some(name), None) => name.clone(),
                    (None, Some(pid)) => pid.to_string(),
                    (None, None) => String::new(),
                };
                vec![
                    port.port.to_string(),
                    port.address.clone(),
                    process,
                    visibility(port.port).to_string(),
                    port_url(&gitspace.it.url, port.port).unwrap_or_default(),
                ]
            })
            .collect();
        // Whoever shares a port wants to see it also while nothing listens there.
        let silent = shared
            .iter()
            .filter(|shared| ports.it.iter().all(|port| port.port != shared.port));
        rows.extend(silent.map(|shared| {
            let PortShare {
                port,
                effective,
                url,
                ..
            } = shared;
            let nothing = String::new;
            vec![
                port.to_string(),
                nothing(),
                nothing(),
                effective.to_string(),
                url.clone(),
            ]
        }));
        Ok(text::table(
            &["PORT", "ADDRESS", "PROCESS", "VISIBILITY", "URL"],
            &rows,
        ))
    })
}

fn shares_of(name: &str) -> String {
    format!("{}/ports", path_of(name))
}

pub(super) async fn share(context: &Context, args: &Share) -> Result<(), CliError> {
    let path = format!("{}/{}", shares_of(&args.name), args.port);
    let body = SharePort {
        visibility: args.visibility,
    };
    let shared: Object<PortShare> = context.api.put(&path, &body).await?;
    context.out.show(&shared, || {
        let PortShare {
            port,
            effective,
            url,
            ..
        } = &shared.it;
        let who = match effective {
            PortVisibility::Private => "is yours alone",
            PortVisibility::Project => "can be opened by everybody who can log in",
            PortVisibility::Public => "can be opened by everybody",
        };
        Ok(format!("Port {port} {who}: {}\n", text::line(url)))
    })
}

pub(super) async fn url(context: &Context, args: &UrlArgs) -> Result<(), CliError> {
    let path = path_of(&args.name);
    if args.login {
        let body = CreateLink {
            port: args.port,
            path: None,
        };
        let link: Object<Link> = context.api.post(&format!("{path}/links"), &body).await?;
        return context.out.show(&link, || {
            Ok(format!("{}\n", text::line(link.it.url.expose())))
        });
    }
    let gitspace: Object<Gitspace> = context.api.get(&path).await?;
    let url = match args.port {
        None => gitspace.it.url,
        Some(port) => port_url(&gitspace.it.url, port).ok_or_else(|| CliError::Line {
            name: args.name.clone(),
            why: "the control plane gave no URL of it that can be used".to_owned(),
        })?,
    };
    context.out.show(&Value::from(url.as_str()), || {
        Ok(format!("{}\n", text::line(&url)))
    })
}

/// `<port>--` in front of the host.
fn port_url(workspace: &str, port: u16) -> Option<String> {
    let mut url = Url::parse(workspace).ok()?;
    let host = format!("{port}--{}", url.host_str()?);
    url.set_host(Some(&host)).ok()?;
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_an_origin_of_its_own() {
        assert_eq!(
            port_url("http://demo-abc123.gitspaces.localhost:8080/x?y", 3000).as_deref(),
            Some("http://3000--demo-abc123.gitspaces.localhost:8080/")
        );
        assert_eq!(port_url("nothing", 1), None);
    }
}
