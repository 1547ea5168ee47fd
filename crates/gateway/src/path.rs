//! What a request's path is to the gateway, in every spelling that an app might read the same way.

/// Paths under it are the gateway's own.
const OWN: &str = ".gitspaces";
/// Where a one-time code is exchanged for the cookie.
const OPEN: &str = "/.gitspaces/open";
/// Where the button of a page has its gitspace started.
pub(crate) const START: &str = "/.gitspaces/start";
/// Where the button of a page says that whoever pressed it wants to see what somebody shares.
pub(crate) const VISIT: &str = "/.gitspaces/visit";
/// How often an app might decode a path.
const DECODINGS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// The app's.
    App,
    /// `/.gitspaces/open`.
    Open,
    /// `/.gitspaces/start`.
    Start,
    /// `/.gitspaces/visit`.
    Visit,
    /// Anything else under `/.gitspaces/`, however it is spelled.
    Own,
    /// It climbs with `..`, which no client that follows the URL standard sends.
    Climbs,
}

/// Splits a request target into path and query.
pub(crate) fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        None => (target, None),
        Some((path, query)) => (path, Some(query)),
    }
}

pub(crate) fn kind(path: &str) -> PathKind {
    let bytes = path.as_bytes();
    let plain = !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\' | b';'))
        && !bytes.windows(2).any(|pair| pair == b"/.");
    if plain {
        return PathKind::App;
    }
    if path == OPEN {
        return PathKind::Open;
    }
    if path == START {
        return PathKind::Start;
    }
    if path == VISIT {
        return PathKind::Visit;
    }
    let climbs = path
        .split(['/', '\\'])
        .any(|segment| matches!(decode(segment.as_bytes()).as_slice(), b".."));
    if climbs {
        return PathKind::Climbs;
    }
    let mut spelled = bytes.to_vec();
    for _ in 0..DECODINGS {
        if is_own(&spelled) {
            return PathKind::Own;
        }
        let decoded = decode(&spelled);
        if decoded == spelled {
            return PathKind::App;
        }
        spelled = decoded;
    }
    // Nobody needs so many layers.
    PathKind::Own
}

fn is_own(path: &[u8]) -> bool {
    let mut first: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or(segment);
        match name {
            b"" | b"." => {}
            b".." => {
                first.pop();
            }
            other => first.push(other),
        }
    }
    first.first().is_some_and(|segment| {
        let end = segment
            .iter()
            .rposition(|byte| !matches!(byte, b'.' | b' ' | b'\t' | 0))
            .map_or(0, |last| last + 1);
        segment
            .get(..end)
            .is_some_and(|name| name.eq_ignore_ascii_case(OWN.as_bytes()))
    })
}

fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%'
            && let [high, low, ..] = after
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push(high * 16 + low);
            rest = after.get(2..).unwrap_or_default();
        } else {
            decoded.push(*byte);
            rest = after;
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Whether it is a path and query on this very origin, for a redirect: one slash, then nothing that a browser reads as another host.
pub(crate) fn is_local(target: &str) -> bool {
    let mut bytes = target.bytes();
    bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && target
            .bytes()
            .all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apps_paths_are_the_apps() {
        for path in [
            "/",
            "/a/b.html",
            "/.well-known/x",
            "/a/.gitspaces/open",
            "/gitspaces/open",
            "/.gitspacesx",
            "/a%20b",
            "/a%2Fb",
            "/x;y=z",
            "/%E2%98%83",
            "/...",
            "/100%",
        ] {
            assert_eq!(kind(path), PathKind::App, "{path}");
        }
    }

    #[test]
    fn our_own_paths_are_ours_in_every_spelling() {
        assert_eq!(kind("/.gitspaces/open"), PathKind::Open);
        for path in [
            "/.gitspaces",
            "/.gitspaces/",
            "/.gitspaces/x",
            "/.gitspaces/open/",
            "/.GitSpaces/open",
            "//.gitspaces/open",
            "/./.gitspaces/open",
            "/%2egitspaces/open",
            "/%2Egitspaces/open",
            "/.%67itspaces/open",
            "/%252egitspaces/open",
            "/%25252egitspaces/open",
            "/%2f.gitspaces/open",
            "/.gitspaces%2fopen",
            "/.gitspaces%5copen",
            "/\\.gitspaces/open",
            "/.gitspaces\\open",
            "/.gitspaces;x/open",
            "/.gitspaces./open",
            "/.gitspaces%00/open",
            "/x%2f..%2f.gitspaces/open",
        ] {
            assert_eq!(kind(path), PathKind::Own, "{path}");
        }
    }

    #[test]
    fn a_path_that_climbs_is_seen() {
        for path in [
            "/..",
            "/../x",
            "/a/../b",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/a\\..\\b",
            "/x/../.gitspaces/open",
        ] {
            assert_eq!(kind(path), PathKind::Climbs, "{path}");
        }
    }

    #[test]
    fn only_a_path_on_this_origin_is_local() {
        for good in ["/", "/a?b=//c", "/a//b", "/?next=https://x"] {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "//evil",
            "/\\evil",
            "\\/evil",
            "/\t/evil",
            "/\n/evil",
            "/a\r\nSet-Cookie: x",
            "http://evil",
            "javascript:x",
            " /",
            "/ x",
            "/a\\b",
            "/\u{e9}",
            "@evil",
            "?x",
            "/\0",
        ] {
            assert!(!is_local(bad), "{bad:?}");
        }
    }
}
