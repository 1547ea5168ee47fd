//! Ed25519 keys, their text forms and their ids.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use pasetors::{
    keys::{AsymmetricKeyPair, AsymmetricPublicKey, AsymmetricSecretKey, Generate as _},
    version4::V4,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

const SEED: usize = 32;
const PUBLIC: usize = 32;
const SECRET: usize = SEED + PUBLIC;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key is not base64 (URL alphabet, no padding)")]
    Encoding,
    #[error("the key has {found} bytes instead of {wanted}")]
    Length { found: usize, wanted: usize },
    #[error("the bytes are not an Ed25519 key")]
    Invalid,
    #[error("cannot make a key: the operating system has no randomness to give")]
    Random,
}

/// A private key. Never printed; wiped from memory when dropped.
#[derive(Clone)]
pub struct SigningKey {
    pub(crate) secret: AsymmetricSecretKey<V4>,
    public: VerifyingKey,
}

impl SigningKey {
    /// # Errors
    /// Fails where the operating system has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = AsymmetricKeyPair::<V4>::generate().map_err(|_| KeyError::Random)?;
        Self::from_bytes(pair.secret.as_bytes())
    }

    /// From the seed and the public key, as [`SigningKey::to_bytes`] gives them.
    ///
    /// # Errors
    /// Refuses bytes whose halves do not belong together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let length = KeyError::Length {
            found: bytes.len(),
            wanted: SECRET,
        };
        let (Some(seed), Some(public)) = (bytes.get(..SEED), bytes.get(SEED..SECRET)) else {
            return Err(length);
        };
        if bytes.len() != SECRET {
            return Err(length);
        }
        // The library below panics on it.
        if seed.iter().all(|byte| *byte == 0) {
            return Err(KeyError::Invalid);
        }
        Ok(Self {
            public: VerifyingKey::from_bytes(public)?,
            secret: AsymmetricSecretKey::from(bytes).map_err(|_| KeyError::Invalid)?,
        })
    }

    /// Seed and public key, 64 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    /// As text, for a key file of mode 0600.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        BASE64URL_NOPAD.encode(self.to_bytes()).into()
    }

    /// Reads what [`SigningKey::to_text`] wrote; white space around it does not matter.
    ///
    /// # Errors
    /// Says what is wrong, never what was read.
    pub fn from_text(text: &SecretString) -> Result<Self, KeyError> {
        let bytes = BASE64URL_NOPAD
            .decode(text.expose_secret().trim().as_bytes())
            .map_err(|_| KeyError::Encoding)?;
        Self::from_bytes(&bytes)
    }

    #[must_use]
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.public.id)
            .finish_non_exhaustive()
    }
}

/// The first 8 bytes of the SHA-256 of a public key, as 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    fn of(public: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::digest(public).into();
        let (start, _) = hash.split_at(8);
        Self(HEXLOWER.encode(start))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key. Its text form, in JSON too, is base64 with the URL alphabet, without padding.
#[derive(Clone, PartialEq)]
pub struct VerifyingKey {
    pub(crate) public: AsymmetricPublicKey<V4>,
    id: KeyId,
}

impl Eq for VerifyingKey {}

impl VerifyingKey {
    /// # Errors
    /// Refuses bytes of another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != PUBLIC {
            return Err(KeyError::Length {
                found: bytes.len(),
                wanted: PUBLIC,
            });
        }
        Ok(Self {
            public: AsymmetricPublicKey::from(bytes).map_err(|_| KeyError::Invalid)?,
            id: KeyId::of(bytes),
        })
    }

    /// 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.public.as_bytes()
    }

    /// What the footer of a token names this key by.
    #[must_use]
    pub fn kid(&self) -> &KeyId {
        &self.id
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifyingKey")
            .field(&self.to_string())
            .finish()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(self.as_bytes()))
    }
}

impl FromStr for VerifyingKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| KeyError::Encoding)?;
        Self::from_bytes(&bytes)
    }
}

impl Serialize for VerifyingKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VerifyingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_forms() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_text(&key.to_text()).unwrap();
        assert_eq!(again.to_bytes(), key.to_bytes());
        let public: VerifyingKey = key.public().to_string().parse().unwrap();
        assert_eq!(&public, key.public());
        let json = serde_json::to_string(&public).unwrap();
        assert_eq!(serde_json::from_str::<VerifyingKey>(&json).unwrap(), public);
    }

    #[test]
    fn halves_of_two_keys_are_refused() {
        let (one, two) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let mixed = [&one.to_bytes()[..SEED], &two.to_bytes()[SEED..]].concat();
        assert_eq!(
            SigningKey::from_bytes(&mixed).unwrap_err(),
            KeyError::Invalid
        );
    }

    #[test]
    fn bytes_that_are_no_key_are_refused_without_a_panic() {
        for bytes in [&[][..], &[0; 63], &[0; 64], &[7; 64], &[0; 65]] {
            SigningKey::from_bytes(bytes).unwrap_err();
        }
        assert_eq!(
            VerifyingKey::from_bytes(&[1; 31]).unwrap_err(),
            KeyError::Length {
                found: 31,
                wanted: 32
            }
        );
    }

    #[test]
    fn a_private_key_never_prints_itself() {
        let key = SigningKey::generate().unwrap();
        let text = format!("{key:?}");
        assert!(text.contains(key.public().kid().as_str()));
        assert!(!text.contains(&*BASE64URL_NOPAD.encode(&key.to_bytes()[..6])));
    }

    #[test]
    fn the_key_id_is_stable() {
        // `printf '\1%.0s' {1..32} | sha256sum | cut -c 1-16`
        assert_eq!(KeyId::of(&[1; 32]).as_str(), "72cd6e8422c407fb");
    }
}
