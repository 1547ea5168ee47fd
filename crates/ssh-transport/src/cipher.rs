//! Packets on the wire: in the clear until the first keys, then under an authenticated cipher.

use crate::error::TransportError;
use bytes::{Buf as _, BytesMut};
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey,
    chacha20_poly1305_openssh as chacha,
};

/// Bytes of the length in front of each packet.
const LENGTH: usize = 4;
/// Of both ciphers.
const TAG: usize = 16;
/// In the clear and under ChaCha20.
const BLOCK: usize = 8;
const GCM_BLOCK: usize = 16;
const MIN_PADDING: usize = 4;

/// In the order in which we prefer them where we are asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CipherName {
    ChaCha20Poly1305,
    Aes256Gcm,
    Aes128Gcm,
}

impl CipherName {
    pub(crate) const ALL: [&str; 3] = [
        "chacha20-poly1305@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-gcm@openssh.com",
    ];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "chacha20-poly1305@openssh.com" => Some(Self::ChaCha20Poly1305),
            "aes256-gcm@openssh.com" => Some(Self::Aes256Gcm),
            "aes128-gcm@openssh.com" => Some(Self::Aes128Gcm),
            _ => None,
        }
    }

    /// Bytes of key and of initial vector.
    pub(crate) const fn sizes(self) -> (usize, usize) {
        match self {
            Self::ChaCha20Poly1305 => (chacha::KEY_LEN, 0),
            Self::Aes256Gcm => (32, 12),
            Self::Aes128Gcm => (16, 12),
        }
    }

    fn gcm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::ChaCha20Poly1305 | Self::Aes256Gcm => &AES_256_GCM,
        }
    }
}

/// AES-GCM as RFC 5647 uses it: four fixed bytes and a counter of packets.
struct Gcm {
    key: LessSafeKey,
    fixed: [u8; 4],
    counter: u64,
}

impl Gcm {
    fn new(name: CipherName, key: &[u8], iv: &[u8]) -> Option<Self> {
        let (fixed, counter) = iv.split_first_chunk::<4>()?;
        Some(Self {
            key: LessSafeKey::new(UnboundKey::new(name.gcm(), key).ok()?),
            fixed: *fixed,
            counter: u64::from_be_bytes(counter.try_into().ok()?),
        })
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        let (fixed, counter) = nonce.split_at_mut(4);
        fixed.copy_from_slice(&self.fixed);
        counter.copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }
}

enum Seal {
    Clear,
    ChaCha(Box<chacha::SealingKey>),
    Gcm(Box<Gcm>),
}

/// One direction, outwards.
pub(crate) struct Sealing {
    seal: Seal,
    sequence: u32,
    packets: u64,
    bytes: u64,
}

enum Open {
    Clear,
    ChaCha(Box<chacha::OpeningKey>),
    Gcm(Box<Gcm>),
}

/// One direction, inwards.
pub(crate) struct Opening {
    open: Open,
    sequence: u32,
    packets: u64,
    bytes: u64,
    /// Of the packet that is not here as a whole yet.
    length: Option<usize>,
}

macro_rules! common {
    ($type:ident, $field:ident, $state:ident, $key:ident) => {
        impl $type {
            pub(crate) const fn clear() -> Self {
                Self::with($state::Clear)
            }

            /// `None` where key or vector have another length than the cipher's.
            pub(crate) fn new(name: CipherName, key: &[u8], iv: &[u8]) -> Option<Self> {
                Some(Self::with(match name {
                    CipherName::ChaCha20Poly1305 => {
                        $state::ChaCha(Box::new(chacha::$key::new(key.try_into().ok()?)))
                    }
                    CipherName::Aes256Gcm | CipherName::Aes128Gcm => {
                        $state::Gcm(Box::new(Gcm::new(name, key, iv)?))
                    }
                }))
            }

            /// Packets go on being numbered, but where the exchange is strict.
            pub(crate) const fn after(mut self, before: &Self, strict: bool) -> Self {
                self.sequence = if strict { 0 } else { before.sequence };
                self
            }

            /// Packets and bytes under these keys.
            pub(crate) const fn used(&self) -> (u64, u64) {
                (self.packets, self.bytes)
            }

            fn count(&mut self, bytes: usize) {
                self.sequence = self.sequence.wrapping_add(1);
                self.packets += 1;
                self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))
                    .field("sequence", &self.sequence)
                    .finish_non_exhaustive()
            }
        }
    };
}
common!(Sealing, seal, Seal, SealingKey);
common!(Opening, open, Open, OpeningKey);

impl Sealing {
    const fn with(seal: Seal) -> Self {
        Self {
            seal,
            sequence: 0,
            packets: 0,
            bytes: 0,
        }
    }

