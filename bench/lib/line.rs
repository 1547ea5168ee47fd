//! A line with a delay and a rate: `line LISTEN_PORT TO_HOST:PORT ONE_WAY_MS MBIT_PER_S`.
//!
//! Each byte leaves it so long after it came, and not before those in front of it have left at that rate, in each direction for itself. What is on
//! its way is bounded by twice of what fits onto the line, as in a router with a full queue. The standard library alone.

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    process::ExitCode,
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

const CHUNK: usize = 16 << 10;

#[derive(Clone, Copy)]
struct Line {
    delay: Duration,
    bytes_per_s: f64,
}

fn one_way(line: Line, mut from: TcpStream, mut to: TcpStream) {
    let on_it = line.bytes_per_s * line.delay.as_secs_f64() * 2.0;
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>((on_it as usize / CHUNK).max(4));
    let reader = thread::spawn(move || {
        let mut free = Instant::now();
        let mut chunk = vec![0; CHUNK];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            let takes = Duration::from_secs_f64(read as f64 / line.bytes_per_s);
            free = free.max(Instant::now()) + takes;
            if sender.send((free + line.delay, chunk[..read].to_vec())).is_err() {
                break;
            }
        }
        // Whoever sent to it hears that nobody takes it any more.
        drop(from.shutdown(Shutdown::Read));
    });
    for (leaves, bytes) in receiver {
        thread::sleep(leaves.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
    drop(reader.join());
}

fn serve(line: Line, client: TcpStream, to: &str) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || one_way(line, back_from, back_to));
    one_way(line, client, server);
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [port, to, delay, rate] = &arguments[..] else {
        eprintln!("usage: line LISTEN_PORT TO_HOST:PORT ONE_WAY_MS MBIT_PER_S");
        return ExitCode::from(64);
    };
    let (Ok(port), Ok(delay), Ok(rate)) = (port.parse::<u16>(), delay.parse(), rate.parse::<f64>())
    else {
        eprintln!("line: the port, the milliseconds and the rate are numbers");
        return ExitCode::from(64);
    };
    let line = Line {
        delay: Duration::from_millis(delay),
        bytes_per_s: rate * 1e6 / 8.0,
    };
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("line: cannot listen on {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for client in listener.incoming().flatten() {
        let to = to.clone();
        thread::spawn(move || {
            if let Err(error) = serve(line, client, &to) {
                eprintln!("line: {to}: {error}");
            }
        });
    }
    ExitCode::SUCCESS
}
