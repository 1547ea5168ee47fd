//! Who is on the other end of a Unix socket, and whether it may talk to us.

use nix::libc;
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, AsRawFd as _},
};
use tokio::net::UnixStream;

/// More groups than any user here has; `NGROUPS_MAX` is 65536, and the kernel says so when the buffer is short.
const MAX_GROUPS: usize = 1024;

/// The credentials that the kernel recorded when the peer connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups: the usual way to be let in is to be a member of the socket's group.
    pub groups: Vec<u32>,
    /// Absent where the peer lives in another PID namespace. For logs only: a PID may be reused.
    pub pid: Option<i32>,
}

impl Peer {
    /// # Errors
    /// Fails where the kernel does not give the credentials of this socket.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let cred = stream.peer_cred()?;
        Ok(Self {
            uid: cred.uid(),
            gid: cred.gid(),
            groups: peer_groups(stream)?,
            pid: cred.pid().filter(|pid| *pid > 0),
        })
    }
}

/// `SO_PEERGROUPS`, which neither std, tokio nor nix wraps.
fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; MAX_GROUPS];
    let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open for the call, and the pointer and the length describe `groups`, which lives
    // longer than the call; the kernel writes at most that many bytes, all of whose patterns are valid gids.
    #[expect(unsafe_code, reason = "no safe wrapper of SO_PEERGROUPS exists")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        // A pair made by `socketpair` has no peer groups.
        return match error.raw_os_error() {
            Some(libc::ENODATA) => Ok(Vec::new()),
            _ => Err(error),
        };
    }
    groups.truncate(usize::try_from(bytes).unwrap_or(0) / size_of::<libc::gid_t>());
    Ok(groups)
}

/// Which peers are served. A member of an allowed group is let in by its primary or a supplementary group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
    anyone: bool,
}

/// Why a peer is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the socket does not serve user {uid} (primary group {gid})")]
pub struct PeerRefused {
    pub uid: u32,
    pub gid: u32,
}

impl PeerPolicy {
    /// root and the user this process runs as: the base of every policy of a daemon.
    #[must_use]
    pub fn owner() -> Self {
        Self::nobody()
            .allow_uid(0)
            .allow_uid(nix::unistd::geteuid().as_raw())
    }

    /// Serves nobody until somebody is allowed.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }

    /// For sockets where the directory's mode is the whole barrier, as across user namespaces, where uids are mapped.
    #[must_use]
    pub fn anyone() -> Self {
        Self {
            anyone: true,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn allow_uid(mut self, uid: u32) -> Self {
        self.uids.insert(uid);
        self
    }

    #[must_use]
    pub fn allow_gid(mut self, gid: u32) -> Self {
        self.gids.insert(gid);
        self
    }

    /// # Errors
    /// Says who was refused.
    pub fn check(&self, peer: &Peer) -> Result<(), PeerRefused> {
        let by_group = || {
            self.gids.contains(&peer.gid) || peer.groups.iter().any(|gid| self.gids.contains(gid))
        };
        if self.anyone || self.uids.contains(&peer.uid) || by_group() {
            Ok(())
        } else {
            Err(PeerRefused {
                uid: peer.uid,
                gid: peer.gid,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer {
            uid: 1000,
            gid: 1000,
            groups: vec![27, 998],
            pid: Some(7),
        }
    }

    #[test]
    fn a_member_by_supplementary_group_is_served() {
        assert_eq!(PeerPolicy::owner().allow_gid(998).check(&peer()), Ok(()));
    }

    #[test]
    fn a_stranger_is_refused() {
        assert_eq!(
            PeerPolicy::nobody()
                .allow_uid(1001)
                .allow_gid(999)
                .check(&peer()),
            Err(PeerRefused {
                uid: 1000,
                gid: 1000
            })
        );
    }
}
