//! The certificate that is served, and its replacement while the daemon runs.

use crate::{
    names::Names,
    own::OwnCertificate,
    pair::{CertificateError, Pair, fingerprint},
    private_ca::{PrivateCa, PrivateCaError, check_names},
    settings::Source,
};
use camino::{Utf8Path, Utf8PathBuf};
use daemon::{Clock, ErrorChain, Hint as _, Reloaded};
use jiff::Timestamp;
use rustls::{
    ClientConfig, ServerConfig,
    crypto::ring::{Ticketer, default_provider},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::Serialize;
use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at. A change is taken when the next look finds it unchanged: whoever renews writes two files.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const ALPN: &[u8] = b"http/1.1";

/// What each handshake takes.
#[derive(Debug)]
pub(crate) struct Slot(RwLock<Pair>);

impl Slot {
    pub(crate) fn get(&self) -> Pair {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn put(&self, pair: Pair) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
    }
}

impl ResolvesServerCert for Slot {
    /// Whatever name is asked for.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get().key)
    }
}

#[derive(Debug)]
enum Origin {
    Files {
        certificate: Utf8PathBuf,
        key: Utf8PathBuf,
    },
    PrivateCa(Box<PrivateCa>),
}

impl Origin {
    fn read(&self, now: Timestamp) -> Result<Pair, CertificateError> {
        match self {
            Self::Files { certificate, key } => Pair::read(certificate, key),
            Self::PrivateCa(authority) => authority.server(now),
        }
    }

    fn file(&self) -> Utf8PathBuf {
        match self {
            Self::Files { certificate, .. } => certificate.clone(),
            Self::PrivateCa(authority) => authority.server_file(),
        }
    }
}

/// Why the newest certificate is not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NotTaken {
    pub(crate) error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    pub(crate) since: Timestamp,
}

/// Which files these are, as far as the system tells without reading them.
type Stamp = Vec<Option<(u64, u64, u64, i64, i64, i64)>>;

/// What the last look found.
#[derive(Debug, Default)]
struct Looks {
    seen: Stamp,
    /// Of what was last read, taken or not.
    read: Stamp,
    not_taken: Option<NotTaken>,
}

#[derive(Debug)]
struct Inner {
    origin: Origin,
    names: Names,
    slot: Arc<Slot>,
    looks: Mutex<Looks>,
    clock: Arc<dyn Clock>,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServedCertificate(Arc<Inner>);

/// How it is, for the operator.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateView {
    pub file: Utf8PathBuf,
    pub sha256: Option<String>,
    pub not_after: Timestamp,
    pub names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_taken: Option<NotTaken>,
}

/// The own one.
#[derive(Clone, Debug, Serialize)]
pub struct Authority {
    /// What delegates and users take as `ca_file`.
    pub file: Utf8PathBuf,
    pub sha256: String,
}

impl ServedCertificate {
    /// Reads or makes it. One that has ended or lacks a name is served all the same and told: the clock may be wrong, and a daemon that
    /// does not start mends nothing.
    ///
    /// # Errors
    /// It cannot be served at all.
    pub fn open(
        source: Source,
        names: Names,
        state_dir: Option<&Utf8Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CertificateError> {
        let now = clock.now();
        let origin = match source {
            Source::Files { certificate, key } => Origin::Files { certificate, key },
            Source::PrivateCa => {
                let folder = state_dir.ok_or(PrivateCaError::NoFolder)?;
                let authority = PrivateCa::open_or_make(folder, &names, now)?;
                tracing::info!(file = %authority.file(), sha256 = fingerprint(authority.certificate()), "The own authority is what users and delegates have to trust (`ca_file`)");
                Origin::PrivateCa(Box::new(authority))
            }
        };
        let stamp = stamp(&origin);
        let pair = origin.read(now)?;
        let looks = Looks {
            seen: stamp.clone(),
            read: stamp,
            not_taken: None,
        };
        Ok(Self(Arc::new(Inner {
            origin,
            names,
            slot: Arc::new(Slot(RwLock::new(pair))),
            looks: Mutex::new(looks),
            clock,
        })))
    }

    /// What [`Self::open`] would refuse, as far as that can be told without making anything.
    ///
    /// # Errors
    /// See there.
    pub fn look(source: &Source, names: &Names) -> Result<(), CertificateError> {
        match source {
            Source::Files { certificate, key } => Pair::read(certificate, key).map(drop),
            Source::PrivateCa => Ok(check_names(names)?),
        }
    }

    /// For a server: TLS 1.2 and 1.3 with what rustls has of them.
    ///
    /// # Errors
    /// There is no randomness for the keys of tickets.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let failed = |source| CertificateError::Protocol { source };
        let resolver: Arc<dyn ResolvesServerCert> = self.0.slot.clone();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        // All of them are good; scanners want the choice to be the server's.
        config.ignore_client_order = true;
        // Clients come back without a whole handshake, and nothing is kept for them here.
        config.ticketer = Ticketer::new().map_err(failed)?;
        Ok(Arc::new(config))
    }

