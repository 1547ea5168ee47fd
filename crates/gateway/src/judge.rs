//! What becomes of a request: the order of the checks, in one place and without I/O.
//!
//! Host, path, grant, origin, state of the gitspace: only what passed all of them is forwarded.

use crate::{
    answer::Question,
    authorize::{Access, Refusal, authorize, authorize_anybody},
    buttons::{back, introduction, start, stopped_page, visit},
    cookies,
    framing::Framing,
    gateway::Shared,
    page::Notice,
    path::{self, PathKind},
    request::{BadRequest, Request},
    site::Site,
    state_page::guests_page,
    tunnels::{Entering, enter},
};
use daemon::ErrorChain;
use jiff::Timestamp;
use std::{net::IpAddr, sync::Arc};
use url::Url;
use wire::{gitspace::GitspaceState, problem::Problem, runner::DialTarget, text::Slug, tunnel};

/// Grants in one request that are tried. A neighbour's app can put cookies of its own beside ours.
const MAX_TRIED: usize = 4;

/// What a connection remembers of its last request, so that the next one like it costs no look-up.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    host: Vec<u8>,
    site: Option<Arc<Site>>,
    token: Vec<u8>,
    access: Option<Arc<Access>>,
}

/// Who the client is, as it is told to apps.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    forwarded: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: IpAddr, scheme: &str) -> Self {
        let address = address.to_canonical();
        let node = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("\"[{v6}]\""),
        };
        Self {
            address,
            forwarded: format!(
                "x-forwarded-for: {address}\r\nx-forwarded-proto: {scheme}\r\nforwarded: for={node};host=\""
            )
            .into_bytes(),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Answer(Box<Notice>),
    /// A one-time code is to be exchanged.
    Open {
        site: Arc<Site>,
        code: String,
    },
    /// Somebody pressed the button that starts their gitspace.
    Start {
        grant: String,
        /// The page that they were on.
        back: String,
    },
    /// Its head for the app was written.
    Forward(Plan),
    /// A delegate opens a tunnel.
    Enter(Box<Entering>),
    /// Its gitspace does not run. What is here of the request is judged again when it does.
    Wait(Box<Wait>),
}

/// For a gitspace that is to be started.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) slug: Slug,
    /// Good for asking for the start.
    pub(crate) grant: Option<String>,
    /// A person sees how it goes, and does not wait for one answer.
    pub(crate) shown: bool,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) access: Arc<Access>,
    pub(crate) framing: Framing,
    pub(crate) question: Question,
    pub(crate) replayable: bool,
}

impl From<Notice> for Verdict {
    fn from(notice: Notice) -> Self {
        Self::Answer(Box::new(notice))
    }
}

pub(crate) fn bad_request(error: BadRequest) -> Notice {
    Notice::new(
        error.status(),
        Problem::new("bad_request", error.to_string()),
    )
}

/// Decides; where the request is forwarded, writes its head for the app into `out`.
pub(crate) fn judge(
    shared: &Shared,
    client: &Client,
    memo: &mut Memo,
    request: Request<'_, '_>,
    out: &mut Vec<u8>,
) -> Verdict {
    let Some(site) = memo.site(shared, request.host) else {
        if request.target == tunnel::PATH {
            return enter(shared, &request);
        }
        return Notice::new(
            421,
            Problem::new("unknown_host", "no gitspace is at this host").hint(format!(
                "gitspaces are at <name>.{0} and <port>--<name>.{0}",
                shared.domain.name()
            )),
        )
        .into();
    };
    match request.path_kind() {
        Err(error) => return bad_request(error).into(),
        Ok(PathKind::Open) => return open(&request, site),
        Ok(PathKind::Start) => {
            return match find_access(shared, memo, &site, &request) {
                Ok(access) if access.claims.is_guest => Notice::new(
                    403,
                    Problem::new("guest", "only its owner starts a gitspace"),
                )
                .into(),
                Ok(_) => start(&site, &request, &memo.token),
                // The page may have been open over night. What it is on signs in, and has the button again.
                Err(Refusal::Missing | Refusal::Expired | Refusal::Revoked)
                    if request.grant.is_none() =>
                {
                    match check_origin(&site, &request) {
                        Ok(()) => Notice::redirect(303, back(&request)).into(),
                        Err(notice) => notice.into(),
                    }
                }
                Err(refused) => refuse(shared, &site, &request, &refused).into(),
            };
        }
        Ok(PathKind::Visit) => return visit(shared, &site, &request).into(),
        Ok(PathKind::Own | PathKind::Climbs) => {
            return Notice::new(404, Problem::new("not_found", "there is no such page")).into();
        }
        Ok(PathKind::App) => {}
    }
    let access = match find_access(shared, memo, &site, &request) {
        Ok(access) => access,
        Err(refused) => return refuse(shared, &site, &request, &refused).into(),
    };
    if access.is_anybodys() {
        // Nothing is done by a right of the client's here, which another site could use.
        if let Some(notice) = introduction(shared, &access.route, &site, &request) {
            return notice.into();
        }
    } else if let Err(notice) = check_origin(&site, &request) {
        return notice.into();
    }
    if access.target.is_none() {
        return match wait(shared, &access, &memo.token, &request) {
            Some(wait) => Verdict::Wait(Box::new(wait)),
            None if access.claims.is_guest => guests_page(&access.route).into(),
            None => stopped_page(shared, &access.route, &request).into(),
        };
    }
    out.clear();
    request.write(out, &client.forwarded, shared.domain.scheme());
    Verdict::Forward(Plan {
        access,
        question: Question {
            is_head: request.is_head(),
            is_http10: request.is_http10(),
            upgrade: request.upgrade.is_some(),
            keep_alive: request.keep_alive,
        },
        replayable: request.is_replayable(),
        framing: request.framing,
    })
}

