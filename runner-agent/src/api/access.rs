//! How much of the API a peer may use.
//!
//! Whoever the [`local_rpc::PeerPolicy`] lets in has all of it, but for a gateway in a process of its own: it takes bytes from the network, and
//! needs streams into gitspaces, what listens there, and whether the way there is whole; not the runner's tasks. Being of a gateway's group
//! takes the rest away, whatever other group lets the peer in.
//!
//! The groups' numbers are looked up again whenever the file of groups was changed: a gateway may be installed after the runner has started.

use camino::{Utf8Path, Utf8PathBuf};
use http::{Method, Response, StatusCode};
use local_rpc::{
    Peer,
    server::{self, Body},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex, PoisonError},
};
use wire::problem::Problem;

const GROUPS: &str = "/etc/group";

/// Which groups have streams alone. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Names or numbers, as they are configured.
    dial_only: Arc<[String]>,
    file: Utf8PathBuf,
    known: Arc<Mutex<Known>>,
}

/// What the file of groups said when it was read.
#[derive(Debug, Default)]
struct Known {
    stamp: Option<Stamp>,
    gids: BTreeMap<u32, String>,
    missing: BTreeSet<String>,
}

/// By which one sees that a file is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(file: &Utf8Path) -> io::Result<Self> {
        let meta = std::fs::metadata(file)?;
        Ok(Self {
            inode: meta.ino(),
            changed: (meta.ctime(), meta.ctime_nsec()),
            size: meta.len(),
        })
    }
}

impl Access {
    pub(crate) fn new(dial_only: Vec<String>) -> Self {
        Self::of_file(dial_only, Utf8Path::new(GROUPS))
    }

    fn of_file(dial_only: Vec<String>, file: &Utf8Path) -> Self {
        Self {
            dial_only: dial_only.into(),
            file: file.to_owned(),
            known: Arc::default(),
        }
    }

    /// To be let in at all.
    pub(crate) fn gids(&self) -> Vec<u32> {
        self.with(|known| known.gids.keys().copied().collect())
    }

    /// Names are those of this host's own file: system groups are in it, and a static binary cannot ask for others. What cannot be read anew
    /// stays as it was.
    fn with<T>(&self, use_it: impl FnOnce(&Known) -> T) -> T {
        // Changed by whole values alone.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match Stamp::of(&self.file) {
            Ok(stamp) if known.stamp == Some(stamp) => {}
            Ok(stamp) => match std::fs::read_to_string(&self.file) {
                Ok(table) => self.look_up(&mut known, stamp, &table),
                Err(error) => {
                    tracing::warn!(file = %self.file, %error, "Groups cannot be found by their names");
                }
            },
            Err(error) => {
                tracing::warn!(file = %self.file, %error, "Groups cannot be found by their names");
            }
        }
        use_it(&known)
    }

    fn look_up(&self, known: &mut Known, stamp: Stamp, table: &str) {
        known.stamp = Some(stamp);
        known.gids.clear();
        let mut missing = BTreeSet::new();
        for name in &*self.dial_only {
            match name.parse().ok().or_else(|| gid_of(table, name)) {
                Some(gid) => {
                    known.gids.insert(gid, name.clone());
                }
                None => {
                    missing.insert(name.clone());
                }
            }
        }
        for name in missing.difference(&known.missing) {
            tracing::warn!(
                group = name,
                file = %self.file,
                "A group of `dial_only_groups` is not there: nobody is held to streams for it until it is made"
            );
        }
        known.missing = missing;
    }

    /// The group for which the peer is held to streams.
    pub(crate) fn holds(&self, peer: &Peer) -> Option<String> {
        if peer.uid == 0 {
            return None;
        }
        self.with(|known| {
            let mut own = std::iter::once(&peer.gid).chain(&peer.groups);
            own.find_map(|gid| known.gids.get(gid).cloned())
        })
    }

    /// # Errors
    /// The answer that says what the peer may.
    pub(crate) fn check(
        &self,
        peer: &Peer,
        method: &Method,
        path: &[&str],
    ) -> Result<(), Box<Response<Body>>> {
        let Some(group) = self.holds(peer) else {
            return Ok(());
        };
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
                        "whoever is of the group `{group}` may open streams into gitspaces (dial), see which ports listen there, ask how the host is, and probe; nothing else"
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

    /// Of the group that may use the API, beside its own.
    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer {
            uid,
            gid,
            groups: groups.to_vec(),
            pid: None,
        }
    }

    const TASKS: &[&str] = &["v1", "tasks"];

    fn may_see_tasks(access: &Access, peer: &Peer) -> bool {
        access.check(peer, &Method::GET, TASKS).is_ok()
    }

    #[test]
    fn a_gateway_as_it_is_installed_is_held_to_streams_and_its_delegate_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(dir.path()).unwrap().join("group");
        let table = "root:x:0:\ngitspaces-runner-api:x:500:gitspaces-gateway,gitspaces-delegate\ngitspaces-gateway:x:700:\n";
        std::fs::write(&file, table).unwrap();
        let access = Access::of_file(vec!["gitspaces-gateway".to_owned()], &file);
        assert!(!may_see_tasks(&access, &peer(10, 700, &[500])));
        assert!(may_see_tasks(&access, &peer(11, 800, &[500])), "delegate");
        assert!(
            !may_see_tasks(&access, &peer(12, 900, &[500, 700])),
            "a member"
        );
        assert!(may_see_tasks(&access, &peer(0, 0, &[700])), "root");
    }

    #[test]
    fn a_group_that_is_made_later_is_held_to_streams_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(dir.path()).unwrap().join("group");
        let access = Access::of_file(vec!["gitspaces-gateway".to_owned()], &file);
        let gateway = peer(10, 700, &[500]);
        assert!(may_see_tasks(&access, &gateway), "no file of groups");
        std::fs::write(&file, "root:x:0:\n").unwrap();
        assert!(may_see_tasks(&access, &gateway), "not in it");
        // As `groupadd` does it.
        let next = file.with_extension("new");
        std::fs::write(&next, "root:x:0:\ngitspaces-gateway:x:700:\n").unwrap();
        std::fs::rename(&next, &file).unwrap();
        assert!(!may_see_tasks(&access, &gateway));
        std::fs::remove_file(&file).unwrap();
        assert!(!may_see_tasks(&access, &gateway), "as it was last read");
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
        let access = Access::new(vec!["700".to_owned(), "no-such-group".to_owned()]);
        assert_eq!(access.gids(), [700]);
        let gateway = peer(10, 700, &[500]);
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
        for other in [peer(10, 501, &[500]), peer(0, 700, &[500])] {
            assert!(access.check(&other, &Method::GET, &["v1", "tasks"]).is_ok());
        }
    }
}
