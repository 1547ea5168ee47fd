//! A server's Ed25519 key, and the file it lies in: OpenSSH's own form, so that `ssh-keygen` makes and shows it.

use crate::fields::{Reader, Writer};
use data_encoding::BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use wire::text::SshPublicKey;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const TYPE: &str = "ssh-ed25519";
/// What the private part is padded to in an unencrypted file.
const BLOCK: usize = 8;
/// Base64 in a line.
const LINE: usize = 70;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostKeyError {
    #[error("it is not a private key in OpenSSH's form")]
    Form,
    #[error("it is encrypted with a passphrase, which nobody would be there to type")]
    Encrypted,
    #[error("it is a key of another type than {TYPE}")]
    Type,
    #[error("it is damaged: its two halves do not belong together")]
    Damaged,
    #[error("the system has no randomness to give")]
    Random,
}

/// Signs for a server.
pub struct HostKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostKey").field(&self.blob()).finish()
    }
}

impl HostKey {
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, HostKeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| HostKeyError::Random)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| HostKeyError::Damaged)?;
        Ok(Self { seed, pair })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Says what it is instead.
    pub fn parse(text: &str) -> Result<Self, HostKeyError> {
        let base64: String = text
            .trim()
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(END))
            .ok_or(HostKeyError::Form)?
            .split_ascii_whitespace()
            .collect();
        let bytes = BASE64
            .decode(base64.as_bytes())
            .map_err(|_| HostKeyError::Form)?;
        let form = |_| HostKeyError::Form;
        let mut file = Reader::new(bytes.strip_prefix(MAGIC).ok_or(HostKeyError::Form)?);
        if file.text().map_err(form)? != "none" {
            return Err(HostKeyError::Encrypted);
        }
        file.string().map_err(form)?;
        file.string().map_err(form)?;
        if file.number().map_err(form)? != 1 {
            return Err(HostKeyError::Form);
        }
        let public = file.string().map_err(form)?;
        let mut private = Reader::new(file.string().map_err(form)?);
        let checks = (
            private.number().map_err(form)?,
            private.number().map_err(form)?,
        );
        if checks.0 != checks.1 {
            return Err(HostKeyError::Damaged);
        }
        if private.text().map_err(form)? != TYPE {
            return Err(HostKeyError::Type);
        }
        let half = private.string().map_err(form)?;
        let both = private.string().map_err(form)?;
        let seed: [u8; 32] = both
            .get(..32)
            .and_then(|seed| seed.try_into().ok())
            .ok_or(HostKeyError::Form)?;
        let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, half)
            .map_err(|_| HostKeyError::Damaged)?;
        let key = Self { seed, pair };
        if key.blob() == public {
            Ok(key)
        } else {
            Err(HostKeyError::Damaged)
        }
    }

    /// The text of its file.
    #[must_use]
    pub fn to_file(&self) -> String {
        let public = self.pair.public_key().as_ref();
        // Any number will do, as long as it is there twice.
        let mut private = Writer::default()
            .number(0x6773_7061)
            .number(0x6773_7061)
            .string(TYPE)
            .string(public)
            .string([&self.seed, public].concat())
            .string("gitspaces")
            .finish();
        for pad in 1..=BLOCK {
            if private.len() % BLOCK == 0 {
                break;
            }
            private.push(u8::try_from(pad).unwrap_or_default());
        }
        let file = Writer::default()
            .raw(MAGIC)
            .string("none")
            .string("none")
            .string("")
            .number(1)
            .string(self.blob())
            .string(private)
            .finish();
        let base64 = BASE64.encode(&file);
        let mut text = format!("{BEGIN}\n");
        let mut rest = base64.as_str();
        while let Some((line, more)) = rest.split_at_checked(LINE.min(rest.len()))
            && !line.is_empty()
        {
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str(END);
        text.push('\n');
        text
    }

    pub(crate) fn blob(&self) -> Vec<u8> {
        Writer::default()
            .string(TYPE)
            .string(self.pair.public_key())
            .finish()
    }

    /// For `known_hosts`. `None` never: it is a key.
    #[must_use]
    pub fn public(&self) -> Option<SshPublicKey> {
        SshPublicKey::from_blob(&self.blob()).ok()
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        Writer::default()
            .string(TYPE)
            .string(self.pair.sign(bytes))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_and_a_damaged_one_does_not() {
        let key = HostKey::generate().unwrap();
        let text = key.to_file();
        assert_eq!(HostKey::parse(&text).unwrap().blob(), key.blob());
        for bad in ["", "x", BEGIN, text.trim_start_matches('-')] {
            assert!(HostKey::parse(bad).is_err(), "{bad}");
        }
        let other = HostKey::generate().unwrap().to_file();
        let mixed: String = text
            .lines()
            .take(3)
            .chain(other.lines().skip(3))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(HostKey::parse(&mixed).is_err());
    }
}
