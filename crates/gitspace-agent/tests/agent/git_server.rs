//! A Git server of static files (git's dumb protocol) and of large files (Git LFS' batch API), with a password where wanted.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
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
                connections.spawn(answer(stream, root.clone(), port, authorization));
            }
        });
        Self {
            port,
            folder,
            _serving: serving,
        }
    }

    /// Commits `large.bin` to `main` as a pointer to these bytes; `stored`: whether the server has them.
    pub(crate) fn large_file(&self, name: &str, bytes: &[u8], stored: bool) {
        self.repository(name, None);
        let root = Utf8Path::from_path(self.folder.path()).unwrap();
        let (work, bare) = (
            root.join(format!("{name}-work")),
            root.join(format!("{name}.git")),
        );
        let oid = data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n",
            bytes.len()
        );
        std::fs::write(work.join("large.bin"), pointer).unwrap();
        git(&work, &["add", "large.bin"]);
        let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n";
        std::fs::write(work.join(".gitattributes"), attributes).unwrap();
        git(&work, &["add", ".gitattributes"]);
        git(&work, &["commit", "-q", "-m", "large"]);
        git(&work, &["push", "-q", bare.as_str(), "main"]);
        git(&bare, &["update-server-info"]);
        if stored {
            std::fs::create_dir_all(root.join("lfs")).unwrap();
            std::fs::write(root.join("lfs").join(oid), bytes).unwrap();
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

async fn answer(
    mut stream: TcpStream,
    root: Utf8PathBuf,
    port: u16,
    authorization: Option<&'static str>,
) {
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
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().unwrap());
    let mut asked = vec![0; length];
    if stream.read_exact(&mut asked).await.is_err() {
        return;
    }
    let batch = known && path.ends_with("/info/lfs/objects/batch");
    let (status, body) = match std::fs::read(root.join(path.trim_start_matches('/'))) {
        _ if !known => (
            "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"",
            Vec::new(),
        ),
        _ if batch => (
            "200 OK\r\nContent-Type: application/vnd.git-lfs+json",
            lfs_batch(&root, port, &asked).to_string().into_bytes(),
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

/// Where each object that is asked for is to be had.
fn lfs_batch(root: &Utf8Path, port: u16, asked: &[u8]) -> Value {
    let asked: Value = serde_json::from_slice(asked).unwrap();
    assert_eq!(asked["operation"], "download");
    let objects: Vec<Value> = asked["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            let oid = object["oid"].as_str().unwrap();
            let mut answer = json!({"oid": oid, "size": object["size"], "authenticated": true});
            if root.join("lfs").join(oid).exists() {
                let href = format!("http://127.0.0.1:{port}/lfs/{oid}");
                answer["actions"] =
                    json!({"download": {"href": href, "header": {"Authorization": "Basic dTpw"}}});
            } else {
                answer["error"] = json!({"code": 404, "message": "Object does not exist"});
            }
            answer
        })
        .collect();
    json!({"transfer": "basic", "objects": objects})
}
