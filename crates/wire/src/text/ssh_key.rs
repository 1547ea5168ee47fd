//! SSH public keys as users hand them in.

use super::checked_text;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// Longest line taken: an RSA key of 8192 bits and a long comment.
pub const MAX_SSH_KEY: usize = 4 * 1024;
/// Bits of an RSA key: fewer are weak, more are slow and checked by nobody.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Longest application of a security key's.
const MAX_APPLICATION: usize = 255;
/// How base64 of an OpenSSH private key begins.
const PRIVATE_BASE64: &str = "b3BlbnNzaC1rZXktdjE";

/// No variant holds what was handed in: it may be a private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    #[error("it is empty")]
    Empty,
    #[error("it is a private key")]
    Private,
    #[error("it is more than one line")]
    Lines,
    #[error("it is longer than {MAX_SSH_KEY} bytes")]
    TooLong,
    #[error("it holds control characters")]
    Characters,
    #[error("it is in the form of PuTTY or RFC 4716")]
    Form,
    #[error("it is a certificate")]
    Certificate,
    #[error("it begins with something else than the type of a key")]
    Type,
    #[error("what follows the type is not base64")]
    Base64,
    #[error("what follows the type is not a key of that type")]
    Blob,
    #[error("it has {bits} bits; RSA keys have {} to {}", RSA_BITS.start(), RSA_BITS.end())]
    RsaBits { bits: usize },
}

impl SshKeyError {
    /// What to do instead.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Private => {
                "keep that file to yourself: it was not stored; the public key is in the file beside it that ends in `.pub`"
            }
            Self::Lines => "give one key at a time",
            Self::Form => "`ssh-keygen -i -f FILE` prints it in OpenSSH's form",
            Self::Certificate => {
                "certificates expire; register the key itself, from the file that ends in `.pub` and not in `-cert.pub`"
            }
            Self::RsaBits { .. } => "make one with `ssh-keygen -t ed25519`",
            Self::Empty
            | Self::TooLong
            | Self::Characters
            | Self::Type
            | Self::Base64
            | Self::Blob => {
                "a key is one line, `ssh-ed25519 AAAA... comment` for instance, without options before it; types are ssh-ed25519, ecdsa-sha2-nistp256, -nistp384 and -nistp521, ssh-rsa, sk-ssh-ed25519@openssh.com and sk-ecdsa-sha2-nistp256@openssh.com"
            }
        }
    }
}

/// `type base64`, in one spelling: without a comment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SshPublicKey(String);
checked_text!(SshPublicKey, SshKeyError);

impl SshPublicKey {
    /// The key of a line as in an `id_*.pub` file, and its comment.
    ///
    /// # Errors
    /// Says what the line is instead.
    pub fn parse_line(text: &str) -> Result<(Self, &str), SshKeyError> {
        if is_private(text) {
            return Err(SshKeyError::Private);
        }
        let line = text.trim_matches([' ', '\t', '\r', '\n']);
        if line.is_empty() {
            return Err(SshKeyError::Empty);
        }
        if line.starts_with("----") {
            return Err(SshKeyError::Form);
        }
        if line.contains(['\n', '\r']) {
            return Err(SshKeyError::Lines);
        }
        if line.len() > MAX_SSH_KEY {
            return Err(SshKeyError::TooLong);
        }
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SshKeyError::Characters);
        }
        let (name, rest) = line.split_once([' ', '\t']).ok_or(SshKeyError::Type)?;
        let rest = rest.trim_start();
        let (base64, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        if name.contains("-cert-v0") {
            return Err(SshKeyError::Certificate);
        }
        let kind = Kind::of(name).ok_or(SshKeyError::Type)?;
        let blob = BASE64
            .decode(base64.as_bytes())
            .map_err(|_| SshKeyError::Base64)?;
        kind.check(name, &blob)?;
        Ok((Self(format!("{name} {base64}")), comment.trim()))
    }

    /// From the bytes that SSH sends.
    ///
    /// # Errors
    /// Says what they are instead.
    pub fn from_blob(blob: &[u8]) -> Result<Self, SshKeyError> {
        let name = Fields(blob).text().ok_or(SshKeyError::Blob)?;
        Self::try_from(format!("{name} {}", BASE64.encode(blob)))
    }

    /// `ssh-ed25519`, for instance.
    #[must_use]
    pub fn key_type(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// The bytes that SSH sends, and that fingerprints are made of.
    #[must_use]
    pub fn blob(&self) -> Vec<u8> {
        let base64 = self.0.split(' ').nth(1).unwrap_or_default();
        // It was decoded when this was made.
        BASE64.decode(base64.as_bytes()).unwrap_or_default()
    }
}