    /// For a client in this very process.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn own_client_config(&self) -> Result<Arc<ClientConfig>, CertificateError> {
        let verifier = OwnCertificate::new(self.0.slot.clone());
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| CertificateError::Protocol { source })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    #[must_use]
    pub fn view(&self) -> CertificateView {
        let pair = self.0.slot.get();
        let authority = match &self.0.origin {
            Origin::Files { .. } => None,
            Origin::PrivateCa(authority) => Some(Authority {
                file: authority.file(),
                sha256: fingerprint(authority.certificate()),
            }),
        };
        CertificateView {
            file: self.0.origin.file(),
            sha256: pair.first().map(fingerprint),
            not_after: pair.not_after,
            names: self.0.names.in_certificate(),
            missing_names: self.missing_in(&pair),
            authority,
            not_taken: self.looks().not_taken.clone(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Reads it anew, whether it looks changed or not. For SIGHUP.
    pub fn reload(&self) -> impl Future<Output = Reloaded> + Send + 'static + use<> {
        let this = self.clone();
        async move {
            let taken = tokio::task::spawn_blocking(move || this.read_anew()).await??;
            Ok(format!("certificate until {}", taken.not_after))
        }
    }

    /// Looks at the files until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let this = self.clone();
            // It ends with the runtime, or panicked and said so.
            drop(tokio::task::spawn_blocking(move || this.look_again()).await);
        }
    }

    /// Takes what has changed, and renews what is due.
    fn look_again(&self) {
        let wanted = match &self.0.origin {
            Origin::Files { .. } => {
                let found = stamp(&self.0.origin);
                let mut looks = self.looks();
                let settled = found == looks.seen;
                looks.seen.clone_from(&found);
                settled && found != looks.read
            }
            Origin::PrivateCa(authority) => authority.is_due(&self.0.slot.get(), self.now()),
        };
        if wanted {
            // Told where it happened.
            drop(self.read_anew());
        }
    }

    fn read_anew(&self) -> Result<Pair, CertificateError> {
        let now = self.now();
        let stamp = stamp(&self.0.origin);
        let read = self
            .0
            .origin
            .read(now)
            .and_then(|pair| self.no_worse(pair, now));
        let mut looks = self.looks();
        looks.read = stamp;
        match &read {
            Ok(pair) => {
                looks.not_taken = None;
                let changed = self.0.slot.get().first() != pair.first();
                self.0.slot.put(pair.clone());
                if changed {
                    tracing::info!(file = %self.0.origin.file(), not_after = %pair.not_after, sha256 = pair.first().map(fingerprint), "Certificate taken");
                }
            }
            Err(error) => {
                let words = ErrorChain(error).to_string();
                let known = looks
                    .not_taken
                    .as_ref()
                    .is_some_and(|known| known.error == words);
                if !known {
                    tracing::error!(
                        error = words,
                        hint = error.hint(),
                        "The certificate on the disk is not taken; the one before stays"
                    );
                    looks.not_taken = Some(NotTaken {
                        error: words,
                        hint: error.hint(),
                        since: now,
                    });
                }
            }
        }
        read
    }

    /// The one that is served may have ended or lack a name: then nothing is lost by another like it.
    fn no_worse(&self, pair: Pair, now: Timestamp) -> Result<Pair, CertificateError> {
        let served = self.0.slot.get();
        let path = self.0.origin.file();
        if pair.not_after <= now && served.not_after > now {
            return Err(CertificateError::Ended {
                path,
                at: pair.not_after,
            });
        }
        let lacked = self.missing_in(&served);
        let mut missing = self.missing_in(&pair);
        missing.retain(|name| !lacked.contains(name));
        if missing.is_empty() {
            Ok(pair)
        } else {
            Err(CertificateError::Names { path, missing })
        }
    }

    fn missing_in(&self, pair: &Pair) -> Vec<String> {
        pair.first()
            .map(|first| self.0.names.missing_in(first))
            .unwrap_or_default()
    }

    fn looks(&self) -> std::sync::MutexGuard<'_, Looks> {
        self.0.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(origin: &Origin) -> Stamp {
    match origin {
        Origin::Files { certificate, key } => vec![stamp_of(certificate), stamp_of(key)],
        // Nobody else writes there.
        Origin::PrivateCa(_) => Stamp::new(),
    }
}

