//! A Git server of static files (git's dumb protocol), with a password where wanted.

use camino::{Utf8Path, Utf8PathBuf};
use std::{process::Command, sync::Arc};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub(crate) struct GitServer {
    pub(crate) port: u16,
    folder: Arc<TempDir>,
    _serving: JoinSet<()>,
}

impl GitServer {
    /// `authorization`: the header that is asked for.
    pub(crate) async fn start(authorization: Option<&'static str>) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut serving = JoinSet::new();
        let root = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(answer(stream, root.clone(), authorization));
            }
        });
        Self {
            port,
            folder,
            _serving: serving,
        }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}.git", self.port)
    }

    /// A repository with a branch `main`, a branch `other` and a tag `v1`; answers with the commit of `other`.
    pub(crate) fn repository(&self, name: &str, submodule: Option<&str>) -> String {
        let work = Utf8Path::from_path(self.folder.path())
            .unwrap()
            .join(format!("{name}-work"));
        let bare = Utf8Path::from_path(self.folder.path())
            .unwrap()
            .join(format!("{name}.git"));
        std::fs::create_dir(&work).unwrap();
        git(&work, &["init", "-q", "-b", "main"]);
        std::fs::write(work.join("README.md"), "hello\n").unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "-q", "-m", "first"]);
        git(&work, &["tag", "v1"]);
        git(&work, &["checkout", "-q", "-b", "other"]);
        std::fs::write(work.join("other"), "other\n").unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "-q", "-m", "second"]);
        let commit = git(&work, &["rev-parse", "HEAD"]);
        git(&work, &["checkout", "-q", "main"]);
        if let Some(url) = submodule {
            let modules = format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {url}\n");
            std::fs::write(work.join(".gitmodules"), modules).unwrap();
            git(&work, &["add", ".gitmodules"]);
            git(
                &work,
                &[
                    "update-index",
                    "--add",
                    "--cacheinfo",
                    &format!("160000,{},sub", commit.trim()),
                ],
            );
            git(&work, &["commit", "-q", "-m", "submodule"]);
        }
        git(&work, &["clone", "-q", "--bare", ".", bare.as_str()]);
        git(&bare, &["update-server-info"]);
        commit.trim().to_owned()
    }
}

pub(crate) fn git(folder: &Utf8Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.com",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

async fn answer(mut stream: TcpStream, root: Utf8PathBuf, authorization: Option<&'static str>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("/");
    let path = path.split('?').next().unwrap_or(path);
    let wanted = authorization.map(|value| format!("authorization: basic {value}").to_lowercase());
    let known = wanted.is_none_or(|wanted| head.to_lowercase().contains(&wanted));
    let (status, body) = match std::fs::read(root.join(path.trim_start_matches('/'))) {
        _ if !known => (
            "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"",
            Vec::new(),
        ),
        Ok(bytes) => ("200 OK", bytes),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    drop(stream.write_all(head.as_bytes()).await);
    drop(stream.write_all(&body).await);
    drop(stream.shutdown().await);
}
