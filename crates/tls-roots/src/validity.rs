//! Until when a certificate holds: its `notAfter`, and nothing else of it.
//!
//! Whether to trust a certificate is decided by rustls alone; this is for telling a person in time.

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use x509_cert::{
    certificate::{CertificateInner, Raw},
    der::Decode as _,
};

/// Days before the end from which on a daemon warns, where not set. Whoever renews certificates of 90 days does so 30 days before their end.
pub const WARN_DAYS: u32 = 21;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How much of a certificate's life is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Enough,
    Little { days: i64 },
    Nothing,
}

/// Of one that ends then.
#[must_use]
pub fn left(not_after: Timestamp, now: Timestamp, warn_days: u32) -> Left {
    let left = not_after.duration_since(now);
    if left.is_negative() || left.is_zero() {
        Left::Nothing
    } else if left < DAY.saturating_mul(i32::try_from(warn_days).unwrap_or(i32::MAX)) {
        Left::Little {
            days: left.as_hours() / 24,
        }
    } else {
        Left::Enough
    }
}

/// `None` where it is no certificate. One without an end (RFC 5280, 4.1.2.5) ends with time.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    // Whatever rustls takes: the strict profile refuses serial numbers of old authorities.
    let certificate = CertificateInner::<Raw>::from_der(certificate).ok()?;
    let until = certificate
        .tbs_certificate()
        .validity()
        .not_after
        .to_unix_duration();
    let seconds = i64::try_from(until.as_secs()).ok()?;
    Some(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
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

    #[test]
    fn a_certificate_is_warned_of_in_time_and_told_when_it_has_ended() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let at = |hours: i64| left(now + SignedDuration::from_hours(hours), now, 21);
        assert_eq!(at(21 * 24), Left::Enough);
        assert_eq!(at(21 * 24 - 1), Left::Little { days: 20 });
        assert_eq!(at(1), Left::Little { days: 0 });
        assert_eq!(at(0), Left::Nothing);
        assert_eq!(at(-1), Left::Nothing);
        assert_eq!(left(Timestamp::MAX, now, 3_650), Left::Enough);
    }
}
