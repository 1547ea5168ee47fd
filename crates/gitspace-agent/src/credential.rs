//! Git's credentials: given out over a socket that every user of the container can reach, to root and to the remote user alone.
//!
//! Invariant: a credential goes to its exact host and port, and never unasked over plain http.

pub(crate) mod helper;

use crate::{
    agent::{self, Agent},
    job::Origin,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use local_rpc::{
    Peer,
    server::{self, Body, RequestError},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wire::{gitspace::GitCredential, problem::Problem, secret::Secret};

const MAX_BODY: usize = 8 * 1024;

/// File name of the socket in the run folder.
pub(crate) const USER_SOCKET: &str = "user.sock";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialQuery {
    pub(crate) protocol: String,
    /// `host` or `host:port`, as git says it.
    pub(crate) host: String,
    /// The clone job that asks.
    #[serde(default)]
    pub(crate) job: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CredentialAnswer {
    pub(crate) username: String,
    pub(crate) password: Secret,
}

pub(crate) async fn handle(
    agent: Arc<Agent>,
    request: Request<Incoming>,
    peer: Peer,
) -> Response<Body> {
    answer(&agent, request, &peer)
        .await
        .unwrap_or_else(RequestError::into_response)
}

async fn answer(
    agent: &Agent,
    request: Request<Incoming>,
    peer: &Peer,
) -> Result<Response<Body>, RequestError> {
    let uri = request.uri().clone();
    if request.method() != Method::POST || server::segments(&uri) != ["v1", "git-credential"] {
        return Ok(server::no_route(&request.into_parts().0));
    }
    let query: CredentialQuery = server::read_json(request, MAX_BODY).await?;
    if !may_ask(agent, peer) {
        tracing::warn!(
            uid = peer.uid,
            "A user who is not the remote user asked for credentials"
        );
        let problem = Problem::new("peer_refused", "credentials are for the remote user alone");
        return Ok(server::problem(StatusCode::FORBIDDEN, &problem));
    }
    let found = match &query.job {
        Some(id) => agent
            .jobs
            .get(id)
            .and_then(|job| find(&job.credentials, &query, job.origin.as_ref()).cloned()),
        None => agent
            .config()
            .and_then(|config| find(&config.git_credentials, &query, None).cloned()),
    };
    Ok(match found {
        Some(found) => server::json(
            StatusCode::OK,
            &CredentialAnswer {
                username: found.username,
                password: found.secret,
            },
        ),
        None => {
            let problem = Problem::new(
                "no_credential",
                format!("there is no credential for `{}`", query.host),
            );
            server::problem(StatusCode::NOT_FOUND, &problem)
        }
    })
}

fn may_ask(agent: &Agent, peer: &Peer) -> bool {
    peer.uid == 0
        || peer.uid == nix::unistd::geteuid().as_raw()
        || agent
            .config()
            .and_then(|config| agent::resolve(&config.remote_user).ok())
            .is_some_and(|account| account.uid == peer.uid)
}

/// The credential for exactly this host and port. Over plain http it is given where that is clearly meant: to the very address that the
/// clone was asked for, on loopback, or where the credential names a port.
fn find<'a>(
    credentials: &'a [GitCredential],
    query: &CredentialQuery,
    origin: Option<&Origin>,
) -> Option<&'a GitCredential> {
    let host = query.host.to_ascii_lowercase();
    let default_port = match query.protocol.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let bare = host.strip_suffix(default_port).unwrap_or(&host);
    let found = credentials.iter().find(|credential| {
        let theirs = credential.host.to_ascii_lowercase();
        theirs.strip_suffix(default_port).unwrap_or(&theirs) == bare
    })?;
    let asked_for = origin
        .is_some_and(|origin| origin.scheme == "http" && origin.host.eq_ignore_ascii_case(bare));
    let name = bare.rsplit_once(':').map_or(bare, |(name, _)| name);
    let loopback = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    let meant = query.protocol == "https" || asked_for || loopback || found.host.contains(':');
    meant.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(protocol: &str, host: &str, origin: Option<&Origin>) -> Option<String> {
        let credentials =
            ["example.com", "example.com:8443", "git.lan:3000"].map(|host| GitCredential {
                host: host.to_owned(),
                username: format!("user of {host}"),
                secret: Secret::new("s"),
            });
        let query = CredentialQuery {
            protocol: protocol.to_owned(),
            host: host.to_owned(),
            job: None,
        };
        find(&credentials, &query, origin).map(|found| found.host.clone())
    }

    #[test]
    fn a_credential_goes_to_its_exact_host_and_port() {
        assert_eq!(
            found("https", "example.com", None).as_deref(),
            Some("example.com")
        );
        assert_eq!(
            found("https", "Example.com:443", None).as_deref(),
            Some("example.com")
        );
        assert_eq!(
            found("https", "example.com:8443", None).as_deref(),
            Some("example.com:8443")
        );
        for host in [
            "evil-example.com",
            "example.com.evil",
            "sub.example.com",
            "example.com:9",
            "",
        ] {
            assert_eq!(found("https", host, None), None, "{host}");
        }
        assert_eq!(found("ftp", "example.com", None), None);
    }

    #[test]
    fn plain_http_gets_a_credential_only_where_it_is_meant() {
        assert_eq!(found("http", "example.com", None), None);
        assert_eq!(
            found("http", "git.lan:3000", None).as_deref(),
            Some("git.lan:3000")
        );
        let origin = Origin {
            scheme: "http".to_owned(),
            host: "example.com".to_owned(),
        };
        assert_eq!(
            found("http", "example.com", Some(&origin)).as_deref(),
            Some("example.com")
        );
        let secure = Origin {
            scheme: "https".to_owned(),
            ..origin
        };
        assert_eq!(found("http", "example.com", Some(&secure)), None);
    }
}
