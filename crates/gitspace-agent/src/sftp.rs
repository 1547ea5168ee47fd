//! `sftp`: the server of one SFTP session, on its standard input and output. A process of the user's, so that the kernel decides what it may do.
//!
//! Version 3 as OpenSSH speaks it (draft-ietf-secsh-filexfer-02, and its `PROTOCOL` for the extensions). Names are bytes: what a file is called
//! is not for us to refuse. One request at a time, in order; a client sends many without waiting, and answers leave when no more are there.

#![expect(
    clippy::disallowed_types,
    reason = "names are bytes here, and go to the kernel and the client alone"
)]

mod answer;
mod attributes;
mod extension;
mod files;
mod folder;
mod packet;

use answer::Answer;
use files::Session;
use packet::{Malformed, Packet};
use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    process::ExitCode,
};

pub(crate) const VERSION: u32 = 3;
/// As OpenSSH's own server.
const MAX_PACKET: usize = 256 * 1024;
/// Of a file at once, so that its packet fits.
const MAX_DATA: usize = MAX_PACKET - 1024;

pub(crate) fn run() -> ExitCode {
    match serve(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::say(&mut io::stderr(), &format!("sftp: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// To the end of `input`.
fn serve(input: impl Read, output: impl Write) -> io::Result<()> {
    let mut input = BufReader::with_capacity(MAX_PACKET, input);
    let mut output = BufWriter::with_capacity(MAX_PACKET, output);
    let mut session = Session::default();
    let mut body = Vec::new();
    while read(&mut input, &mut body)? {
        let answer = handle(&mut session, &body).map_err(io::Error::other)?;
        output.write_all(&answer.finish())?;
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    output.flush()
}

/// The next packet. False where the client is done.
fn read(input: &mut impl Read, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > MAX_PACKET {
        // Where the next one begins is not known any more.
        return Err(io::Error::other(format!(
            "a packet of {length} bytes is not taken"
        )));
    }
    body.resize(length, 0);
    input.read_exact(body)?;
    Ok(true)
}

/// An error where the client cannot be answered, because its packet has no number.
fn handle(session: &mut Session, body: &[u8]) -> Result<Answer, Malformed> {
    let mut packet = Packet::new(body);
    let kind = packet.byte()?;
    if kind == packet::INIT {
        packet.number()?;
        return Ok(extension::version());
    }
    let id = packet.number()?;
    Ok(match session.request(kind, id, &mut packet) {
        Ok(answer) => answer,
        Err(status) => Answer::status(id, &status),
    })
}
