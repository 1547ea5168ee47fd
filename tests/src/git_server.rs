//! A Git server over HTTP: bare repositories as plain files, which git's own HTTP client reads, with a password on some.

use crate::docker;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, process::Command};
use tokio::task::JoinSet;

/// User and password of repositories whose name starts with `private`.
pub(crate) const USER: &str = "octo";
pub(crate) const PASSWORD: &str = "correct-horse";

pub(crate) struct GitServer {
    dir: tempfile::TempDir,
    address: String,
    _task: JoinSet<()>,
}

impl GitServer {
    /// Listens where containers reach it.
    pub(crate) async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let root = Utf8PathBuf::try_from(dir.path().to_path_buf())?;
        let listener = tokio::net::TcpListener::bind((docker::host_address()?, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let root = root.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(&root, &request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // A client that hangs up early is git's way to probe.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Ok(Self {
            dir,
            address,
            _task: task,
        })
    }

    /// `ip:port`, for the runner's `host_access`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.address)
    }

    /// A repository with these files on branch `main`; its URL.
    pub(crate) fn repository(&self, name: &str, files: &[(&str, &str)]) -> Result<String> {
        let work = tempfile::tempdir()?;
        let path = Utf8Path::from_path(work.path()).context("a UTF-8 path")?;
        for (file, text) in files {
            let file = path.join(file);
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(file, text)?;
        }
        git(path, &["init", "--quiet", "--initial-branch=main"])?;
        git(path, &["add", "--all"])?;
        git(
            path,
            &[
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@localhost",
                "commit",
                "--quiet",
                "--message=start",
            ],
        )?;
        let bare = Utf8PathBuf::try_from(self.dir.path().join(format!("{name}.git")))?;
        git(path, &["clone", "--quiet", "--bare", ".", bare.as_str()])?;
        git(&bare, &["update-server-info"])?;
        Ok(self.url(name))
    }
}

fn git(dir: &Utf8Path, args: &[&str]) -> Result<()> {
    let output = Command::new("git").current_dir(dir).args(args).output()?;
    ensure!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn answer(root: &Utf8Path, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().trim_start_matches('/');
    let plain = |status: StatusCode| {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        response
    };
    if path.split('/').any(|part| part == "..") {
        return plain(StatusCode::BAD_REQUEST);
    }
    let wanted = format!(
        "Basic {}",
        data_encoding::BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes())
    );
    let given = request.headers().get(header::AUTHORIZATION);
    if path.starts_with("private")
        && given.is_none_or(|given| given.as_bytes() != wanted.as_bytes())
    {
        let mut response = plain(StatusCode::UNAUTHORIZED);
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            header::HeaderValue::from_static("Basic realm=\"git\""),
        );
        return response;
    }
    match std::fs::read(root.join(path)) {
        Ok(bytes) => Response::new(Full::new(Bytes::from(bytes))),
        Err(_) => plain(StatusCode::NOT_FOUND),
    }
}
