//! Which header fields pass, in each direction.

/// What becomes of one field of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// Passed on as it came.
    Pass,
    /// Taken away, or written anew by us.
    Drop,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    Te,
    Cookie,
    Origin,
    FetchSite,
    FetchMode,
    FetchDest,
    Purpose,
    Accept,
    /// Our own grant.
    Grant,
    /// Whether the client wants what does not run to be started.
    Wake,
}

/// Fields that apps trust as written by their proxy. An underscore is a hyphen to many of them.
fn is_managed(name: &[u8]) -> bool {
    let starts = |prefix: &[u8]| {
        name.get(..prefix.len())
            .is_some_and(|start| same(start, prefix))
    };
    starts(b"x-forwarded")
        || starts(b"gitspaces-")
        || starts(b"x-gitspaces-")
        || [
            b"forwarded".as_slice(),
            b"x-real-ip",
            b"x-client-ip",
            b"x-cluster-client-ip",
            b"true-client-ip",
            b"x-original-host",
            b"x-original-url",
            b"x-rewrite-url",
        ]
        .iter()
        .any(|managed| same(name, managed))
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    [
        b"connection".as_slice(),
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    ]
    .iter()
    .any(|hop| same(name, hop))
}

/// Equal but for case, and for `_` in `name` where `wanted` has `-`.
fn same(name: &[u8], wanted: &[u8]) -> bool {
    name.len() == wanted.len()
        && name.iter().zip(wanted).all(|(byte, wanted)| {
            let byte = if *byte == b'_' { b'-' } else { *byte };
            byte.eq_ignore_ascii_case(wanted)
        })
}

pub(crate) fn request_field(name: &str) -> Field {
    let bytes = name.as_bytes();
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    // The length tells most apart before any comparison.
    let known = match bytes.len() {
        2 if is("te") => Some(Field::Te),
        4 if is("host") => Some(Field::Host),
        6 if is("cookie") => Some(Field::Cookie),
        6 if is("origin") => Some(Field::Origin),
        6 if is("accept") => Some(Field::Accept),
        6 if is("expect") => Some(Field::Expect),
        7 if is("upgrade") => Some(Field::Upgrade),
        10 if is("connection") => Some(Field::Connection),
        14 if is("content-length") => Some(Field::ContentLength),
        14 if is("sec-fetch-site") => Some(Field::FetchSite),
        14 if is("sec-fetch-mode") => Some(Field::FetchMode),
        14 if is("sec-fetch-dest") => Some(Field::FetchDest),
        11 if is("sec-purpose") => Some(Field::Purpose),
        14 if is(wire::gateway::WAKE_HEADER) => Some(Field::Wake),
        15 if is(wire::gateway::GRANT_HEADER) => Some(Field::Grant),
        17 if is("transfer-encoding") => Some(Field::TransferEncoding),
        _ => None,
    };
    if let Some(field) = known {
        return field;
    }
    let first = bytes.first().map(u8::to_ascii_lowercase);
    let underscored = bytes.contains(&b'_');
    let suspicious =
        underscored || matches!(first, Some(b'x' | b'f' | b'g' | b't' | b'k' | b'p' | b'h'));
    if suspicious && (is_managed(bytes) || is_hop_by_hop(bytes) || (underscored && is_twin(bytes)))
    {
        return Field::Drop;
    }
    Field::Pass
}

/// The underscore twin of a field that frames, routes or identifies.
fn is_twin(name: &[u8]) -> bool {
    [
        b"content-length".as_slice(),
        b"host",
        b"cookie",
        b"sec-fetch-site",
        b"content-type",
    ]
    .iter()
    .any(|field| same(name, field))
}

/// What becomes of one field of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerField {
    Pass,
    /// Taken away, or written anew by us.
    Drop,
    SetCookie,
    ClearSiteData,
}

pub(crate) fn answer_field(name: &str) -> AnswerField {
    match name.len() {
        10 if name.eq_ignore_ascii_case("set-cookie") => AnswerField::SetCookie,
        14 if name.eq_ignore_ascii_case("content-length") => AnswerField::Drop,
        15 if name.eq_ignore_ascii_case("clear-site-data") => AnswerField::ClearSiteData,
        _ if is_hop_by_hop(name.as_bytes()) => AnswerField::Drop,
        _ => AnswerField::Pass,
    }
}

pub(crate) fn may_be_trailer(name: &[u8]) -> bool {
    let framing = [
        b"content-length".as_slice(),
        b"host",
        b"cookie",
        b"set-cookie",
        b"authorization",
        b"trailer",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"expect",
        b"origin",
    ];
    !(is_managed(name) || is_hop_by_hop(name) || framing.iter().any(|field| same(name, field)))
}

/// Tokens of a comma-separated list.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_app_trusts_its_proxy_for_is_dropped_in_every_spelling() {
        for name in [
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded_Proto",
            "x-forwarded-anything",
            "Forwarded",
            "X-Real-IP",
            "x_real_ip",
            "gitspaces_grant",
            "Gitspaces-User",
            "X-Gitspaces-User",
            "content_length",
            "Transfer_Encoding",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authorization",
            "HTTP2-Settings",
        ] {
            assert_eq!(request_field(name), Field::Drop, "{name}");
        }
    }

    #[test]
    fn ordinary_fields_pass() {
        for name in [
            "User-Agent",
            "Authorization",
            "X-Requested-With",
            "x_custom",
            "Trailer",
            "Sec-WebSocket-Key",
            "Range",
            "If-None-Match",
            "Forward",
        ] {
            assert_eq!(request_field(name), Field::Pass, "{name}");
        }
    }
}
