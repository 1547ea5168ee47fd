//! OpenSSH's extensions (its `PROTOCOL`, section 4).

use super::{
    MAX_DATA, MAX_PACKET, VERSION,
    answer::{Answer, Status},
    attributes::Wanted,
    files::{self, MAX_HANDLES, Session},
    packet::Packet,
};
use nix::sys::statvfs::{Statvfs, fstatvfs, statvfs};
use std::{fs, os::unix::ffi::OsStrExt as _, path::PathBuf};

const VERSION_ANSWER: u8 = 2;
/// Name and version of each.
const KNOWN: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// The answer to a client's greeting.
pub(super) fn version() -> Answer {
    let mut answer = Answer::new(VERSION_ANSWER);
    answer.number(VERSION);
    for (name, version) in KNOWN {
        answer.bytes(name.as_bytes());
        answer.bytes(version.as_bytes());
    }
    answer
}

pub(super) fn request(
    session: &mut Session,
    id: u32,
    packet: &mut Packet<'_>,
) -> Result<Answer, Status> {
    match packet.bytes()? {
        b"posix-rename@openssh.com" => {
            let (from, to) = (files::path(packet)?, files::path(packet)?);
            fs::rename(from, to)?;
        }
        b"hardlink@openssh.com" => {
            let (from, to) = (files::path(packet)?, files::path(packet)?);
            fs::hard_link(from, to)?;
        }
        b"fsync@openssh.com" => session.file(packet)?.sync_all()?,
        b"lsetstat@openssh.com" => {
            let path = files::path(packet)?;
            Wanted::read(packet)?.set_link(&path)?;
        }
        b"statvfs@openssh.com" => return Ok(space(id, &statvfs(&files::path(packet)?)?)),
        b"fstatvfs@openssh.com" => return Ok(space(id, &fstatvfs(session.file(packet)?)?)),
        b"limits@openssh.com" => {
            let mut answer = Answer::extended(id);
            for limit in [MAX_PACKET, MAX_DATA, MAX_DATA, MAX_HANDLES] {
                answer.long(u64::try_from(limit).unwrap_or(u64::MAX));
            }
            return Ok(answer);
        }
        b"expand-path@openssh.com" => {
            let path = files::path(packet)?;
            return Ok(Answer::path(
                id,
                files::real(&expand(path)?)?.as_os_str().as_bytes(),
            ));
        }
        other => {
            return Err(Status::unsupported(format!(
                "`{}` is not known",
                String::from_utf8_lossy(other)
            )));
        }
    }
    Ok(Answer::status(id, &Status::ok()))
}

/// `~` and `~/…` are the user's home.
fn expand(path: PathBuf) -> Result<PathBuf, Status> {
    let Ok(rest) = path.strip_prefix("~") else {
        if path.as_os_str().as_bytes().starts_with(b"~") {
            return Err(Status::failure("homes of other users are not known"));
        }
        return Ok(path);
    };
    let home = std::env::var_os("HOME").ok_or_else(|| Status::failure("the user has no home"))?;
    Ok(PathBuf::from(home).join(rest))
}

fn space(id: u32, found: &Statvfs) -> Answer {
    /// Of the protocol's own flags.
    const READ_ONLY: u64 = 1;
    const NO_SETUID: u64 = 2;
    use nix::sys::statvfs::FsFlags;
    let mut flags = 0;
    if found.flags().contains(FsFlags::ST_RDONLY) {
        flags |= READ_ONLY;
    }
    if found.flags().contains(FsFlags::ST_NOSUID) {
        flags |= NO_SETUID;
    }
    let mut answer = Answer::extended(id);
    for value in [
        found.block_size(),
        found.fragment_size(),
        found.blocks(),
        found.blocks_free(),
        found.blocks_available(),
        found.files(),
        found.files_free(),
        found.files_available(),
        found.filesystem_id(),
        flags,
        found.name_max(),
    ] {
        answer.long(value);
    }
    answer
}
