//! An authority of this deployment's own, and the certificate that it signs for it.
//!
//! ```text
//! <state folder>/tls/authority.key   its key, 0600: made once
//! <state folder>/tls/authority.pem   its certificate: what delegates and users take as `ca_file`
//! <state folder>/tls/server.pem      key and certificate that are served, 0600: made anew long before they end
//! ```
//!
//! Invariants: an authority that somebody may trust is never replaced by itself; it can sign for the names of this deployment and no
//! others, and for servers alone, so that trusting it gives nobody more.

use crate::{
    names::Names,
    pair::{CertificateError, Pair, private_key},
};
use camino::{Utf8Path, Utf8PathBuf};
use daemon::{Exit, Hint, WriteError, write_atomic};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData as _,
};
use ring::digest;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring::default_provider,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{io, net::IpAddr, os::unix::fs::DirBuilderExt as _, sync::Arc, time::Duration};

const FOLDER: &str = "tls";
const AUTHORITY_KEY: &str = "authority.key";
const AUTHORITY: &str = "authority.pem";
const SERVER: &str = "server.pem";

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Ten years.
const AUTHORITY_DAYS: i32 = 3652;
const SERVER_DAYS: i32 = 90;
/// A third of its life is left then.
const RENEW_DAYS: i32 = 30;
/// Clocks of clients may be behind.
const EARLIER: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, thiserror::Error)]
pub enum PrivateCaError {
    #[error("cannot make the folder `{path}`")]
    Folder {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{certificate}` is there, and its key `{key}` is not")]
    KeyMissing {
        certificate: Utf8PathBuf,
        key: Utf8PathBuf,
    },
    #[error("cannot look for `{path}`")]
    Look {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot keep it")]
    Write {
        #[source]
        source: WriteError,
    },
    #[error("cannot make a certificate for {}", names.join(", "))]
    Make {
        names: Vec<String>,
        #[source]
        source: rcgen::Error,
    },
    #[error("the authority's key in `{path}` is not taken")]
    Key {
        path: Utf8PathBuf,
        #[source]
        source: rcgen::Error,
    },
    #[error("the authority in `{authority}` is not taken as one for `{name}`")]
    NotFor {
        authority: Utf8PathBuf,
        name: String,
        #[source]
        source: rustls::Error,
    },
    #[error("no client takes a certificate for `*.{domain}`: below a wildcard it wants two labels")]
    OneLabel { domain: String },
    #[error("`private_ca` needs a state folder")]
    NoFolder,
}

impl Hint for PrivateCaError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Folder { path, .. } => {
                format!("let the user of this process write to the folder above `{path}`")
            }
            Self::KeyMissing { certificate, .. } => {
                let folder = certificate.parent().unwrap_or(certificate);
                format!(
                    "put it back from a backup; or remove `{folder}`: another authority is made, and all who trust this one have to take that one's file"
                )
            }
            Self::NotFor { authority, .. } => {
                let folder = authority.parent().unwrap_or(authority);
                format!(
                    "an authority is for the names that were configured when it was made. Remove `{folder}`: another is made, and all who trust this one have to take that one's file"
                )
            }
            Self::OneLabel { domain } => {
                format!("take a name below it, `https://gitspaces.{domain}` for instance")
            }
            Self::Key { .. } => "put it back from a backup".to_owned(),
            Self::Look { .. } | Self::Write { .. } | Self::Make { .. } | Self::NoFolder => {
                return None;
            }
        })
    }

    fn exit(&self) -> Exit {
        match self {
            Self::OneLabel { .. }
            | Self::NotFor { .. }
            | Self::KeyMissing { .. }
            | Self::Key { .. } => Exit::Config,
            Self::Folder { .. }
            | Self::Look { .. }
            | Self::Write { .. }
            | Self::Make { .. }
            | Self::NoFolder => Exit::Failure,
        }
    }
}

