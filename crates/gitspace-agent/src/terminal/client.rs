//! How `serve` starts, finds and asks the holders of terminals. It remembers none of them: their sockets are the list.

use super::{
    FOLDER, SUFFIX,
    protocol::{Attach, MAX_FROM_HOLDER, MAX_TO_HOLDER, Spec, Started, Status, ask, tell},
    socket,
};
use crate::{agent::Agent, environment, shell, spawn::Program};
use camino::Utf8Path;
use local_rpc::{
    connect::connect,
    frames::{FrameReader, FrameWriter},
};
use std::{collections::BTreeMap, fs, io, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::Command,
};
use wire::{
    failure::{Failure, FailureCode},
    ids::TerminalUuid,
    workspace::{Size, TerminalInfo, TerminalRequest},
};

/// A holder answers at once, or is stopped by a debugger.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const START_LIMIT: Duration = Duration::from_secs(10);
const MAX_STARTED: u64 = 64 * 1024;
/// Each is a process with an emulator of some megabytes.
const MAX_TERMINALS: usize = 32;
const DEFAULT_SIZE: Size = Size { rows: 24, cols: 80 };

pub(crate) type Reader = FrameReader<OwnedReadHalf>;
pub(crate) type Writer = FrameWriter<OwnedWriteHalf>;

/// Starts a terminal of the remote user.
pub(crate) async fn create(
    agent: &Arc<Agent>,
    request: TerminalRequest,
) -> Result<TerminalInfo, Failure> {
    let (config, account) = agent.remote_user().map_err(|problem| {
        let mut failure = Failure::new(FailureCode::PreconditionFailed, problem.message);
        failure.hint = problem.hint;
        failure
    })?;
    let open = list(&agent.run_dir).await.len();
    if open >= MAX_TERMINALS {
        return Err(Failure::new(
            FailureCode::PreconditionFailed,
            format!("{open} terminals are open already"),
        )
        .hint("close some of them"));
    }
    let argv = if request.argv.is_empty() {
        vec![shell::of(&account)?]
    } else {
        request.argv
    };
    let terminal = BTreeMap::from([
        ("TERM".to_owned(), Some("xterm-256color".to_owned())),
        ("COLORTERM".to_owned(), Some("truecolor".to_owned())),
    ]);
    let name = argv
        .first()
        .map(|name| name.rsplit('/').next().unwrap_or(name).to_owned())
        .unwrap_or_default();
    let spec = Spec {
        program: Program {
            argv,
            cwd: shell::folder(&config.workspace_folder, &account.home),
            env: environment::of_user(agent, &account, Some(&config), [&terminal]),
            account,
        },
        size: request.size.unwrap_or(DEFAULT_SIZE),
        title: name,
    };
    let id = fresh_id();
    start(agent, id, &spec).await?;
    status(&agent.run_dir, id)
        .await
        .map(|status| status.info)
        .map_err(|error| {
            Failure::new(FailureCode::Internal, "the terminal does not answer")
                .detail(error.to_string())
        })
}

/// The one place where ids are made here.
fn fresh_id() -> TerminalUuid {
    TerminalUuid::new_v4()
}

async fn start(agent: &Arc<Agent>, id: TerminalUuid, spec: &Spec) -> Result<(), Failure> {
    let fail = |error: io::Error| {
        Failure::new(
            FailureCode::Internal,
            "the terminal's holder cannot be started",
        )
        .detail(error.to_string())
    };
    let spec = serde_json::to_vec(spec).map_err(|error| fail(error.into()))?;
    let mut child = Command::new(&agent.binary)
        .args([
            "terminal-holder",
            "--run-dir",
            agent.run_dir.as_str(),
            "--id",
            &id.to_string(),
        ])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    // Reaped here while we live, by PID 1 afterwards.
    agent.tasks.spawn(async move {
        if let Err(error) = child.wait().await {
            tracing::warn!(%error, "Cannot wait for a terminal's holder");
        }
    });
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(fail(io::ErrorKind::BrokenPipe.into()));
    };
    let answer = async {
        stdin.write_all(&spec).await?;
        drop(stdin);
        let mut line = String::new();
        BufReader::new(stdout.take(MAX_STARTED))
            .read_line(&mut line)
            .await?;
        Ok::<_, io::Error>(line)
    };
    let line = tokio::time::timeout(START_LIMIT, answer)
        .await
        .map_err(|_| fail(io::ErrorKind::TimedOut.into()))?
        .map_err(fail)?;
    match serde_json::from_str(&line) {
        Ok(Started::Listening {}) => Ok(()),
        Ok(Started::Failed { failure }) => Err(failure),
        Err(error) => Err(fail(error.into())),
    }
}

/// All terminals that answer, oldest first. Sockets that a killed holder left are removed.
pub(crate) async fn list(run_dir: &Utf8Path) -> Vec<Status> {
    let Ok(entries) = fs::read_dir(run_dir.join(FOLDER)) else {
        return Vec::new();
    };
    let ids: Vec<TerminalUuid> = entries
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_suffix(SUFFIX)?
                .parse()
                .ok()
        })
        .collect();
    let mut terminals = Vec::new();
    for status in
        futures_util::future::join_all(ids.into_iter().map(|id| status_or_remove(run_dir, id)))
            .await
    {
        terminals.extend(status);
    }
    terminals.sort_by_key(|terminal: &Status| (terminal.info.started, terminal.info.id));
    terminals
}

async fn status_or_remove(run_dir: &Utf8Path, id: TerminalUuid) -> Option<Status> {
    match status(run_dir, id).await {
        Ok(status) => Some(status),
        Err(error) => {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                for path in [
                    socket(run_dir, id),
                    socket(run_dir, id).with_extension("sock.lock"),
                ] {
                    if let Err(error) = fs::remove_file(&path) {
                        tracing::debug!(%error, %path, "A dead terminal's file stays");
                    }
                }
            }
            None
        }
    }
}

async fn status(run_dir: &Utf8Path, id: TerminalUuid) -> io::Result<Status> {
    let ask = async {
        let (mut reader, mut writer) = split(connect(&socket(run_dir, id)).await?);
        writer
            .send(ask::STATUS, &[])
            .await
            .map_err(io::Error::other)?;
        match reader.next().await.map_err(io::Error::other)? {
            Some(frame) if frame.kind == tell::STATUS => {
                Ok(serde_json::from_slice(&frame.payload)?)
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    };
    tokio::time::timeout(ANSWER_LIMIT, ask)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn split(stream: UnixStream) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    (
        FrameReader::new(read).with_limit(MAX_FROM_HOLDER),
        FrameWriter::new(write).with_limit(MAX_TO_HOLDER),
    )
}

/// Hangs a terminal up; `false` where there is none.
pub(crate) async fn hang_up(run_dir: &Utf8Path, id: TerminalUuid) -> bool {
    let Ok(stream) = connect(&socket(run_dir, id)).await else {
        return false;
    };
    let (_, mut writer) = split(stream);
    writer.send(ask::HANG_UP, &[]).await.is_ok()
}

/// Attaches; `None` where there is no such terminal.
pub(crate) async fn attach(
    run_dir: &Utf8Path,
    id: TerminalUuid,
    attach: &Attach,
) -> Option<(Reader, Writer)> {
    let (reader, mut writer) = split(connect(&socket(run_dir, id)).await.ok()?);
    let attach = serde_json::to_vec(attach).ok()?;
    writer.send(ask::ATTACH, &attach).await.ok()?;
    Some((reader, writer))
}
