//! What git's words mean. It runs with `LC_ALL=C`, so they are always the same.

use wire::{
    failure::{Failure, FailureCode},
    gitspace::{GitScheme, RepoSpec},
};

/// The first rule with a phrase in git's output decides; the more specific ones come first.
const RULES: &[(&[&str], Kind)] = &[
    (
        &[
            "no space left on device",
            "disk quota exceeded",
            // libcurl's words where a write of what it received to the local disk fails.
            "failure writing output to destination",
        ],
        Kind::DiskFull,
    ),
    (
        &["cannot run ssh", "ssh: not found", "ssh: no such file"],
        Kind::SshMissing,
    ),
    (
        &["smudge filter lfs failed", "external filter 'git-lfs"],
        Kind::LargeFile,
    ),
    (&["unable to find remote helper for"], Kind::HelperMissing),
    (&["' not allowed"], Kind::Transport),
    (
        &[
            "remote host identification has changed",
            "host key verification failed",
        ],
        Kind::HostKey,
    ),
    (
        &[
            "could not read username",
            "could not read password",
            "authentication failed",
            "permission denied (",
            "http basic: access denied",
            "returned error: 401",
            "returned error: 403",
            "terminal prompts disabled",
        ],
        Kind::Authentication,
    ),
    (
        &[
            "remote branch",
            "couldn't find remote ref",
            "not our ref",
            "unadvertised object",
            "unable to read tree",
            "reference is not a tree",
            "did not match any file",
            "bad object",
            "not a commit",
            "no such remote ref",
            "cannot obtain needed object",
            "invalid reference",
        ],
        Kind::Reference,
    ),
    (
        &[
            "could not resolve host",
            "failed to connect",
            "couldn't connect",
            "could not connect",
            "connection refused",
            "connection timed out",
            "operation timed out",
            "connection reset",
            "connection closed by",
            "no route to host",
            "network is unreachable",
            "operation too slow",
            "timed out",
            "name or service not known",
            "temporary failure in name resolution",
            "empty reply from server",
            "returned error: 5",
        ],
        Kind::Unreachable,
    ),
    (
        &[
            "ssl certificate",
            "certificate verif",
            "server certificate",
            "ssl_error",
            "tls",
        ],
        Kind::Certificate,
    ),
    (
        &[
            "not found",
            "does not appear to be a git repository",
            "returned error: 404",
            "repository does not exist",
            "not valid: is this a git repository",
        ],
        Kind::NotFound,
    ),
];

#[derive(Clone, Copy)]
enum Kind {
    DiskFull,
    SshMissing,
    HelperMissing,
    Transport,
    HostKey,
    LargeFile,
    Authentication,
    Reference,
    Unreachable,
    Certificate,
    NotFound,
}

