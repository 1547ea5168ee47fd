//! What the runner needs, and how it is: for `readyz` of a running one, and for `doctor` before the first start.

use crate::{
    config::{FirewallMode, RunnerConfig},
    docker::Docker,
    reconcile::Kept,
    shared::Shared,
};
use admin::{Check, Severity};
use camino::Utf8Path;
use daemon::{ErrorChain, Hint as _};
use std::{os::unix::fs::PermissionsExt as _, time::Duration};
use wire::{
    failure::FailureCode,
    gitspace::{Observed, ObservedState},
};

const DOCKER_DEADLINE: Duration = Duration::from_secs(3);

const DOCKER: &str = "docker";
const DEFAULT_IMAGE: &str = "default_image";
const LEDGER: &str = "ledger";
const FIREWALL: &str = "firewall";
const SANDBOX_POOL: &str = "sandbox_pool";
const STATE_DISK: &str = "state_disk";
const DOCKER_DISK: &str = "docker_disk";
const AGENT_SILENT: &str = "agent_silent";
const ORPHANS: &str = "orphan_volumes";
const DRAINING: &str = "draining";
const STATE_DIR: &str = "state_dir";
const AGENT: &str = "agent_binary";
const KVM: &str = "kvm";
const RUN_DIR: &str = "run_dir";
const API_SOCKET: &str = "api_socket";
const ADMIN_SOCKET: &str = "admin_socket";
const DEPLOYMENT: &str = "deployment";

/// As its binary is called.
const DAEMON: &str = "runner-agent";

/// Of a running runner.
pub(crate) async fn running(
    shared: &Shared,
    docker: &Docker,
    kept: &Kept,
    draining: bool,
) -> Vec<Check> {
    let config = &shared.config;
    let mut checks = self::docker(docker, &config.default_image).await;
    let damaged = shared.ledger.damaged().len() + shared.journal.damaged();
    let adopted = shared.ledger.adopted().len();
    checks.push(if damaged == 0 && adopted > 0 {
        Check::bad(
            LEDGER,
            Severity::Warning,
            format!("{adopted} dev containers were not in the ledger, or older there, and were adopted by their labels"),
        )
        .fix(format!(
            "find out who removed files from {} or put older copies there; `runner-agent status` names the containers, and volumes that could not be adopted",
            config.state_dir
        ))
    } else if damaged == 0 {
        Check::good(LEDGER, Severity::Warning, "every file could be read")
    } else {
        Check::bad(
            LEDGER,
            Severity::Warning,
            format!("{damaged} files could not be read and were put aside"),
        )
        .fix(format!(
            "see the files called `.damaged` in {}; what they spoke of is kept until you decide",
            config.state_dir
        ))
    });
    checks.push(match shared.firewall.problem() {
        None if shared.firewall.mode() == FirewallMode::Off => {
            Check::good(FIREWALL, Severity::Error, "off by configuration")
        }
        None => Check::good(FIREWALL, Severity::Error, "set up"),
        Some(cause) => Check::bad(FIREWALL, Severity::Error, "cannot be set up")
            .cause(cause)
            .fix("install `iptables` and run the runner with CAP_NET_ADMIN"),
    });
    checks.push(match shared.pool.failure() {
        None => Check::good(SANDBOX_POOL, Severity::Warning, "nothing failed"),
        Some(failure) => {
            let check = Check::bad(SANDBOX_POOL, Severity::Warning, failure.message);
            match failure.hint {
                Some(hint) => check.fix(hint),
                None => check,
            }
        }
    });
    checks.push(if *kept == Kept::default() {
        Check::good(ORPHANS, Severity::Warning, "none")
    } else {
        Check::bad(
            ORPHANS,
            Severity::Warning,
            format!(
                "{} volumes and {} dev containers belong to no gitspace that the ledger knows, and are kept",
                kept.volumes.len(),
                kept.containers.len()
            ),
        )
        .fix("`runner-agent status` names them; `docker rm` and `docker volume rm` remove what nobody needs")
    });
    checks.push(agents(&shared.board.after(0)));
    checks.push(Check::disk(STATE_DISK, "the runner's state", &config.state_dir).await);
    checks.push(if draining {
        Check::bad(DRAINING, Severity::Info, "drained: it starts nothing more")
            .fix("`runner-agent undrain` takes work again")
    } else {
        Check::good(DRAINING, Severity::Info, "takes work")
    });
    checks
}

