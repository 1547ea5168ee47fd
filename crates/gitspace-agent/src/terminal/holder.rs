//! The process behind one terminal: owns the PTY, remembers what it showed, and serves those who are attached.
//!
//! It is a child of `serve` at first and outlives it. One thread. Tasks: the reader of the PTY, the writer of the PTY, and two loops for
//! each connection. The reader never waits for anybody: an attached reader that falls out of the ring gets a snapshot instead.
//!
//! It ends with its shell, some seconds later, so that whoever was away for a moment still learns the exit code.

use super::{
    protocol::{Attach, Attached, Exited, MAX_TO_HOLDER, Spec, Started, Status, ask, tell},
    screen::Screen,
    socket,
};
use crate::{
    agent::lock,
    clock,
    pty::{self, Pty},
    spawn::{Bond, Group, Streams, exit_code},
};
use bytes::Bytes;
use camino::Utf8Path;
use jiff::Timestamp;
use local_rpc::{
    BindOptions, Listener, Peer, PeerPolicy,
    frames::{Frame, FrameError, FrameReader, FrameWriter},
};
use nix::sys::signal::{SigSet, Signal};
use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::UnixStream,
    process::Child,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{
    failure::{Failure, FailureCode},
    ids::TerminalUuid,
    workspace::{Size, TerminalInfo},
};

/// How long an ended terminal can still be asked for its end.
const LINGER: Duration = Duration::from_secs(10);
/// Output that is still in the PTY when the shell has ended; only a process left behind makes us wait for the whole of it.
const DRAIN: Duration = Duration::from_millis(300);
/// From SIGHUP to SIGKILL.
const HANG_UP_GRACE: Duration = Duration::from_secs(3);
const READ: usize = 16 * 1024;
/// Pieces of input that the shell has not read; a sender over it waits.
const INPUT_QUEUE: usize = 64;
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
const MAX_SPEC: u64 = 4 * 1024 * 1024;

pub(crate) fn run(run_dir: &Utf8Path, id: TerminalUuid) -> ExitCode {
    if let Err(error) = SigSet::all().thread_unblock() {
        tracing::warn!(%error, "Cannot unblock signals");
    }
    // A session of its own: what hits the group of `serve` does not hit this. Fails where it leads one already.
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "No session of its own");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "Cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match Holder::start(run_dir, id) {
            Ok((holder, listener, child)) => {
                say(&Started::Listening {});
                holder.run(listener, child).await;
                // The listener removed its socket; with nobody to come back, the lock beside it goes too.
                let lock = socket(run_dir, id).with_extension("sock.lock");
                if let Err(error) = std::fs::remove_file(&lock) {
                    tracing::debug!(%error, %lock, "A lock file stays");
                }
                ExitCode::SUCCESS
            }
            Err(failure) => {
                say(&Started::Failed { failure });
                ExitCode::FAILURE
            }
        }
    })
}

/// The one line that `serve` waits for.
fn say(started: &Started) {
    let mut line = serde_json::to_vec(started).unwrap_or_default();
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(&line).and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "Nobody waits for this terminal");
    }
}

fn internal(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(FailureCode::Internal, what).detail(error.to_string())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// Position behind the last byte.
    end: u64,
    exit_code: Option<i32>,
}

struct Holder {
    id: TerminalUuid,
    title: String,
    started: Timestamp,
    pty: Pty,
    screen: Mutex<Screen>,
    progress: watch::Sender<Progress>,
    attached: AtomicU32,
    last_activity: Mutex<Timestamp>,
    input: mpsc::Sender<Bytes>,
    /// Asked to hang up.
    hang_up: CancellationToken,
    /// Set once the shell has been waited for.
    ended: AtomicBool,
    tasks: TaskTracker,
}

type Parts = (Arc<Holder>, Listener, Child);

impl Holder {
    fn start(run_dir: &Utf8Path, id: TerminalUuid) -> Result<Parts, Failure> {
        let mut spec = Vec::new();
        io::stdin()
            .take(MAX_SPEC)
            .read_to_end(&mut spec)
            .map_err(|error| internal("the terminal's holder was not told what to run", &error))?;
        let spec: Spec = serde_json::from_slice(&spec)
            .map_err(|error| internal("the terminal's holder was not told what to run", &error))?;
        let size = pty::bounded(spec.size);
        let (pty, slave) = Pty::open(size, &spec.program.account)
            .map_err(|error| internal("the container gives no terminal", &error))?;
        // Bound first: a shell that nobody can reach is never started.
        let listener = Listener::bind(
            &socket(run_dir, id),
            BindOptions {
                mode: 0o600,
                gid: None,
            },
        )
        .map_err(|error| internal("the terminal's socket cannot be made", &error))?;
        let child = spec.program.spawn(Streams::Tty(slave), Bond::Outlives)?;
        let (input, queue) = mpsc::channel(INPUT_QUEUE);
        let screen = Screen::new(size);
        let holder = Arc::new(Self {
            id,
            title: spec.title,
            started: clock::now(),
            progress: watch::Sender::new(Progress {
                end: screen.ring.end(),
                exit_code: None,
            }),
            pty,
            screen: Mutex::new(screen),
            attached: AtomicU32::new(0),
            last_activity: Mutex::new(clock::now()),
            input,
            hang_up: CancellationToken::new(),
            ended: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        });
        holder.tasks.spawn(Arc::clone(&holder).feed_input(queue));
        Ok((holder, listener, child))
    }

