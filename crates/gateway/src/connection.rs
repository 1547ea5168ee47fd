//! One client connection: request after request, in one task.

use crate::{
    access_log::Entry,
    buffer::Buffer,
    dial::{DialError, Target},
    exchange::{Ended, Ends, Exchange, ExchangeError, LARGE, SMALL, tunnel},
    gateway::Shared,
    judge::{self, Client, Memo, Plan, Verdict, Wait},
    live::{Live, Phase},
    page::{self, Form, Notice},
    pool::Link,
    request::{self, MAX_FIELDS, MAX_HEAD},
    state_page::{guests_dial, state_page},
    tunnels::{Entering, Joining},
    wake::By,
};
use daemon::ErrorChain;
use std::{future::poll_fn, io, mem::MaybeUninit, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tunnel::prefer_small;
use wire::{
    gateway::{GrantClaims, Route},
    gitspace::GitspaceState,
    problem::Problem,
    runner::DialTarget,
    text::Slug,
};

/// For one dial.
pub(crate) const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// For a client to take our last answer and close.
const LINGER_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of a refused request that are read and thrown away, so that its sender hears why.
const LINGER_BYTES: usize = 256 * 1024;
/// Ports named on the page of a closed one.
const MAX_LISTED: usize = 20;

#[derive(Debug)]
pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    live: Arc<Live>,
    stream: S,
    client: Client,
    inbound: Buffer,
    /// The head for the app, and what followed it.
    request: Vec<u8>,
    /// Answers on their way to the client.
    out: Vec<u8>,
    memo: Memo,
    held: Option<Arc<GrantClaims>>,
}

/// Whether the connection takes another request.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Next,
    /// The same one, which is still here.
    Again,
    /// Say goodbye in order, so that the client reads our last answer.
    Close,
    Drop,
}

/// What of a request decides how an answer of our own is given.
#[derive(Clone, Copy, Debug)]
struct Facts {
    html: bool,
    is_head: bool,
    /// The connection can go on after an answer that does not read the body.
    reusable: bool,
}

/// What a client's connection lies on.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    fn tcp(&self) -> &TcpStream;
}

impl Carrier for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// Boxed, because it is large.
impl Carrier for Box<TlsStream<TcpStream>> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl<S: Carrier> Connection<S> {
    pub(crate) fn new(shared: Arc<Shared>, live: Arc<Live>, stream: S, client: Client) -> Self {
        Self {
            shared,
            live,
            stream,
            client,
            inbound: Buffer::default(),
            request: Vec::new(),
            out: Vec::new(),
            memo: Memo::default(),
            held: None,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let Ok(Some((verdict, facts))) = self.next_request().await else {
                return;
            };
            self.enter(Phase::Exchange);
            let flow = match verdict {
                Verdict::Answer(notice) => self.answer(&notice, facts).await,
                Verdict::Open { site, code } => {
                    let notice = self.shared.codes.exchange(&self.shared, &site, code).await;
                    self.answer(&notice, facts).await
                }
                Verdict::Start { grant, back } => {
                    let notice = match self.shared.waking.start(&grant).await {
                        Ok(_) => Notice::redirect(303, back),
                        Err(notice) => *notice,
                    };
                    self.answer(&notice, facts).await
                }
                Verdict::Forward(plan) => self.forward(plan, facts).await,
                Verdict::Wait(wait) => self.wait(*wait, facts).await,
                Verdict::Enter(entering) => return self.become_line(*entering).await,
            };
            match flow {
                Flow::Next | Flow::Again => {}
                Flow::Close => return self.linger().await,
                Flow::Drop => return,
            }
            self.inbound.shrink(SMALL);
            if self.request.capacity() > LARGE || self.out.capacity() > LARGE {
                self.request = Vec::new();
                self.out = Vec::new();
            }
        }
    }

    fn enter(&self, phase: Phase) {
        self.live.enter(phase, self.shared.census.now_ms());
    }

    /// `None` at the end of the connection.
    async fn next_request(&mut self) -> io::Result<Option<(Verdict, Facts)>> {
        let mut waiting = false;
        loop {
            if !self.inbound.is_empty() {
                if let Some(judged) = self.judge() {
                    return Ok(Some(judged));
                }
                if !waiting {
                    self.enter(Phase::Head);
                    waiting = true;
                }
            } else if self.held.is_some() {
                self.enter(Phase::Idle);
            }
            // Only the end of a line can end a head: bytes that come one by one are not parsed each time.
            loop {
                let size = if self.inbound.is_full(SMALL) {
                    MAX_HEAD
                } else {
                    SMALL
                };
                let before = self.inbound.filled().len();
                let (inbound, stream) = (&mut self.inbound, &mut self.stream);
                if poll_fn(|cx| inbound.poll_fill(cx, stream, size)).await? == 0 {
                    return Ok(None);
                }
                let fresh = self.inbound.filled().get(before..).unwrap_or_default();
                if fresh.contains(&b'\n') || self.inbound.is_full(MAX_HEAD) || before == 0 {
                    break;
                }
            }
        }
    }

