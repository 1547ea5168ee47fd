//! A line for each request: who, where to, and how it was answered. Off unless the log's filter names it (`gateway::access=debug`): at
//! thousands of requests a second it would cost more than they do.
//!
//! Queries are left out: they hold what pages are told in confidence.

use crate::{dial::Target, judge::Client};
use std::time::Instant;
use wire::gateway::GrantClaims;

const TARGET: &str = "gateway::access";

/// A request that was forwarded, until it is answered.
#[derive(Debug)]
pub(crate) struct Entry {
    begun: Instant,
    method: String,
    path: String,
}

impl Entry {
    /// `head` is what the app gets. `None` where nobody wants to know.
    pub(crate) fn begin(head: &[u8], now: impl FnOnce() -> Instant) -> Option<Self> {
        if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            return None;
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        Some(Self {
            begun: now(),
            method,
            path,
        })
    }

    /// `status` is the app's, where it answered.
    pub(crate) fn end(
        self,
        now: Instant,
        client: &Client,
        claims: &GrantClaims,
        target: &Target,
        status: Option<u16>,
    ) {
        tracing::debug!(
            target: TARGET,
            peer = %client.address,
            // All zeros: anybody, at a port that is shared with everybody.
            user = %claims.user,
            grant = %claims.id,
            gitspace = %target.gitspace,
            to = %target.to,
            method = self.method,
            path = self.path,
            status,
            ms = u64::try_from(now.duration_since(self.begun).as_millis()).unwrap_or(u64::MAX),
            "Request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::EnvFilter;

    #[test]
    fn a_line_has_the_path_and_never_the_query_and_is_made_for_whoever_asks() {
        let head = b"GET /a/b?token=secret HTTP/1.1\r\nhost: x\r\n\r\n";
        let begun = |filter: &str| {
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new(filter))
                .with_writer(std::io::sink)
                .finish();
            tracing::subscriber::with_default(subscriber, || Entry::begin(head, Instant::now))
        };
        assert!(begun("info").is_none());
        let entry = begun("info,gateway::access=debug").unwrap();
        assert_eq!(
            (entry.method.as_str(), entry.path.as_str()),
            ("GET", "/a/b")
        );
    }
}
