//! A road whose faults a test chooses: a TCP proxy between delegate and control plane.
//!
//! Bytes that a fault holds up are not lost: they come when it is over, as TCP sends them again.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the delegate.
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Added to whatever is read at once.
    Latency(Duration),
    /// Each byte is a segment of its own.
    Slices,
    BytesPerSecond(u32),
    /// Connections are reset, and so are those that come.
    Reset,
    /// Nothing goes this way, also no end of a connection.
    Blocked(Way),
    BlackHole,
}

impl Fault {
    fn blocks(self, way: Way) -> bool {
        match self {
            Self::Blocked(blocked) => blocked == way,
            Self::BlackHole => true,
            Self::None
            | Self::Latency(_)
            | Self::Slices
            | Self::BytesPerSecond(_)
            | Self::Reset => false,
        }
    }
}

/// Bytes that arrived, by way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

#[derive(Clone)]
struct Road {
    fault: watch::Receiver<Fault>,
    to: watch::Receiver<Option<SocketAddr>>,
    carried: watch::Sender<Carried>,
}

pub(crate) struct FaultyRoad {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    to: watch::Sender<Option<SocketAddr>>,
    carried: watch::Receiver<Carried>,
    _tasks: JoinSet<()>,
}

impl FaultyRoad {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, fault_now) = watch::channel(Fault::None);
        let (to, known) = watch::channel(None);
        let (carried, count) = watch::channel(Carried::default());
        let road = Road {
            fault: fault_now,
            to: known,
            carried,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(road.clone().carry(stream));
            }
        });
        Self {
            address,
            fault,
            to,
            carried: count,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    pub(crate) fn lead_to(&self, address: SocketAddr) {
        self.to.send_replace(Some(address));
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    pub(crate) fn carried(&self) -> Carried {
        *self.carried.borrow()
    }

    pub(crate) async fn until_carried(&self, limit: Duration, least: Carried) {
        let mut carried = self.carried.clone();
        let arrived =
            carried.wait_for(|carried| carried.up >= least.up && carried.down >= least.down);
        let in_time = tokio::time::timeout(limit, arrived).await.is_ok();
        assert!(in_time, "carried {:?} of {least:?}", self.carried());
    }
}

impl Road {
    async fn carry(self, mut delegate: TcpStream) {
        let (mut to, mut fault) = (self.to.clone(), self.fault.clone());
        let to = to.wait_for(Option::is_some).await.unwrap().unwrap();
        // It went away meanwhile.
        let Ok(mut control_plane) = TcpStream::connect(to).await else {
            return;
        };
        for stream in [&delegate, &control_plane] {
            stream.set_nodelay(true).unwrap();
        }
        let is_reset = {
            let (from_delegate, to_delegate) = delegate.split();
            let (from_control_plane, to_control_plane) = control_plane.split();
            let both = async {
                tokio::join!(
                    self.pump(Way::Up, from_delegate, to_control_plane),
                    self.pump(Way::Down, from_control_plane, to_delegate),
                )
            };
            tokio::select! {
                _ = fault.wait_for(|fault| *fault == Fault::Reset) => true,
                _ = both => false,
            }
        };
        if is_reset {
            for stream in [delegate, control_plane] {
                stream.set_zero_linger().unwrap();
            }
        }
    }

    /// Until either end is closed.
    async fn pump(
        &self,
        way: Way,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> std::io::Result<()> {
        let mut fault = self.fault.clone();
        let mut buffer = [0; 4096];
        loop {
            let length = from.read(&mut buffer).await.unwrap_or(0);
            let fault = *fault
                .wait_for(|fault| !fault.blocks(way))
                .await
                .expect("the test goes on");
            if length == 0 {
                return to.shutdown().await;
            }
            match fault {
                Fault::Latency(latency) => tokio::time::sleep(latency).await,
                Fault::BytesPerSecond(rate) => {
                    let length = u32::try_from(length).unwrap();
                    tokio::time::sleep(Duration::from_secs(1) * length / rate).await;
                }
                Fault::None
                | Fault::Slices
                | Fault::Reset
                | Fault::Blocked(_)
                | Fault::BlackHole => {}
            }
            let slice = if fault == Fault::Slices { 1 } else { length };
            for slice in buffer[..length].chunks(slice) {
                to.write_all(slice).await?;
            }
            self.carried.send_modify(|carried| {
                let carried = match way {
                    Way::Up => &mut carried.up,
                    Way::Down => &mut carried.down,
                };
                *carried += u64::try_from(length).unwrap();
            });
        }
    }
}
