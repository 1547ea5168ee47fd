//! `KEXINIT`: what each side can, and what follows from both.

use crate::{
    agreement::{Agreements, Method},
    cipher::CipherName,
    error::TransportError,
    fields::{FieldError, Reader, Writer},
    messages::number,
};

pub(crate) const HOST_KEY: &str = "ssh-ed25519";
const STRICT_CLIENT: &str = "kex-strict-c-v00@openssh.com";
const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";
const EXT_INFO_CLIENT: &str = "ext-info-c";
/// Never used, because every cipher here authenticates; a peer may want to see something in common.
const MACS: &str = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com";
const COOKIE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Ours.
pub(crate) fn offer(side: Side, agreements: Agreements) -> Result<Vec<u8>, TransportError> {
    let mut cookie = [0; COOKIE];
    getrandom::fill(&mut cookie).map_err(|_| TransportError::Random)?;
    let methods = agreements.names().join(",");
    let methods = match side {
        Side::Client => format!("{methods},{EXT_INFO_CLIENT},{STRICT_CLIENT}"),
        Side::Server => format!("{methods},{STRICT_SERVER}"),
    };
    let ciphers = CipherName::ALL.join(",");
    Ok(Writer::message(number::KEXINIT)
        .raw(&cookie)
        .string(methods)
        .string(HOST_KEY)
        .string(&ciphers)
        .string(&ciphers)
        .string(MACS)
        .string(MACS)
        .string("none")
        .string("none")
        .string("")
        .string("")
        .boolean(false)
        .number(0)
        .finish())
}

/// What both sides will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) method: Method,
    pub(crate) from_client: CipherName,
    pub(crate) from_server: CipherName,
    pub(crate) strict: bool,
    /// The client takes `EXT_INFO`.
    pub(crate) ext_info: bool,
    /// The peer has sent the first message of a method that it guessed, and guessed wrongly: it counts as unsent.
    pub(crate) wrong_guess: bool,
}

/// From the peer's, which is `theirs` as a whole.
pub(crate) fn agree(
    side: Side,
    agreements: Agreements,
    theirs: &[u8],
) -> Result<Agreed, TransportError> {
    let mut reader = Reader::new(theirs);
    if reader.byte()? != number::KEXINIT {
        return Err(FieldError.into());
    }
    reader.take(COOKIE)?;
    let methods = reader.text()?;
    let host_keys = reader.text()?;
    let (to_server, to_client) = (reader.text()?, reader.text()?);
    let _macs = (reader.text()?, reader.text()?);
    let compressions = (reader.text()?, reader.text()?);
    let _languages = (reader.string()?, reader.string()?);
    let guessed = reader.boolean()?;
    reader.number()?;
    reader.end()?;
    let has = |list: &str, name: &str| list.split(',').any(|item| item == name);
    let method = choose(side, methods, agreements.names(), "key exchange")?;
    if !has(host_keys, HOST_KEY) {
        return Err(TransportError::NothingInCommon {
            what: "type of host key",
        });
    }
    if !has(compressions.0, "none") || !has(compressions.1, "none") {
        return Err(TransportError::NothingInCommon {
            what: "compression",
        });
    }
    let cipher = |list| {
        let name = choose(side, list, &CipherName::ALL, "cipher")?;
        CipherName::parse(name).ok_or(TransportError::NothingInCommon { what: "cipher" })
    };
    let first = |list: &str| list.split(',').next().unwrap_or_default().to_owned();
    let ours_first = agreements.names().first().copied().unwrap_or_default();
    Ok(Agreed {
        from_client: cipher(to_server)?,
        from_server: cipher(to_client)?,
        strict: match side {
            Side::Server => has(methods, STRICT_CLIENT),
            Side::Client => has(methods, STRICT_SERVER),
        },
        ext_info: side == Side::Server && has(methods, EXT_INFO_CLIENT),
        wrong_guess: guessed && (first(methods) != ours_first || first(host_keys) != HOST_KEY),
        method: Method::parse(method).ok_or(TransportError::NothingInCommon {
            what: "key exchange",
        })?,
    })
}

/// The first one of the client's that the server has.
fn choose<'a>(
    side: Side,
    theirs: &'a str,
    ours: &[&'a str],
    what: &'static str,
) -> Result<&'a str, TransportError> {
    let theirs: Vec<&str> = theirs.split(',').collect();
    let (client, server): (&[&str], &[&str]) = match side {
        Side::Client => (ours, &theirs),
        Side::Server => (&theirs, ours),
    };
    client
        .iter()
        .find(|name| server.contains(name))
        .copied()
        .ok_or(TransportError::NothingInCommon { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_us_agree_on_the_strongest() {
        let agreed = agree(
            Side::Server,
            Agreements::All,
            &offer(Side::Client, Agreements::All).unwrap(),
        )
        .unwrap();
        assert_eq!(
            agreed,
            Agreed {
                method: Method::MlKem768X25519,
                from_client: CipherName::ChaCha20Poly1305,
                from_server: CipherName::ChaCha20Poly1305,
                strict: true,
                ext_info: true,
                wrong_guess: false,
            }
        );
        let agreed = agree(
            Side::Client,
            Agreements::All,
            &offer(Side::Server, Agreements::All).unwrap(),
        )
        .unwrap();
        assert!(agreed.strict && !agreed.ext_info);
    }

    #[test]
    fn a_peer_with_old_algorithms_alone_is_told_which() {
        let old = |methods: &str, host_keys: &str, ciphers: &str| {
            Writer::message(number::KEXINIT)
                .raw(&[0; COOKIE])
                .string(methods)
                .string(host_keys)
                .string(ciphers)
                .string(ciphers)
                .string("hmac-sha1")
                .string("hmac-sha1")
                .string("none")
                .string("none,zlib")
                .string("")
                .string("")
                .boolean(true)
                .number(0)
                .finish()
        };
        let what = |offer: Vec<u8>| match agree(Side::Server, Agreements::All, &offer) {
            Err(TransportError::NothingInCommon { what }) => what,
            other => panic!("{other:?}"),
        };
        let (kex, key, cipher) = ("curve25519-sha256", HOST_KEY, "aes256-gcm@openssh.com");
        assert_eq!(
            what(old("diffie-hellman-group14-sha1", key, cipher)),
            "key exchange"
        );
        assert_eq!(what(old(kex, "ssh-rsa", cipher)), "type of host key");
        assert_eq!(what(old(kex, key, "aes128-cbc")), "cipher");
        let agreed = agree(Side::Server, Agreements::All, &old(kex, key, cipher)).unwrap();
        assert!(agreed.wrong_guess && !agreed.strict && !agreed.ext_info);
        let strict = agree(
            Side::Server,
            Agreements::PostQuantum,
            &old(kex, key, cipher),
        );
        let what = "key exchange";
        assert_eq!(strict, Err(TransportError::NothingInCommon { what }));
    }
}