impl TryFrom<String> for SshPublicKey {
    type Error = SshKeyError;

    /// The one spelling, and no other.
    fn try_from(text: String) -> Result<Self, SshKeyError> {
        let (key, _) = Self::parse_line(&text)?;
        if key.0 == text {
            Ok(key)
        } else {
            Err(SshKeyError::Blob)
        }
    }
}

fn is_private(text: &str) -> bool {
    text.contains("PRIVATE KEY")
        || text.contains("PuTTY-User-Key-File")
        || text.contains(PRIVATE_BASE64)
}

#[derive(Clone, Copy)]
enum Kind {
    Ed25519,
    /// Name of its curve, and bytes of a coordinate.
    Ecdsa(&'static str, usize),
    Rsa,
    SkEd25519,
    SkEcdsa,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "ssh-ed25519" => Self::Ed25519,
            "ecdsa-sha2-nistp256" => Self::Ecdsa("nistp256", 32),
            "ecdsa-sha2-nistp384" => Self::Ecdsa("nistp384", 48),
            "ecdsa-sha2-nistp521" => Self::Ecdsa("nistp521", 66),
            "ssh-rsa" => Self::Rsa,
            "sk-ssh-ed25519@openssh.com" => Self::SkEd25519,
            "sk-ecdsa-sha2-nistp256@openssh.com" => Self::SkEcdsa,
            _ => return None,
        })
    }

    fn check(self, name: &str, blob: &[u8]) -> Result<(), SshKeyError> {
        let mut fields = Fields(blob);
        let named = fields.text() == Some(name);
        let whole = named
            && match self {
                Self::Ed25519 => fields.has_length(32),
                Self::Ecdsa(curve, size) => fields.has_point(curve, size),
                Self::SkEd25519 => fields.has_length(32) && fields.has_application(),
                Self::SkEcdsa => fields.has_point("nistp256", 32) && fields.has_application(),
                Self::Rsa => {
                    let (exponent, modulus) = (fields.positive(), fields.positive());
                    let (Some(exponent), Some(modulus)) = (exponent, modulus) else {
                        return Err(SshKeyError::Blob);
                    };
                    let bits = bits(modulus);
                    if !RSA_BITS.contains(&bits) {
                        return Err(SshKeyError::RsaBits { bits });
                    }
                    let odd = |number: &[u8]| number.last().is_some_and(|low| low % 2 == 1);
                    odd(exponent) && odd(modulus) && (2..=33).contains(&self::bits(exponent))
                }
            };
        if whole && fields.0.is_empty() {
            Ok(())
        } else {
            Err(SshKeyError::Blob)
        }
    }
}

fn bits(number: &[u8]) -> usize {
    number
        .first()
        .map_or(0, |high| number.len() * 8 - high.leading_zeros() as usize)
}

