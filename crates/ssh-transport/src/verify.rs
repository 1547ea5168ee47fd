//! Whether a user has signed with a public key.

use crate::fields::{FieldError, Reader};
use p521::ecdsa::signature::Verifier as _;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use sha2::{Digest as _, Sha256};

/// In the order in which clients are told them.
pub const SIGNATURE_ALGORITHMS: &str = "ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256";

/// Of a security key's signature: somebody touched it.
const USER_PRESENT: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the algorithm is not one for that key")]
    Algorithm,
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the security key was not touched")]
    Untouched,
    #[error("the signature is not the key's")]
    Forged,
}

/// The type of key that signs with `algorithm`.
fn key_type(algorithm: &str) -> &str {
    match algorithm {
        // RSA with SHA-1 is none.
        "ssh-rsa" => "",
        "rsa-sha2-256" | "rsa-sha2-512" => "ssh-rsa",
        same => same,
    }
}

/// Whether `signature` is `key`'s over `message`, by `algorithm`. Without one: whether that key could sign by it.
///
/// # Errors
/// Says why it is not.
pub fn verify(
    algorithm: &str,
    key: &[u8],
    signed: Option<(&[u8], &[u8])>,
) -> Result<(), SignatureError> {
    let mut key = Reader::new(key);
    let known = SIGNATURE_ALGORITHMS.split(',').any(|one| one == algorithm);
    if !known || key.text()? != key_type(algorithm) {
        return Err(SignatureError::Algorithm);
    }
    let Some((message, signature)) = signed else {
        return Ok(());
    };
    let mut signature = Reader::new(signature);
    if signature.text()? != algorithm {
        return Err(SignatureError::Algorithm);
    }
    let bytes = signature.string()?;
    match algorithm {
        "ssh-ed25519" => {
            signature.end()?;
            check(&ED25519, key.string()?, message, bytes)
        }
        "ecdsa-sha2-nistp256" => {
            signature.end()?;
            key.string()?;
            check(
                &ECDSA_P256_SHA256_FIXED,
                key.string()?,
                message,
                &fixed(bytes, 32)?,
            )
        }
        "ecdsa-sha2-nistp384" => {
            signature.end()?;
            key.string()?;
            check(
                &ECDSA_P384_SHA384_FIXED,
                key.string()?,
                message,
                &fixed(bytes, 48)?,
            )
        }
        "ecdsa-sha2-nistp521" => {
            signature.end()?;
            key.string()?;
            nistp521(key.string()?, message, &fixed(bytes, 66)?)
        }
        "rsa-sha2-256" | "rsa-sha2-512" => {
            signature.end()?;
            let (exponent, modulus) = (unsigned(key.string()?), unsigned(key.string()?));
            let scheme = if algorithm == "rsa-sha2-256" {
                &RSA_PKCS1_2048_8192_SHA256
            } else {
                &RSA_PKCS1_2048_8192_SHA512
            };
            RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            }
            .verify(scheme, message, bytes)
            .map_err(|_| SignatureError::Forged)
        }
        "sk-ssh-ed25519@openssh.com" => {
            let point = key.string()?;
            let message = touched(key.string()?, &mut signature, message)?;
            check(&ED25519, point, &message, bytes)
        }
        "sk-ecdsa-sha2-nistp256@openssh.com" => {
            key.string()?;
            let point = key.string()?;
            let message = touched(key.string()?, &mut signature, message)?;
            check(
                &ECDSA_P256_SHA256_FIXED,
                point,
                &message,
                &fixed(bytes, 32)?,
            )
        }
        _ => Err(SignatureError::Algorithm),
    }
}

fn check(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    UnparsedPublicKey::new(algorithm, key)
        .verify(message, signature)
        .map_err(|_| SignatureError::Forged)
}

fn nistp521(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(key);
    let signature = p521::ecdsa::Signature::from_slice(signature);
    let (Ok(key), Ok(signature)) = (key, signature) else {
        return Err(SignatureError::Forged);
    };
    key.verify(message, &signature)
        .map_err(|_| SignatureError::Forged)
}