    /// `None` where the head is not whole.
    fn judge(&mut self) -> Option<(Verdict, Facts)> {
        let mut room: request::Room<'_> = [MaybeUninit::uninit(); MAX_FIELDS];
        let request = match request::parse(self.inbound.filled(), &mut room) {
            Ok(None) => return None,
            Ok(Some(request)) => request,
            Err(error) => {
                let facts = Facts {
                    html: false,
                    is_head: false,
                    reusable: false,
                };
                return Some((judge::bad_request(error).into(), facts));
            }
        };
        let mut request = request;
        request.keep_alive &= !self.shared.is_draining();
        let facts = Facts {
            html: request.accepts_html,
            is_head: request.is_head(),
            reusable: request.keep_alive && request.framing.is_done() && request.upgrade.is_none(),
        };
        let length = request.length;
        let verdict = judge::judge(
            &self.shared,
            &self.client,
            &mut self.memo,
            request,
            &mut self.request,
        );
        match &verdict {
            Verdict::Wait(_) => {}
            Verdict::Answer(_)
            | Verdict::Open { .. }
            | Verdict::Start { .. }
            | Verdict::Forward(_)
            | Verdict::Enter(_) => {
                self.inbound.consume(length);
            }
        }
        Some((verdict, facts))
    }

    /// From here on the connection is a delegate's.
    async fn become_line(mut self, entering: Entering) {
        let Some(tunnels) = self.shared.tunnels.clone() else {
            return;
        };
        if let Err(error) = prefer_small(self.stream.tcp()) {
            tracing::warn!(%error, "Small messages may wait for large ones in this tunnel");
        }
        let head = entering.head();
        let said = self.stream.write_all(head.as_bytes()).await;
        if said.is_ok() && self.stream.flush().await.is_ok() {
            tunnels.take(Joining {
                first: self.inbound.filled().to_vec(),
                stream: Box::new(self.stream),
                claims: entering.claims,
            });
        }
    }

    /// For a gitspace that is to be started.
    async fn wait(&mut self, wait: Wait, facts: Facts) -> Flow {
        // The request is still here, and its connection ends with the answer.
        let facts = Facts {
            reusable: false,
            ..facts
        };
        let shared = Arc::clone(&self.shared);
        let by = match &wait.grant {
            Some(grant) => By::Grant(grant),
            None => By::Nothing,
        };
        if wait.shown {
            return match self.show(&shared, &wait.slug, by).await {
                Some(notice) => self.answer(&notice, facts).await,
                None => Flow::Again,
            };
        }
        let mut waiting = Box::pin(
            shared
                .waking
                .until_reachable(&shared, &wait.slug, by, |_| {}),
        );
        let waited = loop {
            let is_full = self.inbound.is_full(MAX_HEAD);
            let (inbound, stream) = (&mut self.inbound, &mut self.stream);
            let more = poll_fn(|cx| inbound.poll_fill(cx, stream, MAX_HEAD));
            tokio::select! {
                waited = &mut waiting => break waited,
                read = more, if !is_full => match read {
                    Ok(1..) => {}
                    // Nobody waits any more.
                    Ok(0) | Err(_) => return Flow::Drop,
                },
            }
        };
        match waited {
            Ok(()) => Flow::Again,
            Err(notice) => self.answer(&notice, facts).await,
        }
    }

    /// The page that tells a person how the start goes. `None` where the gitspace can be reached meanwhile.
    async fn show(&self, shared: &Shared, slug: &Slug, by: By<'_>) -> Option<Notice> {
        let route = || shared.known.read().routes.get(slug).cloned();
        let before = route()?;
        if before.reachable {
            return None;
        }
        if let By::Grant(grant) = by
            && before.state != GitspaceState::Starting
        {
            match shared.waking.ask(grant).await {
                // The route that says so is on its way.
                Ok(state) => {
                    let started = Route {
                        state,
                        ..Route::clone(&before)
                    };
                    return Some(state_page(&started));
                }
                Err(notice) => return Some(*notice),
            }
        }
        Some(state_page(&before))
    }