/// What is left of a blob: strings with their length in front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn text(&mut self) -> Option<&'a str> {
        self.next()
            .and_then(|field| std::str::from_utf8(field).ok())
    }

    fn has_length(&mut self, length: usize) -> bool {
        self.next().is_some_and(|field| field.len() == length)
    }

    /// An uncompressed one.
    fn has_point(&mut self, curve: &str, size: usize) -> bool {
        self.text() == Some(curve)
            && self
                .next()
                .is_some_and(|point| point.len() == 2 * size + 1 && point.first() == Some(&4))
    }

    fn has_application(&mut self) -> bool {
        self.text()
            .is_some_and(|text| (1..=MAX_APPLICATION).contains(&text.len()))
    }

    /// A positive number in its shortest form, without the zero in front.
    fn positive(&mut self) -> Option<&'a [u8]> {
        match self.next()? {
            [0, rest @ ..] => {
                Some(rest).filter(|rest| rest.first().is_some_and(|high| *high >= 128))
            }
            number => Some(number).filter(|number| number.first().is_some_and(|high| *high < 128)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPe2uGPLYg8zQVXu9Tq1UkcB4GVy1xZ3YtUAZwzPyE1o";

    fn blob(fields: &[&[u8]]) -> Vec<u8> {
        let mut blob = Vec::new();
        for field in fields {
            blob.extend_from_slice(&(field.len() as u32).to_be_bytes());
            blob.extend_from_slice(field);
        }
        blob
    }

    fn line(name: &str, fields: &[&[u8]]) -> String {
        let fields: Vec<_> = std::iter::once(name.as_bytes())
            .chain(fields.iter().copied())
            .collect();
        format!("{name} {}", BASE64.encode(&blob(&fields)))
    }

    fn rsa(bits: usize) -> String {
        let mut modulus = vec![0; bits / 8 + 1];
        modulus[1] = 0x80;
        modulus[bits / 8] = 1;
        line("ssh-rsa", &[&[1, 0, 1], &modulus])
    }

    #[test]
    fn every_type_of_key_is_taken_with_its_comment() {
        let point = |size: usize| [vec![4], vec![1; 2 * size]].concat();
        let good = [
            ED25519.to_owned(),
            line("ecdsa-sha2-nistp256", &[b"nistp256", &point(32)]),
            line("ecdsa-sha2-nistp384", &[b"nistp384", &point(48)]),
            line("ecdsa-sha2-nistp521", &[b"nistp521", &point(66)]),
            rsa(2048),
            rsa(8192),
            line("sk-ssh-ed25519@openssh.com", &[&[1; 32], b"ssh:"]),
            line(
                "sk-ecdsa-sha2-nistp256@openssh.com",
                &[b"nistp256", &point(32), b"ssh:"],
            ),
        ];
        for key in good {
            let text = format!(" {key}   me @ home\r\n");
            let (parsed, comment) =
                SshPublicKey::parse_line(&text).unwrap_or_else(|error| panic!("{error}: {key}"));
            assert_eq!((parsed.as_str(), comment), (key.as_str(), "me @ home"));
            assert_eq!(SshPublicKey::from_blob(&parsed.blob()), Ok(parsed));
        }
    }

    #[test]
    fn a_private_key_is_named_as_that_in_every_form() {
        for private in [
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----",
            "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU",
            "ssh-ed25519 b3BlbnNzaC1rZXktdjEAAAAABG5vbmU",
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none",
        ] {
            assert_eq!(
                SshPublicKey::parse_line(private).unwrap_err(),
                SshKeyError::Private,
                "{private}"
            );
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_what_it_is() {
        use SshKeyError::{
            Base64, Blob, Certificate, Characters, Empty, Form, Lines, RsaBits, TooLong, Type,
        };
        let point = [vec![4], vec![1; 64]].concat();
        let cases = [
            (String::new(), Empty),
            (" \n".to_owned(), Empty),
            (format!("{ED25519}\n{ED25519}"), Lines),
            (format!("{ED25519}\rx"), Lines),
            (format!("{ED25519} {}", "x".repeat(MAX_SSH_KEY)), TooLong),
            (format!("{ED25519} a\x1b[2J"), Characters),
            ("---- BEGIN SSH2 PUBLIC KEY ----".to_owned(), Form),
            (
                "ssh-ed25519-cert-v01@openssh.com AAAA".to_owned(),
                Certificate,
            ),
            (format!("command=\"/bin/sh\" {ED25519}"), Type),
            (format!("no-pty {ED25519}"), Type),
            ("ssh-ed25519".to_owned(), Type),
            ("ssh-dss AAAA".to_owned(), Type),
            ("hello world".to_owned(), Type),
            ("ssh-ed25519 A?".to_owned(), Base64),
            ("ssh-ed25519 AAA".to_owned(), Base64),
            ("ssh-ed25519 AAAA".to_owned(), Blob),
            (ED25519.replacen("ssh-ed25519", "ssh-rsa", 1), Blob),
            (line("ssh-ed25519", &[&[1; 31]]), Blob),
            (line("ssh-ed25519", &[&[1; 32], b"more"]), Blob),
            (line("ecdsa-sha2-nistp256", &[b"nistp384", &point]), Blob),
            (
                line("ecdsa-sha2-nistp256", &[b"nistp256", &point[1..]]),
                Blob,
            ),
            (line("sk-ssh-ed25519@openssh.com", &[&[1; 32], b""]), Blob),
            (line("ssh-rsa", &[&[1, 0, 1], &[0xff; 257]]), Blob),
            (line("ssh-rsa", &[&[2], &[1; 257]]), Blob),
            (rsa(1024), RsaBits { bits: 1024 }),
            (rsa(16384), RsaBits { bits: 16384 }),
        ];
        for (text, wanted) in cases {
            let error = SshPublicKey::parse_line(&text).expect_err(&text);
            assert_eq!(error, wanted, "{text}");
            assert!(!error.to_string().contains("AAAA"), "{error}");
        }
    }

    #[test]
    fn a_stored_key_has_one_spelling() {
        ED25519.parse::<SshPublicKey>().unwrap();
        for other in [
            format!("{ED25519} comment"),
            format!("{ED25519}\n"),
            ED25519.replace(' ', "  "),
        ] {
            assert!(other.parse::<SshPublicKey>().is_err(), "{other}");
        }
    }
}