/// The authority, opened.
#[derive(Debug)]
pub(crate) struct PrivateCa {
    folder: Utf8PathBuf,
    names: Names,
    certificate: CertificateDer<'static>,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// What delegates and users trust, below the state folder it was made in.
#[must_use]
pub fn authority_file(state_dir: &Utf8Path) -> Utf8PathBuf {
    state_dir.join(FOLDER).join(AUTHORITY)
}

/// Whether one could be made for these names.
pub(crate) fn check_names(names: &Names) -> Result<(), PrivateCaError> {
    match names.domains().find(|domain| !domain.contains('.')) {
        None => Ok(()),
        Some(domain) => Err(PrivateCaError::OneLabel { domain }),
    }
}

impl PrivateCa {
    /// The one that is there, else a new one.
    pub(crate) fn open_or_make(
        state_dir: &Utf8Path,
        names: &Names,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        check_names(names)?;
        let folder = state_dir.join(FOLDER);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| PrivateCaError::Folder {
                path: folder.clone(),
                source,
            })?;
        let key_file = folder.join(AUTHORITY_KEY);
        let file = folder.join(AUTHORITY);
        // The key comes first: what was cut between the two has been trusted by nobody.
        let key = match (is_there(&key_file)?, is_there(&file)?) {
            (true, _) => read_key(&key_file)?,
            (false, true) => {
                return Err(PrivateCaError::KeyMissing {
                    certificate: file,
                    key: key_file,
                }
                .into());
            }
            (false, false) => {
                let key = KeyPair::generate().map_err(|source| PrivateCaError::Make {
                    names: names.in_certificate(),
                    source,
                })?;
                write(&key_file, &key.serialize_pem(), 0o600)?;
                key
            }
        };
        let params = authority_params(&key, names, now);
        if !is_there(&file)? {
            let made = params
                .self_signed(&key)
                .map_err(|source| PrivateCaError::Make {
                    names: names.in_certificate(),
                    source,
                })?;
            write(&file, &made.pem(), 0o644)?;
        }
        let certificate = tls_roots::certificates_in(&file)
            .ok()
            .and_then(|found| found.into_iter().next());
        let found = certificate.and_then(|found| Some((tls_roots::not_after(&found)?, found)));
        let (not_after, certificate) = found.ok_or_else(|| CertificateError::NoCertificate {
            path: file.clone(),
            reason: "it is malformed".to_owned(),
        })?;
        Ok(Self {
            folder,
            names: names.clone(),
            certificate,
            not_after,
            issuer: Issuer::new(params, key),
        })
    }

    /// What delegates and users trust.
    pub(crate) fn file(&self) -> Utf8PathBuf {
        self.folder.join(AUTHORITY)
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The file of what is served.
    pub(crate) fn server_file(&self) -> Utf8PathBuf {
        self.folder.join(SERVER)
    }

    /// The one that is there while it is good for long enough, else another.
    pub(crate) fn server(&self, now: Timestamp) -> Result<Pair, CertificateError> {
        let file = self.server_file();
        if is_there(&file)? {
            match Pair::read(&file, &file) {
                Ok(pair) if !self.is_due(&pair, now) && self.verify(&pair, now).is_ok() => {
                    return Ok(pair);
                }
                Ok(_) => {}
                Err(error) => {
                    // It can be made again, and nobody has to trust another authority for that.
                    tracing::warn!(error = %daemon::ErrorChain(&error), "The certificate cannot be read and is made anew");
                }
            }
        }
        self.issue(now)?;
        let pair = Pair::read(&file, &file)?;
        self.verify(&pair, now)?;
        tracing::info!(file = %file, not_after = %pair.not_after, names = self.names.in_certificate().join(", "), "The own authority signed a certificate");
        Ok(pair)
    }

    /// Whether another would hold longer, and this one not for long.
    pub(crate) fn is_due(&self, pair: &Pair, now: Timestamp) -> bool {
        let left = pair.not_after.duration_since(now);
        let soon = left < DAY.saturating_mul(RENEW_DAYS);
        soon && pair.not_after < self.not_after
    }

    fn issue(&self, now: Timestamp) -> Result<(), CertificateError> {
        let names = self.names.in_certificate();
        let failed = |source| PrivateCaError::Make {
            names: names.clone(),
            source,
        };
        let mut params = CertificateParams::new(names.clone()).map_err(failed)?;
        let end = (now + DAY.saturating_mul(SERVER_DAYS)).min(self.not_after);
        set_life(&mut params, now - EARLIER, end);
        params
            .distinguished_name
            .push(DnType::CommonName, "Gitspaces");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let made = params.signed_by(&key, &self.issuer).map_err(failed)?;
        // One file: a crash leaves no key without its certificate.
        let text = format!("{}{}", key.serialize_pem(), made.pem());
        write(&self.server_file(), &text, 0o600)?;
        Ok(())
    }

    /// As a client would that trusts the authority and nobody else.
    fn verify(&self, pair: &Pair, now: Timestamp) -> Result<(), PrivateCaError> {
        let not_for = |name: &str, source: rustls::Error| PrivateCaError::NotFor {
            authority: self.file(),
            name: name.to_owned(),
            source,
        };
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .map_err(|source| not_for("anything", source))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(default_provider()),
        )
        .build()
        .map_err(|error| not_for("anything", rustls::Error::General(error.to_string())))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(now.as_second()).unwrap_or_default(),
        ));
        for (shown, asked) in self.names.asked_for() {
            let first = pair
                .first()
                .ok_or_else(|| not_for(&shown, rustls::Error::NoCertificatesPresented))?;
            verifier
                .verify_server_cert(first, &[], &asked, &[], now)
                .map_err(|source| not_for(&shown, source))?;
        }
        Ok(())
    }
}

