//! The packet filter: gitspaces reach the internet, and neither this host's own ports nor clouds' metadata nor another container.
//!
//! Two chains of this deployment's own, filled anew as a whole, with one jump each from `INPUT` and `DOCKER-USER`. Rules match the
//! interfaces of this deployment by their prefix, so that nothing has to be done for a single gitspace.
//!
//! Invariant: where the configuration says `required`, no machine is made while the last check failed.

use crate::{config::FirewallMode, names::Names};
use std::{
    net::{IpAddr, SocketAddr},
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, process::Command};
use wire::failure::{Failure, FailureCode};

const DEADLINE: Duration = Duration::from_secs(15);
/// Waits for another program's lock on the tables; `iptables-restore` takes no number of seconds in every version.
const LOCK_WAIT: &str = "-w";

/// Where clouds answer with what only the host may know: link-local (most), Alibaba's and Azure's own.
const METADATA: [&str; 3] = ["169.254.0.0/16", "100.100.100.200", "168.63.129.16"];

#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    #[error("cannot run `{program}`")]
    Run {
        program: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("`{program}` did not end within {} s", DEADLINE.as_secs())]
    Slow { program: &'static str },
    #[error("`{program} {arguments}` failed: {output}")]
    Failed {
        program: &'static str,
        arguments: String,
        output: String,
    },
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn programs(self) -> (&'static str, &'static str) {
        match self {
            Self::V4 => ("iptables", "iptables-restore"),
            Self::V6 => ("ip6tables", "ip6tables-restore"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Firewall {
    mode: FirewallMode,
    interfaces: String,
    input_chain: String,
    forward_chain: String,
    host_access: Vec<SocketAddr>,
    failure: Mutex<Option<String>>,
}

impl Firewall {
    pub(crate) fn new(mode: FirewallMode, names: &Names, host_access: Vec<SocketAddr>) -> Self {
        Self {
            mode,
            interfaces: format!("{}+", names.bridge_prefix()),
            input_chain: names.chain("IN"),
            forward_chain: names.chain("FWD"),
            host_access,
            failure: Mutex::new(Some("it has not been set up yet".to_owned())),
        }
    }

    /// Sets everything up, from whatever is there.
    pub(crate) async fn apply(&self) {
        if self.mode == FirewallMode::Off {
            return;
        }
        let failure = match self.install(Family::V4).await {
            Ok(()) => None,
            Err(error) => {
                let cause = daemon::ErrorChain(&error).to_string();
                tracing::error!(cause, "Cannot set up the firewall; no gitspace starts");
                Some(cause)
            }
        };
        if failure.is_none()
            && let Err(error) = self.install(Family::V6).await
        {
            // Docker turns IPv6 off inside gitspaces, so that this is a second lock on the same door.
            tracing::warn!(error = %daemon::ErrorChain(&error), "Cannot set up the firewall for IPv6");
        }
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Why gitspaces may not run, where they may not.
    pub(crate) fn problem(&self) -> Option<String> {
        match self.mode {
            FirewallMode::Off => None,
            FirewallMode::Required => self
                .failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    pub(crate) const fn mode(&self) -> FirewallMode {
        self.mode
    }

    pub(crate) fn ready(&self) -> Result<(), Failure> {
        match self.problem() {
            None => Ok(()),
            Some(cause) => Err(Failure::new(
                FailureCode::PreconditionFailed,
                "the host's firewall cannot be set up, and gitspaces may not run without it",
            )
            .detail(cause)
            .hint("install `iptables` and run the runner with CAP_NET_ADMIN; or, where another firewall does it, set `firewall = \"off\"`")),
        }
    }

    async fn install(&self, family: Family) -> Result<(), FirewallError> {
        let (program, restore) = family.programs();
        run(
            restore,
            &[LOCK_WAIT, "--noflush"],
            Some(&self.rules(family)),
        )
        .await?;
        self.jump(program, "INPUT", &self.input_chain).await?;
        if matches!(family, Family::V4) {
            // Docker makes it too, and keeps it where it is there already.
            if run(program, &[LOCK_WAIT, "-nL", "DOCKER-USER"], None)
                .await
                .is_err()
            {
                run(program, &[LOCK_WAIT, "-N", "DOCKER-USER"], None).await?;
            }
            self.jump(program, "DOCKER-USER", &self.forward_chain)
                .await?;
        }
        Ok(())
    }

    async fn jump(&self, program: &'static str, from: &str, to: &str) -> Result<(), FirewallError> {
        let rule = ["-i", self.interfaces.as_str(), "-j", to];
        let check: Vec<&str> = [LOCK_WAIT, "-C", from].into_iter().chain(rule).collect();
        if run(program, &check, None).await.is_ok() {
            return Ok(());
        }
        let insert: Vec<&str> = [LOCK_WAIT, "-I", from, "1"]
            .into_iter()
            .chain(rule)
            .collect();
        run(program, &insert, None).await
    }

    /// Takes everything of this deployment out again.
    pub(crate) async fn remove(&self) {
        for family in [Family::V4, Family::V6] {
            let (program, _) = family.programs();
            for (from, chain) in [
                ("INPUT", &self.input_chain),
                ("DOCKER-USER", &self.forward_chain),
            ] {
                for arguments in [
                    vec![LOCK_WAIT, "-D", from, "-i", &self.interfaces, "-j", chain],
                    vec![LOCK_WAIT, "-F", chain],
                    vec![LOCK_WAIT, "-X", chain],
                ] {
                    if let Err(error) = run(program, &arguments, None).await {
                        tracing::debug!(error = %daemon::ErrorChain(&error), "A rule was not there");
                    }
                }
            }
        }
    }

    /// Input of `iptables-restore`: a chain that is declared there is emptied first, and all of it takes effect at once.
    fn rules(&self, family: Family) -> String {
        let (input, forward) = (&self.input_chain, &self.forward_chain);
        let mut rules = format!(
            "*filter\n:{input} - [0:0]\n-A {input} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
        );
        for address in &self.host_access {
            let same = matches!(
                (address.ip(), family),
                (IpAddr::V4(_), Family::V4) | (IpAddr::V6(_), Family::V6)
            );
            if same {
                rules.push_str(&format!(
                    "-A {input} -d {} -p tcp --dport {} -j ACCEPT\n",
                    address.ip(),
                    address.port()
                ));
            }
        }
        rules.push_str(&format!("-A {input} -j REJECT\n"));
        if matches!(family, Family::V4) {
            rules.push_str(&format!(":{forward} - [0:0]\n"));
            for metadata in METADATA {
                rules.push_str(&format!("-A {forward} -d {metadata} -j REJECT\n"));
            }
            // Docker isolates its networks too, but its chains are gone for a moment whenever a Docker starts on the host.
            for bridges in [self.interfaces.as_str(), "docker0", "br-+"] {
                rules.push_str(&format!("-A {forward} -o {bridges} -j DROP\n"));
            }
        }
        rules.push_str("COMMIT\n");
        rules
    }
}

async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<(), FirewallError> {
    let failed = |source| FirewallError::Run { program, source };
    let work = async {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            // One that ended early says better why itself.
            if let Err(error) = stdin.write_all(text.as_bytes()).await {
                tracing::debug!(program, %error, "The program did not read its input");
            }
        }
        child.wait_with_output().await.map_err(failed)
    };
    let output = tokio::time::timeout(DEADLINE, work)
        .await
        .map_err(|_| FirewallError::Slow { program })??;
    if output.status.success() {
        return Ok(());
    }
    Err(FirewallError::Failed {
        program,
        arguments: arguments.join(" "),
        output: String::from_utf8_lossy(&output.stderr)
            .trim()
            .chars()
            .take(500)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_addresses_come_before_the_refusal_and_only_in_their_family() {
        let names = Names::new("d", camino::Utf8Path::new("/run"));
        let firewall = Firewall::new(
            FirewallMode::Required,
            &names,
            vec![
                "172.17.0.1:80".parse().unwrap(),
                "[fd00::1]:81".parse().unwrap(),
            ],
        );
        let rules = firewall.rules(Family::V4);
        let allowed = rules
            .find("-d 172.17.0.1 -p tcp --dport 80 -j ACCEPT")
            .unwrap();
        assert!(allowed < rules.find("-j REJECT").unwrap());
        assert!(!rules.contains("fd00::1"));
        for metadata in METADATA {
            assert!(
                rules.contains(&format!("-d {metadata} -j REJECT")),
                "{rules}"
            );
        }
        assert!(
            rules.contains("-o docker0 -j DROP") && rules.contains("+ -j DROP"),
            "neither another gitspace nor another container: {rules}"
        );
        assert!(!firewall.rules(Family::V6).contains("169.254"));
    }

    #[test]
    fn nothing_may_run_before_it_is_set_up() {
        let names = Names::new("d", camino::Utf8Path::new("/run"));
        assert!(
            Firewall::new(FirewallMode::Required, &names, Vec::new())
                .ready()
                .is_err()
        );
        assert!(
            Firewall::new(FirewallMode::Off, &names, Vec::new())
                .ready()
                .is_ok()
        );
    }
}
