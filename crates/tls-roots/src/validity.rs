//! Until when a certificate holds: its `notAfter`, and nothing else of it.
//!
//! Whether to trust a certificate is decided by rustls alone; this is for telling a person in time. A certificate is
//! `SEQUENCE { SEQUENCE { [0] version?, serial, algorithm, issuer, SEQUENCE { notBefore, notAfter }, … }, … }` in DER (RFC 5280, 4.1).

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use rustls_pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `None` where it is no certificate.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let mut outer = Der(certificate);
    let mut outer = Der(outer.expect(SEQUENCE)?);
    let mut body = Der(outer.expect(SEQUENCE)?);
    let (first, _) = body.next()?;
    if first == VERSION {
        body.next()?;
    }
    // After the serial number: algorithm and issuer.
    body.expect(SEQUENCE)?;
    body.expect(SEQUENCE)?;
    let mut validity = Der(body.expect(SEQUENCE)?);
    validity.next()?;
    let (tag, text) = validity.next()?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let text = match tag {
        UTC_TIME => {
            let century = if text.get(..2)? < "50" { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    // 99991231235959Z, for a certificate without an end, is above what a `Timestamp` can be.
    Some(TimeZone::UTC.to_timestamp(civil).unwrap_or(Timestamp::MAX))
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Tag and content of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let mut length = 0_usize;
            for &byte in bytes {
                length = length.checked_mul(256)?.checked_add(usize::from(byte))?;
            }
            (length, rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (tag, content) = self.next()?;
        (tag == wanted).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn until(year: i32, month: u8, day: u8) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_of_time() {
        for (year, month, day) in [
            (1999, 12, 31),
            (2026, 11, 26),
            (2049, 12, 31),
            (2050, 1, 1),
            (4096, 1, 1),
        ] {
            let found = not_after(&until(year, month, day)).expect("a certificate");
            assert_eq!(
                found.to_string(),
                format!("{year}-{month:02}-{day:02}T00:00:00Z")
            );
        }
    }

    #[test]
    fn a_certificate_without_an_end_ends_with_time() {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(9999, 12, 31) + std::time::Duration::from_secs(86_399);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(not_after(certificate.der()), Some(Timestamp::MAX));
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_end_and_no_panic() {
        let whole = until(2030, 1, 1);
        for length in 0..whole.len().min(200) {
            let cut = CertificateDer::from(whole[..length].to_vec());
            assert_eq!(not_after(&cut), None, "cut at {length}");
        }
        for index in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.to_vec();
                changed[index] = value;
                // Any answer will do.
                std::hint::black_box(not_after(&CertificateDer::from(changed)));
            }
        }
    }
}