    async fn answer(&mut self, notice: &Notice, facts: Facts) -> Flow {
        let form = Form {
            html: facts.html,
            is_head: facts.is_head,
            close: !facts.reusable,
            https: self.shared.domain.secure(),
        };
        page::write(&mut self.out, notice, form);
        if self.stream.write_all(&self.out).await.is_err() || self.stream.flush().await.is_err() {
            return Flow::Drop;
        }
        if facts.reusable {
            // Without a grant it counts as idle all the same.
            self.enter(Phase::Idle);
            Flow::Next
        } else {
            Flow::Close
        }
    }

    async fn forward(&mut self, plan: Plan, facts: Facts) -> Flow {
        let access = &plan.access;
        let Some(target) = access.target else {
            return Flow::Drop;
        };
        if !self
            .held
            .as_ref()
            .is_some_and(|held| Arc::ptr_eq(held, &access.claims))
        {
            // Nothing of anybody's grant is known to the control plane, and it has no end.
            let token = self.memo.token().unwrap_or_default();
            self.live.hold(&access.claims, token.into());
            self.held = Some(access.claims.clone());
            // It may have been revoked after it was checked and before the sweeper could see it here.
            if self.shared.known.revision() != access.revision
                && self
                    .shared
                    .known
                    .read()
                    .check(&access.claims, self.shared.clock.now())
                    .is_err()
            {
                return Flow::Drop;
            }
        }
        let mut framing = plan.framing;
        // What is here of the body goes out with the head.
        if !framing.is_done() {
            match framing.take(self.inbound.filled()) {
                Ok(here) => {
                    let bytes = self.inbound.filled().get(..here).unwrap_or_default();
                    self.request.extend_from_slice(bytes);
                    self.inbound.consume(here);
                }
                Err(error) => {
                    let problem = Problem::new("bad_request", error.to_string());
                    return self.answer(&Notice::new(400, problem), facts).await;
                }
            }
        }
        let key = (target.get().gitspace, target.get().to);
        let mut entry = Entry::begin(&self.request, || self.shared.clock.instant());
        let mut rest = Some(framing);
        let mut fresh = false;
        loop {
            let pooled = if fresh {
                None
            } else {
                self.shared.pool.take(key)
            };
            let reused = pooled.is_some();
            let mut link = match pooled {
                Some(link) => link,
                None => match self.dial(target).await {
                    Ok(link) => link,
                    Err(notice) if access.claims.is_guest => {
                        let notice = guests_dial(notice.status);
                        return self.answer(&notice, facts).await;
                    }
                    Err(notice) => return self.answer(&notice, facts).await,
                },
            };
            let rest = match rest.take() {
                Some(rest) => rest,
                // Only a request without a body comes by here again.
                None => crate::framing::Framing::Done,
            };
            let shared = &self.shared;
            let live = &self.live;
            let ends = Ends {
                client: &mut self.stream,
                inbound: &mut self.inbound,
                upstream: &mut link.stream,
                outbound: &mut link.buffer,
            };
            let mut exchange =
                Exchange::new(ends, &self.request, rest, plan.question, &mut self.out);
            let ended = exchange
                .run(|| live.enter(Phase::Exchange, shared.census.now_ms()))
                .await;
            let (answered, begun, status) = (exchange.answered, exchange.begun, exchange.status);
            if let Some(entry) = entry.take_if(|_| status.is_some() || !reused) {
                let now = shared.clock.instant();
                entry.end(now, &self.client, &access.claims, target.get(), status);
            }
            match ended {
                Ok(Ended::Answered {
                    client_stays,
                    upstream_stays,
                }) => {
                    if upstream_stays {
                        link.buffer.shrink(SMALL);
                        shared.pool.put(key, link, shared.census.now_ms());
                    }
                    return if client_stays {
                        Flow::Next
                    } else {
                        Flow::Close
                    };
                }
                Ok(Ended::Switched) => {
                    self.tunnel(link).await;
                    return Flow::Drop;
                }
                Err(ExchangeError::ClientGone) => return Flow::Drop,
                Err(_) if begun => return Flow::Drop,
                Err(ExchangeError::UpstreamClosed | ExchangeError::UpstreamIo { .. })
                    if reused && !answered && plan.replayable =>
                {
                    fresh = true;
                }
                Err(error) => {
                    tracing::debug!(gitspace = %key.0, to = %key.1, error = %ErrorChain(&error), "Exchange failed");
                    let facts = Facts {
                        reusable: facts.reusable
                            && !matches!(error, ExchangeError::ClientBody { .. }),
                        ..facts
                    };
                    return self.answer(&broken(&error), facts).await;
                }
            }
        }
    }

