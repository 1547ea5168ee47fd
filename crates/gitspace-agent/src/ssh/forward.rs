//! Connections that a client asks for, from the gitspace's network.

use super::channels::{Channel, Offered, Refused};
use crate::{
    agent::Agent,
    dial, environment,
    spawn::{Bond, Program, Streams},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const LOOK_UP_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of one name.
const MAX_ANSWER: u64 = 64 * 1024;
const MAX_NAME: usize = 255;

/// Opens the connection and carries it to its end.
pub(super) async fn tcp(agent: &Agent, offered: Offered, host: &str, port: u32) {
    let connected = match u16::try_from(port) {
        Ok(port) => connect(agent, host, port).await,
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no port")),
    };
    match connected {
        Ok(stream) => {
            if let Some(channel) = offered.accept() {
                carry(channel, stream).await;
            }
        }
        Err(error) => {
            tracing::debug!(%error, host, port, "A forwarded connection was not made");
            offered.refuse(Refused::ConnectFailed, &error.to_string());
        }
    }
}

/// Both ways, each to its own end.
pub(super) async fn carry(channel: Channel, mut stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "A forwarded connection stays without TCP_NODELAY");
    }
    let (from, to) = stream.split();
    if let Err(error) = channel.join(from, to).await {
        tracing::debug!(%error, "A forwarded connection broke");
    }
}

async fn connect(agent: &Agent, host: &str, port: u16) -> io::Result<TcpStream> {
    if matches!(host, "localhost" | "127.0.0.1" | "::1" | "") {
        return dial::connect(port).await;
    }
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => look_up(agent, host).await?,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// By the image's own resolver: a static binary has none that knows the image's rules.
async fn look_up(agent: &Agent, host: &str) -> io::Result<Vec<IpAddr>> {
    let named = host.len() <= MAX_NAME
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && !host.starts_with('-');
    if !named {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no name of a host",
        ));
    }
    let (config, account) = agent
        .remote_user()
        .map_err(|problem| io::Error::other(problem.message))?;
    let program = Program {
        argv: ["getent", "ahosts", host].map(str::to_owned).to_vec(),
        cwd: "/".to_owned(),
        env: environment::of_user(agent, &account, Some(&config), []),
        account,
    };
    let mut child = program
        .spawn(Streams::Output, Bond::DiesWithUs)
        .map_err(|failure| io::Error::other(failure.to_string()))?;
    let mut answer = String::new();
    let asked = async {
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER).read_to_string(&mut answer).await?;
        }
        child.wait().await
    };
    let asked = tokio::time::timeout(LOOK_UP_LIMIT, asked).await;
    if asked.is_err() {
        // Whatever it waits for, nobody waits for it.
        child.start_kill()?;
        child.wait().await?;
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(addresses(&answer))
}

/// `getent ahosts` has a line for each address and kind of socket.
fn addresses(answer: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in answer.lines() {
        if let Some(address) = line
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_name_is_tried_once() {
        let answer = "10.0.0.1     STREAM db\n10.0.0.1     DGRAM  \n10.0.0.1     RAW    \nfe80::1      STREAM \nnonsense\n";
        let wanted: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(addresses(answer), wanted);
    }
}
