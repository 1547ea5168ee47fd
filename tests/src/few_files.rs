//! 64 open files for each daemon, and more connections than that: none ends, each says what it lacks, and all is well when the load ends.

use crate::{
    deployment::{Daemon, Deployment},
    docker,
    lifecycle::APP,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
};

const FILES: u32 = 64;
/// To each place where a daemon listens: more than it can hold.
const CONNECTIONS: usize = 100;

/// Connections that say nothing. A full queue of the kernel is as full as it gets.
struct Load {
    _unix: Vec<UnixStream>,
    _tcp: Vec<TcpStream>,
}

impl Load {
    fn new(host: &Deployment) -> Result<Self> {
        let mut load = Self {
            _unix: Vec::new(),
            _tcp: Vec::new(),
        };
        for socket in [
            "runner.sock",
            "runner-admin.sock",
            "delegate-admin.sock",
            "gateway-admin.sock",
            "control-plane-admin.sock",
        ] {
            let path = host.path(socket);
            for _ in 0..CONNECTIONS {
                let stream = UnixStream::connect(&path).context(socket)?;
                load._unix.push(stream);
            }
        }
        for port in [host.control_port, host.gateway_port] {
            for _ in 0..CONNECTIONS {
                load._tcp
                    .push(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?);
            }
        }
        Ok(load)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_with_few_files_say_what_they_lack_and_are_well_when_the_load_ends() -> Result<()> {
    let mut host = Deployment::start_apart().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    for daemon in Daemon::ALL {
        host.kill(daemon)?;
        host.run_with_files(daemon, FILES)?;
    }
    host.until_ready()?;
    host.until("it can be entered", |host| {
        Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
    })?;

    let load = Load::new(&host)?;
    for daemon in Daemon::ALL {
        host.until(&format!("{daemon:?} says what it lacks"), |host| {
            let log = std::fs::read_to_string(host.log_path(daemon))?;
            Ok(log.to_lowercase().contains("too many open files"))
        })?;
    }
    drop(load);

    host.until_ready()?;
    for daemon in Daemon::ALL {
        ensure!(!host.has_ended(daemon)?, "{daemon:?}: {}", host.logs());
    }
    host.until("it can be entered again", |host| {
        Ok(host.gitspace(&["exec", "app", "--", "true"])?.code == 0)
    })?;
    host.ok(&["create", &url, "--name", "other", "--wait"])?;
    host.ok(&["delete", "app", "--wait"])?;
    host.ok(&["delete", "other", "--wait"])?;
    host.until("nothing of them is left but the spare", |host| {
        Ok(docker::left_of(&host.label)?.len() == 3)
    })
}
