//! Trust in ssh servers: which host keys a clone takes, and what is said of a key that nobody here knows.
//!
//! What the runner's operator knows is strict; the image's own `known_hosts` counts too. A key that is seen for the first time is taken only
//! where the operator said so, and else named with its fingerprint, so that a person can compare it.

use camino::{Utf8Path, Utf8PathBuf};
use data_encoding::{BASE64, BASE64_NOPAD};
use sha2::{Digest as _, Sha256};
use wire::{
    agent::SshTrust,
    failure::{Failure, FailureCode},
    gitspace::RepoSpec,
};

/// A `known_hosts` of one job; removed with it.
#[derive(Debug)]
pub(super) struct KnownHosts {
    path: Utf8PathBuf,
    accept_new: bool,
}

impl KnownHosts {
    pub(super) fn write(run_dir: &Utf8Path, job: &str, trust: &SshTrust) -> Result<Self, Failure> {
        let path = run_dir.join(format!("known_hosts-{job}"));
        let mut text = trust.known_hosts.join("\n");
        text.push('\n');
        std::fs::write(&path, text).map_err(|error| {
            Failure::new(FailureCode::Internal, format!("cannot write `{path}`"))
                .detail(error.to_string())
                .hint("check the disk of the runner's `run_dir`")
        })?;
        Ok(Self {
            path,
            accept_new: trust.accept_new,
        })
    }

    /// For git; it goes through a shell.
    pub(super) fn command(&self) -> String {
        let checking = if self.accept_new { "accept-new" } else { "yes" };
        format!(
            "ssh -oBatchMode=yes -oStrictHostKeyChecking={checking} '-oUserKnownHostsFile={} ~/.ssh/known_hosts' \
             -oConnectTimeout=20 -oServerAliveInterval=15",
            self.path
        )
    }
}

impl Drop for KnownHosts {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path, %error, "A job's known_hosts is left behind");
        }
    }
}

/// A host key as `ssh-keyscan` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostKey {
    /// `host algorithm key`, as `known_hosts` wants it.
    line: String,
    algorithm: String,
    fingerprint: String,
}

/// What asks the server of this repository for its keys; `None` for what is not ssh.
pub(super) fn scan_argv(repo: &RepoSpec) -> Option<Vec<String>> {
    if !repo.url.is_ssh() {
        return None;
    }
    let url = url::Url::parse(repo.url.as_str()).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(22).to_string();
    let mut argv: Vec<String> = ["ssh-keyscan", "-T", "10", "-t", "ed25519,ecdsa,rsa", "-p"]
        .iter()
        .map(|&argument| argument.to_owned())
        .collect();
    argv.extend([port, host]);
    Some(argv)
}

/// The keys in what it printed, the strongest first.
pub(super) fn parse_scan(output: &str) -> Vec<HostKey> {
    let mut keys: Vec<HostKey> = output
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (host, algorithm, key) = (fields.next()?, fields.next()?, fields.next()?);
            let known = algorithm.starts_with("ssh-") || algorithm.starts_with("ecdsa-");
            let blob = BASE64.decode(key.as_bytes()).ok().filter(|_| known)?;
            Some(HostKey {
                line: format!("{host} {algorithm} {key}"),
                algorithm: algorithm.to_owned(),
                fingerprint: format!("SHA256:{}", BASE64_NOPAD.encode(&Sha256::digest(blob))),
            })
        })
        .collect();
    keys.sort_by_key(|key| match key.algorithm.as_str() {
        "ssh-ed25519" => 0,
        "ssh-rsa" => 2,
        _ => 1,
    });
    keys
}

/// Whether ssh said that it knows no key of the server; one that differs from the known is another matter.
pub(super) fn is_unknown_key(output: &str) -> bool {
    output.contains("host key is known for")
}

pub(super) fn unknown_key(repo: &RepoSpec, keys: &[HostKey], output: &str) -> Failure {
    let host = repo.url.host_and_port();
    let failure = match keys.first() {
        Some(key) => Failure::new(
            FailureCode::GitUnreachable,
            format!(
                "nobody here knows the key of the ssh server `{host}`: {} ({})",
                key.fingerprint, key.algorithm
            ),
        )
        .hint(format!(
            "compare the fingerprint with the one that the server's operator publishes; where it is right, have the operator of the runner \
             add \"{}\" to `ssh_known_hosts` in its configuration and restart it; then start again",
            key.line
        )),
        None => Failure::new(
            FailureCode::GitUnreachable,
            format!("nobody here knows the key of the ssh server `{host}`"),
        )
        .hint(
            "have the operator of the runner add the server's key (`ssh-keyscan` shows it) to `ssh_known_hosts` in its configuration; then \
             start again",
        ),
    };
    failure.detail(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanned_key_is_named_by_its_fingerprint() {
        // The key and the fingerprint that GitHub publishes.
        let line = "github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        let output = format!(
            "# github.com:22 SSH-2.0-x\ngithub.com ecdsa-sha2-nistp256 AAAA\n{line}\nnonsense\n"
        );
        let keys = parse_scan(&output);
        assert_eq!(keys.len(), 2, "{keys:?}");
        let first = keys.first().unwrap();
        assert_eq!(first.line, line);
        assert_eq!(
            first.fingerprint,
            "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
        );
        let repo = RepoSpec {
            url: "git@github.com:team/app.git".parse().unwrap(),
            reference: None,
        };
        let failure = unknown_key(&repo, &keys, "words");
        assert!(failure.message.contains(&first.fingerprint), "{failure:?}");
        assert!(failure.hint.is_some_and(|hint| hint.contains(line)));
    }

    #[test]
    fn the_port_of_the_url_is_the_one_that_is_asked() {
        let argv = |url: &str| {
            scan_argv(&RepoSpec {
                url: url.parse().unwrap(),
                reference: None,
            })
        };
        let asked = argv("ssh://git@[::1]:2222/app.git").unwrap();
        assert!(
            asked.ends_with(&["2222".to_owned(), "::1".to_owned()]),
            "{asked:?}"
        );
        let asked = argv("git@example.com:app.git").unwrap();
        assert!(
            asked.ends_with(&["22".to_owned(), "example.com".to_owned()]),
            "{asked:?}"
        );
        assert_eq!(argv("https://example.com/app.git"), None);
    }
}
