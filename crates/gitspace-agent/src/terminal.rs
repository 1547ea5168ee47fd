//! Terminals: a holder process each, which `serve` finds again by its socket.
//!
//! [`holder`] is the process, [`client`] is how `serve` talks to it, [`protocol`] is what they say.

pub(crate) mod client;
pub(crate) mod holder;
pub(crate) mod protocol;
mod ring;
mod screen;

use camino::{Utf8Path, Utf8PathBuf};
use std::{fs::Permissions, io, os::unix::fs::PermissionsExt as _};
use wire::ids::TerminalUuid;

const FOLDER: &str = "terminals";
const SUFFIX: &str = ".sock";

pub(crate) fn prepare(run_dir: &Utf8Path) -> io::Result<()> {
    let folder = run_dir.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(&folder, Permissions::from_mode(0o700))
}

fn socket(run_dir: &Utf8Path, id: TerminalUuid) -> Utf8PathBuf {
    run_dir.join(FOLDER).join(format!("{id}{SUFFIX}"))
}
