//! One end of a connection.
//!
//! ```text
//!            line                 KEXINIT              KEX_INIT / KEX_REPLY          NEWKEYS
//! Greeting ───────► Offered ───────────────► Agreeing ─────────────────► Changing ──────────► Idle
//!                      ▲                                                                        │
//!                      └───────────────────────── ours is sent (again) ◄────────────────────────┘
//! ```
//!
//! Bytes go in by [`Transport::inbound`] and out by [`Transport::output`]; [`Transport::next`] does everything in between, and answers with
//! messages of the layers above alone.

use crate::{
    agreement::{self, Agreements, Offer, Shared},
    cipher::{Opening, Sealing},
    error::{Disconnect, TransportError},
    fields::{Reader, Writer},
    host_key::HostKey,
    messages::number,
    negotiation::{self, Agreed, HOST_KEY, Side},
    verify::{SIGNATURE_ALGORITHMS, verify},
};
use bytes::BytesMut;
use sha2::{Digest as _, Sha256};
use std::{collections::VecDeque, ops::Deref, sync::Arc};
use wire::shown;

/// Largest packet taken. RFC 4253 asks for 35,000; clients at hand send 65,536 of data at most.
pub const MAX_PACKET: usize = 96 * 1024;
/// Length and tag around one.
const AROUND: usize = 20;
/// Beyond it nothing is read before something was sent: what a peer makes us answer is held back by its own reading.
const OUT_LIMIT: usize = 128 * 1024;
/// Messages that wait for new keys. Whoever has more to send asks [`Transport::can_send`] first.
const MAX_HELD: usize = 64;
/// Of a peer's goodbye, shown to others.
const MAX_WORDS: usize = 512;
/// Longest line of a greeting, and lines before the one that counts.
const MAX_LINE: usize = 255;
const MAX_LINES: usize = 20;
/// Keys are changed by us after so much, in each direction: far below what the ciphers bear. Peers change them sooner.
const REKEY_PACKETS: u64 = 1 << 31;
const REKEY_BYTES: u64 = 32 << 30;
/// Capacity that an idle connection keeps.
const SMALL: usize = 4 * 1024;

/// A message of a layer above; never empty.
#[derive(Debug)]
pub struct Packet(BytesMut);

impl From<&[u8]> for Packet {
    fn from(message: &[u8]) -> Self {
        Self(BytesMut::from(message))
    }
}

impl Packet {
    #[must_use]
    pub fn number(&self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }

    /// What follows the number.
    #[must_use]
    pub fn fields(&self) -> Reader<'_> {
        Reader::new(self.0.get(1..).unwrap_or_default())
    }

    /// Its last `length` bytes, without a copy; all of it where it has fewer.
    #[must_use]
    pub fn tail(mut self, length: usize) -> BytesMut {
        let start = self.0.len().saturating_sub(length);
        self.0.split_off(start)
    }
}

impl Deref for Packet {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Debug)]
enum Role {
    Client,
    Server(Arc<HostKey>),
}

#[derive(Debug)]
enum Phase {
    /// Lines so far.
    Greeting(usize),
    /// No exchange of keys goes on.
    Idle,
    /// Our `KEXINIT` is out.
    Offered,
    /// Theirs is here, too.
    Agreeing {
        agreed: Agreed,
        theirs: Vec<u8>,
        /// The client's.
        offer: Option<Box<Offer>>,
        skip: bool,
    },
    /// Our `NEWKEYS` is out, and with it we send under new keys.
    Changing(Box<Opening>),
}

#[derive(Debug)]
pub struct Transport {
    role: Role,
    agreements: Agreements,
    phase: Phase,
    inbound: BytesMut,
    out: Vec<u8>,
    sent: usize,
    opening: Opening,
    sealing: Sealing,
    our_line: String,
    their_line: Vec<u8>,
    /// Our last `KEXINIT`.
    ours: Vec<u8>,
    session: Option<[u8; 32]>,
    strict: bool,
    /// The peer sends under keys.
    established: bool,
    held: VecDeque<Vec<u8>>,
}