/// As the gitspaces' own tasks have found.
fn agents(observed: &[Observed]) -> Check {
    let running = observed
        .iter()
        .filter(|observed| observed.state == ObservedState::Running);
    let silent: Vec<_> = running
        .clone()
        .filter(|observed| {
            observed
                .failure
                .as_ref()
                .is_some_and(|failure| failure.code == FailureCode::AgentSilent)
        })
        .collect();
    let total = running.count();
    let Some(first) = silent.first() else {
        return Check::good(
            AGENT_SILENT,
            Severity::Warning,
            format!("the agents of all {total} gitspaces that run answer"),
        );
    };
    Check::bad(
        AGENT_SILENT,
        Severity::Warning,
        format!(
            "{} of {total} gitspaces run without an agent that answers; the first is {}",
            silent.len(),
            first.gitspace
        ),
    )
    .cause(
        first
            .failure
            .as_ref()
            .and_then(|failure| failure.detail.clone())
            .unwrap_or_default(),
    )
    .fix("nothing in them is ended for that: look at the container's CPU and memory; stop and start the gitspace where its owner agrees")
}

/// Of a host that may have no runner yet. Changes nothing.
pub(crate) async fn host(config: &RunnerConfig) -> Vec<Check> {
    let (running, is_running) = Check::running(&config.state_dir, DAEMON);
    let mut checks = vec![
        running,
        Check::writable(STATE_DIR, &config.state_dir, DAEMON),
        Check::writable(RUN_DIR, &config.run_dir, DAEMON),
        Check::socket(API_SOCKET, &config.api_socket, DAEMON, is_running),
        Check::socket(ADMIN_SOCKET, &config.admin_socket, DAEMON, is_running),
        deployment(config),
        Check::drain_file(&config.state_dir),
        Check::disk(
            STATE_DISK,
            "the runner's state",
            &admin::nearest(&config.state_dir),
        )
        .await,
        agent(&config.agent_binary),
    ];
    checks.extend(docker(&Docker::new(&config.docker_host), &config.default_image).await);
    checks.push(firewall_programs(config.firewall));
    checks.push(kvm());
    checks
}

async fn docker(docker: &Docker, image: &str) -> Vec<Check> {
    let (version, root) = match docker.about(DOCKER_DEADLINE).await {
        Ok(about) => about,
        Err(error) => {
            let check = Check::bad(
                DOCKER,
                Severity::Error,
                format!("Docker does not answer at {}", docker.host()),
            )
            .cause(ErrorChain(&error).to_string());
            return vec![
                match error.failure().hint {
                    Some(hint) => check.fix(hint),
                    None => check,
                },
                Check::bad(DEFAULT_IMAGE, Severity::Warning, "not known").because_of(DOCKER),
            ];
        }
    };
    let mut checks = vec![Check::good(
        DOCKER,
        Severity::Error,
        format!("Docker {version} answers"),
    )];
    // Only where Docker's folder is this host's, which may not let us look into it.
    let is_elsewhere = matches!(
        admin::look_at_disk(Utf8Path::new(&root)).await,
        Err(admin::DiskError::Refused(_))
    );
    if !is_elsewhere {
        checks.push(
            Check::disk(
                DOCKER_DISK,
                "Docker's images and volumes",
                Utf8Path::new(&root),
            )
            .await,
        );
    }
    checks.push(match docker.image(image).await {
        Ok(Some(_)) => Check::good(
            DEFAULT_IMAGE,
            Severity::Warning,
            format!("{image} is on the host"),
        ),
        Ok(None) => {
            let check = Check::bad(
                DEFAULT_IMAGE,
                Severity::Warning,
                format!("{image} is not on the host"),
            );
            match crate::sandbox::default_image_missing(image).hint {
                Some(hint) => check.fix(hint),
                None => check,
            }
        }
        Err(error) => Check::bad(DEFAULT_IMAGE, Severity::Warning, "not known")
            .cause(ErrorChain(&error).to_string())
            .because_of(DOCKER),
    });
    checks
}

/// The name by which everything in Docker is found.
fn deployment(config: &RunnerConfig) -> Check {
    match crate::app::known_deployment(config) {
        Ok(Some(name)) => Check::good(DEPLOYMENT, Severity::Error, format!("it is `{name}`")),
        Ok(None) => Check::good(
            DEPLOYMENT,
            Severity::Error,
            "it gets a name at the first start",
        ),
        Err(error) => {
            let check = Check::bad(DEPLOYMENT, Severity::Error, "its name cannot be read")
                .cause(ErrorChain(&error).to_string());
            match error.hint() {
                Some(hint) => check.fix(hint),
                None => check,
            }
        }
    }
}

