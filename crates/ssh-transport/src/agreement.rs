//! Key agreement: X25519 (RFC 8731), alone or with ML-KEM-768 (draft-ietf-sshm-mlkem-hybrid-kex).

use crate::{cipher::CipherName, error::TransportError, fields::Writer};
use ml_kem::{
    Ciphertext, Decapsulate as _, DecapsulationKey, Encapsulate as _, EncapsulationKey, Kem as _,
    KeyExport as _, MlKem768, TryKeyInit as _,
};
use ring::{
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    rand::SystemRandom,
};
use sha2::{Digest as _, Sha256};

const X25519_LENGTH: usize = 32;
const CIPHERTEXT: usize = 1088;
const ENCAPSULATION_KEY: usize = 1184;

/// Which key agreements a server takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agreements {
    /// The hybrid where the client knows it, else X25519 alone.
    #[default]
    All,
    /// The hybrid alone: clients before OpenSSH 9.9 are turned away.
    PostQuantum,
}

impl Agreements {
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::All => &Method::ALL,
            Self::PostQuantum => Method::ALL.get(..1).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    X25519,
    /// Holds also against who records today and has a quantum computer later.
    MlKem768X25519,
}

impl Method {
    /// The hybrid first.
    const ALL: [&str; 3] = [
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
    ];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "mlkem768x25519-sha256" => Some(Self::MlKem768X25519),
            "curve25519-sha256" | "curve25519-sha256@libssh.org" => Some(Self::X25519),
            _ => None,
        }
    }
}

/// What both ends have alone.
pub(crate) struct Shared {
    /// As it is hashed: a number, or for the hybrid a string.
    encoded: Vec<u8>,
}

impl Shared {
    fn new(classical: &[u8], quantum: Option<&[u8]>) -> Self {
        let encoded = match quantum {
            None => Writer::default().positive(classical).finish(),
            Some(quantum) => {
                let both = Sha256::new()
                    .chain_update(quantum)
                    .chain_update(classical)
                    .finalize();
                Writer::default().string(both).finish()
            }
        };
        Self { encoded }
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Key and initial vector of one direction: RFC 4253, section 7.2.
    pub(crate) fn keys(
        &self,
        hash: &[u8; 32],
        session: &[u8; 32],
        cipher: CipherName,
        from_client: bool,
    ) -> (Vec<u8>, Vec<u8>) {
        let (key, iv) = cipher.sizes();
        let (key_letter, iv_letter) = if from_client {
            (b'C', b'A')
        } else {
            (b'D', b'B')
        };
        (
            self.derive(hash, session, key_letter, key),
            self.derive(hash, session, iv_letter, iv),
        )
    }

    fn derive(&self, hash: &[u8; 32], session: &[u8; 32], letter: u8, length: usize) -> Vec<u8> {
        let begin = || Sha256::new().chain_update(&self.encoded).chain_update(hash);
        let mut bytes = begin()
            .chain_update([letter])
            .chain_update(session)
            .finalize()
            .to_vec();
        while bytes.len() < length {
            let more = begin().chain_update(&bytes).finalize();
            bytes.extend_from_slice(&more);
        }
        bytes.truncate(length);
        bytes
    }
}

/// The client's half, until the server has answered.
pub(crate) struct Offer {
    secret: EphemeralPrivateKey,
    quantum: Option<Box<DecapsulationKey<MlKem768>>>,
    public: Vec<u8>,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offer")
    }
}

impl Offer {
    pub(crate) fn make(method: Method) -> Result<Self, TransportError> {
        let (secret, classical) = ephemeral()?;
        let (quantum, mut public) = match method {
            Method::X25519 => (None, Vec::new()),
            Method::MlKem768X25519 => {
                let (secret, public) = MlKem768::generate_keypair();
                (Some(Box::new(secret)), public.to_bytes().to_vec())
            }
        };
        public.extend_from_slice(&classical);
        Ok(Self {
            secret,
            quantum,
            public,
        })
    }

    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    pub(crate) fn agree(self, reply: &[u8]) -> Result<Shared, TransportError> {
        let quantum_length = if self.quantum.is_some() {
            CIPHERTEXT
        } else {
            0
        };
        let (sealed, classical) = reply
            .split_at_checked(quantum_length)
            .ok_or(TransportError::Agreement)?;
        let quantum = match self.quantum {
            None => None,
            Some(key) => {
                let sealed = Ciphertext::<MlKem768>::try_from(sealed)
                    .map_err(|_| TransportError::Agreement)?;
                Some(key.decapsulate(&sealed))
            }
        };
        agree(self.secret, classical, quantum.as_deref())
    }
}

/// The server's half: the answer to a client's `offer`, and what is shared.
pub(crate) fn answer(method: Method, offer: &[u8]) -> Result<(Vec<u8>, Shared), TransportError> {
    let (secret, public) = ephemeral()?;
    match method {
        Method::X25519 => Ok((public.clone(), agree(secret, offer, None)?)),
        Method::MlKem768X25519 => {
            let (key, classical) = offer
                .split_at_checked(ENCAPSULATION_KEY)
                .ok_or(TransportError::Agreement)?;
            let key = EncapsulationKey::<MlKem768>::new_from_slice(key)
                .map_err(|_| TransportError::Agreement)?;
            let (sealed, quantum) = key.encapsulate();
            let mut reply = sealed.to_vec();
            reply.extend_from_slice(&public);
            Ok((reply, agree(secret, classical, Some(&quantum))?))
        }
    }
}

fn ephemeral() -> Result<(EphemeralPrivateKey, Vec<u8>), TransportError> {
    let random = SystemRandom::new();
    let secret =
        EphemeralPrivateKey::generate(&X25519, &random).map_err(|_| TransportError::Random)?;
    let public = secret
        .compute_public_key()
        .map_err(|_| TransportError::Random)?;
    Ok((secret, public.as_ref().to_vec()))
}

/// Refuses points of small order: ring does.
fn agree(
    secret: EphemeralPrivateKey,
    theirs: &[u8],
    quantum: Option<&[u8]>,
) -> Result<Shared, TransportError> {
    if theirs.len() != X25519_LENGTH {
        return Err(TransportError::Agreement);
    }
    agree_ephemeral(secret, &UnparsedPublicKey::new(&X25519, theirs), |shared| {
        Shared::new(shared, quantum)
    })
    .map_err(|_| TransportError::Agreement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_share_the_same_and_a_bad_part_is_refused() {
        for method in [Method::X25519, Method::MlKem768X25519] {
            let offer = Offer::make(method).unwrap();
            let (reply, theirs) = answer(method, offer.public()).unwrap();
            let ours = offer.agree(&reply).unwrap();
            assert_eq!(ours.encoded(), theirs.encoded());
            for bad in [&[][..], &[0; 32], &reply[1..]] {
                let offer = Offer::make(method).unwrap();
                assert!(offer.agree(bad).is_err());
                assert!(answer(method, bad).is_err());
            }
        }
    }
}
