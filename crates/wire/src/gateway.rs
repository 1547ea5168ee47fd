//! Control plane and gateways: grants, routes, revocations.
//!
//! A gateway opens `GET /api/v1/gateways/connect` (WebSocket, subprotocol [`SUBPROTOCOL`], `Authorization: Bearer <gateway token>`) and hears
//! [`ToGateway`]. It exchanges one-time codes at `POST /api/v1/gateways/exchange`, and asks about SSH credentials at
//! `POST /api/v1/gateways/ssh` ([`SshQuestion`] → [`SshVerdict`]). It verifies grants offline with the keys it was sent.

use crate::{
    control::ProbeReport,
    gitspace::{GitspaceState, PortVisibility, SharedPort},
    ids::{DelegateUuid, GatewayUuid, GitspaceUuid, GrantUuid, UserUuid},
    secret::Secret,
    task::Phase,
    text::{Slug, SshPublicKey},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub const SUBPROTOCOL: &str = "gitspaces.gateway.v1";

/// Purpose a grant is signed for; see `token`.
pub const GRANT_PURPOSE: &str = "gitspaces grant v1";

/// Header a program (the CLI) sends its grant in. The gateway takes it away.
pub const GRANT_HEADER: &str = "gitspaces-grant";

/// Header with which a program says that it does not want to start what does not run: `never`. The gateway takes it away.
pub const WAKE_HEADER: &str = "gitspaces-wake";

/// Longest message of a gateway, in bytes: it says next to nothing.
pub const MAX_FROM_GATEWAY: usize = 16 * 1024;

/// Most parts that a gateway tells of its own probe: as many as fit into one message, however long their words are.
pub const MAX_PROBED_HOPS: usize = 6;

/// What a user may reach through one gateway in one gitspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantClaims {
    pub id: GrantUuid,
    /// The only gateway that may take it.
    pub gateway: GatewayUuid,
    pub gitspace: GitspaceUuid,
    pub slug: Slug,
    pub user: UserUuid,
    pub ports: PortSet,
    /// Whether the workspace service (terminal, exec) may be reached.
    pub workspace: bool,
    /// The gitspace is somebody else's: holds while its port is shared ([`Route::shared`]), and starts nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_guest: bool,
    pub iat: Timestamp,
    pub exp: Timestamp,
    /// It is not renewed beyond this. An older control plane says nothing, and renews nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "set", rename_all = "snake_case")]
pub enum PortSet {
    All {},
    Only { ports: Vec<u16> },
}

impl PortSet {
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::All {} => true,
            Self::Only { ports } => ports.contains(&port),
        }
    }
}

/// To the gateway, one WebSocket text message each. A snapshot comes first on every connection and replaces everything known.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGateway {
    Snapshot {
        gateway: GatewayUuid,
        /// Ed25519 public keys that grants may be signed with, base64url without padding.
        keys: Vec<String>,
        /// Where a browser without a grant is sent: `<authorize_url>?gitspace=<slug>&return=<url>`.
        authorize_url: String,
        routes: Vec<Route>,
        revocations: Vec<Revocation>,
        /// The sender takes [`FromGateway::Probed`]; an older one would break off.
        #[serde(default)]
        probes: bool,
        /// A gitspace that does not run may be started for whoever comes to it: `POST /api/v1/gateways/wake` with [`WakeRequest`].
        #[serde(default)]
        wakes: bool,
        /// The sender knows [`WakeRequest::is_asked_for`].
        #[serde(default)]
        starts: bool,
    },
    Route {
        route: Route,
    },
    RouteGone {
        slug: Slug,
    },
    Revoked {
        revocation: Revocation,
    },
    Keys {
        keys: Vec<String>,
    },
}

/// From the gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGateway {
    /// First message, and again when it changes.
    Hello {
        version: String,
        domain: String,
        /// What its users' URLs end with, as `http(s)://domain[:port]`. An older one says nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
        /// Where it takes SSH. A control plane that is older leaves it unread.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ssh: Option<SshEndpoint>,
        /// Where delegates open tunnels to it: `http(s)://host[:port]`. It is told of [`RevokedSubject::Delegate`] then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tunnels: Option<String>,
    },
    /// What its own probe of the way into its host's gitspaces found, from the runner on: [`ProbeReport::brief`] with [`MAX_PROBED_HOPS`].
    Probed { report: Box<ProbeReport> },
}

/// Where a gateway takes SSH, as users dial it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshEndpoint {
    pub host: String,
    pub port: u16,
    pub host_key: SshPublicKey,
}

impl SshEndpoint {
    /// Its line of a `known_hosts` file. `None` where the host is no host's name: it could say something else there.
    #[must_use]
    pub fn known_hosts_line(&self) -> Option<String> {
        let is_host = !self.host.is_empty()
            && self.host.len() <= 253
            && self
                .host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':'))
            && !self.host.starts_with('-');
        let Self {
            host,
            port,
            host_key,
        } = self;
        is_host.then(|| match port {
            22 => format!("{host} {host_key}"),
            port => format!("[{host}]:{port} {host_key}"),
        })
    }
}

