//! `socket PATH`: standard input and output, joined to a Unix socket. A process of the user's, so that the kernel decides what it may open.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    process::ExitCode,
};

pub(crate) fn run(path: &str) -> ExitCode {
    match join(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::say(
                &mut io::stderr(),
                &format!("cannot use the socket `{path}`: {error}\n"),
            );
            ExitCode::FAILURE
        }
    }
}

/// Until the socket has no more to say.
fn join(path: &str) -> io::Result<()> {
    let socket = UnixStream::connect(path)?;
    let to_socket = socket.try_clone()?;
    std::thread::Builder::new().spawn(move || {
        // What it does not take it does not want; its own words are still to come.
        drop(copy(io::stdin().lock(), &to_socket));
        drop(to_socket.shutdown(Shutdown::Write));
    })?;
    copy(&socket, io::stdout().lock())
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return to.flush(),
            Ok(count) => {
                to.write_all(buffer.get(..count).unwrap_or_default())?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
