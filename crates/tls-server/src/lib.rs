//! How daemons end TLS.
//!
//! Responsible for: what an operator sets of it (`settings`), certificates from files and from an authority of this host's own (`pair`,
//! `private_ca`), the one that is served and its replacement while the daemon runs (`served`), connections on their way through the
//! handshake (`door`), places for those that are served (`crowd`), and the plain port that sends browsers on (`redirect`).
//!
//! Tasks: *tls-certificate* looks at the files now and then and renews what the own authority signed; *https-redirect*, where it is wanted.
//! Handshakes are tasks of the [`Door`] they came in by.
//!
//! Invariants:
//! - A certificate that is worse than the one served never replaces it: it is told, and the next look tries again.
//! - A handshake holds no place of a served connection, and a slow one makes room for the next.
//! - Every name a client asks for gets the same certificate: what is served here does not show in the handshake.
//!
//! Whom *we* trust is the crate `tls-roots`'s.

#[cfg(feature = "checks")]
mod check;
mod crowd;
mod door;
mod names;
mod own;
mod pair;
mod private_ca;
mod redirect;
mod served;
mod settings;
mod start;

pub use crowd::{Crowd, Guest};
pub use door::{Door, Incoming};
pub use names::Names;
pub use pair::CertificateError;
pub use private_ca::{PrivateCaError, authority_file};
pub use redirect::RedirectError;
pub use served::{Authority, CertificateView, ServedCertificate};
pub use settings::{Source, TlsPlan, TlsSettings, TlsSettingsError};
pub use start::TlsStartError;
