//! What a client asks for, done.

use super::{
    MAX_DATA,
    answer::{Answer, Status},
    attributes::{self, Wanted},
    extension,
    folder::Listing,
    packet::{self, Malformed, Packet},
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
    sys::stat::Mode,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
};

/// Open at once, of one session.
pub(super) const MAX_HANDLES: usize = 256;

/// `SSH_FXF_…`
const READ: u32 = 0x01;
const WRITE: u32 = 0x02;
const APPEND: u32 = 0x04;
const CREATE: u32 = 0x08;
const TRUNCATE: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;

#[derive(Debug)]
enum Open {
    File { file: File, append: bool },
    Folder(Listing),
}

/// What one client has open.
#[derive(Debug, Default)]
pub(super) struct Session {
    open: HashMap<u32, Open>,
    last: u32,
    buffer: Vec<u8>,
}

/// As the client says it. An empty one is where the session began.
pub(super) fn path(packet: &mut Packet<'_>) -> Result<PathBuf, Malformed> {
    let bytes = packet.bytes()?;
    let bytes = if bytes.is_empty() { b"." } else { bytes };
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

impl Session {
    pub(super) fn request(
        &mut self,
        kind: u8,
        id: u32,
        packet: &mut Packet<'_>,
    ) -> Result<Answer, Status> {
        match kind {
            packet::OPEN => return self.open(id, packet),
            packet::OPENDIR => {
                let listing = Listing::open(&path(packet)?)?;
                return self.keep(id, Open::Folder(listing));
            }
            packet::READ => return self.read(id, packet),
            packet::READDIR => return self.listing(packet)?.next(id),
            packet::STAT => return Ok(found(id, &fs::metadata(path(packet)?)?)),
            packet::LSTAT => return Ok(found(id, &fs::symlink_metadata(path(packet)?)?)),
            packet::FSTAT => return Ok(found(id, &self.file(packet)?.metadata()?)),
            packet::REALPATH => {
                let real = real(&path(packet)?)?;
                return Ok(Answer::path(id, real.as_os_str().as_bytes()));
            }
            packet::READLINK => {
                let target = fs::read_link(path(packet)?)?;
                return Ok(Answer::path(id, target.as_os_str().as_bytes()));
            }
            packet::EXTENDED => return extension::request(self, id, packet),
            packet::CLOSE => {
                let number = number(packet)?;
                self.open.remove(&number).ok_or_else(not_open)?;
            }
            packet::WRITE => self.write(packet)?,
            packet::SETSTAT => {
                let path = path(packet)?;
                Wanted::read(packet)?.set(&path)?;
            }
            packet::FSETSTAT => {
                let file = self.file(packet)?;
                Wanted::read(packet)?.set_open(file)?;
            }
            packet::REMOVE => nix::unistd::unlink(&path(packet)?)?,
            packet::MKDIR => {
                let path = path(packet)?;
                let mode = Wanted::read(packet)?.mode(0o777);
                nix::unistd::mkdir(&path, mode)?;
            }
            packet::RMDIR => fs::remove_dir(path(packet)?)?,
            packet::RENAME => rename(&path(packet)?, &path(packet)?)?,
            packet::SYMLINK => {
                // OpenSSH has them the other way round than the draft, and everybody follows it.
                let (target, link) = (path(packet)?, path(packet)?);
                std::os::unix::fs::symlink(target, link)?;
            }
            other => {
                return Err(Status::unsupported(format!(
                    "requests of type {other} are not known"
                )));
            }
        }
        Ok(Answer::status(id, &Status::ok()))
    }

    fn keep(&mut self, id: u32, open: Open) -> Result<Answer, Status> {
        if self.open.len() >= MAX_HANDLES {
            return Err(Status::failure(format!(
                "{MAX_HANDLES} files and folders are open already"
            )));
        }
        while self.open.contains_key(&self.last) {
            self.last = self.last.wrapping_add(1);
        }
        let number = self.last;
        self.last = self.last.wrapping_add(1);
        self.open.insert(number, open);
        Ok(Answer::handle(id, &number.to_be_bytes()))
    }

    fn open(&mut self, id: u32, packet: &mut Packet<'_>) -> Result<Answer, Status> {
        let path = path(packet)?;
        let flags = packet.number()?;
        let mode = Wanted::read(packet)?.mode(0o666);
        let file = open(&path, flags, mode)?;
        if file.metadata()?.is_dir() {
            return Err(Status::failure("it is a folder"));
        }
        let append = flags & APPEND != 0;
        self.keep(id, Open::File { file, append })
    }

    pub(super) fn file(&self, packet: &mut Packet<'_>) -> Result<&File, Status> {
        match self.open.get(&number(packet)?) {
            Some(Open::File { file, .. }) => Ok(file),
            Some(Open::Folder(_)) => Err(Status::failure("it is a folder")),
            None => Err(not_open()),
        }
    }

    fn listing(&mut self, packet: &mut Packet<'_>) -> Result<&mut Listing, Status> {
        match self.open.get_mut(&number(packet)?) {
            Some(Open::Folder(listing)) => Ok(listing),
            Some(Open::File { .. }) => Err(Status::failure("it is no folder")),
            None => Err(not_open()),
        }
    }

    fn read(&mut self, id: u32, packet: &mut Packet<'_>) -> Result<Answer, Status> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let file = self.file(packet)?;
        let (offset, length) = (packet.long()?, packet.number()?);
        let length = usize::try_from(length).unwrap_or(MAX_DATA).min(MAX_DATA);
        buffer.resize(length, 0);
        let count = file.read_at(&mut buffer, offset)?;
        let answer = match buffer.get(..count) {
            Some(data) if count > 0 => Ok(Answer::data(id, data)),
            _ => Err(Status::end()),
        };
        self.buffer = buffer;
        answer
    }

    fn write(&mut self, packet: &mut Packet<'_>) -> Result<(), Status> {
        match self.open.get_mut(&number(packet)?) {
            Some(Open::File { file, append }) => {
                let offset = packet.long()?;
                let data = packet.bytes()?;
                if *append {
                    file.write_all(data)?;
                } else {
                    file.write_all_at(data, offset)?;
                }
                Ok(())
            }
            Some(Open::Folder(_)) => Err(Status::failure("it is a folder")),
            None => Err(not_open()),
        }
    }
}

fn number(packet: &mut Packet<'_>) -> Result<u32, Status> {
    let bytes: [u8; 4] = packet.bytes()?.try_into().map_err(|_| not_open())?;
    Ok(u32::from_be_bytes(bytes))
}

fn not_open() -> Status {
    Status::failure("it is not open")
}

fn found(id: u32, found: &Metadata) -> Answer {
    let mut answer = Answer::attributes(id);
    attributes::write(&mut answer, found);
    answer
}

fn open(path: &Path, flags: u32, mode: Mode) -> Result<File, Errno> {
    let mut how = match (flags & READ != 0, flags & WRITE != 0) {
        (true, true) => OFlag::O_RDWR,
        (false, true) => OFlag::O_WRONLY,
        (_, false) => OFlag::O_RDONLY,
    };
    for (asked, flag) in [
        (APPEND, OFlag::O_APPEND),
        (CREATE, OFlag::O_CREAT),
        (TRUNCATE, OFlag::O_TRUNC),
        (EXCLUSIVE, OFlag::O_EXCL),
    ] {
        if flags & asked != 0 {
            how |= flag;
        }
    }
    // A pipe that nobody writes to would be waited for.
    how |= OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    nix::fcntl::open(path, how, mode).map(File::from)
}

/// Of what exists; the last part need not.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    let error = match fs::canonicalize(path) {
        Ok(real) => return Ok(real),
        Err(error) => error,
    };
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            Ok(fs::canonicalize(parent)?.join(name))
        }
        _ => Err(error),
    }
}

/// The protocol's rename takes nothing's place.
fn rename(from: &Path, to: &Path) -> Result<(), Status> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that does not know it.
        Err(Errno::EINVAL | Errno::ENOSYS) if fs::symlink_metadata(to).is_err() => {
            Ok(fs::rename(from, to)?)
        }
        Err(Errno::EEXIST | Errno::EINVAL | Errno::ENOSYS) => {
            Err(Status::failure("there is something of that name"))
        }
        Err(error) => Err(error.into()),
    }
}
