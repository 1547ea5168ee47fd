//! The units of the packages, as systemd itself judges them: right, and no wider open than they say.

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use std::{fs, process::Command};

/// Exposure as `systemd-analyze security` counts it, from 0 to 10.
const LIMITS: [(&str, f64); 4] = [
    ("delegate-agent", 1.5),
    ("gitspaces-control-plane", 1.5),
    ("gitspaces-gateway", 1.5),
    ("runner-agent", 2.5),
];

/// Keys that a systemd before 254 does not know and says so.
const LATER_KEYS: [&str; 2] = ["'RestartSteps'", "'RestartMaxDelaySec'"];

fn units() -> Utf8PathBuf {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/system")
}

#[test]
fn no_daemon_is_exposed_more_than_its_limit() -> Result<()> {
    for (name, limit) in LIMITS {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(units().join(format!("{name}.service")))
            .output()
            .context("systemd-analyze has to be there: install `systemd`")?;
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        let level = table
            .rsplit_once(".service: ")
            .and_then(|(_, rest)| rest.split(' ').next())
            .with_context(|| format!("no level in {table}"))?;
        let level: f64 = level.parse().with_context(|| level.to_owned())?;
        ensure!(level <= limit, "{name}: {level} is over {limit}\n{table}");
    }
    Ok(())
}

/// In a root that has what the units refer to, and nothing else.
#[test]
fn systemd_finds_nothing_wrong_with_the_units() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let root = Utf8Path::from_path(dir.path()).context("UTF-8")?;
    let system = root.join("usr/lib/systemd/system");
    fs::create_dir_all(&system)?;
    let mut names = Vec::new();
    for entry in units().read_dir_utf8()? {
        let entry = entry?;
        fs::copy(entry.path(), system.join(entry.file_name()))?;
        names.push(entry.file_name().to_owned());
    }
    for program in LIMITS
        .iter()
        .map(|(name, _)| format!("usr/bin/{name}"))
        .chain(["bin/kill".to_owned()])
    {
        let path = root.join(program);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::copy("/bin/true", path)?;
    }
    // What every host has, without being what is looked at.
    for unit in [
        "basic.target",
        "docker.service",
        "multi-user.target",
        "network-online.target",
        "shutdown.target",
        "sockets.target",
        "sysinit.target",
    ] {
        let body = if unit.ends_with(".service") {
            "[Service]\nExecStart=/bin/kill\n"
        } else {
            "[Unit]\nDescription=x\n"
        };
        fs::write(system.join(unit), body)?;
    }
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(format!("--root={root}"))
        .arg("--man=no")
        .args(&names)
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaints: Vec<&str> = words
        .lines()
        .filter(|line| !LATER_KEYS.iter().any(|key| line.contains(key)))
        .collect();
    ensure!(
        output.status.success() && complaints.is_empty(),
        "{}\n{words}",
        output.status
    );
    Ok(())
}