/// The same for the same key but for times and names, which the issuer's part of what it signs has nothing of.
fn authority_params(key: &KeyPair, names: &Names, now: Timestamp) -> CertificateParams {
    let hash = digest::digest(&digest::SHA256, key.subject_public_key_info().as_ref());
    let short: String = hash
        .as_ref()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut params = CertificateParams::default();
    // Two of them in one browser are told apart.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Gitspaces private authority {short}"),
    );
    let end = now + DAY.saturating_mul(AUTHORITY_DAYS);
    set_life(&mut params, now - EARLIER, end);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = Some(constraints(names));
    params
}

/// Addresses are constrained by addresses alone: where there is none to permit, all are excluded.
fn constraints(names: &Names) -> NameConstraints {
    let address = |host: &str| host.parse::<IpAddr>().ok();
    let mut permitted_subtrees: Vec<GeneralSubtree> = Vec::new();
    let mut excluded_subtrees = Vec::new();
    for host in names.hosts() {
        permitted_subtrees.push(match address(&host) {
            Some(address) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
            }
            None => GeneralSubtree::DnsName(host),
        });
    }
    permitted_subtrees.extend(names.domains().map(GeneralSubtree::DnsName));
    if !names.hosts().any(|host| address(&host).is_some()) {
        for all in [
            CidrSubnet::V4([0; 4], [0; 4]),
            CidrSubnet::V6([0; 16], [0; 16]),
        ] {
            excluded_subtrees.push(GeneralSubtree::IpAddress(all));
        }
    }
    NameConstraints {
        permitted_subtrees,
        excluded_subtrees,
    }
}

fn read_key(path: &Utf8Path) -> Result<KeyPair, CertificateError> {
    let key = private_key(path)?;
    let key = KeyPair::try_from(&key).map_err(|source| PrivateCaError::Key {
        path: path.to_owned(),
        source,
    })?;
    Ok(key)
}

fn write(path: &Utf8Path, text: &str, mode: u32) -> Result<(), PrivateCaError> {
    write_atomic(path, text.as_bytes(), mode).map_err(|source| PrivateCaError::Write { source })
}

fn is_there(path: &Utf8Path) -> Result<bool, PrivateCaError> {
    path.try_exists().map_err(|source| PrivateCaError::Look {
        path: path.to_owned(),
        source,
    })
}

