//! Clone URLs and refs. Both end on git's command line and, without care, run programs there.

use super::checked_text;
use serde::{Deserialize, Serialize};
use url::Url;

/// Longest URL taken, in bytes.
pub const MAX_URL: usize = 2048;
/// Longest ref taken, in bytes.
pub const MAX_REF: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepoUrlError {
    #[error("the repository URL is empty")]
    Empty,
    #[error("the repository URL has {0} bytes, more than {MAX_URL}")]
    TooLong(usize),
    #[error("the repository URL holds a control character or white space")]
    Character,
    #[error("the repository URL cannot be read: {0}")]
    Syntax(String),
    #[error("the repository URL's scheme `{0}` is not taken; http, https and ssh are")]
    Scheme(String),
    #[error("the repository URL has no host")]
    NoHost,
    #[error("the repository URL's host or user starts with `-`")]
    Dash,
    #[error("the repository URL holds a password or token; store it as a Git credential instead")]
    Credentials,
    #[error("the repository URL has no path")]
    NoPath,
    #[error("the repository URL has a query or a fragment")]
    Query,
}

/// A clone URL: `http://`, `https://` or `ssh://`, with a host and a path, without a password. `user@host:path` is taken as ssh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoUrl(String);
checked_text!(RepoUrl, RepoUrlError);

impl TryFrom<String> for RepoUrl {
    type Error = RepoUrlError;

    fn try_from(text: String) -> Result<Self, RepoUrlError> {
        if text.is_empty() {
            return Err(RepoUrlError::Empty);
        }
        if text.len() > MAX_URL {
            return Err(RepoUrlError::TooLong(text.len()));
        }
        // `Url::parse` drops tabs and line breaks silently: they are refused before it sees them. A backslash it turns into a slash.
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        {
            return Err(RepoUrlError::Character);
        }
        let spelled = if text.contains("://") {
            text
        } else {
            from_scp_form(&text).unwrap_or(text)
        };
        let url = Url::parse(&spelled).map_err(|error| RepoUrlError::Syntax(error.to_string()))?;
        match url.scheme() {
            "http" | "https" if !url.username().is_empty() || url.password().is_some() => {
                return Err(RepoUrlError::Credentials);
            }
            "ssh" if url.password().is_some() => return Err(RepoUrlError::Credentials),
            "http" | "https" | "ssh" => {}
            other => return Err(RepoUrlError::Scheme(other.to_owned())),
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(RepoUrlError::NoHost)?;
        if host.starts_with('-')
            || url.username().starts_with('-')
            || url.username().starts_with("%2")
        {
            return Err(RepoUrlError::Dash);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RepoUrlError::Query);
        }
        if url.path().trim_matches('/').is_empty() {
            return Err(RepoUrlError::NoPath);
        }
        Ok(Self(url.into()))
    }
}

/// `user@host:path` and `host:path` as `ssh://user@host/path`; `None` where it is not of that form.
fn from_scp_form(text: &str) -> Option<String> {
    let (authority, path) = text.split_once(':')?;
    // `ext::sh -c …` and other transport helpers have a second colon right there.
    if path.starts_with(':') || path.is_empty() || authority.is_empty() || authority.contains('/') {
        return None;
    }
    if !authority.contains('@') {
        return None;
    }
    Some(format!(
        "ssh://{authority}/{}",
        path.trim_start_matches('/')
    ))
}

impl RepoUrl {
    /// Last part of the path without `.git`: what a clone is called.
    #[must_use]
    pub fn repository_name(&self) -> &str {
        let path = self.0.trim_end_matches('/');
        let last = path.rsplit('/').next().unwrap_or(path);
        last.strip_suffix(".git").unwrap_or(last)
    }

