//! A gateway on another host than the gitspaces: everything goes through tunnels that the delegate opens, over a line that can be cut.

use crate::{
    deployment::{Daemon, Deployment, text},
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Ipv4Addr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinSet,
};

/// Passes connections on, and cuts them as a cable does.
struct Relay {
    port: u16,
    cut: watch::Sender<()>,
    passed: Arc<AtomicUsize>,
    to: Option<oneshot::Sender<u16>>,
    _task: JoinSet<()>,
}

impl Relay {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (to, told) = oneshot::channel();
        let cut = watch::Sender::new(());
        let passed = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        let (cuts, count) = (cut.clone(), Arc::clone(&passed));
        task.spawn(async move {
            let Ok(to) = told.await else { return };
            let mut connections = JoinSet::new();
            loop {
                let Ok((mut from, _)) = listener.accept().await else {
                    return;
                };
                count.fetch_add(1, Ordering::SeqCst);
                let mut cut = cuts.subscribe();
                connections.spawn(async move {
                    let Ok(mut on) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut on) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self {
            port,
            cut,
            passed,
            to: Some(to),
            _task: task,
        })
    }

    fn cut(&self) {
        self.cut.send_replace(());
    }
}

async fn deployment() -> Result<(Deployment, Relay)> {
    let mut relay = Relay::start().await?;
    let to = relay.to.take().context("it was not told yet")?;
    let host = Deployment::start_with_tunnel(relay.port, |gateway| {
        let _sent = to.send(gateway);
    })
    .await?;
    host.until("the tunnels are up", |host| {
        let status = host.daemon(Daemon::Gateway, &["status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&status.out)?;
        Ok(status.pointer("/is/tunnels/lines") == Some(&serde_json::json!(2)))
    })?;
    Ok((host, relay))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_nobody_connects_to_serves_its_users_through_a_gateway_elsewhere() -> Result<()>
{
    let (mut host, relay) = deployment().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let said = host.ok(&["exec", "app", "--", "id", "-un"])?;
    ensure!(
        said == "developer\n",
        "exec goes through the tunnel: {said}"
    );

    let slug = text(&host.show("app")?, "/slug");
    let header = format!("gitspaces-grant: {}", text(&host.grant("app")?, "/grant"));
    let get = |host: &Deployment, port: u16, path: &str| {
        host.gateway(
            &format!("{port}--{slug}.localhost"),
            path,
            &["--header", &header],
        )
    };
    host.until("the app answers", |host| {
        Ok(get(host, 8000, "/hello")?.contains("app /hello"))
    })?;
    let closed = get(&host, 8001, "/")?;
    ensure!(
        closed.contains("port_closed") && closed.contains("8000"),
        "what listens comes through the tunnel, too: {closed}"
    );
    let ssh = host
        .command(&["ssh", "app", "--", "echo over ssh"])?
        .output()?;
    ensure!(ssh.stdout == b"over ssh\n", "{ssh:#?}");

    // Neither the control plane nor the runner is needed for streams that are there, and a gateway that starts anew has the tunnels back.
    ensure!(host.stop(Daemon::Gateway)? == 0, "{}", host.logs());
    let before = relay.passed.load(Ordering::SeqCst);
    host.run(Daemon::Gateway)?;
    host.until("the app answers again", |host| {
        Ok(get(host, 8000, "/again")?.contains("app /again"))
    })?;
    ensure!(relay.passed.load(Ordering::SeqCst) > before);

    // A delegate that was revoked has no tunnel any more.
    host.ok(&["delegate", "revoke", "host"])?;
    host.until("the tunnels are gone", |host| {
        let status = host.daemon(Daemon::Gateway, &["status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&status.out)?;
        Ok(status.pointer("/is/tunnels/delegates") == Some(&serde_json::json!(0)))
    })?;
    let log = std::fs::read_to_string(host.log_path(Daemon::Delegate))?;
    ensure!(log.contains("Tunnel is down"), "{log}");
    Ok(())
}

/// A command in the gitspace, with what it is told and says.
struct Inside {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Inside {
    fn start(host: &Deployment, script: &str) -> Result<Self> {
        let mut child = host
            .command(&["exec", "app", "--", "sh", "-c", script])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self {
            to: child.stdin.take().context("an input")?,
            from: BufReader::new(child.stdout.take().context("an output")?),
            child,
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(line)
    }
}

/// Twenty transfers and twenty shells, and the line is cut in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn transfers_and_shells_go_on_when_the_line_is_cut_in_the_middle() -> Result<()> {
    const TRANSFERS: usize = 20;
    const SHELLS: usize = 20;
    const BYTES: usize = 4_000_000;
    let (host, relay) = deployment().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let made =
        format!("head -c {BYTES} /dev/urandom >/tmp/noise; sha256sum </tmp/noise | cut -c1-64");
    let sum = host.ok(&["exec", "app", "--", "sh", "-c", &made])?;

    let mut shells = (0..SHELLS)
        .map(|number| {
            let script = format!("echo up {number}; while read word; do echo {number} $word; done");
            let mut shell = Inside::start(&host, &script)?;
            ensure!(shell.line()? == format!("up {number}\n"));
            Ok(shell)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut transfers = (0..TRANSFERS)
        .map(|_| {
            Inside::start(
                &host,
                "head -c 1000000 /tmp/noise; read go; tail -c +1000001 /tmp/noise",
            )
        })
        .collect::<Result<Vec<_>>>()?;
    let mut halves = transfers
        .iter_mut()
        .map(|transfer| {
            let mut half = vec![0; 500_000];
            transfer.from.read_exact(&mut half)?;
            Ok(half)
        })
        .collect::<Result<Vec<_>>>()?;
    let before = relay.passed.load(Ordering::SeqCst);
    relay.cut();
    for (number, shell) in shells.iter_mut().enumerate() {
        writeln!(shell.to, "typed-while-cut")?;
        let said = shell.line()?;
        ensure!(said == format!("{number} typed-while-cut\n"), "{said:?}");
    }
    ensure!(
        relay.passed.load(Ordering::SeqCst) >= before + 2,
        "both lanes came back"
    );
    for (number, (transfer, half)) in transfers.iter_mut().zip(&mut halves).enumerate() {
        writeln!(transfer.to, "go")?;
        // In the middle of what is under way. Not each time: the wait before the next line grows.
        if number % 5 == 0 {
            relay.cut();
        }
        transfer.from.read_to_end(half)?;
        ensure!(transfer.child.wait()?.success());
        ensure!(half.len() == BYTES, "{}", half.len());
        let hex: String = Sha256::digest(&*half)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ensure!(hex == sum.trim(), "byte for byte");
    }
    for (number, mut shell) in shells.into_iter().enumerate() {
        writeln!(shell.to, "last")?;
        ensure!(shell.line()? == format!("{number} last\n"));
        drop(shell.to);
        ensure!(shell.child.wait()?.success());
    }

    host.ok(&["gateway", "revoke", "edge"])?;
    host.until("the delegate leaves the gateway", |host| {
        let status = host.daemon(Daemon::Delegate, &["status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&status.out)?;
        Ok(status.pointer("/is/tunnels") == Some(&serde_json::json!({})))
    })
}