/// The failure behind the last words of git.
pub(super) fn classify(repo: &RepoSpec, output: &str) -> Failure {
    let lower = output.to_lowercase();
    let kind = RULES
        .iter()
        .find(|(phrases, _)| phrases.iter().any(|phrase| lower.contains(phrase)))
        .map(|(_, kind)| *kind);
    let url = repo.url.as_str();
    let host = repo.url.host_and_port();
    let reference = repo.reference.as_ref().map_or("HEAD", AsRef::as_ref);
    let failure = match kind {
        Some(Kind::DiskFull) => Failure::new(
            FailureCode::DiskFull,
            format!("the disk is full while cloning `{url}`"),
        )
        .hint("free some disk space on the host, then start the gitspace again"),
        Some(Kind::SshMissing) => Failure::new(
            FailureCode::ToolMissing,
            "`ssh` is not in the image that clones",
        )
        .hint("use an https URL, or a default image that contains openssh-client"),
        Some(Kind::HelperMissing) => Failure::new(
            FailureCode::ToolMissing,
            "the git in the image that clones cannot speak this protocol",
        )
        .hint("use a default image whose git speaks https, as Debian's does"),
        Some(Kind::Transport) => Failure::new(
            FailureCode::GitFailed,
            format!("`{url}`, or a submodule of it, uses a transport that is not allowed"),
        )
        .hint("only http, https and ssh URLs are taken, for submodules too"),
        Some(Kind::LargeFile) => Failure::new(
            FailureCode::GitFailed,
            format!("a large file of `{url}` (Git LFS) cannot be had"),
        )
        .hint(
            "git-lfs' words in the detail say which: push the file from a clone that has it (`git lfs push --all origin`), or store a \
             credential that may read it; then start again",
        ),
        Some(Kind::HostKey) => Failure::new(
            FailureCode::GitUnreachable,
            format!("the ssh server `{host}` has another key than the one that is known of it"),
        )
        .hint(
            "somebody may be between this host and the server: ask the server's operator whether its key was changed; where it was, have the \
             operator of the runner change `ssh_known_hosts` in its configuration",
        ),
        Some(Kind::Authentication) => Failure::new(
            FailureCode::GitAuthentication,
            format!("`{host}` asks for credentials for `{url}`, or refused those it got"),
        )
        .hint(credential_hint(repo)),
        Some(Kind::Reference) => Failure::new(
            FailureCode::GitRefNotFound,
            format!("`{reference}` is no branch, tag or commit of `{url}`"),
        )
        .hint("create the gitspace again with a branch, tag or commit that exists"),
        Some(Kind::Unreachable) => Failure::new(
            FailureCode::GitUnreachable,
            format!("the Git server `{host}` does not answer"),
        )
        .hint("check the URL, and that this host reaches the server; where the server is this host itself, its operator has to let gitspaces in (`host_access` of the runner); then start again"),
        Some(Kind::Certificate) => Failure::new(
            FailureCode::GitUnreachable,
            format!("the certificate of the Git server `{host}` is not trusted"),
        )
        .hint("add the server's CA to the default image"),
        Some(Kind::NotFound) => Failure::new(
            FailureCode::GitRepositoryNotFound,
            format!("there is no repository at `{url}`"),
        )
        .hint("check the URL; a private repository may hide itself: store a Git credential for it"),
        None => Failure::new(FailureCode::GitFailed, format!("git cannot clone `{url}`"))
            .hint("see git's own words in the log"),
    };
    if output.is_empty() {
        failure
    } else {
        failure.detail(output)
    }
}

fn credential_hint(repo: &RepoSpec) -> String {
    let host = repo.url.host_and_port();
    if repo.url.is_ssh() {
        return "use an https URL and a Git credential, or give the image that clones a key for ssh that the server knows".to_owned();
    }
    let scheme = if repo.url.as_str().starts_with("http://") {
        GitScheme::Http
    } else {
        GitScheme::Https
    };
    let place = scheme.spell(&host);
    format!(
        "store a Git credential with access to the repository, `gitspace git-credential set {place} USER`, then start again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_words_become_a_reason() {
        let repo = RepoSpec {
            url: "https://git.example/app.git".parse().unwrap(),
            reference: Some("dev".parse().unwrap()),
        };
        for (words, code) in [
            (
                "fatal: unable to access 'https://git.example/app.git/': Could not resolve host: git.example",
                FailureCode::GitUnreachable,
            ),
            (
                "fatal: unable to access 'https://x/': Failed to connect to x port 443 after 0 ms: Couldn't connect to server",
                FailureCode::GitUnreachable,
            ),
            (
                "ssh: connect to host x port 22: Connection refused\nfatal: Could not read from remote repository.",
                FailureCode::GitUnreachable,
            ),
            (
                "fatal: could not read Username for 'https://git.example': terminal prompts disabled",
                FailureCode::GitAuthentication,
            ),
            (
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
                FailureCode::GitUnreachable,
            ),
            (
                "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                FailureCode::GitAuthentication,
            ),
            (
                "fatal: repository 'https://git.example/app.git/' not found",
                FailureCode::GitRepositoryNotFound,
            ),
            (
                "warning: Could not find remote branch dev to clone.\nfatal: Remote branch dev not found in upstream origin",
                FailureCode::GitRefNotFound,
            ),
            (
                "fatal: write error: No space left on device",
                FailureCode::DiskFull,
            ),
            (
                "error: Failure writing output to destination (curl_result = 23)",
                FailureCode::DiskFull,
            ),
            (
                "error: cannot run ssh: No such file or directory",
                FailureCode::ToolMissing,
            ),
            (
                "fatal: transport 'file' not allowed",
                FailureCode::GitFailed,
            ),
            (
                "batch response: Authentication required\nerror: external filter 'git-lfs filter-process' failed\nfatal: large.bin: smudge filter lfs failed",
                FailureCode::GitFailed,
            ),
            ("fatal: something else", FailureCode::GitFailed),
        ] {
            let failure = classify(&repo, words);
            assert_eq!(failure.code, code, "{words}");
            assert!(
                failure.hint.is_some() && failure.detail.is_some(),
                "{words}"
            );
        }
    }
}