impl Transport {
    /// # Errors
    /// The system has no randomness.
    pub fn server(key: Arc<HostKey>, software: &str) -> Result<Self, TransportError> {
        Self::server_with(key, software, Agreements::All)
    }

    /// As [`Transport::server`], with fewer key agreements.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn server_with(
        key: Arc<HostKey>,
        software: &str,
        agreements: Agreements,
    ) -> Result<Self, TransportError> {
        Self::new(Role::Server(key), software, agreements)
    }

    /// # Errors
    /// The system has no randomness.
    pub fn client(software: &str) -> Result<Self, TransportError> {
        Self::new(Role::Client, software, Agreements::All)
    }

    fn new(role: Role, software: &str, agreements: Agreements) -> Result<Self, TransportError> {
        let our_line = format!("SSH-2.0-{software}");
        let mut transport = Self {
            role,
            agreements,
            phase: Phase::Idle,
            inbound: BytesMut::new(),
            out: format!("{our_line}\r\n").into_bytes(),
            sent: 0,
            opening: Opening::clear(),
            sealing: Sealing::clear(),
            our_line,
            their_line: Vec::new(),
            ours: Vec::new(),
            session: None,
            strict: false,
            established: false,
            held: VecDeque::new(),
        };
        transport.begin()?;
        transport.phase = Phase::Greeting(0);
        Ok(transport)
    }

    const fn side(&self) -> Side {
        match self.role {
            Role::Client => Side::Client,
            Role::Server(_) => Side::Server,
        }
    }

    /// Where bytes of the peer are appended.
    pub fn inbound(&mut self) -> &mut BytesMut {
        &mut self.inbound
    }

    /// Whether more bytes are of use before [`Transport::next`] has taken some.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.inbound.len() < MAX_PACKET + AROUND
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// So much of it was sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > OUT_LIMIT {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Gives back memory that nothing is in.
    pub fn relax(&mut self) {
        if self.inbound.is_empty() && self.inbound.capacity() > SMALL {
            self.inbound = BytesMut::new();
        }
        if self.out.is_empty() && self.out.capacity() > SMALL {
            self.out = Vec::new();
        }
    }

    /// Identifies the connection in what is signed; from the first agreement on.
    #[must_use]
    pub const fn session_id(&self) -> Option<&[u8; 32]> {
        self.session.as_ref()
    }

    /// What the peer calls itself.
    #[must_use]
    pub fn peer_software(&self) -> String {
        shown::bounded(&String::from_utf8_lossy(&self.their_line), MAX_LINE)
    }

    /// Whether messages go out at once, and do not wait for new keys.
    #[must_use]
    pub const fn can_send(&self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Changing(_) => true,
            Phase::Greeting(_) | Phase::Offered | Phase::Agreeing { .. } => false,
        }
    }

    /// Whether we wait for the peer's part of a change of keys, and it may still send what it had sent before.
    #[must_use]
    pub const fn waits_for_offer(&self) -> bool {
        matches!(self.phase, Phase::Offered)
    }

    /// Sends a message, after a change of keys that goes on.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn send(&mut self, message: &[u8]) -> Result<(), TransportError> {
        if self.can_send() {
            return self.seal(message);
        }
        if self.held.len() >= MAX_HELD {
            return Err(TransportError::Flood);
        }
        self.held.push_back(message.to_vec());
        Ok(())
    }

    /// The last message. It does not wait for keys.
    pub fn disconnect(&mut self, reason: Disconnect, words: &str) {
        let message = Writer::message(number::DISCONNECT)
            .number(reason as u32)
            .string(words)
            .string("")
            .finish();
        // There is no other way to say it.
        drop(self.seal(&message));
    }

    /// Begins a change of keys, where none goes on.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn rekey(&mut self) -> Result<(), TransportError> {
        if matches!(self.phase, Phase::Idle) {
            self.begin()?;
        }
        Ok(())
    }

    /// The next message of a layer above. `None` where more bytes have to come, or to go.
    ///
    /// # Errors
    /// The connection is over: [`TransportError::reason`] is for the peer.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is no iterator: it goes on after `None`"
    )]
    pub fn next(&mut self) -> Result<Option<Packet>, TransportError> {
        loop {
            if self.output().len() > OUT_LIMIT {
                return Ok(None);
            }
            if let Phase::Greeting(lines) = self.phase {
                if !self.greet(lines)? {
                    return Ok(None);
                }
                continue;
            }
            if matches!(self.phase, Phase::Idle) && self.is_worn() {
                self.begin()?;
            }
            let Some(payload) = self.opening.open(&mut self.inbound, MAX_PACKET)? else {
                return Ok(None);
            };
            if let Some(packet) = self.take(Packet(payload))? {
                return Ok(Some(packet));
            }
        }
    }

    fn is_worn(&self) -> bool {
        [self.sealing.used(), self.opening.used()]
            .iter()
            .any(|(packets, bytes)| *packets > REKEY_PACKETS || *bytes > REKEY_BYTES)
    }

    /// Whether a line was there.
    fn greet(&mut self, lines: usize) -> Result<bool, TransportError> {
        let searched = self.inbound.get(..MAX_LINE).unwrap_or(&self.inbound);
        let Some(end) = searched.iter().position(|byte| *byte == b'\n') else {
            return if self.inbound.len() >= MAX_LINE {
                Err(TransportError::NotSsh)
            } else {
                Ok(false)
            };
        };
        let line = self.inbound.split_to(end + 1);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"SSH-2.0-") && !line.contains(&0) {
            self.their_line = line.to_vec();
            self.phase = Phase::Offered;
            return Ok(true);
        }
        // A server may say something first.
        if self.side() == Side::Server || line.starts_with(b"SSH-") || lines >= MAX_LINES {
            return Err(TransportError::NotSsh);
        }
        self.phase = Phase::Greeting(lines + 1);
        Ok(true)
    }

    fn seal(&mut self, message: &[u8]) -> Result<(), TransportError> {
        self.sealing.seal(message, &mut self.out)
    }

    fn begin(&mut self) -> Result<(), TransportError> {
        self.ours = negotiation::offer(self.side(), self.agreements)?;
        let ours = std::mem::take(&mut self.ours);
        self.seal(&ours)?;
        self.ours = ours;
        self.phase = Phase::Offered;
        Ok(())
    }

    /// What is for the layers above comes back.
    fn take(&mut self, packet: Packet) -> Result<Option<Packet>, TransportError> {
        let number = packet.number();
        let out_of_turn = Err(TransportError::OutOfTurn { number });
        if let Phase::Agreeing { skip, .. } = &mut self.phase
            && std::mem::take(skip)
        {
            return Ok(None);
        }
        match number {
            number::DISCONNECT => {
                let mut fields = packet.fields();
                let reason = fields.number()?;
                let text = String::from_utf8_lossy(fields.string()?);
                let text = shown::bounded(&text, MAX_WORDS);
                Err(TransportError::Disconnected { reason, text })
            }
            number::IGNORE | number::DEBUG | number::UNIMPLEMENTED => {
                // Before keys, messages that could be put in unseen are none to a strict peer.
                if self.established || !self.strict {
                    Ok(None)
                } else {
                    out_of_turn
                }
            }
            number::KEXINIT => self.on_offer(&packet).map(|()| None),
            number::KEX_INIT => self.on_init(&packet).map(|()| None),
            number::KEX_REPLY => self.on_reply(&packet).map(|()| None),
            number::NEWKEYS => {
                packet.fields().end()?;
                match std::mem::replace(&mut self.phase, Phase::Idle) {
                    Phase::Changing(opening) => {
                        self.opening = opening.after(&self.opening, self.strict);
                        self.established = true;
                        Ok(None)
                    }
                    before => {
                        self.phase = before;
                        out_of_turn
                    }
                }
            }
            _ if !self.established => out_of_turn,
            // After its KEXINIT a peer sends nothing else before its NEWKEYS.
            _ if matches!(self.phase, Phase::Agreeing { .. } | Phase::Changing(_)) => out_of_turn,
            number::EXT_INFO | number::PONG => Ok(None),
            number::PING => {
                let data = packet.fields().string()?;
                let pong = Writer::message(number::PONG).string(data).finish();
                self.send(&pong).map(|()| None)
            }
            number::SERVICE_REQUEST | number::SERVICE_ACCEPT | number::USERAUTH_REQUEST.. => {
                Ok(Some(packet))
            }
            _ => out_of_turn,
        }
    }

    fn on_offer(&mut self, packet: &Packet) -> Result<(), TransportError> {
        match self.phase {
            Phase::Idle => self.begin()?,
            Phase::Offered => {}
            Phase::Greeting(_) | Phase::Agreeing { .. } | Phase::Changing(_) => {
                return Err(TransportError::OutOfTurn {
                    number: number::KEXINIT,
                });
            }
        }
        let agreed = negotiation::agree(self.side(), self.agreements, packet)?;
        if self.session.is_none() {
            self.strict = agreed.strict;
            // Nothing may have come before it.
            if agreed.strict && self.opening.sequence() != 1 {
                return Err(TransportError::OutOfTurn {
                    number: number::KEXINIT,
                });
            }
        }
        let offer = match self.role {
            Role::Server(_) => None,
            Role::Client => {
                let offer = Offer::make(agreed.method)?;
                let message = Writer::message(number::KEX_INIT)
                    .string(offer.public())
                    .finish();
                self.seal(&message)?;
                Some(Box::new(offer))
            }
        };
        self.phase = Phase::Agreeing {
            agreed,
            theirs: packet.to_vec(),
            offer,
            skip: agreed.wrong_guess,
        };
        Ok(())
    }

    /// As a server.
    fn on_init(&mut self, packet: &Packet) -> Result<(), TransportError> {
        let out_of_turn = TransportError::OutOfTurn {
            number: number::KEX_INIT,
        };
        let Role::Server(key) = &self.role else {
            return Err(out_of_turn);
        };
        let key = Arc::clone(key);
        let Phase::Agreeing { agreed, theirs, .. } =
            std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            return Err(out_of_turn);
        };
        let mut fields = packet.fields();
        let public = fields.string()?;
        fields.end()?;
        let (reply, shared) = agreement::answer(agreed.method, public)?;
        let blob = key.blob();
        let hash = hash(
            (&self.their_line, self.our_line.as_bytes()),
            (&theirs, &self.ours),
            &blob,
            (public, &reply),
            &shared,
        );
        let message = Writer::message(number::KEX_REPLY)
            .string(&blob)
            .string(&reply)
            .string(key.sign(&hash))
            .finish();
        self.seal(&message)?;
        self.change(agreed, hash, &shared)
    }

    /// As a client.
    fn on_reply(&mut self, packet: &Packet) -> Result<(), TransportError> {
        let out_of_turn = TransportError::OutOfTurn {
            number: number::KEX_REPLY,
        };
        let Phase::Agreeing {
            agreed,
            theirs,
            offer: Some(offer),
            ..
        } = std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            return Err(out_of_turn);
        };
        let mut fields = packet.fields();
        let (blob, reply, signature) = (fields.string()?, fields.string()?, fields.string()?);
        fields.end()?;
        let public = offer.public().to_vec();
        let shared = offer.agree(reply)?;
        let hash = hash(
            (self.our_line.as_bytes(), &self.their_line),
            (&self.ours, &theirs),
            blob,
            (&public, reply),
            &shared,
        );
        verify(HOST_KEY, blob, Some((&hash, signature))).map_err(|_| TransportError::HostKey)?;
        self.change(agreed, hash, &shared)
    }

    /// Says so, and sends under the new keys from here on.
    fn change(
        &mut self,
        agreed: Agreed,
        hash: [u8; 32],
        shared: &Shared,
    ) -> Result<(), TransportError> {
        let is_first = self.session.is_none();
        let session = *self.session.get_or_insert(hash);
        self.seal(&[number::NEWKEYS])?;
        let keys = |cipher, from_client| shared.keys(&hash, &session, cipher, from_client);
        let client = (agreed.from_client, keys(agreed.from_client, true));
        let server = (agreed.from_server, keys(agreed.from_server, false));
        let (outwards, inwards) = match self.side() {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        let sealing = Sealing::new(outwards.0, &outwards.1.0, &outwards.1.1);
        let opening = Opening::new(inwards.0, &inwards.1.0, &inwards.1.1);
        let (Some(sealing), Some(opening)) = (sealing, opening) else {
            return Err(TransportError::Agreement);
        };
        self.sealing = sealing.after(&self.sealing, self.strict);
        self.phase = Phase::Changing(Box::new(opening));
        if is_first && agreed.ext_info {
            let message = Writer::message(number::EXT_INFO)
                .number(2)
                .string("server-sig-algs")
                .string(SIGNATURE_ALGORITHMS)
                .string("ping@openssh.com")
                .string("0")
                .finish();
            self.seal(&message)?;
        }
        for message in std::mem::take(&mut self.held) {
            self.seal(&message)?;
        }
        Ok(())
    }
}