impl Memo {
    /// What the last request came with; nothing where anybody may come.
    pub(crate) fn token(&self) -> Option<&str> {
        std::str::from_utf8(&self.token).ok()
    }

    fn site(&mut self, shared: &Shared, host: &[u8]) -> Option<Arc<Site>> {
        if let Some(site) = &self.site
            && self.host == host
        {
            return Some(site.clone());
        }
        let site = Arc::new(shared.domain.site(host).ok()?);
        self.host = host.to_vec();
        self.site = Some(site.clone());
        self.access = None;
        Some(site)
    }

    /// The same grant for the same site while nothing has changed that could change the answer.
    fn access(&self, token: &[u8], revision: u64, now: Timestamp) -> Option<Arc<Access>> {
        self.access
            .as_ref()
            .filter(|access| {
                access.revision == revision && self.token == token && now < access.claims.exp
            })
            .cloned()
    }
}

fn find_access(
    shared: &Shared,
    memo: &mut Memo,
    site: &Site,
    request: &Request<'_, '_>,
) -> Result<Arc<Access>, Refusal> {
    let now = shared.clock.now();
    let revision = shared.known.revision();
    let mut refusal = None;
    let most = if request.grant.is_some() {
        0
    } else {
        MAX_TRIED
    };
    let cookies = request.cookie_grants(shared.domain.secure()).take(most);
    for token in request.grant.into_iter().chain(cookies) {
        if token == cookies::VISITOR.as_bytes() {
            continue;
        }
        if let Some(access) = memo.access(token, revision, now) {
            return Ok(access);
        }
        let checked = std::str::from_utf8(token)
            .map_err(|_| Refusal::Invalid {
                source: token::TokenError::Malformed,
            })
            .and_then(|token| authorize(&shared.known, &site.slug, site.to, token, now));
        match checked {
            Ok(access) => {
                let access = Arc::new(access);
                memo.token = token.to_vec();
                memo.access = Some(access.clone());
                return Ok(access);
            }
            Err(error) => {
                refusal.get_or_insert(error);
            }
        }
    }
    if let Some(access) = memo.access(b"", revision, now) {
        return Ok(access);
    }
    if let Some(access) = authorize_anybody(&shared.known, &site.slug, site.to, now) {
        let access = Arc::new(access);
        memo.token.clear();
        memo.access = Some(access.clone());
        return Ok(access);
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    match shared.known.read().gateway {
        None => Err(Refusal::NotConnected),
        Some(_) => Err(Refusal::Missing),
    }
}

/// A page of another site must not act here with the cookie that the browser adds.
pub(crate) fn check_origin(site: &Site, request: &Request<'_, '_>) -> Result<(), Notice> {
    let own = request
        .origin
        .map(|origin| origin == site.origin.as_bytes());
    let refused = |what: &str| {
        Err(Notice::new(
            403,
            Problem::new("origin_refused", what)
                .hint("open the gitspace's own page, or send the grant in a header"),
        ))
    };
    if request.upgrade.is_some() {
        return match own {
            Some(true) => Ok(()),
            None if request.grant.is_some() => Ok(()),
            None => refused("an upgrade by cookie needs this site's Origin"),
            Some(false) => refused("the upgrade comes from another site"),
        };
    }
    if request.is_safe() || request.grant.is_some() {
        return Ok(());
    }
    if own == Some(false) {
        return refused("the request comes from another site");
    }
    match request.fetch_site {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => refused("the request comes from another site"),
    }
}

fn refuse(shared: &Shared, site: &Site, request: &Request<'_, '_>, refused: &Refusal) -> Notice {
    let by_cookie = request.grant.is_none();
    let again = by_cookie
        && request.is_navigation()
        && matches!(
            refused,
            Refusal::Missing | Refusal::Expired | Refusal::Revoked | Refusal::NotShared
        );
    if again {
        let url = shared.known.read().authorize_url.clone();
        return match authorize_url(&url, site, request.target) {
            Some(url) => Notice::redirect(302, url),
            None => Notice::new(
                503,
                Problem::new(
                    "no_authorize_url",
                    "the control plane gave no page to sign in at",
                ),
            ),
        };
    }
    let (status, code) = match refused {
        Refusal::NotConnected => (503, "gateway_not_connected"),
        Refusal::Missing => (401, "grant_required"),
        Refusal::Invalid { .. } => (401, "grant_invalid"),
        Refusal::Expired => (401, "grant_expired"),
        Refusal::Revoked => (401, "grant_revoked"),
        Refusal::OtherGateway => (403, "grant_other_gateway"),
        Refusal::OtherGitspace => (403, "grant_other_gitspace"),
        Refusal::OtherPort => (403, "grant_other_port"),
        Refusal::NotShared => (403, "port_not_shared"),
        Refusal::NoGitspace => (404, "gitspace_not_found"),
    };
    let mut problem = Problem::new(code, refused.to_string());
    if let Some(source) = std::error::Error::source(refused) {
        problem = problem.cause(ErrorChain(source).to_string());
    }
    problem = match refused {
        Refusal::NotConnected => {
            problem.hint("wait a moment; if it lasts, ask whether the control plane runs")
        }
        Refusal::NotShared => problem.hint("ask whoever gave you the link"),
        Refusal::NoGitspace => {
            problem.hint("it may have been deleted; `gitspace list` shows yours")
        }
        Refusal::Missing
        | Refusal::Invalid { .. }
        | Refusal::Expired
        | Refusal::Revoked
        | Refusal::OtherGateway
        | Refusal::OtherGitspace
        | Refusal::OtherPort => problem.hint(
            "open it again in a browser, or with `gitspace url NAME --login` where it is yours",
        ),
    };
    let mut notice = Notice::new(status, problem);
    if matches!(refused, Refusal::NotConnected) {
        notice.retry_after = Some(2);
    }
    notice
}

fn authorize_url(base: &str, site: &Site, target: &str) -> Option<String> {
    let mut url = Url::parse(base)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))?;
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("gitspace", site.slug.as_str());
        if let DialTarget::Port(port) = site.to {
            query.append_pair("port", &port.to_string());
        }
        // What would not be gone back to is not asked for.
        query.append_pair("return", if path::is_local(target) { target } else { "/" });
    }
    Some(url.into())
}

