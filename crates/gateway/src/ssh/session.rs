//! One connection, from its first byte to its last.

use super::{
    board::{Live, Place},
    door::{self, Shut},
    jump::{Destination, Jump, no_gitspace},
    leg::{Leg, LegError},
    listener::{SOFTWARE, Service},
    login::{self, Entrant, LoginError},
    splice::{Splice, SpliceError},
    wake::{Unwoken, wake},
};
use daemon::ErrorChain;
use ssh_transport::{Disconnect, Packet, Transport, TransportError, number};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use wire::gateway::SshGrant;

/// From the connection's start to the end of its login.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// From there to the first thing that is asked for. Whoever asks for nothing, and has a gitspace, is let through to it: it watches over them.
const FIRST_LIMIT: Duration = Duration::from_secs(300);

/// How it ended.
enum Ended {
    /// The client left.
    Left,
    /// It does not answer any more.
    Silent,
    /// It is told why.
    Told(Disconnect, String),
}

impl From<LegError> for Ended {
    fn from(error: LegError) -> Self {
        match &error {
            LegError::Transport(error) => match error.reason() {
                Some(reason) => Self::Told(reason, error.to_string()),
                None => Self::Left,
            },
            LegError::Closed | LegError::Io { .. } => Self::Left,
            LegError::Silent(_) => Self::Silent,
        }
    }
}

impl From<SpliceError> for Ended {
    fn from(error: SpliceError) -> Self {
        match error {
            SpliceError::User(error) => error.into(),
            SpliceError::Silent(_) => Self::Silent,
            error @ SpliceError::Gitspace(_) => {
                Self::Told(Disconnect::ConnectionLost, ErrorChain(&error).to_string())
            }
        }
    }
}

impl From<Shut> for Ended {
    fn from(shut: Shut) -> Self {
        Self::Told(Disconnect::ByApplication, shut.to_string())
    }
}

/// What it came to, for the log.
#[derive(Default)]
struct Record {
    user: Option<String>,
    /// Credentials that were not taken.
    failures: usize,
    gitspace: Option<String>,
    way: &'static str,
    bytes: u64,
}

pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    service: Arc<Service>,
    place: Place,
    stream: S,
    peer: SocketAddr,
) {
    let transport =
        match Transport::server_with(Arc::clone(&service.host_key), SOFTWARE, service.agreements) {
            Ok(transport) => transport,
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "Cannot begin an SSH session");
                return;
            }
        };
    let begun = Instant::now();
    let mut leg = Leg::new(stream, transport);
    let mut record = Record::default();
    let live = Arc::clone(&place.live);
    let ended = tokio::select! {
        ended = serve(&service, &live, &mut leg, &mut record) => ended,
        why = live.ended() => Ended::Told(Disconnect::ByApplication, why),
    };
    service.board.carried(record.bytes);
    let grant = live.grants().first().map(|claims| claims.id.to_string());
    let why = match &ended {
        Ended::Left => "the client left",
        Ended::Silent => "the client did not answer any more",
        Ended::Told(_, words) => words,
    };
    // Ports are scanned all day long.
    if record.user.is_none() && record.failures == 0 {
        tracing::debug!(%peer, why, "An SSH connection ended without a login");
    } else {
        tracing::info!(
            %peer,
            user = record.user,
            failures = record.failures,
            gitspace = record.gitspace,
            grant,
            way = record.way,
            bytes = record.bytes,
            ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            client = leg.transport.peer_software(),
            why,
            "SSH session ended"
        );
    }
    if let Ended::Told(reason, words) = ended {
        leg.farewell(reason, &words).await;
    }
    drop(place);
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    service: &Service,
    live: &Live,
    leg: &mut Leg<S>,
    record: &mut Record,
) -> Ended {
    let logged_in = tokio::time::timeout(
        LOGIN_LIMIT,
        login::log_in(service, leg, &mut record.failures),
    )
    .await;
    let entrant = match logged_in {
        Ok(Ok(entrant)) => entrant,
        Ok(Err(error)) => {
            let source =
                std::error::Error::source(&error).map(|source| ErrorChain(source).to_string());
            match &error {
                LoginError::ControlPlane { .. } => {
                    tracing::warn!(%error, source, "Cannot ask who an SSH user is");
                }
                error => tracing::debug!(%error, source, "An SSH login failed"),
            }
            return match error.farewell() {
                Some((reason, words)) => Ended::Told(reason, words),
                None => Ended::Left,
            };
        }
        Err(_) => {
            let words = format!("no login within {} s", LOGIN_LIMIT.as_secs());
            return Ended::Told(Disconnect::ByApplication, words);
        }
    };
    record.user = Some(entrant.permit.user.to_string());
    if !service.board.admit(live, entrant.permit.user) {
        let words = "too many SSH sessions of yours are open; close some".to_owned();
        return Ended::Told(Disconnect::TooManyConnections, words);
    }
    if let Some(grant) = &entrant.grant {
        match wake(service, leg, grant).await {
            Ok(()) => {}
            Err(Unwoken::Shut(shut)) => return shut.into(),
            Err(Unwoken::Leg(error)) => return error.into(),
        }
    }
    if let Err(error) = leg.send(&login::success()) {
        return error.into();
    }
    let permit = &entrant.permit;
    tokio::select! {
        ended = go_on(service, live, leg, &entrant, record) => ended,
        never = permit.renew(service, live) => match never {},
    }
}

