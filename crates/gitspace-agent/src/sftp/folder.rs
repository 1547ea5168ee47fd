//! Listing a folder.

use super::{
    answer::{Answer, Status},
    attributes,
};
use jiff::{Timestamp, tz::TimeZone};
use std::{
    ffi::OsString,
    fs::{self, Metadata, ReadDir},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

/// In one answer; their packet fits, however long they are.
const NAMES: usize = 100;

#[derive(Debug)]
pub(super) struct Listing {
    path: PathBuf,
    /// That every folder has, and the system's listing leaves out.
    own: Vec<&'static str>,
    rest: ReadDir,
}

impl Listing {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            rest: fs::read_dir(path)?,
            own: vec!["..", "."],
            path: path.to_owned(),
        })
    }

    /// The next names.
    pub(super) fn next(&mut self, id: u32) -> Result<Answer, Status> {
        let mut names = Vec::new();
        while names.len() < NAMES {
            let name = match self.own.pop() {
                Some(own) => OsString::from(own),
                None => match self.rest.next() {
                    Some(entry) => entry?.file_name(),
                    None => break,
                },
            };
            // One that went meanwhile, or cannot be looked at, is not there.
            if let Ok(found) = fs::symlink_metadata(self.path.join(&name)) {
                names.push((name, found));
            }
        }
        if names.is_empty() {
            return Err(Status::end());
        }
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let mut answer = Answer::names(id, count);
        for (name, found) in names {
            answer.bytes(name.as_bytes());
            answer.bytes(&long_name(name.as_bytes(), &found));
            attributes::write(&mut answer, &found);
        }
        Ok(answer)
    }
}

/// A line of `ls -ln`, which some clients show as it is.
fn long_name(name: &[u8], found: &Metadata) -> Vec<u8> {
    let time = TimeZone::UTC
        .to_datetime(Timestamp::from_second(found.mtime()).unwrap_or_default())
        .strftime("%b %e %Y %H:%M");
    let mut line = format!(
        "{} {:>3} {:<8} {:<8} {:>8} {time} ",
        permissions(found),
        found.nlink(),
        found.uid(),
        found.gid(),
        found.size(),
    )
    .into_bytes();
    line.extend_from_slice(name);
    line
}

fn permissions(found: &Metadata) -> String {
    let kind = found.file_type();
    let mut text = String::with_capacity(10);
    text.push(if kind.is_dir() {
        'd'
    } else if kind.is_symlink() {
        'l'
    } else if kind.is_socket() {
        's'
    } else if kind.is_fifo() {
        'p'
    } else if kind.is_block_device() {
        'b'
    } else if kind.is_char_device() {
        'c'
    } else {
        '-'
    });
    let mode = found.mode();
    for (shift, special, set, unset) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}
