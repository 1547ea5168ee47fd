//! What is said of a file, and what a client wants it to be.

use super::{
    answer::{Answer, Status},
    packet::{Malformed, Packet},
};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::{
        stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown, fchownat, truncate},
};
use std::{fs::File, fs::Metadata, os::unix::fs::MetadataExt as _, path::Path};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 1 << 31;
/// Of a mode that can be set.
const MODE: u32 = 0o7777;

pub(super) fn write(answer: &mut Answer, found: &Metadata) {
    answer.number(SIZE | OWNER | PERMISSIONS | TIMES);
    answer.long(found.size());
    answer.number(found.uid());
    answer.number(found.gid());
    answer.number(found.mode());
    // The protocol's seconds end in 2106.
    answer.number(u32::try_from(found.atime()).unwrap_or(0));
    answer.number(u32::try_from(found.mtime()).unwrap_or(0));
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    size: Option<u64>,
    owner: Option<(u32, u32)>,
    permissions: Option<u32>,
    times: Option<(u32, u32)>,
}

impl Wanted {
    pub(super) fn read(packet: &mut Packet<'_>) -> Result<Self, Malformed> {
        let flags = packet.number()?;
        let mut wanted = Self::default();
        if flags & SIZE != 0 {
            wanted.size = Some(packet.long()?);
        }
        if flags & OWNER != 0 {
            wanted.owner = Some((packet.number()?, packet.number()?));
        }
        if flags & PERMISSIONS != 0 {
            wanted.permissions = Some(packet.number()?);
        }
        if flags & TIMES != 0 {
            wanted.times = Some((packet.number()?, packet.number()?));
        }
        if flags & EXTENDED != 0 {
            for _ in 0..packet.number()? {
                packet.bytes()?;
                packet.bytes()?;
            }
        }
        Ok(wanted)
    }

    /// Of something that is made with them.
    pub(super) fn mode(&self, usual: u32) -> Mode {
        mode(self.permissions.unwrap_or(usual))
    }

    pub(super) fn set(&self, path: &Path) -> Result<(), Status> {
        if let Some(size) = self.size {
            truncate(path, length(size)?)?;
        }
        if let Some(permissions) = self.permissions {
            fchmodat(
                AT_FDCWD,
                path,
                mode(permissions),
                FchmodatFlags::FollowSymlink,
            )?;
        }
        if let Some((atime, mtime)) = self.times {
            utimensat(
                AT_FDCWD,
                path,
                &seconds(atime),
                &seconds(mtime),
                UtimensatFlags::FollowSymlink,
            )?;
        }
        if let Some((uid, gid)) = self.owner {
            fchownat(
                AT_FDCWD,
                path,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::empty(),
            )?;
        }
        Ok(())
    }

    /// Of a link itself, which has neither a size nor permissions to set.
    pub(super) fn set_link(&self, path: &Path) -> Result<(), Status> {
        if self.size.is_some() || self.permissions.is_some() {
            return Err(Status::failure("of a link, only owner and times are set"));
        }
        if let Some((atime, mtime)) = self.times {
            utimensat(
                AT_FDCWD,
                path,
                &seconds(atime),
                &seconds(mtime),
                UtimensatFlags::NoFollowSymlink,
            )?;
        }
        if let Some((uid, gid)) = self.owner {
            fchownat(
                AT_FDCWD,
                path,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }

    pub(super) fn set_open(&self, file: &File) -> Result<(), Status> {
        if let Some(size) = self.size {
            file.set_len(size)?;
        }
        if let Some(permissions) = self.permissions {
            fchmod(file, mode(permissions))?;
        }
        if let Some((atime, mtime)) = self.times {
            futimens(file, &seconds(atime), &seconds(mtime))?;
        }
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }
}

fn length(size: u64) -> Result<i64, Status> {
    i64::try_from(size).map_err(|_| Status::failure("no file is so long"))
}

fn mode(permissions: u32) -> Mode {
    Mode::from_bits_truncate(permissions & MODE)
}

fn seconds(seconds: u32) -> TimeSpec {
    TimeSpec::new(seconds.into(), 0)
}