fn agent(path: &Utf8Path) -> Check {
    let fix = "set `agent_binary` to the gitspace-agent of this version";
    match std::fs::metadata(path) {
        Err(error) => Check::bad(AGENT, Severity::Error, format!("`{path}` cannot be read"))
            .cause(error.to_string())
            .fix(fix),
        Ok(data) if !data.is_file() || data.permissions().mode() & 0o111 == 0 => {
            Check::bad(AGENT, Severity::Error, format!("`{path}` is not a program")).fix(fix)
        }
        Ok(_) => Check::good(AGENT, Severity::Error, format!("`{path}` is there")),
    }
}

fn firewall_programs(mode: FirewallMode) -> Check {
    if mode == FirewallMode::Off {
        return Check::good(FIREWALL, Severity::Error, "off by configuration");
    }
    let missing: Vec<_> = [
        "iptables",
        "iptables-restore",
        "ip6tables",
        "ip6tables-restore",
    ]
    .into_iter()
    .filter(|program| !is_in_path(program))
    .collect();
    if missing.is_empty() {
        Check::good(FIREWALL, Severity::Error, "its programs are there")
    } else {
        Check::bad(
            FIREWALL,
            Severity::Error,
            format!("not on the host: {}", missing.join(", ")),
        )
        .fix("install `iptables`")
    }
}

fn is_in_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

/// The machine provider of this version is the host's Docker, which needs no KVM: this only tells what is there.
fn kvm() -> Check {
    match std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(_) => Check::good(
            KVM,
            Severity::Info,
            "/dev/kvm opens; whether guests really run on it is not tried, because nothing here uses it",
        ),
        Err(error) => Check::bad(
            KVM,
            Severity::Info,
            "/dev/kvm does not open; nothing here uses it",
        )
        .cause(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bare_host_is_told_everything_that_it_lacks_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        let config = RunnerConfig {
            state_dir: root.join("state"),
            run_dir: root.join("run"),
            api_socket: root.join("run/api.sock"),
            admin_socket: root.join("run/admin.sock"),
            agent_binary: root.join("agent"),
            docker_host: format!("unix://{root}/docker.sock"),
            ..RunnerConfig::default()
        };
        let checks = host(&config).await;
        let failed = |code: &str| {
            checks
                .iter()
                .any(|check| check.code == code && check.is_fatal())
        };
        assert!(failed(AGENT) && failed(DOCKER), "{checks:#?}");
        assert!(
            !failed(STATE_DIR),
            "the folder above it can be written: {checks:#?}"
        );
        let image = checks
            .iter()
            .find(|check| check.code == DEFAULT_IMAGE)
            .unwrap();
        assert_eq!(image.because_of.as_deref(), Some(DOCKER));
        assert!(!config.state_dir.exists() && !config.run_dir.exists());
    }

    #[tokio::test]
    async fn what_a_start_would_refuse_is_told_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        let file = root.join("file");
        std::fs::write(&file, "x").unwrap();
        let good = RunnerConfig {
            state_dir: root.join("state"),
            run_dir: root.join("run"),
            api_socket: root.join("run/api.sock"),
            admin_socket: root.join("run/admin.sock"),
            docker_host: format!("unix://{root}/docker.sock"),
            ..RunnerConfig::default()
        };
        std::fs::create_dir(&good.state_dir).unwrap();
        for name in ["deployment", "drain.json"] {
            std::fs::write(good.state_dir.join(name), "cut").unwrap();
        }
        let wrong = RunnerConfig {
            run_dir: file.join("run"),
            api_socket: file.clone(),
            admin_socket: file.join("admin.sock"),
            ..good.clone()
        };
        let checks = host(&wrong).await;
        for code in [RUN_DIR, API_SOCKET, ADMIN_SOCKET, DEPLOYMENT, "drain_file"] {
            let check = checks.iter().find(|check| check.code == code).unwrap();
            assert!(check.is_fatal(), "{check:?}");
        }
        for name in ["deployment", "drain.json"] {
            std::fs::remove_file(good.state_dir.join(name)).unwrap();
        }
        let _lock = daemon::StateLock::take(&good.state_dir).unwrap();
        let checks = host(&good).await;
        for code in [RUN_DIR, API_SOCKET, ADMIN_SOCKET, DEPLOYMENT, "running"] {
            let check = checks.iter().find(|check| check.code == code).unwrap();
            assert!(check.ok, "{check:?}");
        }
    }
}