    /// `host` or `host:port`, as credentials are matched by; the scheme's own port is left out.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        Url::parse(&self.0).map_or_else(
            |_| String::new(),
            |url| match (url.host_str(), url.port()) {
                (Some(host), Some(port)) => format!("{host}:{port}"),
                (Some(host), None) => host.to_owned(),
                (None, _) => String::new(),
            },
        )
    }

    #[must_use]
    pub fn is_ssh(&self) -> bool {
        self.0.starts_with("ssh://")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitRefError {
    #[error("the ref is empty")]
    Empty,
    #[error("the ref has {0} bytes, more than {MAX_REF}")]
    TooLong(usize),
    #[error("the ref starts with `-` or `/`, or ends with `/`, `.` or `.lock`")]
    Ends,
    #[error("the ref holds {0:?}, which git does not take in a ref")]
    Sequence(String),
}

/// A branch, tag or commit, by git's rules for ref names (`git check-ref-format`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitRef(String);
checked_text!(GitRef, GitRefError);

impl TryFrom<String> for GitRef {
    type Error = GitRefError;

    fn try_from(text: String) -> Result<Self, GitRefError> {
        if text.is_empty() {
            return Err(GitRefError::Empty);
        }
        if text.len() > MAX_REF {
            return Err(GitRefError::TooLong(text.len()));
        }
        if text.starts_with(['-', '/']) || text.ends_with(['/', '.']) || text == "@" {
            return Err(GitRefError::Ends);
        }
        if text
            .split('/')
            .any(|part| part.starts_with('.') || part.ends_with(".lock"))
        {
            return Err(GitRefError::Ends);
        }
        for sequence in ["..", "@{", "//"] {
            if text.contains(sequence) {
                return Err(GitRefError::Sequence(sequence.to_owned()));
            }
        }
        if let Some(bad) = text.chars().find(|c| {
            c.is_control()
                || c.is_whitespace()
                || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\')
        }) {
            return Err(GitRefError::Sequence(bad.to_string()));
        }
        Ok(Self(text))
    }
}

impl GitRef {
    /// Whether it is a whole object name, which a server need not offer as a branch.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        matches!(self.0.len(), 40 | 64) && self.0.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_https_and_ssh_urls_are_taken() {
        for (text, name, host) in [
            ("https://example.com/team/app.git", "app", "example.com"),
            ("http://127.0.0.1:3000/app", "app", "127.0.0.1:3000"),
            (
                "ssh://git@example.com:2222/team/app.git/",
                "app",
                "example.com:2222",
            ),
            ("git@example.com:team/app.git", "app", "example.com"),
            ("HTTPS://Example.com/App", "App", "example.com"),
        ] {
            let url: RepoUrl = text.parse().expect(text);
            assert_eq!(
                (url.repository_name(), url.host_and_port().as_str()),
                (name, host),
                "{text}"
            );
        }
    }

    #[test]
    fn hostile_urls_are_refused() {
        for text in [
            "",
            "ext::sh -c 'touch /tmp/x'",
            "ext::sh",
            "EXT::sh",
            "file:///etc",
            "/etc/passwd",
            "../x",
            "--upload-pack=x",
            "-u",
            "ssh://-oProxyCommand=x/y",
            "ssh://-oProxyCommand=x@h/y",
            "ssh://%2doProxyCommand=x@h/y",
            "git://h/x",
            "fd::3",
            "http::x",
            "https:///x",
            "https://h",
            "https://h/",
            "https://u:p@h/x",
            "https://token@h/x",
            "ssh://u:p@h/x",
            "https://h/x\n",
            "https://h/x y",
            "https://h/\u{0}",
            "ftp://h/x",
            "javascript:alert(1)",
            "-oProxyCommand=x@h:y",
            "https://h\\@evil/x",
            "https://h/x?y",
            "https://h/x#y",
            "data:text/plain,x",
            "C:\\x",
            &format!("https://h/{}", "x".repeat(MAX_URL)),
        ] {
            assert!(text.parse::<RepoUrl>().is_err(), "took {text:?}");
        }
    }

    #[test]
    fn refs_follow_gits_own_rules() {
        for good in [
            "main",
            "feature/x-1",
            "v1.2.3",
            "0123456789012345678901234567890123456789",
            "a@b",
            "ü",
        ] {
            good.parse::<GitRef>().expect(good);
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "/x",
            "x/",
            "x.",
            ".x",
            "a/.b",
            "x.lock",
            "a..b",
            "a b",
            "a\nb",
            "a:b",
            "a~1",
            "a^",
            "a*",
            "a?",
            "a[b",
            "a\\b",
            "@{u}",
            "@",
            "a//b",
            "a\u{7f}",
            "x".repeat(256).as_str(),
        ] {
            assert!(bad.parse::<GitRef>().is_err(), "took {bad:?}");
        }
    }
}
