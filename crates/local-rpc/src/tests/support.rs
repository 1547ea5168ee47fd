//! A server on a socket of its own.

use crate::{
    BindOptions, Client, Listener, Peer, PeerPolicy, ServerConfig,
    server::{Body, ServeError, serve},
};
use camino::{Utf8Path, Utf8PathBuf};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) fn temp_dir() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    (dir, path)
}

pub(super) struct TestServer {
    _dir: Option<tempfile::TempDir>,
    path: Utf8PathBuf,
    stop: CancellationToken,
    task: JoinSet<Result<(), ServeError>>,
}

impl TestServer {
    pub(super) fn start<S, F>(service: S) -> Self
    where
        S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start_with(ServerConfig::new(PeerPolicy::owner()), service)
    }

    pub(super) fn start_with<S, F>(config: ServerConfig, service: S) -> Self
    where
        S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (guard, dir) = temp_dir();
        let listener = Listener::bind(&dir.join("api.sock"), BindOptions::default()).unwrap();
        let mut server = Self::serve(listener, config, service);
        server._dir = Some(guard);
        server
    }

    pub(super) fn serve<S, F>(listener: Listener, config: ServerConfig, service: S) -> Self
    where
        S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let path = listener.path().map(Utf8Path::to_owned).unwrap_or_default();
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, config, service, stop.clone()));
        Self {
            _dir: None,
            path,
            stop,
            task,
        }
    }

    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.path)
    }

    /// Stops it, waits for the end, and gives back where it was.
    pub(super) async fn stop(mut self) -> Utf8PathBuf {
        self.stop.cancel();
        self.task.join_next().await.unwrap().unwrap().unwrap();
        self.path.clone()
    }
}
