//! Pages with a button, and what pressing it does: the start of a gitspace, and the visit of a port that somebody shares.
//!
//! Only a page of the same site presses one: a form of another site's is refused by its origin.

use crate::{
    cookies,
    gateway::Shared,
    judge::{Verdict, bad_request, check_origin},
    page::{Button, Notice},
    path,
    request::{BadRequest, Request},
    site::Site,
    state_page::state_page,
};
use wire::{gateway::Route, gitspace::GitspaceState, problem::Problem, runner::DialTarget};

/// That a browser remembers whose port it visits, in seconds: 30 days.
const VISIT_S: i64 = 30 * 24 * 3600;

/// The grant is of somebody who may enter.
pub(crate) fn start(site: &Site, request: &Request<'_, '_>, grant: &[u8]) -> Verdict {
    if request.method != "POST" || !request.framing.is_done() {
        return bad_request(BadRequest::Button).into();
    }
    if let Err(notice) = check_origin(site, request) {
        return notice.into();
    }
    let back = back(request);
    // It was parsed, and so is text.
    let grant = String::from_utf8_lossy(grant).into_owned();
    Verdict::Start { grant, back }
}

/// Somebody has seen whose port it is, and goes on.
pub(crate) fn visit(shared: &Shared, site: &Site, request: &Request<'_, '_>) -> Notice {
    if request.method != "POST" || !request.framing.is_done() {
        return bad_request(BadRequest::Button);
    }
    if let Err(notice) = check_origin(site, request) {
        return notice;
    }
    let mut notice = Notice::redirect(303, back(request));
    let secure = shared.domain.secure();
    notice.cookie = Some(cookies::keep(cookies::VISITOR, VISIT_S, secure));
    notice
}

/// The page that a person sees before what somebody shares with everybody: whose it is. `None` where they have seen it, or nobody looks.
pub(crate) fn introduction(
    shared: &Shared,
    route: &Route,
    site: &Site,
    request: &Request<'_, '_>,
) -> Option<Notice> {
    let DialTarget::Port(port) = site.to else {
        return None;
    };
    let mut cookies = request.cookie_grants(shared.domain.secure());
    if !request.is_navigation() || cookies.any(|cookie| cookie == cookies::VISITOR.as_bytes()) {
        return None;
    }
    let Route { name, owner, .. } = route;
    let problem = Problem::new(
        "shared_port",
        format!("`{owner}` shares port {port} of the gitspace `{name}` with everybody"),
    )
    .cause("what you will see was made by them, and nobody has looked at it")
    .hint("give it no password that you use elsewhere");
    let mut notice = Notice::new(200, problem);
    notice.button = Some(button("Go on", path::VISIT, request));
    Some(notice)
}

/// [`state_page`], with a button where a person can have the gitspace started.
pub(crate) fn stopped_page(shared: &Shared, route: &Route, request: &Request<'_, '_>) -> Notice {
    let mut notice = state_page(route);
    let can_start = matches!(
        route.state,
        GitspaceState::Stopped | GitspaceState::Uninitialized | GitspaceState::Error
    );
    if can_start && shared.known.read().starts && request.grant.is_none() && request.is_navigation()
    {
        notice.button = Some(button("Start it", path::START, request));
    }
    notice
}

/// Posts to `action`, and comes back to what was asked for.
fn button(label: &'static str, action: &str, request: &Request<'_, '_>) -> Button {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if path::is_local(request.target) {
        query.append_pair("return", request.target);
    }
    Button {
        label,
        action: format!("{action}?{}", query.finish()),
    }
}

/// Where a button's form leads back to.
pub(crate) fn back(request: &Request<'_, '_>) -> String {
    let query = path::split(request.target).1.unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, back)| name == "return" && path::is_local(back))
        .map_or_else(|| "/".to_owned(), |(_, back)| back.into_owned())
}
