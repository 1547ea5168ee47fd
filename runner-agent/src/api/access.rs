//! How much of the API a peer may use.
//!
//! Whoever the [`local_rpc::PeerPolicy`] lets in has all of it, but for a gateway in a process of its own: it takes bytes from the network, and
//! needs streams into gitspaces, what listens there, and whether the way there is whole; not the runner's tasks.

use http::{Method, Response, StatusCode};
use local_rpc::{
    Peer,
    server::{self, Body},
};
use std::collections::BTreeSet;
use wire::problem::Problem;

const GROUPS: &str = "/etc/group";

/// Whose primary group has streams alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    dial_only: BTreeSet<u32>,
}

impl Access {
    /// Names are those of this host's own file: system groups are in it, and a static binary cannot ask for others. One that is not there is
    /// nobody's.
    pub(crate) fn new(groups: &[String]) -> Self {
        let table = std::fs::read_to_string(GROUPS).unwrap_or_else(|error| {
            tracing::warn!(file = GROUPS, %error, "Groups cannot be found by their names");
            String::new()
        });
        let gid = |name: &String| name.parse().ok().or_else(|| gid_of(&table, name));
        Self {
            dial_only: groups.iter().filter_map(gid).collect(),
        }
    }

    /// To be let in at all.
    pub(crate) fn dial_only_gids(&self) -> impl Iterator<Item = u32> {
        self.dial_only.iter().copied()
    }

    /// # Errors
    /// The answer that says what the peer may.
    pub(crate) fn check(
        &self,
        peer: &Peer,
        method: &Method,
        path: &[&str],
    ) -> Result<(), Box<Response<Body>>> {
        if peer.uid == 0 || !self.dial_only.contains(&peer.gid) {
            return Ok(());
        }
        match (method, path) {
            (&Method::POST, ["v1", "gitspaces", _, "dial"])
            | (&Method::GET, ["v1", "gitspaces", _, "ports"])
            // Whether there is a way at all.
            | (&Method::GET, ["v1", "probe" | "host"]) => Ok(()),
            _ => Err(Box::new(server::problem(
                StatusCode::FORBIDDEN,
                &Problem::new(
                    "dial_only",
                    format!(
                        "group {} may open streams into gitspaces, and nothing else",
                        peer.gid
                    ),
                )
                .hint("see `dial_only_groups` in the runner's configuration"),
            ))),
        }
    }
}

/// `name:password:gid:members`, one a line.
fn gid_of(table: &str, name: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer {
            uid,
            gid,
            groups: vec![500],
            pid: None,
        }
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let table = "root:x:0:\ngitspaces:x:998:a,b\ngitspaces-gateway:x:997:\nbroken\n";
        assert_eq!(gid_of(table, "gitspaces-gateway"), Some(997));
        assert_eq!(gid_of(table, "gitspaces"), Some(998));
        for none in ["broken", "gateway", "x", ""] {
            assert_eq!(gid_of(table, none), None, "{none}");
        }
    }

    #[test]
    fn a_gateway_may_dial_see_what_listens_and_probe_and_nothing_else_whatever_else_it_is_a_member_of()
     {
        let access = Access::new(&["700".to_owned(), "no-such-group".to_owned()]);
        assert_eq!(access.dial_only_gids().collect::<Vec<_>>(), [700]);
        let gateway = peer(10, 700);
        let dial = ["v1", "gitspaces", "x", "dial"];
        assert!(access.check(&gateway, &Method::POST, &dial).is_ok());
        for path in [
            &["v1", "gitspaces", "x", "ports"][..],
            &["v1", "probe"],
            &["v1", "host"],
        ] {
            assert!(
                access.check(&gateway, &Method::GET, path).is_ok(),
                "{path:?}"
            );
        }
        for (method, path) in [
            (Method::PUT, &["v1", "tasks", "x"][..]),
            (Method::GET, &["v1", "tasks"]),
            (Method::GET, &["v1", "gitspaces"]),
            (Method::GET, &["v1", "gitspaces", "x", "git"]),
            (Method::GET, &["v1", "watch"]),
            (Method::DELETE, &["v1", "tasks", "x"]),
        ] {
            let refused = access.check(&gateway, &method, path).unwrap_err();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{method} {path:?}");
        }
        for other in [peer(10, 501), peer(0, 700)] {
            assert!(access.check(&other, &Method::GET, &["v1", "tasks"]).is_ok());
        }
    }
}
