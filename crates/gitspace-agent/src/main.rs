//! gitspace-agent: the one binary put into every gitspace. Static, and in need of nothing that the image contains.
//!
//! | sub-command | process |
//! |---|---|
//! | `init` | PID 1: reaps, forwards the stop, keeps `serve` running |
//! | `serve` | control socket, workspace service, jobs, dialling |
//! | `terminal-holder` | one per terminal: owns its PTY, outlives `serve` |
//! | `credential` | git's credential helper; asks `serve` |
//! | `sftp`, `socket` | of the user: one SFTP session, one forwarded Unix socket |
//!
//! Invariants: everything it does for the user it does as the user's account, but for cloning, which happens in a sandbox as root;
//! credentials are in the memory of `serve` alone.
//!
//! It knows nothing of the control plane, the gateway, Docker or devcontainer.json.

mod account;
mod agent;
mod clock;
mod command_line;
mod control;
mod credential;
mod dial;
mod environment;
mod git_state;
mod init;
mod job;
mod ports;
mod pty;
mod serve;
mod sftp;
mod shell;
mod socket;
mod spawn;
mod ssh;
mod terminal;
mod workspace;

use command_line::Invocation;
use std::process::ExitCode;

/// Overrides the filter of the log, as for the daemons.
const FILTER_VARIABLE: &str = "GITSPACES_LOG";
/// `EX_USAGE` of sysexits.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let invocation = match command_line::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => invocation,
        Err(error) => {
            say(
                &mut std::io::stderr(),
                &format!("error: {error}\nhint: see `gitspace-agent help`\n"),
            );
            return ExitCode::from(USAGE);
        }
    };
    match invocation {
        // Their standard error is the user's.
        Invocation::Credential(_) | Invocation::Sftp | Invocation::Socket { .. } => {}
        _ => init_log(),
    }
    match invocation {
        Invocation::Help => {
            say(&mut std::io::stdout(), command_line::HELP);
            ExitCode::SUCCESS
        }
        Invocation::Version => {
            say(
                &mut std::io::stdout(),
                concat!("gitspace-agent ", env!("CARGO_PKG_VERSION"), "\n"),
            );
            ExitCode::SUCCESS
        }
        Invocation::Init(options) => init::run(&options),
        Invocation::Serve(options) => serve::run(options),
        Invocation::TerminalHolder { run_dir, id } => terminal::holder::run(&run_dir, id),
        Invocation::Credential(request) => credential::helper::run(&request),
        Invocation::Sftp => sftp::run(),
        Invocation::Socket { path } => socket::run(&path),
    }
}

/// A reader that is gone is not our trouble.
fn say(to: &mut dyn std::io::Write, text: &str) {
    drop(to.write_all(text.as_bytes()).and_then(|()| to.flush()));
}

fn init_log() {
    let filter = std::env::var(FILTER_VARIABLE)
        .ok()
        .and_then(|text| tracing_subscriber::EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