/// Two numbers, each in `size` bytes.
fn fixed(bytes: &[u8], size: usize) -> Result<Vec<u8>, SignatureError> {
    let mut reader = Reader::new(bytes);
    let mut fixed = Vec::with_capacity(2 * size);
    for _ in 0..2 {
        let number = unsigned(reader.string()?);
        let zeros = size
            .checked_sub(number.len())
            .ok_or(SignatureError::Forged)?;
        fixed.resize(fixed.len() + zeros, 0);
        fixed.extend_from_slice(number);
    }
    reader.end()?;
    Ok(fixed)
}

fn unsigned(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// What a security key signs for `message`: OpenSSH's PROTOCOL.u2f.
fn touched(
    application: &[u8],
    signature: &mut Reader<'_>,
    message: &[u8],
) -> Result<Vec<u8>, SignatureError> {
    let (flags, counter) = (signature.byte()?, signature.number()?);
    signature.end()?;
    if flags & USER_PRESENT == 0 {
        return Err(SignatureError::Untouched);
    }
    let mut signed = Sha256::digest(application).to_vec();
    signed.push(flags);
    signed.extend_from_slice(&counter.to_be_bytes());
    signed.extend_from_slice(&Sha256::digest(message));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Writer;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
    };

    const SK: &str = "sk-ssh-ed25519@openssh.com";

    fn sk_signature(pair: &Ed25519KeyPair, flags: u8, message: &[u8]) -> Vec<u8> {
        let mut signed = Sha256::digest(b"ssh:").to_vec();
        signed.extend([flags, 0, 0, 0, 9]);
        signed.extend_from_slice(&Sha256::digest(message));
        Writer::default()
            .string(SK)
            .string(pair.sign(&signed))
            .byte(flags)
            .number(9)
            .finish()
    }

    #[test]
    fn a_security_key_has_to_be_touched() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = Writer::default()
            .string(SK)
            .string(pair.public_key())
            .string("ssh:")
            .finish();
        let signature = sk_signature(&pair, 1, b"hello");
        assert_eq!(verify(SK, &key, Some((b"hello", &signature))), Ok(()));
        let forged = verify(SK, &key, Some((b"other", &signature)));
        assert_eq!(forged, Err(SignatureError::Forged));
        let untouched = sk_signature(&pair, 0, b"hello");
        let refused = verify(SK, &key, Some((b"hello", &untouched)));
        assert_eq!(refused, Err(SignatureError::Untouched));
    }

    #[test]
    fn an_algorithm_is_taken_for_its_own_type_of_key_alone() {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
                .unwrap();
        let name = "ecdsa-sha2-nistp256";
        let key = Writer::default()
            .string(name)
            .string("nistp256")
            .string(pair.public_key())
            .finish();
        let bytes = pair.sign(&random, b"hello").unwrap();
        let (r, s) = bytes.as_ref().split_at(32);
        let numbers = Writer::default().positive(r).positive(s).finish();
        let signature = Writer::default().string(name).string(&numbers).finish();
        assert_eq!(verify(name, &key, Some((b"hello", &signature))), Ok(()));
        let forged = verify(name, &key, Some((b"other", &signature)));
        assert_eq!(forged, Err(SignatureError::Forged));
        for other in [
            "ssh-ed25519",
            "ecdsa-sha2-nistp384",
            "ssh-rsa",
            "ssh-dss",
            "",
        ] {
            assert_eq!(verify(other, &key, None), Err(SignatureError::Algorithm));
        }
        let rsa = Writer::default().string("ssh-rsa").finish();
        assert_eq!(verify("rsa-sha2-512", &rsa, None), Ok(()));
        let sha1 = verify("ssh-rsa", &rsa, None);
        assert_eq!(sha1, Err(SignatureError::Algorithm), "SHA-1 is none");
    }
}
