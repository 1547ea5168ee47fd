//! The SSH server of a gitspace, as another implementation has it: russh, which runs commands of this host.

use crate::ssh_windows;
use russh::{
    Channel, ChannelId, Pty, Sig,
    keys::PrivateKey,
    server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, run_stream},
};
use std::{
    collections::HashMap,
    os::unix::process::ExitStatusExt as _,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
};

pub(crate) struct SshServer {
    config: Arc<Config>,
    /// What clients said their user was.
    pub(crate) users: Mutex<Vec<String>>,
    pub(crate) key: String,
    /// Connections go to [`ssh_windows`] instead.
    pub(crate) windows: AtomicBool,
    /// They hear a hello, and nothing that comes is read.
    pub(crate) deaf: AtomicBool,
}

impl SshServer {
    pub(crate) fn new() -> Arc<Self> {
        let host_key = ssh_transport::HostKey::generate().unwrap();
        let key = PrivateKey::from_openssh(host_key.to_file()).expect("in OpenSSH's form");
        Arc::new(Self {
            key: host_key.public().unwrap().to_string(),
            config: Arc::new(Config {
                keys: vec![key],
                inactivity_timeout: None,
                auth_rejection_time: std::time::Duration::ZERO,
                ..Config::default()
            }),
            users: Mutex::default(),
            windows: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        })
    }

    /// Serves the one listener's connections until it is dropped.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut sessions = tokio::task::JoinSet::new();
        let mut unread = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            if self.deaf.load(Ordering::SeqCst) {
                let mut stream = stream;
                stream.write_all(b"hello").await.unwrap();
                unread.push(stream);
                continue;
            }
            if self.windows.load(Ordering::SeqCst) {
                sessions.spawn(ssh_windows::serve(stream));
                continue;
            }
            let one = One {
                server: Arc::clone(&self),
                channels: HashMap::new(),
                work: Arc::default(),
            };
            let config = Arc::clone(&self.config);
            sessions.spawn(async move {
                if let Ok(session) = run_stream(config, stream, one).await {
                    session.await.ok();
                }
            });
        }
    }
}

#[derive(Default)]
struct State {
    env: Vec<(String, String)>,
    stdin: Option<mpsc::UnboundedSender<Option<Vec<u8>>>>,
    pid: Option<u32>,
    pty: bool,
}

struct One {
    server: Arc<SshServer>,
    channels: HashMap<ChannelId, State>,
    /// Ends with the session.
    work: Arc<Mutex<tokio::task::JoinSet<()>>>,
}

impl One {
    fn run(&mut self, id: ChannelId, mut command: Command, handle: Handle) {
        let state = self.channels.entry(id).or_default();
        command
            .envs(state.env.drain(..))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        state.pid = child.id();
        let (tell, mut told) = mpsc::unbounded_channel::<Option<Vec<u8>>>();
        state.stdin = Some(tell);
        let (mut stdin, mut stdout, mut stderr) = (
            child.stdin.take(),
            child.stdout.take().unwrap(),
            child.stderr.take().unwrap(),
        );
        let output = handle.clone();
        let pump = async move {
            let out = async {
                let mut buffer = vec![0; 32 * 1024];
                while let Ok(read @ 1..) = stdout.read(&mut buffer).await {
                    if output.data(id, buffer[..read].to_vec()).await.is_err() {
                        return;
                    }
                }
            };
            let err = async {
                let mut buffer = vec![0; 4096];
                while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
                    let data = buffer[..read].to_vec();
                    if handle.extended_data(id, 1, data).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(out, err);
            let status = child.wait().await.unwrap();
            if let Some(code) = status.code() {
                handle
                    .exit_status_request(id, code.unsigned_abs())
                    .await
                    .ok();
            } else {
                assert_eq!(status.signal(), Some(15));
                handle
                    .exit_signal_request(id, Sig::TERM, false, "told to".to_owned(), String::new())
                    .await
                    .ok();
            }
            handle.eof(id).await.ok();
            handle.close(id).await.ok();
        };
        let mut work = self.work.lock().unwrap();
        work.spawn(pump);
        work.spawn(async move {
            while let Some(Some(data)) = told.recv().await {
                let Some(stdin) = &mut stdin else { return };
                if stdin.write_all(&data).await.is_err() {
                    return;
                }
            }
            drop(stdin.take());
        });
    }

    fn relay(&self, channel: Channel<Msg>, stream: TcpStream) {
        self.work.lock().unwrap().spawn(async move {
            let mut stream = stream;
            tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut stream)
                .await
                .ok();
        });
    }
}

impl Handler for One {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        self.server.users.lock().unwrap().push(user.to_owned());
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), State::default());
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match TcpStream::connect((host, u16::try_from(port).unwrap())).await {
            Ok(stream) => {
                reply.accept().await;
                self.relay(channel, stream);
            }
            Err(_) => reply.reject(russh::ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(stdin) = self
            .channels
            .get(&id)
            .and_then(|state| state.stdin.as_ref())
        {
            stdin.send(Some(data.to_vec())).ok();
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(stdin) = self
            .channels
            .get(&id)
            .and_then(|state| state.stdin.as_ref())
        {
            stdin.send(None).ok();
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let state = self.channels.entry(id).or_default();
        state.pty = true;
        let size = format!("{term} {cols}x{rows}");
        state.env.push(("TEST_PTY".to_owned(), size));
        session.channel_success(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let state = self.channels.entry(id).or_default();
        state.env.push((name.to_owned(), value.to_owned()));
        session.channel_success(id)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg(String::from_utf8_lossy(command).as_ref());
        session.channel_success(id)?;
        self.run(id, shell, session.handle());
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        self.run(id, Command::new("/bin/sh"), session.handle());
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == "sftp" {
            session.channel_success(id)?;
            let server = Command::new("/usr/lib/openssh/sftp-server");
            self.run(id, server, session.handle());
            Ok(())
        } else {
            session.channel_failure(id)
        }
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.data(id, format!("[resized {cols}x{rows}]\n").into_bytes())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Ok(listener) = TcpListener::bind((address, u16::try_from(*port).unwrap())).await else {
            return Ok(false);
        };
        *port = listener.local_addr().unwrap().port().into();
        let (handle, address, port) = (session.handle(), address.to_owned(), *port);
        self.work.lock().unwrap().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let opened = handle
                    .channel_open_forwarded_tcpip(address.clone(), port, "127.0.0.1", 9_u32)
                    .await;
                let Ok(channel) = opened else { return };
                tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut stream)
                    .await
                    .ok();
            }
        });
        Ok(true)
    }
}