fn open(request: &Request<'_, '_>, site: Arc<Site>) -> Verdict {
    if request.method != "GET" || !request.framing.is_done() {
        return bad_request(BadRequest::Method("anything but GET")).into();
    }
    let query = path::split(request.target).1.unwrap_or_default();
    let code = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, value)| name == "code" && !value.is_empty() && value.len() <= 256);
    match code {
        Some((_, code)) => Verdict::Open {
            site,
            code: code.into_owned(),
        },
        None => Notice::new(
            400,
            Problem::new("code_missing", "the link has no code")
                .hint("open the gitspace again from its page or with `gitspace url NAME --login`"),
        )
        .into(),
    }
}

/// Whether the request waits for the start of its gitspace: see [`crate::wake`].
fn wait(shared: &Shared, access: &Access, token: &[u8], request: &Request<'_, '_>) -> Option<Wait> {
    let route = &access.route;
    if access.claims.is_guest || !shared.known.read().wakes {
        return None;
    }
    let shown = request.grant.is_none() && request.is_navigation();
    let asks = request.wakes && (request.grant.is_some() || (shown && request.is_opened()));
    let grant = std::str::from_utf8(token)
        .ok()
        .filter(|_| asks)
        .map(str::to_owned);
    let waits = match route.state {
        GitspaceState::Starting => true,
        GitspaceState::Stopped | GitspaceState::Uninitialized => grant.is_some(),
        GitspaceState::Running
        | GitspaceState::Stopping
        | GitspaceState::Resetting
        | GitspaceState::Deleting
        | GitspaceState::Deleted
        | GitspaceState::Error => false,
    };
    waits.then(|| Wait {
        slug: route.slug.clone(),
        grant,
        shown,
    })
}