/// The type of rcgen's times is of a crate that is not one of ours.
fn set_life(params: &mut CertificateParams, from: Timestamp, to: Timestamp) {
    let since_1970 =
        |at: Timestamp| Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_1970(from);
    params.not_after = epoch + since_1970(to);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-26T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    fn names(host: &str, domain: &str) -> Names {
        Names::default()
            .host(&host.parse().unwrap())
            .below(&domain.parse().unwrap())
    }

    fn usual() -> Names {
        names("https://localhost:7070", "https://gitspaces.localhost:7080")
    }

    #[test]
    fn the_authority_stays_and_what_it_signed_is_taken_by_who_trusts_it() {
        let (_guard, dir) = dir();
        let first = PrivateCa::open_or_make(&dir, &usual(), now()).unwrap();
        let server = first.server(now()).unwrap();
        assert!(usual().missing_in(server.first().unwrap()).is_empty());
        let later = now() + DAY;
        let second = PrivateCa::open_or_make(&dir, &usual(), later).unwrap();
        assert_eq!(first.certificate(), second.certificate());
        assert_eq!(second.server(later).unwrap().first(), server.first());
    }

    #[test]
    fn what_it_signed_is_renewed_after_two_thirds_of_its_life() {
        let (_guard, dir) = dir();
        let authority = PrivateCa::open_or_make(&dir, &usual(), now()).unwrap();
        let first = authority.server(now()).unwrap();
        let same = authority.server(now() + DAY * 59).unwrap();
        assert_eq!(first.first(), same.first());
        let at = now() + DAY * 61;
        let next = authority.server(at).unwrap();
        assert_ne!(first.first(), next.first());
        assert_eq!(next.not_after, at + DAY * SERVER_DAYS);
        // A host that was off for long.
        let long = now() + DAY * 400;
        assert!(authority.server(long).unwrap().not_after > long);
    }

    #[test]
    fn it_ends_with_its_authority_and_is_not_renewed_in_vain() {
        let (_guard, dir) = dir();
        let authority = PrivateCa::open_or_make(&dir, &usual(), now()).unwrap();
        let late = now() + DAY * (AUTHORITY_DAYS - 10);
        let last = authority.server(late).unwrap();
        assert_eq!(last.not_after, authority.not_after);
        assert_eq!(authority.server(late + DAY).unwrap().first(), last.first());
    }

    #[test]
    fn an_authority_for_other_names_signs_nothing_and_says_what_to_do() {
        let (_guard, dir) = dir();
        PrivateCa::open_or_make(&dir, &usual(), now()).unwrap();
        let others = names("https://control.example.com", "https://gs.example.com");
        let authority = PrivateCa::open_or_make(&dir, &others, now()).unwrap();
        let error = authority.server(now()).unwrap_err();
        assert!(
            matches!(
                &error,
                CertificateError::PrivateCa(PrivateCaError::NotFor { name, .. }) if name == "control.example.com"
            ),
            "{error:?}"
        );
        assert!(error.hint().unwrap().contains("Remove"), "{error:?}");
    }

    #[test]
    fn an_address_is_signed_for_and_no_other_address_is() {
        let (_guard, dir) = dir();
        let own = names("https://192.0.2.7:7070", "https://gs.example.com");
        PrivateCa::open_or_make(&dir, &own, now())
            .unwrap()
            .server(now())
            .unwrap();
        for other in ["https://192.0.2.8", "https://[2001:db8::7]"] {
            let other = names(other, "https://gs.example.com");
            let authority = PrivateCa::open_or_make(&dir, &other, now()).unwrap();
            assert!(authority.server(now()).is_err(), "{other:?}");
        }
        let (_guard, dir) = self::dir();
        PrivateCa::open_or_make(&dir, &usual(), now()).unwrap();
        let address = names("https://192.0.2.7", "https://gitspaces.localhost");
        let authority = PrivateCa::open_or_make(&dir, &address, now()).unwrap();
        assert!(authority.server(now()).is_err(), "none was permitted");
    }

    #[test]
    fn a_lost_key_is_told_and_no_other_authority_made_in_its_place() {
        let (_guard, dir) = dir();
        let authority = PrivateCa::open_or_make(&dir, &usual(), now()).unwrap();
        let before = std::fs::read(authority.file()).unwrap();
        std::fs::remove_file(dir.join("tls/authority.key")).unwrap();
        let error = PrivateCa::open_or_make(&dir, &usual(), now()).unwrap_err();
        assert!(
            matches!(
                error,
                CertificateError::PrivateCa(PrivateCaError::KeyMissing { .. })
            ),
            "{error:?}"
        );
        assert_eq!(std::fs::read(authority.file()).unwrap(), before);
    }

    #[test]
    fn a_start_that_was_cut_after_the_key_goes_on_with_it() {
        let (_guard, dir) = dir();
        let authority = PrivateCa::open_or_make(&dir, &usual(), now()).unwrap();
        std::fs::remove_file(authority.file()).unwrap();
        let authority = PrivateCa::open_or_make(&dir, &usual(), now()).unwrap();
        authority.server(now()).unwrap();
    }

    #[test]
    fn a_wildcard_that_no_client_takes_is_refused_with_a_name_that_works() {
        let error = check_names(&names("https://localhost", "https://localhost")).unwrap_err();
        assert!(
            error
                .hint()
                .unwrap()
                .contains("https://gitspaces.localhost"),
            "{error:?}"
        );
        check_names(&usual()).unwrap();
    }
}