    /// Appends `payload` as a packet to `out`.
    pub(crate) fn seal(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), TransportError> {
        let (block, counted) = match self.seal {
            // The length is a part of what is padded.
            Seal::Clear => (BLOCK, LENGTH),
            Seal::ChaCha(_) => (BLOCK, 0),
            Seal::Gcm(_) => (GCM_BLOCK, 0),
        };
        let bare = counted + 1 + payload.len() + MIN_PADDING;
        // Nobody reads it: under a cipher it is authenticated and hidden, before there is nothing to hide.
        let padding = MIN_PADDING + (block - bare % block) % block;
        let length = 1 + payload.len() + padding;
        let start = out.len();
        let declared = u32::try_from(length).map_err(|_| TransportError::Length)?;
        out.reserve(LENGTH + length + TAG);
        out.extend_from_slice(&declared.to_be_bytes());
        out.push(u8::try_from(padding).map_err(|_| TransportError::Length)?);
        out.extend_from_slice(payload);
        out.resize(start + LENGTH + length, 0);
        let packet = out.get_mut(start..).unwrap_or_default();
        match &mut self.seal {
            Seal::Clear => {}
            Seal::ChaCha(key) => {
                let mut tag = [0; TAG];
                key.seal_in_place(self.sequence, packet, &mut tag);
                out.extend_from_slice(&tag);
            }
            Seal::Gcm(gcm) => {
                let nonce = gcm.nonce();
                let (head, body) = packet.split_at_mut(LENGTH);
                let tag = gcm
                    .key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*head), body)
                    .map_err(|_| TransportError::Length)?;
                out.extend_from_slice(tag.as_ref());
            }
        }
        self.count(LENGTH + length);
        Ok(())
    }
}

impl Opening {
    const fn with(open: Open) -> Self {
        Self {
            open,
            sequence: 0,
            packets: 0,
            bytes: 0,
            length: None,
        }
    }

    pub(crate) const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Takes the payload of the next packet out of `inbound`; `None` where it is not here as a whole.
    pub(crate) fn open(
        &mut self,
        inbound: &mut BytesMut,
        max: usize,
    ) -> Result<Option<BytesMut>, TransportError> {
        let Some(head) = inbound.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let (block, counted, tag) = match self.open {
            Open::Clear => (BLOCK, LENGTH, 0),
            Open::ChaCha(_) => (BLOCK, 0, TAG),
            Open::Gcm(_) => (GCM_BLOCK, 0, TAG),
        };
        let length = match self.length {
            Some(length) => length,
            None => {
                let declared = match &self.open {
                    Open::ChaCha(key) => key.decrypt_packet_length(self.sequence, *head),
                    Open::Clear | Open::Gcm(_) => *head,
                };
                let length = usize::try_from(u32::from_be_bytes(declared))
                    .map_err(|_| TransportError::Length)?;
                let fits = (1 + MIN_PADDING + 1..=max).contains(&length)
                    && (length + counted) % block == 0;
                if !fits {
                    return Err(TransportError::Length);
                }
                self.length = Some(length);
                length
            }
        };
        let whole = LENGTH + length + tag;
        if inbound.len() < whole {
            inbound.reserve(whole - inbound.len());
            return Ok(None);
        }
        self.length = None;
        let mut packet = inbound.split_to(whole);
        let end = packet.split_off(LENGTH + length);
        match &mut self.open {
            Open::Clear => {}
            Open::ChaCha(key) => {
                let tag = end.first_chunk::<TAG>().ok_or(TransportError::Length)?;
                key.open_in_place(self.sequence, &mut packet, tag)
                    .map_err(|_| TransportError::NotAuthentic)?;
            }
            Open::Gcm(gcm) => {
                let nonce = gcm.nonce();
                packet.unsplit(end);
                let (head, body) = packet.split_at_mut(LENGTH);
                gcm.key
                    .open_in_place(nonce, Aad::from(&*head), body)
                    .map_err(|_| TransportError::NotAuthentic)?;
            }
        }
        self.count(LENGTH + length);
        let padding = usize::from(*packet.get(LENGTH).ok_or(TransportError::Length)?);
        let payload = (length - 1)
            .checked_sub(padding)
            .filter(|payload| padding >= MIN_PADDING && *payload > 0)
            .ok_or(TransportError::Length)?;
        packet.advance(LENGTH + 1);
        packet.truncate(payload);
        Ok(Some(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: CipherName) -> (Sealing, Opening) {
        let (key, iv) = name.sizes();
        let (key, iv) = (vec![7; key], vec![9; iv]);
        (
            Sealing::new(name, &key, &iv).unwrap(),
            Opening::new(name, &key, &iv).unwrap(),
        )
    }

    #[test]
    fn what_was_sealed_is_opened_in_order_and_nothing_else() {
        for name in CipherName::ALL {
            let name = CipherName::parse(name).unwrap();
            let (mut sealing, mut opening) = pair(name);
            let mut out = Vec::new();
            let payloads: Vec<Vec<u8>> =
                (1..80).map(|length| vec![length; length.into()]).collect();
            for payload in &payloads {
                sealing.seal(payload, &mut out).unwrap();
            }
            let mut inbound = BytesMut::from(&out[..]);
            for payload in &payloads {
                let opened = opening.open(&mut inbound, 4096).unwrap().unwrap();
                assert_eq!(&opened[..], payload);
            }
            assert_eq!(opening.open(&mut inbound, 4096).unwrap(), None);

            let (mut sealing, mut opening) = pair(name);
            let mut out = Vec::new();
            sealing.seal(b"hello", &mut out).unwrap();
            let last = out.len() - 1;
            out[last] ^= 1;
            let refused = opening.open(&mut BytesMut::from(&out[..]), 4096);
            assert_eq!(refused.unwrap_err(), TransportError::NotAuthentic);
        }
    }

    #[test]
    fn a_length_that_is_not_taken_is_refused_before_its_bytes_come() {
        let mut opening = Opening::clear();
        for length in [0_u32, 5, 11, 13, 5000, u32::MAX] {
            let mut inbound = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(
                opening.open(&mut inbound, 4096).unwrap_err(),
                TransportError::Length,
                "{length}"
            );
        }
    }
}