    async fn run(self: Arc<Self>, listener: Listener, child: Child) {
        let drained = self.tasks.spawn(Arc::clone(&self).read_output());
        let mut life = std::pin::pin!(Arc::clone(&self).live(child, drained));
        let policy = PeerPolicy::owner();
        loop {
            tokio::select! {
                () = &mut life => return,
                accepted = listener.accept() => match accepted {
                    Ok(stream) => {
                        let welcome = Peer::of(&stream).is_ok_and(|peer| policy.check(&peer).is_ok());
                        if welcome && self.tasks.len() < MAX_CONNECTIONS {
                            self.tasks.spawn(Arc::clone(&self).connection(stream));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Cannot accept a connection yet");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    /// From the running shell to the end of this process.
    async fn live(self: Arc<Self>, mut child: Child, drained: tokio::task::JoinHandle<()>) {
        let group = Group::of(&child);
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = self.asked_to_stop() => {
                // The kernel does the same when a line is cut; a stopped job has to wake up to hear it.
                for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                    group.inspect(|group| group.signal(signal));
                }
                match tokio::time::timeout(HANG_UP_GRACE, child.wait()).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        group.inspect(|group| group.signal(Signal::SIGKILL));
                        child.wait().await
                    }
                }
            }
        };
        let exit_code = ended.map_or(-1, exit_code);
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::debug!("Something the shell left behind keeps the terminal open");
        }
        self.ended.store(true, Ordering::Release);
        self.progress
            .send_modify(|progress| progress.exit_code = Some(exit_code));
        if self.hang_up.is_cancelled() {
            // Nobody comes back to what was closed; those attached still hear of the end.
            self.tasks.close();
            drop(tokio::time::timeout(DRAIN, self.all_told()).await);
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            () = self.asked_to_stop() => {}
        }
    }

    async fn all_told(&self) {
        let limit = Instant::now() + DRAIN;
        while self.attached.load(Ordering::Acquire) > 0 && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn asked_to_stop(&self) {
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            return self.hang_up.cancelled().await;
        };
        tokio::select! {
            () = self.hang_up.cancelled() => {}
            _ = terminate.recv() => self.hang_up.cancel(),
        }
    }

    async fn read_output(self: Arc<Self>) {
        let mut buffer = vec![0; READ];
        loop {
            match self.pty.read(&mut buffer).await {
                Ok(0) => return,
                Ok(read) => {
                    let end = {
                        let mut screen = lock(&self.screen);
                        screen.output(buffer.get(..read).unwrap_or_default());
                        screen.ring.end()
                    };
                    self.note_activity();
                    self.progress.send_modify(|progress| progress.end = end);
                }
                Err(error) => {
                    tracing::warn!(%error, "Cannot read the terminal");
                    return;
                }
            }
        }
    }

    async fn feed_input(self: Arc<Self>, mut queue: mpsc::Receiver<Bytes>) {
        while let Some(bytes) = queue.recv().await {
            if let Err(error) = self.pty.write_all(&bytes).await {
                tracing::debug!(%error, "Input was lost");
            }
        }
    }

    fn note_activity(&self) {
        *lock(&self.last_activity) = clock::now();
    }

    fn resize(&self, size: Size) {
        let size = pty::bounded(size);
        let mut screen = lock(&self.screen);
        if screen.size() != size {
            screen.resize(size);
            self.pty.resize(size);
        }
    }

    fn status(&self) -> Status {
        let title = lock(&self.screen)
            .title()
            .unwrap_or_else(|| self.title.clone());
        Status {
            info: TerminalInfo {
                id: self.id,
                title,
                started: self.started,
                attached: self.attached.load(Ordering::Acquire),
            },
            last_activity: *lock(&self.last_activity),
            ended: self.ended.load(Ordering::Acquire),
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream) {
        let (read, write) = stream.into_split();
        let mut frames = FrameReader::new(read).with_limit(MAX_TO_HOLDER);
        let mut out = FrameWriter::new(write).with_limit(super::protocol::MAX_FROM_HOLDER);
        let attach = loop {
            match frames.next().await {
                Ok(Some(Frame {
                    kind: ask::STATUS, ..
                })) => {
                    let status = serde_json::to_vec(&self.status()).unwrap_or_default();
                    if out.send(tell::STATUS, &status).await.is_err() {
                        return;
                    }
                }
                Ok(Some(Frame {
                    kind: ask::HANG_UP, ..
                })) => self.hang_up.cancel(),
                Ok(Some(Frame {
                    kind: ask::ATTACH,
                    payload,
                })) => match serde_json::from_slice::<Attach>(&payload) {
                    Ok(attach) => break attach,
                    Err(_) => return,
                },
                Ok(_) | Err(_) => return,
            }
        };
        self.resize(attach.size);
        self.attached.fetch_add(1, Ordering::AcqRel);
        let mut listening = std::pin::pin!(self.listen(&mut frames));
        let ended = tokio::select! {
            ended = self.show(&mut out, attach.from) => {
                if ended.is_err() {
                    // What was typed before the line was cut still counts.
                    drop(tokio::time::timeout(DRAIN, listening).await);
                }
                ended
            }
            ended = &mut listening => ended,
        };
        self.attached.fetch_sub(1, Ordering::AcqRel);
        if let Err(error) = ended {
            tracing::debug!(%error, "An attached reader went away");
        }
    }

    /// What an attached reader gets, to the end.
    async fn show<W: tokio::io::AsyncWrite + Unpin>(
        &self,
        out: &mut FrameWriter<W>,
        from: Option<u64>,
    ) -> Result<(), FrameError> {
        let mut changes = self.progress.subscribe();
        let resumed = from.filter(|from| lock(&self.screen).ring.read(*from, 0).is_some());
        let mut at = match resumed {
            Some(position) => {
                let size = lock(&self.screen).size();
                send_json(
                    out,
                    tell::ATTACHED,
                    &Attached {
                        position,
                        snapshot: false,
                        size,
                    },
                )
                .await?;
                position
            }
            None => self.redraw(out).await?,
        };
        loop {
            let progress = *changes.borrow_and_update();
            let bytes = lock(&self.screen).ring.read(at, READ);
            match bytes {
                Some(bytes) if !bytes.is_empty() => {
                    at += bytes.len() as u64;
                    out.send(tell::OUTPUT, &bytes).await?;
                }
                // Too slow for the shell: goes on from what is to be seen at present.
                None => at = self.redraw(out).await?,
                Some(_) => match progress.exit_code {
                    Some(exit_code) => {
                        send_json(out, tell::EXITED, &Exited { exit_code }).await?;
                        return Ok(());
                    }
                    None => {
                        if changes.changed().await.is_err() {
                            return Ok(());
                        }
                    }
                },
            }
        }
    }

    /// A snapshot in one frame, which is not counted; and the position it shows.
    async fn redraw<W: tokio::io::AsyncWrite + Unpin>(
        &self,
        out: &mut FrameWriter<W>,
    ) -> Result<u64, FrameError> {
        let (snapshot, end, size) = {
            let mut screen = lock(&self.screen);
            (screen.snapshot(), screen.ring.end(), screen.size())
        };
        send_json(
            out,
            tell::ATTACHED,
            &Attached {
                position: end,
                snapshot: true,
                size,
            },
        )
        .await?;
        out.send(tell::OUTPUT, &snapshot).await?;
        Ok(end)
    }

    /// What an attached reader says, to its end.
    async fn listen<R: tokio::io::AsyncRead + Unpin>(
        &self,
        frames: &mut FrameReader<R>,
    ) -> Result<(), FrameError> {
        while let Some(frame) = frames.next().await? {
            match frame.kind {
                ask::INPUT => {
                    self.note_activity();
                    if self.input.send(frame.payload).await.is_err() {
                        return Ok(());
                    }
                }
                ask::RESIZE => {
                    if let Ok(size) = serde_json::from_slice(&frame.payload) {
                        self.resize(size);
                    }
                }
                ask::HANG_UP => self.hang_up.cancel(),
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

async fn send_json<W: tokio::io::AsyncWrite + Unpin>(
    out: &mut FrameWriter<W>,
    kind: u8,
    value: &impl serde::Serialize,
) -> Result<(), FrameError> {
    // Plain structs always have a JSON form.
    out.send(kind, &serde_json::to_vec(value).unwrap_or_default())
        .await
}
