//! What apps and browsers say about cookies, and what of it passes.
//!
//! A browser keeps cookies by name and host, whatever the port, and gives a cookie with `Domain` to every host below that
//! domain: to other gitspaces and to the control plane. So an app's cookies are its own host's alone, and the cookie that
//! holds a grant is nobody's but ours:
//!
//! - `Domain` is taken out of every `Set-Cookie`. What an app sets with it, it clears with it: both reach the same cookie.
//! - A `Set-Cookie` with one of our names, in any case and behind any `__…-` prefix, is dropped. So is one without a name: of such
//!   a cookie a browser sends the value alone, and `=gitspaces-grant=x` comes back as `gitspaces-grant=x`.
//! - `Clear-Site-Data` loses `"cookies"`: browsers clear those of the whole registrable domain, with everybody's sessions.
//!
//! What a page's script does with `document.cookie` does not come by here: `__Host-` holds there, and therefore no other
//! name is believed where there is TLS.
//!
//! Control characters need no rule here: a head with one is refused as a whole.

use crate::{headers::tokens, request::line};

/// Its name over TLS: browsers take it from its very host alone, without `Domain`.
const SECURE_NAME: &str = "__Host-gitspaces";
/// Its name without TLS, where browsers refuse the prefix.
const PLAIN_NAME: &str = "gitspaces-grant";

/// In place of a grant: this browser's user knows that the port is somebody's who shares it with everybody.
pub(crate) const VISITOR: &str = "visitor";

/// What an app may clear. All of it is kept by origin.
const CLEARABLE: [&str; 6] = [
    r#""cache""#,
    r#""clientHints""#,
    r#""executionContexts""#,
    r#""prefetchCache""#,
    r#""prerenderCache""#,
    r#""storage""#,
];

/// The name of the cookie that holds a grant.
pub(crate) fn grant_cookie(secure: bool) -> &'static str {
    if secure { SECURE_NAME } else { PLAIN_NAME }
}

/// The `Set-Cookie` that keeps a grant, or [`VISITOR`].
pub(crate) fn keep(grant: &str, seconds: i64, secure: bool) -> String {
    let name = grant_cookie(secure);
    let attribute = if secure { "; Secure" } else { "" };
    format!("{name}={grant}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{attribute}")
}

/// The grants in one `Cookie` field, in their order. Names are compared to the letter, as browsers do.
pub(crate) fn grants(value: &[u8], secure: bool) -> impl Iterator<Item = &[u8]> {
    let ours = grant_cookie(secure).as_bytes();
    pairs(value)
        .filter_map(move |pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, grant) = (pair.get(..equals)?, pair.get(equals + 1..)?);
            (name.trim_ascii() == ours).then(|| grant.trim_ascii())
        })
        .filter(|grant| !grant.is_empty())
}