/// How to reach a gitspace and what to tell who cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub slug: Slug,
    pub gitspace: GitspaceUuid,
    pub name: String,
    pub state: GitspaceState,
    /// Whether its container runs (also in state `error`: it can be entered to be mended).
    pub reachable: bool,
    #[serde(default)]
    pub delegate: Option<DelegateUuid>,
    /// Why it is in state `error`.
    #[serde(default)]
    pub error: Option<String>,
    /// What is being done, while it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Whose it is, for whoever comes to a port that is shared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Ports that others may come to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedPort>,
}

impl Route {
    #[must_use]
    pub fn visibility(&self, port: u16) -> PortVisibility {
        self.shared
            .iter()
            .find(|shared| shared.port == port)
            .map_or(PortVisibility::Private, |shared| shared.visibility)
    }
}

/// Body of `POST /api/v1/gateways/wake`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WakeRequest {
    /// Of whoever came: says which gitspace, and that it is theirs to start.
    pub grant: Secret,
    /// They did not only come, but asked for the start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_asked_for: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WakeResponse {
    /// As it is from there on; routes tell the rest.
    pub state: GitspaceState,
}

/// Body of `POST /api/v1/gateways/renew`: a grant of a connection that is still open.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    pub grant: Secret,
}

/// The next one, with the same id and for the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewResponse {
    pub grant: Secret,
}

/// Grants that no longer hold although they have not expired.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Revocation {
    pub subject: RevokedSubject,
    /// Grants issued at or before this are void.
    pub before: Timestamp,
}

impl Revocation {
    /// Whether a grant with these claims is one of them.
    #[must_use]
    pub fn voids(&self, claims: &GrantClaims) -> bool {
        claims.iat <= self.before && RevokedSubject::of(claims).contains(&self.subject)
    }
}

impl RevokedSubject {
    /// All that a grant ends with.
    #[must_use]
    pub const fn of(claims: &GrantClaims) -> [Self; 3] {
        [
            Self::Grant { grant: claims.id },
            Self::User { user: claims.user },
            Self::Gitspace {
                gitspace: claims.gitspace,
            },
        ]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum RevokedSubject {
    Grant {
        grant: GrantUuid,
    },
    User {
        user: UserUuid,
    },
    Gitspace {
        gitspace: GitspaceUuid,
    },
    /// Its tunnels. Only for a gateway that takes them: another one would break off.
    Delegate {
        delegate: DelegateUuid,
    },
}

/// Body of `POST /api/v1/gateways/exchange`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeRequest {
    pub code: Secret,
    /// Of the origin the browser is at; the code is for this one alone.
    pub slug: Slug,
    /// Set where the origin is a port's.
    #[serde(default)]
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExchangeResponse {
    pub grant: Secret,
    pub exp: Timestamp,
    /// Path and query to go on at, always starting with one `/`.
    pub return_to: String,
}

/// Body of `POST /api/v1/gateways/ssh`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshQuestion {
    pub credential: SshCredential,
    /// Whether the client has shown that it has the credential; else it is asked only whether it may go on to show it.
    pub proven: bool,
    /// What the client wrote: the slug, or the name of an own one.
    #[serde(default)]
    pub gitspace: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum SshCredential {
    Key {
        key: SshPublicKey,
    },
    /// A personal access token, given as password.
    Token {
        token: Secret,
    },
}

/// Of a credential that is taken. Empty where it was not proven.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SshVerdict {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserUuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// `None` where there is no such gitspace for this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<SshGrant>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SshGrant {
    pub grant: Secret,
    pub exp: Timestamp,
    pub slug: Slug,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPe2uGPLYg8zQVXu9Tq1UkcB4GVy1xZ3YtUAZwzPyE1o";

    fn endpoint(host: &str, port: u16) -> SshEndpoint {
        SshEndpoint {
            host: host.to_owned(),
            port,
            host_key: KEY.parse().unwrap(),
        }
    }

    #[test]
    fn a_line_of_known_hosts_is_one_hosts_and_nothing_else() {
        let line = |host, port| endpoint(host, port).known_hosts_line();
        assert_eq!(line("a.example", 22), Some(format!("a.example {KEY}")));
        assert_eq!(
            line("a.example", 7022),
            Some(format!("[a.example]:7022 {KEY}"))
        );
        for host in [
            "",
            "a b",
            "a,b",
            "*",
            "!a",
            "@cert-authority",
            "a\n* x",
            "-a",
            "a]",
            "é",
        ] {
            assert_eq!(line(host, 22), None, "{host:?}");
        }
    }

    #[test]
    fn a_hello_is_read_by_who_knows_nothing_of_ssh_and_from_who_does_not() {
        let old = r#"{"type":"hello","version":"0.1.0","domain":"localhost"}"#;
        let FromGateway::Hello { ssh, .. } = serde_json::from_str(old).unwrap() else {
            panic!("no hello");
        };
        assert_eq!(ssh, None);
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Before {
            Hello { version: String, domain: String },
        }
        let said = serde_json::to_string(&FromGateway::Hello {
            version: "2".to_owned(),
            domain: "d".to_owned(),
            origin: Some("https://d".to_owned()),
            ssh: Some(endpoint("d", 22)),
            tunnels: Some("https://d".to_owned()),
        });
        let Before::Hello { version, domain } = serde_json::from_str(&said.unwrap()).unwrap();
        assert_eq!((version.as_str(), domain.as_str()), ("2", "d"));
    }
}