/// What the server signs; the client's part first in each pair.
fn hash(
    lines: (&[u8], &[u8]),
    offers: (&[u8], &[u8]),
    host_key: &[u8],
    publics: (&[u8], &[u8]),
    shared: &Shared,
) -> [u8; 32] {
    let fields = Writer::default()
        .string(lines.0)
        .string(lines.1)
        .string(offers.0)
        .string(offers.1)
        .string(host_key)
        .string(publics.0)
        .string(publics.1)
        .raw(shared.encoded())
        .finish();
    Sha256::digest(fields).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Transport, Transport) {
        let key = Arc::new(HostKey::generate().unwrap());
        (
            Transport::client("a").unwrap(),
            Transport::server(key, "b").unwrap(),
        )
    }

    /// Moves up to `most` bytes.
    fn carry(from: &mut Transport, to: &mut Transport, most: usize) -> usize {
        let moved = from.output().len().min(most);
        let bytes = from.output()[..moved].to_vec();
        to.inbound().extend_from_slice(&bytes);
        from.sent(moved);
        moved
    }

    fn drain(transport: &mut Transport, into: &mut Vec<Vec<u8>>) {
        while let Some(packet) = transport.next().unwrap() {
            into.push(packet.to_vec());
        }
    }

    fn settle(a: &mut Transport, b: &mut Transport) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        loop {
            let moved = carry(a, b, usize::MAX) + carry(b, a, usize::MAX);
            drain(a, &mut at_a);
            drain(b, &mut at_b);
            if moved == 0 && a.output().is_empty() && b.output().is_empty() {
                return (at_a, at_b);
            }
        }
    }

    #[test]
    fn both_ends_come_to_the_same_session() {
        let (mut client, mut server) = pair();
        client.send(&[number::SERVICE_REQUEST, 1]).unwrap();
        let (_, at_server) = settle(&mut client, &mut server);
        assert_eq!(at_server, [[number::SERVICE_REQUEST, 1]]);
        assert_eq!(client.session_id(), server.session_id());
        assert!(client.strict && server.strict && client.can_send() && server.can_send());
        assert_eq!(server.peer_software(), "SSH-2.0-a");
    }

    #[test]
    fn a_message_before_keys_or_between_keys_is_out_of_turn() {
        let (mut client, mut server) = pair();
        carry(&mut client, &mut server, usize::MAX);
        client.seal(&[number::IGNORE, 0, 0, 0, 0]).unwrap();
        carry(&mut client, &mut server, usize::MAX);
        let refused = server.next().unwrap_err();
        let number = number::IGNORE;
        assert_eq!(refused, TransportError::OutOfTurn { number });

        let (mut client, mut server) = pair();
        settle(&mut client, &mut server);
        client.begin().unwrap();
        client.seal(&[number::CHANNEL_DATA, 0]).unwrap();
        carry(&mut client, &mut server, usize::MAX);
        let refused = server.next().unwrap_err();
        let number = number::CHANNEL_DATA;
        assert_eq!(refused, TransportError::OutOfTurn { number });
    }

    #[test]
    fn another_host_key_than_the_signature_s_is_refused() {
        let (mut client, mut server) = pair();
        // A man in the middle with a key of his own cannot make the server's signature.
        let theirs = HostKey::generate().unwrap().blob();
        carry(&mut client, &mut server, usize::MAX);
        carry(&mut server, &mut client, usize::MAX);
        client.next().unwrap();
        carry(&mut client, &mut server, usize::MAX);
        server.next().unwrap();
        let mut reply = server.output().to_vec();
        let at = 4 + 1 + 1 + 4;
        reply[at..at + theirs.len()].copy_from_slice(&theirs);
        client.inbound().extend_from_slice(&reply);
        assert_eq!(client.next().unwrap_err(), TransportError::HostKey);
    }

    #[test]
    fn a_flood_of_pings_is_held_back_until_it_is_read() {
        let (mut client, mut server) = pair();
        settle(&mut client, &mut server);
        let ping = Writer::message(number::PING).string([7; 8192]).finish();
        for _ in 0..100 {
            client.seal(&ping).unwrap();
        }
        carry(&mut client, &mut server, usize::MAX);
        assert!(server.next().unwrap().is_none());
        assert!(server.output().len() < OUT_LIMIT + 2 * 8192);
        assert!(!server.wants_input());
    }

    #[test]
    fn what_speaks_no_ssh_is_hung_up_on() {
        for text in ["GET / HTTP/1.1\r\n", "SSH-1.99-old\r\n", &"x".repeat(300)] {
            let (_, mut server) = pair();
            server.inbound().extend_from_slice(text.as_bytes());
            assert_eq!(server.next().unwrap_err(), TransportError::NotSsh, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever pieces it comes in, and whoever changes keys when.
        #[test]
        fn messages_arrive_once_and_in_order(steps in prop::collection::vec((0..5_u8, 1..5000_usize), 1..120)) {
            let (mut client, mut server) = pair();
            let (mut sent_c, mut sent_s, mut at_c, mut at_s) = (vec![], vec![], vec![], vec![]);
            for (step, size) in steps {
                match step {
                    0 => { carry(&mut client, &mut server, size); }
                    1 => { carry(&mut server, &mut client, size); }
                    2 if client.held.len() < MAX_HELD => {
                        let message = [vec![number::CHANNEL_DATA], vec![size as u8; size]].concat();
                        client.send(&message).unwrap();
                        sent_c.push(message);
                    }
                    3 if server.held.len() < MAX_HELD => {
                        let message = [vec![number::CHANNEL_DATA], vec![size as u8; size]].concat();
                        server.send(&message).unwrap();
                        sent_s.push(message);
                    }
                    _ => {
                        let one = if size % 2 == 0 { &mut client } else { &mut server };
                        one.rekey().unwrap();
                    }
                }
                drain(&mut client, &mut at_c);
                drain(&mut server, &mut at_s);
            }
            let (more_c, more_s) = settle(&mut client, &mut server);
            at_c.extend(more_c);
            at_s.extend(more_s);
            prop_assert_eq!(at_s, sent_c);
            prop_assert_eq!(at_c, sent_s);
        }

        #[test]
        fn no_bytes_of_a_peer_make_it_panic_or_keep_more_than_a_packet(
            greeted in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..4000), flip in any::<(u16, u8)>(),
        ) {
            let (mut client, mut server) = pair();
            if greeted {
                server.inbound().extend_from_slice(b"SSH-2.0-x\r\n");
            }
            server.inbound().extend_from_slice(&bytes);
            while let Ok(Some(_)) = server.next() {}
            prop_assert!(server.inbound.capacity() <= MAX_PACKET * 2 + 4000);
            // A good beginning with one byte of it changed.
            let (_, mut server) = pair();
            let mut good = client.output().to_vec();
            let at = usize::from(flip.0) % good.len();
            good[at] ^= flip.1;
            server.inbound().extend_from_slice(&good);
            while let Ok(Some(_)) = server.next() {}
            drop(client.next());
        }
    }
}
