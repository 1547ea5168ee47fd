//! A support bundle: what somebody else needs to see what is wrong, and nothing that they must not have.

use crate::{Readiness, redact};
use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::io;

/// Of one configuration file.
const MAX_CONFIG: u64 = 256 * 1024;

/// What goes in.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) at: Timestamp,
    pub(crate) status: Value,
    pub(crate) readiness: Readiness,
    pub(crate) silent_loops: Vec<&'static str>,
    pub(crate) tasks: Value,
    pub(crate) metrics: String,
    pub(crate) config_files: Vec<Utf8PathBuf>,
    pub(crate) log: String,
}

/// A tar file. A configuration file that cannot be read is told in its place.
pub(crate) fn pack(parts: &Parts) -> io::Result<Vec<u8>> {
    let mut tar = Tar {
        builder: tar::Builder::new(Vec::new()),
        mtime: u64::try_from(parts.at.as_second()).unwrap_or(0),
    };
    tar.json(
        "about.json",
        &json!({"at": parts.at, "host": host(), "silent_loops": parts.silent_loops}),
    )?;
    tar.json("status.json", &parts.status)?;
    tar.json("checks.json", &parts.readiness)?;
    tar.json("tasks.json", &parts.tasks)?;
    tar.text("metrics.txt", &parts.metrics)?;
    tar.text("log.txt", &redact::text(&parts.log))?;
    for file in &parts.config_files {
        let text = match read(file) {
            Ok(text) => redact::config(&text),
            Err(error) => format!("# cannot read {file}: {error}\n"),
        };
        tar.text(
            &format!("config/{}", file.as_str().trim_start_matches('/')),
            &text,
        )?;
    }
    tar.builder.into_inner()
}

fn read(file: &camino::Utf8Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?
        .take(MAX_CONFIG)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn host() -> Value {
    nix::sys::utsname::uname().map_or(Value::Null, |name| {
        json!({
            "kernel": name.release().to_string_lossy(),
            "arch": name.machine().to_string_lossy(),
        })
    })
}

struct Tar {
    builder: tar::Builder<Vec<u8>>,
    mtime: u64,
}

impl Tar {
    fn json<T: serde::Serialize>(&mut self, name: &str, value: &T) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.text(name, &redact::text(&text))
    }

    fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.mtime);
        self.builder.append_data(
            &mut header,
            format!("support-bundle/{name}"),
            text.as_bytes(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Check, Severity};
    use camino::Utf8Path;
    use std::io::Read as _;

    #[test]
    fn a_bundle_holds_every_part_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let config = Utf8Path::from_path(dir.path()).unwrap().join("a.toml");
        std::fs::write(
            &config,
            "proxy = \"http://u:hunter2@p:1\"\njoin_token = \"hunter2\"\n",
        )
        .unwrap();
        let parts = Parts {
            at: Timestamp::UNIX_EPOCH,
            status: json!({"error": "cannot reach http://u:hunter2@p:1/"}),
            readiness: Readiness::of(vec![Check::bad(
                "link",
                Severity::Error,
                "http://u:hunter2@p down",
            )]),
            silent_loops: vec!["uplink"],
            tasks: json!([]),
            metrics: "# EOF\n".to_owned(),
            config_files: vec![config, "/nonexistent/b.toml".into()],
            log: "WARN dialling https://u:hunter2@h failed\n".to_owned(),
        };
        let bytes = pack(&parts).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            names.push(entry.path().unwrap().to_string_lossy().into_owned());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(!text.is_empty(), "{names:?}");
        }
        for wanted in [
            "about.json",
            "status.json",
            "checks.json",
            "tasks.json",
            "metrics.txt",
            "log.txt",
            "a.toml",
            "b.toml",
        ] {
            assert!(
                names.iter().any(|name| name.ends_with(wanted)),
                "{wanted} is not in {names:?}"
            );
        }
    }
}