    async fn tunnel(&mut self, mut link: Link) {
        self.enter(Phase::Tunnel);
        // It lasts, and needs neither.
        self.request = Vec::new();
        self.out = Vec::new();
        let (live, shared) = (&self.live, &self.shared);
        let ends = Ends {
            client: &mut self.stream,
            inbound: &mut self.inbound,
            upstream: &mut link.stream,
            outbound: &mut link.buffer,
        };
        tunnel(ends, || live.enter(Phase::Closing, shared.census.now_ms())).await;
    }

    async fn dial(&self, target: crate::Authorized<Target>) -> Result<Link, Notice> {
        let dialled = tokio::time::timeout(DIAL_LIMIT, self.shared.ways.dial(target)).await;
        match dialled {
            Ok(Ok(stream)) => Ok(Link {
                stream,
                buffer: Buffer::default(),
            }),
            Ok(Err(error)) => {
                tracing::debug!(gitspace = %target.get().gitspace, to = %target.get().to, %error, "Cannot dial");
                Err(undialled(target.get(), &error))
            }
            Err(_) => Err(Notice::new(
                504,
                Problem::new("dial_timeout", "the gitspace did not answer in time")
                    .hint("its host may be overloaded; try again"),
            )),
        }
    }

    /// Closes our side and reads what is still on its way, so that a reset does not take our answer with it.
    async fn linger(mut self) {
        self.enter(Phase::Closing);
        let work = async {
            if self.stream.shutdown().await.is_err() {
                return;
            }
            let mut seen = 0;
            while seen < LINGER_BYTES {
                let held = self.inbound.filled().len();
                self.inbound.consume(held);
                let (inbound, stream) = (&mut self.inbound, &mut self.stream);
                match poll_fn(|cx| inbound.poll_fill(cx, stream, SMALL)).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => seen += read,
                }
            }
        };
        // Who does not close in time is closed upon.
        drop(tokio::time::timeout(LINGER_LIMIT, work).await);
    }
}

pub(crate) fn undialled(target: &Target, error: &DialError) -> Notice {
    match error {
        DialError::PortClosed { listening } => {
            let message = match target.to {
                DialTarget::Port(port) => format!("nothing listens on port {port} in the gitspace"),
                DialTarget::Workspace | DialTarget::Ssh => {
                    "the gitspace's own service does not answer".to_owned()
                }
            };
            let mut lines: Vec<String> = listening
                .iter()
                .take(MAX_LISTED)
                .map(|port| match &port.process {
                    Some(process) => format!("{} ({process})", port.port),
                    None => port.port.to_string(),
                })
                .collect();
            if listening.len() > MAX_LISTED {
                lines.push("more".to_owned());
            }
            let cause = if lines.is_empty() {
                "nothing listens there at all".to_owned()
            } else {
                format!("these ports are listened on: {}", lines.join(", "))
            };
            Notice::new(
                502,
                Problem::new("port_closed", message)
                    .cause(cause)
                    .hint("start the app, or open one of the ports that are listened on"),
            )
        }
        DialError::NotRunning => {
            let mut notice = Notice::new(
                503,
                Problem::new("gitspace_not_running", "the gitspace does not run")
                    .hint("start it with `gitspace start NAME`"),
            );
            notice.retry_after = Some(2);
            notice
        }
        DialError::Elsewhere => Notice::new(
            502,
            Problem::new("gitspace_unreachable", "the gitspace cannot be reached")
                .cause(error.to_string())
                .hint(
                    "on its host: `delegate-agent status` says under `tunnels` why there is none",
                ),
        ),
        DialError::Unreachable { cause } => Notice::new(
            502,
            Problem::new("gitspace_unreachable", "the gitspace cannot be reached")
                .cause(cause.clone())
                .hint("its host may be away; `gitspace delegate list` shows it"),
        ),
    }
}

fn broken(error: &ExchangeError) -> Notice {
    let status = match error {
        ExchangeError::ClientBody { .. } => 400,
        ExchangeError::ClientGone
        | ExchangeError::UpstreamClosed
        | ExchangeError::UpstreamIo { .. }
        | ExchangeError::BadAnswer { .. }
        | ExchangeError::AnswerBody { .. } => 502,
    };
    let code = if status == 400 {
        "bad_request"
    } else {
        "bad_answer"
    };
    let mut problem = Problem::new(code, error.to_string());
    if let Some(source) = std::error::Error::source(error) {
        problem = problem.cause(ErrorChain(source).to_string());
    }
    if status == 502 {
        problem = problem.hint("look at the app's own output");
    }
    Notice::new(status, problem)
}