/// What the client asks for first says which way it goes.
enum Way {
    /// Without a first message where the client only waits, as `ssh -N -L` does.
    Splice(SshGrant, Option<Packet>),
    Jump(Destination, Option<SshGrant>),
}

async fn go_on<S: AsyncRead + AsyncWrite + Unpin>(
    service: &Service,
    live: &Live,
    leg: &mut Leg<S>,
    entrant: &Entrant,
    record: &mut Record,
) -> Ended {
    let way = match find_way(service, leg, entrant).await {
        Ok(way) => way,
        Err(ended) => return ended,
    };
    tracing::info!(user = %entrant.permit.user, name = entrant.permit.user_name, wanted = entrant.wanted, "SSH session opened");
    match way {
        Way::Splice(grant, first) => {
            record.way = "session";
            record.gitspace = Some(grant.slug.to_string());
            let entered = async {
                let (stream, _) = door::open(service, live, &grant).await?;
                door::enter(stream).await
            };
            let mut gitspace = match entered.await {
                Ok(gitspace) => gitspace,
                Err(shut) => return shut.into(),
            };
            let mut splice = Splice::new(leg, &mut gitspace, &mut record.bytes);
            match splice.run(first.as_ref()).await {
                Ok(()) => Ended::Left,
                Err(error @ SpliceError::Gitspace(_)) => {
                    door::not_running(service, &grant).map_or_else(|| error.into(), Ended::from)
                }
                Err(error) => error.into(),
            }
        }
        Way::Jump(first, grant) => {
            record.way = "jump";
            record.gitspace = first.gitspace().map(str::to_owned);
            let mut jump = Jump::new(service, live, &entrant.permit, leg, &mut record.bytes);
            match jump.run(first, grant).await {
                Ok(()) => Ended::Left,
                Err(error) => error.into(),
            }
        }
    }
}

async fn find_way<S: AsyncRead + AsyncWrite + Unpin>(
    service: &Service,
    leg: &mut Leg<S>,
    entrant: &Entrant,
) -> Result<Way, Ended> {
    let malformed = |error| Ended::from(LegError::from(TransportError::from(error)));
    let until = Instant::now() + FIRST_LIMIT;
    loop {
        let packet = match (timeout_at(until, leg.packet()).await, &entrant.grant) {
            (Ok(packet), _) => packet?,
            (Err(_), Some(grant)) => return Ok(Way::Splice(grant.clone(), None)),
            (Err(_), None) => {
                let words = format!("nothing was asked for within {} s", FIRST_LIMIT.as_secs());
                return Err(Ended::Told(Disconnect::ByApplication, words));
            }
        };
        match packet.number() {
            number::GLOBAL_REQUEST => {
                if let Some(grant) = &entrant.grant {
                    return Ok(Way::Splice(grant.clone(), Some(packet)));
                }
                let mut fields = packet.fields();
                fields.text().map_err(malformed)?;
                if fields.boolean().map_err(malformed)? {
                    leg.send(&[number::REQUEST_FAILURE])?;
                }
            }
            number::CHANNEL_OPEN => {
                let destination = Destination::of(&packet).map_err(malformed)?;
                if let Some(gitspace) = destination.as_ref().and_then(Destination::gitspace)
                    && let Some(grant) = entrant
                        .permit
                        .grant(service, gitspace)
                        .await
                        .map_err(|error| Shut(ErrorChain(&error).to_string()))?
                    && let Some(destination) = destination
                {
                    return Ok(Way::Jump(destination, Some(grant)));
                }
                let destination = Destination::of(&packet).map_err(malformed)?;
                return match (&entrant.grant, destination) {
                    // A port of the gitspace's, or what lies behind it.
                    (Some(grant), _) => Ok(Way::Splice(grant.clone(), Some(packet))),
                    (None, Some(destination)) => Ok(Way::Jump(destination, None)),
                    (None, None) => Err(no_gitspace(&entrant.wanted).into()),
                };
            }
            number => {
                return Err(LegError::from(TransportError::OutOfTurn { number }).into());
            }
        }
    }
}
