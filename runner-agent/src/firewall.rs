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

/// Whether the jumps into this deployment's chains are there.
#[derive(Clone, Copy)]
struct Jumps {
    input: bool,
    forward: bool,
}

#[derive(Debug)]
pub(crate) struct Firewall {
    mode: FirewallMode,
    interfaces: String,
    input_chain: String,
    forward_chain: String,
    host_access: Vec<SocketAddr>,
    failure: Mutex<Option<String>>,
    /// Two at once would both find a jump missing, and both add it.
    turn: tokio::sync::Mutex<()>,
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
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Sets everything up, from whatever is there.
    pub(crate) async fn apply(&self) {
        if self.mode == FirewallMode::Off {
            return;
        }
        let _turn = self.turn.lock().await;
        let (v4, v6) = tokio::join!(self.install(Family::V4), self.install(Family::V6));
        let failure = match v4 {
            Ok(()) => None,
            Err(error) => {
                let cause = daemon::ErrorChain(&error).to_string();
                tracing::error!(cause, "Cannot set up the firewall; no gitspace starts");
                Some(cause)
            }
        };
        if failure.is_none()
            && let Err(error) = v6
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

    /// Looks which jumps are there, and sets the rest in one transaction of the packet filter: each program that is run, and each
    /// transaction, is a part of the time that a runner takes to start.
    async fn install(&self, family: Family) -> Result<(), FirewallError> {
        let (program, restore) = family.programs();
        let input = list(program, "INPUT");
        let jumps = match family {
            Family::V4 => {
                let (input, forward) = tokio::join!(input, list(program, "DOCKER-USER"));
                let forward = match forward {
                    Ok(rules) => rules,
                    // Docker makes it too, and keeps it where it is there already.
                    Err(FirewallError::Failed { .. }) => {
                        match run(program, &[LOCK_WAIT, "-N", "DOCKER-USER"], None).await {
                            Ok(none) => none,
                            // Docker was faster, or the list failed for another reason, which comes again.
                            Err(_) => list(program, "DOCKER-USER").await?,
                        }
                    }
                    Err(error) => return Err(error),
                };
                Jumps {
                    input: self.is_in(&input?, "INPUT", &self.input_chain),
                    forward: self.is_in(&forward, "DOCKER-USER", &self.forward_chain),
                }
            }
            Family::V6 => Jumps {
                input: self.is_in(&input.await?, "INPUT", &self.input_chain),
                forward: true,
            },
        };
        let rules = self.rules(family, jumps);
        run(restore, &[LOCK_WAIT, "--noflush"], Some(&rules)).await?;
        Ok(())
    }

    /// Whether this deployment's interfaces are sent from one chain to another, among the rules that `iptables -S` listed.
    fn is_in(&self, rules: &str, from: &str, to: &str) -> bool {
        let rule = self.jump(from, to);
        rules.lines().any(|line| line.trim_end() == rule)
    }

    fn jump(&self, from: &str, to: &str) -> String {
        format!("-A {from} -i {} -j {to}", self.interfaces)
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
    fn rules(&self, family: Family, jumps: Jumps) -> String {
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
        let insert =
            |from: &str, to: &str| format!("{}\n", self.jump(from, to).replacen("-A", "-I", 1));
        if !jumps.input {
            rules.push_str(&insert("INPUT", input));
        }
        if matches!(family, Family::V4) {
            rules.push_str(&format!(":{forward} - [0:0]\n"));
            for metadata in METADATA {
                rules.push_str(&format!("-A {forward} -d {metadata} -j REJECT\n"));
            }
            // Docker isolates its networks too, but its chains are gone for a moment whenever a Docker starts on the host.
            for bridges in [self.interfaces.as_str(), "docker0", "br-+"] {
                rules.push_str(&format!("-A {forward} -o {bridges} -j DROP\n"));
            }
            if !jumps.forward {
                rules.push_str(&insert("DOCKER-USER", forward));
            }
        }
        rules.push_str("COMMIT\n");
        rules
    }
}

/// A chain's rules, as they would be added.
async fn list(program: &'static str, chain: &str) -> Result<String, FirewallError> {
    run(program, &[LOCK_WAIT, "-S", chain], None).await
}

/// What the program says, where it ends well.
async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String, FirewallError> {
    let failed = |source| FirewallError::Run { program, source };
    let work = async {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
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
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
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

    const MISSING: Jumps = Jumps {
        input: false,
        forward: false,
    };

    #[test]
    fn a_jump_is_added_where_it_is_not_listed_and_only_there() {
        let names = Names::new("d", camino::Utf8Path::new("/run"));
        let firewall = Firewall::new(FirewallMode::Required, &names, Vec::new());
        let (interfaces, input) = (&firewall.interfaces, &firewall.input_chain);
        let listed = format!("-P INPUT ACCEPT\n-A INPUT -i {interfaces} -j {input}\n");
        assert!(firewall.is_in(&listed, "INPUT", input));
        assert!(!firewall.is_in(&listed, "INPUT", &firewall.forward_chain));
        assert!(!firewall.is_in(&listed.replace("-+", "-2+"), "INPUT", input));
        let missing = firewall.rules(Family::V4, MISSING);
        assert!(
            missing.contains(&format!("\n-I INPUT -i {interfaces} -j {input}\n")),
            "{missing}"
        );
        assert!(missing.contains("\n-I DOCKER-USER -i "), "{missing}");
        let there = Jumps {
            input: true,
            forward: true,
        };
        let there = firewall.rules(Family::V4, there);
        assert!(!there.contains("-I "), "{there}");
        assert!(
            !missing.contains(":DOCKER-USER") && !missing.contains(":INPUT"),
            "others' chains are not declared, which would empty them: {missing}"
        );
    }

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
        let rules = firewall.rules(Family::V4, MISSING);
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
        assert!(!firewall.rules(Family::V6, MISSING).contains("169.254"));
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
