//! What a failed handshake means.

use super::ConnectError;
use std::io;

/// A certificate that is not trusted is told from other failures: the operator has to act on it.
pub(super) fn connect_error(address: String, source: io::Error) -> ConnectError {
    let of_certificate = source
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    if of_certificate {
        ConnectError::Certificate { address, source }
    } else {
        ConnectError::Tls { address, source }
    }
}
