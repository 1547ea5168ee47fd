//! Git's credentials: given out over a socket that every user of the container can reach, to root and to the remote user alone.
//!
//! Invariant: a credential goes to its exact host and port, over its own scheme alone.

pub(crate) mod helper;

use crate::agent::{self, Agent};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use local_rpc::{
    Peer,
    server::{self, Body, RequestError},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wire::{
    gitspace::{GitCredential, GitScheme},
    problem::Problem,
    secret::Secret,
};

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
            .and_then(|job| find(&job.credentials, &query).cloned()),
        None => agent
            .config()
            .and_then(|config| find(&config.git_credentials, &query).cloned()),
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

/// The credential for exactly this scheme, host and port.
fn find<'a>(
    credentials: &'a [GitCredential],
    query: &CredentialQuery,
) -> Option<&'a GitCredential> {
    let host = query.host.to_ascii_lowercase();
    let scheme: GitScheme = query.protocol.parse().ok()?;
    let default_port = match scheme {
        GitScheme::Https => ":443",
        GitScheme::Http => ":80",
    };
    let bare = host.strip_suffix(default_port).unwrap_or(&host);
    credentials.iter().find(|credential| {
        let theirs = credential.host.to_ascii_lowercase();
        credential.scheme == scheme && theirs.strip_suffix(default_port).unwrap_or(&theirs) == bare
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(protocol: &str, host: &str) -> Option<String> {
        let credentials = [
            "example.com",
            "example.com:8443",
            "http://git.lan:3000",
            "http://both.example",
            "both.example",
        ]
        .map(|place| {
            let (scheme, host) = GitScheme::split(place);
            GitCredential {
                scheme,
                host: host.to_owned(),
                username: format!("user of {place}"),
                secret: Secret::new("s"),
            }
        });
        let query = CredentialQuery {
            protocol: protocol.to_owned(),
            host: host.to_owned(),
            job: None,
        };
        find(&credentials, &query).map(|found| found.scheme.spell(&found.host))
    }

    #[test]
    fn a_credential_goes_to_its_exact_host_and_port() {
        for (host, place) in [
            ("example.com", "example.com"),
            ("Example.com:443", "example.com"),
            ("example.com:8443", "example.com:8443"),
        ] {
            assert_eq!(found("https", host).as_deref(), Some(place));
        }
        for host in [
            "evil-example.com",
            "example.com.evil",
            "sub.example.com",
            "example.com:9",
            "",
        ] {
            assert_eq!(found("https", host), None, "{host}");
        }
        assert_eq!(found("ftp", "example.com"), None);
    }

    #[test]
    fn a_credential_goes_over_its_own_scheme_alone() {
        for (protocol, host, place) in [
            ("http", "example.com", None),
            ("http", "example.com:443", None),
            ("http", "example.com:8443", None),
            ("https", "git.lan:3000", None),
            ("http", "git.lan:3000", Some("http://git.lan:3000")),
            ("http", "both.example", Some("http://both.example")),
            ("http", "both.example:80", Some("http://both.example")),
            ("https", "both.example", Some("both.example")),
        ] {
            assert_eq!(
                found(protocol, host).as_deref(),
                place,
                "{protocol}://{host}"
            );
        }
    }
}