/// Behind links: certbot's files are such. `None` where it is not there.
fn stamp_of(path: &Utf8Path) -> Option<(u64, u64, u64, i64, i64, i64)> {
    let of = |found: io::Result<fs::Metadata>| found.ok();
    let found = of(fs::metadata(path))?;
    Some((
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::tests::write;
    use daemon::ManualClock;

    fn names() -> Names {
        Names::default()
            .host(&"https://control.example.com".parse().unwrap())
            .below(&"https://gs.example.com".parse().unwrap())
    }

    const ALL: [&str; 2] = ["control.example.com", "*.gs.example.com"];

    struct Bench {
        _guard: tempfile::TempDir,
        dir: Utf8PathBuf,
        served: ServedCertificate,
    }

    impl Bench {
        fn new() -> Self {
            let guard = tempfile::tempdir().unwrap();
            let dir = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
            let (certificate, key) = write(&dir, "served", &ALL);
            let clock = ManualClock::new("2026-11-26T12:00:00Z".parse().unwrap());
            let source = Source::Files { certificate, key };
            let served = ServedCertificate::open(source, names(), None, Arc::new(clock)).unwrap();
            Self {
                _guard: guard,
                dir,
                served,
            }
        }

        fn sha256(&self) -> Option<String> {
            self.served.view().sha256
        }
    }

    #[test]
    fn files_that_changed_are_taken_when_they_have_settled() {
        let bench = Bench::new();
        let before = bench.sha256();
        bench.served.look_again();
        assert_eq!(bench.sha256(), before, "nothing has changed");
        write(&bench.dir, "served", &ALL);
        bench.served.look_again();
        assert_eq!(bench.sha256(), before, "the key may not be written yet");
        bench.served.look_again();
        assert_ne!(bench.sha256(), before);
    }

    #[test]
    fn a_worse_certificate_is_told_and_the_one_before_stays() {
        let bench = Bench::new();
        let before = bench.sha256();
        let told = || bench.served.view().not_taken.map(|told| told.error);
        // Half of a pair.
        fs::write(bench.dir.join("served.pem"), "nothing").unwrap();
        assert!(bench.served.read_anew().is_err());
        assert!(
            told().unwrap().contains("holds no certificate"),
            "{told:?}",
            told = told()
        );
        // Other names.
        write(&bench.dir, "served", &["control.example.com"]);
        assert!(bench.served.read_anew().is_err());
        assert!(
            told().unwrap().contains("*.gs.example.com"),
            "{told:?}",
            told = told()
        );
        // One that has ended.
        let mut params = rcgen::CertificateParams::new(ALL.map(str::to_owned).to_vec()).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 11, 25);
        let key = rcgen::KeyPair::generate().unwrap();
        let ended = params.self_signed(&key).unwrap();
        fs::write(bench.dir.join("served.pem"), ended.pem()).unwrap();
        fs::write(bench.dir.join("served.key"), key.serialize_pem()).unwrap();
        assert!(bench.served.read_anew().is_err());
        assert!(
            told().unwrap().contains("ended at"),
            "{told:?}",
            told = told()
        );
        assert_eq!(bench.sha256(), before);
        // Mended.
        write(&bench.dir, "served", &ALL);
        bench.served.read_anew().unwrap();
        assert_ne!(bench.sha256(), before);
        assert_eq!(told(), None);
    }

    #[test]
    fn what_was_refused_is_not_read_again_until_it_changes() {
        let bench = Bench::new();
        fs::write(bench.dir.join("served.pem"), "nothing").unwrap();
        let looks = |bench: &Bench| {
            bench.served.look_again();
            bench.served.look_again();
        };
        looks(&bench);
        let since = bench.served.view().not_taken.unwrap();
        // Would show if it were read: the error would be another one.
        fs::remove_file(bench.dir.join("served.key")).unwrap();
        bench.served.look_again();
        assert_eq!(bench.served.view().not_taken.unwrap(), since, "not settled");
        write(&bench.dir, "served", &ALL);
        looks(&bench);
        assert_eq!(bench.served.view().not_taken, None);
    }
}
