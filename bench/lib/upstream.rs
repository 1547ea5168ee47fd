//! The app behind the gateway and behind its baseline: `upstream PORT` serves `/small` (13 bytes), `/last` (the same, and the
//! connection ends), `/large` (1 GiB) and `/socket`, an upgraded connection on which nothing is said.
//!
//! One thread for each connection: with one read and one write for each request, it costs less than what is measured in
//! front of it. The standard library alone, so that `rustc` makes one static file of it that runs in any image.

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
};

const SMALL: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";
const LAST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\nConnection: close\r\n\r\nHello, world!";
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const MISSING: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 4096;
const MAX_HEAD: usize = 16 << 10;
const STACK: usize = 128 << 10;

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut chunk = Vec::new();
    let mut head = [0; MAX_HEAD];
    let mut held = 0;
    loop {
        match stream.read(&mut head[held..])? {
            // The other side went away, or its head is too large.
            0 => return Ok(()),
            read => held += read,
        }
        // The proxies send no bodies here, and the next request only after the answer.
        if !head[..held].ends_with(b"\r\n\r\n") {
            continue;
        }
        if head.starts_with(b"GET /small ") {
            stream.write_all(SMALL)?;
        } else if head.starts_with(b"GET /last ") {
            return stream.write_all(LAST);
        } else if head.starts_with(b"GET /socket ") {
            stream.write_all(SWITCHED)?;
        } else if head.starts_with(b"GET /large ") {
            let length = CHUNK * CHUNKS;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            )?;
            chunk.resize(CHUNK, b'x');
            for _ in 0..CHUNKS {
                stream.write_all(&chunk)?;
            }
        } else {
            stream.write_all(MISSING)?;
        }
        held = 0;
    }
}

fn run() -> io::Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("usage: upstream PORT"))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        thread::Builder::new().stack_size(STACK).spawn(move || {
            // A load generator that has enough hangs up as it likes.
            drop(serve(stream));
        })?;
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("upstream: error: {error}");
            ExitCode::FAILURE
        }
    }
}
