//! For which names the certificate has to hold.

use rustls::{client::verify_server_name, server::ParsedCertificate};
use rustls_pki_types::{CertificateDer, ServerName};
use url::Url;

/// Stands for any name below a domain.
const ANY_LABEL: &str = "gitspace";

/// Hosts, and domains below which each name is one of ours; all by the URLs that users know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    hosts: Vec<Url>,
    domains: Vec<Url>,
}

impl Names {
    /// That of a URL.
    #[must_use]
    pub fn host(mut self, url: &Url) -> Self {
        self.hosts.push(url.clone());
        self
    }

    /// Each name with one label more than that of a URL.
    #[must_use]
    pub fn below(mut self, url: &Url) -> Self {
        self.domains.push(url.clone());
        self
    }

    pub(crate) fn host_urls(&self) -> &[Url] {
        &self.hosts
    }

    pub(crate) fn domain_urls(&self) -> &[Url] {
        &self.domains
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = String> {
        self.hosts.iter().filter_map(host_of)
    }

    pub(crate) fn domains(&self) -> impl Iterator<Item = String> {
        self.domains.iter().filter_map(host_of)
    }

    /// As a certificate has them. The domain itself is among them: people type it.
    pub(crate) fn in_certificate(&self) -> Vec<String> {
        let below = self
            .domains()
            .flat_map(|domain| [format!("*.{domain}"), domain]);
        let mut all: Vec<String> = self.hosts().chain(below).collect();
        all.sort();
        all.dedup();
        all
    }

    /// What clients ask for, each with the name that a certificate has to have for it.
    pub(crate) fn asked_for(&self) -> impl Iterator<Item = (String, ServerName<'static>)> {
        let below = self
            .domains()
            .map(|domain| (format!("*.{domain}"), format!("{ANY_LABEL}.{domain}")));
        self.hosts()
            .map(|host| (host.clone(), host))
            .chain(below)
            .filter_map(|(shown, asked)| Some((shown, ServerName::try_from(asked).ok()?)))
    }

    /// Those that clients will not find in it.
    pub(crate) fn missing_in(&self, certificate: &CertificateDer<'_>) -> Vec<String> {
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
            return self.in_certificate();
        };
        self.asked_for()
            .filter(|(_, asked)| verify_server_name(&parsed, asked).is_err())
            .map(|(shown, _)| shown)
            .collect()
    }
}

/// Without the brackets of an IPv6 address.
fn host_of(url: &Url) -> Option<String> {
    Some(match url.host()? {
        url::Host::Domain(name) => name.to_ascii_lowercase(),
        url::Host::Ipv4(address) => address.to_string(),
        url::Host::Ipv6(address) => address.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::generate_simple_self_signed;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        generate_simple_self_signed(names)
            .unwrap()
            .cert
            .der()
            .clone()
    }

    #[test]
    fn a_name_that_clients_would_miss_is_named() {
        let names = Names::default()
            .host(&url("https://control.example.com:8443"))
            .below(&url("https://gs.example.com"));
        let missing = |of: &[&str]| names.missing_in(&certificate(of));
        assert!(missing(&["control.example.com", "*.gs.example.com"]).is_empty());
        assert!(missing(&["*.example.com", "*.gs.example.com"]).is_empty());
        assert_eq!(
            missing(&["control.example.com", "gs.example.com"]),
            ["*.gs.example.com"]
        );
        assert_eq!(missing(&["*.gs.example.com"]), ["control.example.com"]);
        assert_eq!(missing(&["other.example"]).len(), 2);
    }

    #[test]
    fn addresses_are_names_too() {
        for address in ["https://192.0.2.7", "https://[2001:db8::7]:444"] {
            let names = Names::default().host(&url(address));
            assert!(
                names
                    .missing_in(&certificate(&["192.0.2.7", "2001:db8::7"]))
                    .is_empty()
            );
            assert_eq!(names.missing_in(&certificate(&["192.0.2.8"])).len(), 1);
        }
    }
}
