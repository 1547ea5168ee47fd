//! Which ports something listens on, from `/proc`: what the kernel says of this network namespace, and whose descriptors they are.

use crate::agent::Agent;
use camino::Utf8Path;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use wire::agent::ListeningPort;

/// A busy server has thousands of connections; more than this is cut off.
const MAX_TABLE: u64 = 8 * 1024 * 1024;
const MAX_PORTS: usize = 256;
const MAX_PROCESSES: usize = 4096;
const MAX_DESCRIPTORS: usize = 4096;
const LISTEN: &str = "0A";
const ESTABLISHED: &str = "01";
/// Docker's own resolver, inside every container of a user-defined network.
const DOCKER_RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// One line of `/proc/net/tcp`.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    listens: bool,
    established: bool,
    inode: u64,
}

pub(crate) async fn listening(agent: &Agent) -> Vec<ListeningPort> {
    let forwarded = agent
        .config()
        .map(|config| config.forward_ports.clone())
        .unwrap_or_default();
    blocking(move || {
        let sockets: Vec<Socket> = sockets()
            .into_iter()
            .filter(|socket| socket.listens && socket.address != DOCKER_RESOLVER)
            .collect();
        let owners = owners(sockets.iter().map(|socket| socket.inode).collect());
        // One entry a port: the first address in the order of `/proc` is as good as another.
        let mut ports = BTreeMap::new();
        for socket in sockets {
            let owner = owners.get(&socket.inode);
            ports.entry(socket.port).or_insert_with(|| ListeningPort {
                port: socket.port,
                address: socket.address.to_string(),
                process: owner.map(|(_, name)| name.clone()),
                pid: owner.map(|(pid, _)| *pid),
                forwarded: forwarded.contains(&socket.port),
            });
        }
        ports.into_values().take(MAX_PORTS).collect()
    })
    .await
}

pub(crate) async fn established_local_ports() -> HashSet<u16> {
    blocking(|| {
        sockets()
            .into_iter()
            .filter(|socket| socket.established)
            .map(|socket| socket.port)
            .collect()
    })
    .await
}

async fn blocking<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            tracing::error!(%error, "Cannot read /proc/net");
            T::default()
        })
}

fn sockets() -> Vec<Socket> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .flat_map(|path| {
            let text = read(Utf8Path::new(path), MAX_TABLE);
            text.lines()
                .skip(1)
                .filter_map(Socket::parse)
                .collect::<Vec<_>>()
        })
        .collect()
}

impl Socket {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Self {
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
            listens: state == LISTEN,
            established: state == ESTABLISHED,
            inode,
        })
    }
}

/// Words of 32 bits in the host's byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |from: usize| {
        u32::from_str_radix(text.get(from..from + 8)?, 16)
            .ok()
            .map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: Vec<u8> = words.into_iter().flatten().collect();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical())
        }
        _ => None,
    }
}

/// Process and its name by the inode of a socket that it has open.
fn owners(mut wanted: HashSet<u64>) -> HashMap<u64, (u32, String)> {
    let mut owners = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return owners;
    };
    let pids = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .take(MAX_PROCESSES);
    for pid in pids {
        if wanted.is_empty() {
            break;
        }
        // Gone, or not ours to look at.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in descriptors.take(MAX_DESCRIPTORS).filter_map(Result::ok) {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = target.to_str().and_then(|target| {
                target
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .parse()
                    .ok()
            });
            if let Some(inode) = inode.filter(|inode| wanted.remove(inode)) {
                let name = read(Utf8Path::new(&format!("/proc/{pid}/comm")), 64);
                owners.insert(inode, (pid, name.trim().to_owned()));
            }
        }
    }
    owners
}

fn read(path: &Utf8Path, limit: u64) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        // Without IPv6 there is no table of it.
        tracing::debug!(%error, %path, "Cannot read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_tables_are_read() {
        let v4 = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0";
        assert_eq!(
            Socket::parse(v4).unwrap(),
            Socket {
                address: Ipv4Addr::LOCALHOST.into(),
                port: 3000,
                listens: true,
                established: false,
                inode: 4242
            }
        );
        let v6 = "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0";
        let parsed = Socket::parse(v6).unwrap();
        assert_eq!(
            (parsed.address, parsed.port),
            (Ipv6Addr::LOCALHOST.into(), 8080)
        );
        for nonsense in ["", "0: xx:yy zz", "  sl  local_address rem_address   st"] {
            assert_eq!(Socket::parse(nonsense), None);
        }
    }

    #[test]
    fn an_own_listener_is_found_with_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = sockets()
            .into_iter()
            .find(|socket| socket.port == port && socket.listens)
            .unwrap();
        let owners = owners([socket.inode].into());
        assert_eq!(owners[&socket.inode].0, std::process::id());
    }
}
