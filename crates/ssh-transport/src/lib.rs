//! SSH's transport layer (RFC 4253) as a state machine without I/O, for whoever passes on what the layers above it say.
//!
//! Responsible for: identification lines, negotiation, key agreement and its repetition, packets ([`Transport`]); host keys in OpenSSH's file
//! form ([`HostKey`]); whether a user has signed with a public key ([`verify`]); reading and writing the fields of messages ([`Reader`],
//! [`Writer`]).
//!
//! Why there is one of our own: a gateway passes messages of the connection layer on as they are, so that windows, order and end of every
//! channel stay a matter of the two ends. The libraries at hand own that layer: they confirm what they have received before anybody has taken
//! it, and stop reading a whole connection where one channel is not read.
//!
//! Invariants:
//! - One algorithm set without legacy: authenticated ciphers, X25519 alone or with ML-KEM-768, Ed25519 host keys. Strict key exchange where the
//!   peer knows it.
//! - Nothing is read that has not been authenticated, but its length; a packet has at most [`MAX_PACKET`] bytes, and no more than one is held.
//! - No message of a layer above is sent between our `KEXINIT` and our `NEWKEYS`, nor taken between the peer's.
//!
//! It knows no sockets, no clock, no users and no channels.

mod agreement;
mod cipher;
mod error;
mod fields;
mod host_key;
mod messages;
mod negotiation;
mod transport;
mod verify;

pub use agreement::Agreements;
pub use error::{Disconnect, TransportError};
pub use fields::{FieldError, Reader, Writer};
pub use host_key::{HostKey, HostKeyError};
pub use messages::number;
pub use transport::{MAX_PACKET, Packet, Transport};
pub use verify::{SIGNATURE_ALGORITHMS, SignatureError, verify};
