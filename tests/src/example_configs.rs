//! The configurations that the packages install: what they show as settings are settings.

use crate::deployment::{Daemon, bin_dir};
use anyhow::{Result, ensure};
use camino::Utf8Path;
use std::process::Command;

/// What names a file that is not there to be read, or needs one.
const OF_FILES: [&str; 4] = ["#ca_file", "#certificate =", "#key =", "#redirect_listen"];

/// `#key = value` and `#[table]` with the mark taken away; prose has a space after it.
fn settings(example: &str) -> String {
    example
        .lines()
        .filter(|line| !OF_FILES.iter().any(|key| line.starts_with(key)))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            Some(_) | None => line,
        })
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn every_setting_of_an_example_is_taken_by_its_daemon() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("gateway-token"), "gsg_example")?;
    for daemon in Daemon::ALL {
        let name = daemon.binary();
        let example =
            Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../packaging/etc/{name}.toml"));
        let text = settings(&std::fs::read_to_string(&example)?);
        let keys = text.lines().filter(|line| line.contains(" = ")).count();
        ensure!(keys >= 5, "{example} shows {keys} settings");
        let file = dir.path().join(format!("{name}.toml"));
        std::fs::write(&file, &text)?;
        let output = Command::new(bin_dir()?.join(name))
            .arg("--config")
            .arg(&file)
            .args(["config", "check", "--strict"])
            .env("CREDENTIALS_DIRECTORY", dir.path())
            .output()?;
        let words = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(
            output.status.success() && !words.to_lowercase().contains("unknown key"),
            "{example}: {words}\n{text}"
        );
    }
    Ok(())
}