/// Writes the cookies of a request that are not ours; no line where none is left.
pub(crate) fn write_cookie(out: &mut Vec<u8>, value: &[u8]) {
    if !mentions_us(value) {
        line(out, "cookie", value);
        return;
    }
    let mut before: &[u8] = b"cookie: ";
    for pair in pairs(value).map(<[u8]>::trim_ascii) {
        if pair.is_empty() || is_reserved(name_of(pair)) {
            continue;
        }
        out.extend_from_slice(before);
        out.extend_from_slice(pair);
        before = b"; ";
    }
    if before == b"; " {
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes what an app may set of its `Set-Cookie`; no line where that is nothing.
pub(crate) fn write_set_cookie(out: &mut Vec<u8>, field: &str, value: &[u8]) {
    let mut parts = pairs(value);
    let pair = parts.next().unwrap_or_default();
    let name = name_of(pair);
    if name.is_empty() || !pair.contains(&b'=') || is_reserved(name) {
        return;
    }
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(pair);
    for attribute in parts.filter(|part| !name_of(part).eq_ignore_ascii_case(b"domain")) {
        out.push(b';');
        out.extend_from_slice(attribute);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes what an app may clear of its `Clear-Site-Data`; no line where that is nothing. Directives we do not know may be
/// of any reach, and do not pass.
pub(crate) fn write_clear_site_data(out: &mut Vec<u8>, field: &str, value: &[u8]) {
    let all = tokens(value).any(|token| token == br#""*""#);
    let cleared: Vec<&str> = CLEARABLE
        .into_iter()
        .filter(|known| all || tokens(value).any(|token| token == known.as_bytes()))
        .collect();
    if !cleared.is_empty() {
        line(out, field, cleared.join(", ").as_bytes());
    }
}

fn pairs(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b';')
}

/// What is before the first `=`, or all.
fn name_of(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=')
        .next()
        .unwrap_or(pair)
        .trim_ascii()
}

/// Whether a cookie of this name is ours or made to look like it. What browsers make of a prefix differs, also in its case.
fn is_reserved(name: &[u8]) -> bool {
    [b"gitspaces".as_slice(), PLAIN_NAME.as_bytes()]
        .iter()
        .any(|ours| {
            name.len()
                .checked_sub(ours.len())
                .and_then(|at| name.split_at_checked(at))
                .is_some_and(|(prefix, rest)| {
                    rest.eq_ignore_ascii_case(ours)
                        && (prefix.is_empty()
                            || (prefix.starts_with(b"__") && prefix.ends_with(b"-")))
                })
        })
}

fn mentions_us(value: &[u8]) -> bool {
    let ours = b"gitspaces";
    value
        .windows(ours.len())
        .any(|window| window.eq_ignore_ascii_case(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: &str) -> String {
        let mut out = Vec::new();
        write_set_cookie(&mut out, "Set-Cookie", value.as_bytes());
        String::from_utf8(out).unwrap()
    }

    fn cleared(value: &str) -> String {
        let mut out = Vec::new();
        write_clear_site_data(&mut out, "Clear-Site-Data", value.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_apps_cookie_for_its_own_host_passes_to_the_letter() {
        for value in [
            "a=1",
            "a=",
            "a=b=c",
            " a = 1 ; Path=/ ;HttpOnly",
            "__Host-a=1; Secure; Path=/",
            "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Max-Age=60; SameSite=None; Secure; Partitioned",
            "a=gitspaces-grant",
            "a=1;;",
            "domain=localhost; Path=/",
            "gitspaces-session=inner; Path=/",
            "gitspaces-grants=1",
            "my-gitspaces=1",
            "_-gitspaces=1",
            "a=1; Path=/domain=x",
            "a=1; Domains=x",
        ] {
            assert_eq!(set(value), format!("Set-Cookie: {value}\r\n"));
        }
    }

    #[test]
    fn a_cookie_never_reaches_beyond_its_host() {
        for (value, passed) in [
            ("a=1; Domain=localhost", "a=1"),
            ("a=1;Domain=.localhost;Path=/", "a=1;Path=/"),
            ("a=1; dOmAiN=localhost", "a=1"),
            ("a=1; \t Domain \t = localhost; Secure", "a=1; Secure"),
            ("a=1; Domain", "a=1"),
            ("a=1; Domain=", "a=1"),
            (
                "a=1; Domain=8000--demo-ab12cd.localhost; Domain=localhost",
                "a=1",
            ),
            (
                "a=1; Domain=localhost; Path=/; Domain=demo.localhost; Secure",
                "a=1; Path=/; Secure",
            ),
            ("a=1;;Domain=localhost;;", "a=1;;;"),
            ("a=\"x; Domain=localhost\"", "a=\"x"),
            ("domain=1; Domain=localhost", "domain=1"),
            ("a=1; Domain==localhost", "a=1"),
            (
                "a=; Max-Age=0; Domain=example.com; Path=/",
                "a=; Max-Age=0; Path=/",
            ),
        ] {
            assert_eq!(set(value), format!("Set-Cookie: {passed}\r\n"), "{value}");
        }
    }

    #[test]
    fn nothing_sets_or_clears_our_cookie() {
        for value in [
            "gitspaces-grant=x",
            "gitspaces-grant=; Max-Age=0",
            "gitspaces-grant=x; Path=/deep",
            "gitspaces-grant",
            "\tgitspaces-grant\t=x",
            "Gitspaces-Grant=x",
            "__Host-gitspaces=x; Secure; Path=/",
            "__host-GITSPACES=x",
            "__Secure-gitspaces=x",
            "__Secure-gitspaces-grant=x",
            "__Host-gitspaces-grant=x",
            "__Host-Http-gitspaces=x",
            "__Host-__Secure-gitspaces=x",
            "gitspaces=x",
            // A browser sends the value of these, and no more.
            "=gitspaces-grant=x",
            " \t= gitspaces-grant=x",
            "==gitspaces-grant=x",
            "=__Host-gitspaces=x",
            "=x",
            "nameless",
            "",
            ";",
            "; gitspaces-grant=x",
        ] {
            assert_eq!(set(value), "", "{value}");
        }
    }

    #[test]
    fn an_app_clears_what_is_kept_by_origin_and_no_cookies() {
        for (value, passed) in [
            (r#""cache""#, r#""cache""#),
            (r#""storage", "cookies""#, r#""storage""#),
            (r#""storage","cookies","cache""#, r#""cache", "storage""#),
            (
                r#""*""#,
                r#""cache", "clientHints", "executionContexts", "prefetchCache", "prerenderCache", "storage""#,
            ),
        ] {
            assert_eq!(
                cleared(value),
                format!("Clear-Site-Data: {passed}\r\n"),
                "{value}"
            );
        }
        for value in [
            r#""cookies""#,
            r#" "cookies" , "cookies""#,
            r#""Cookies""#,
            "cookies",
            "*",
            r#""cookies"; x"#,
            r#""\cookies""#,
            r#""storage:cookies""#,
            r#""new""#,
            "",
        ] {
            assert_eq!(cleared(value), "", "{value}");
        }
    }

    #[test]
    fn a_grant_is_taken_from_the_one_name_that_we_set() {
        let cookies = b"a=1; gitspaces-grant=plain; __Host-gitspaces=secure; Gitspaces-Grant=x; __host-gitspaces=x;  gitspaces-grant = second ;gitspaces-grant=; =gitspaces-grant=x; gitspaces-grant";
        let of = |secure| grants(cookies, secure).collect::<Vec<_>>();
        assert_eq!(of(false), [b"plain".as_slice(), b"second"]);
        assert_eq!(of(true), [b"secure"]);
    }

    #[test]
    fn an_app_never_gets_our_cookie_in_any_spelling() {
        for (value, passed) in [
            ("a=1;b=2", "cookie: a=1;b=2\r\n"),
            (
                "a=1; gitspaces-grant=x;b=gitspaces ; __Host-gitspaces=y",
                "cookie: a=1; b=gitspaces\r\n",
            ),
            ("GITSPACES-GRANT=x", ""),
            ("gitspaces-grant; __Secure-gitspaces-grant=x", ""),
            (
                "gitspaces-session=inner",
                "cookie: gitspaces-session=inner\r\n",
            ),
        ] {
            let mut out = Vec::new();
            write_cookie(&mut out, value.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), passed, "{value}");
        }
    }
}
