//! A file system of a few megabytes, in memory, that a test fills up and frees again.

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs::File,
    io::{self, Write as _},
};

const BALLAST: &str = "ballast";
const MIB: u64 = 1024 * 1024;

pub(crate) struct SmallDisk {
    at: Utf8PathBuf,
}

impl SmallDisk {
    /// Mounts one at a folder that is made for it.
    pub(crate) fn mount(at: &Utf8Path, mib: u64) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let options = format!("size={},mode=0700", mib * MIB);
        mount(
            Some("tmpfs"),
            at.as_std_path(),
            Some("tmpfs"),
            MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
            Some(options.as_str()),
        )
        .with_context(|| format!("cannot mount a file system at {at}"))?;
        Ok(Self { at: at.to_owned() })
    }

    /// The file that fills it.
    pub(crate) fn ballast(&self) -> Utf8PathBuf {
        self.at.join(BALLAST)
    }

    /// Whether it has been filled and not freed.
    pub(crate) fn is_full(&self) -> bool {
        self.ballast().exists()
    }

    /// Writes until nothing more fits, and gives `left` bytes back.
    pub(crate) fn fill(&self, left: u64) -> Result<()> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        let block = [0_u8; 4096];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
        let length = file.metadata()?.len();
        Ok(file.set_len(length.saturating_sub(left))?)
    }

    /// What filled it is gone.
    pub(crate) fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever has it open keeps it until then.
        if let Err(error) = umount2(self.at.as_std_path(), MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.at);
        }
    }
}
