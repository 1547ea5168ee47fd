//! Taking secrets out of text that leaves the host.
//!
//! Secrets have no business in configuration files or logs, and are there all the same.

/// In the name of a key whose value is left out.
const SECRET_WORDS: [&str; 7] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "api_key",
    "private_key",
];
const LEFT_OUT: &str = "[left out]";
/// What is shorter after a prefix is a word, and no token.
const MIN_TOKEN: usize = 16;

/// A configuration file: values of keys that sound secret, passwords in URLs, and our own tokens. Keys that name a file keep their value.
///
/// It is read as TOML and written again, so that a secret in an inline table, an array or over several lines is found too; comments are
/// left out with it. What is no TOML is left out whole.
pub(crate) fn config(text: &str) -> String {
    let mut table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return format!("# not TOML, and left out: {}\n", error_without_text(&error)),
    };
    for (key, value) in &mut table {
        redact(key, value);
    }
    toml::to_string(&table).map_or_else(
        |error| format!("# cannot be written again, and left out: {error}\n"),
        |text| self::text(&text),
    )
}

/// The error's own words quote the file.
fn error_without_text(error: &toml::de::Error) -> String {
    error.span().map_or_else(
        || "it cannot be understood".to_owned(),
        |span| format!("it cannot be understood from byte {} on", span.start),
    )
}

fn redact(key: &str, value: &mut toml::Value) {
    match value {
        _ if is_secret(key) => *value = toml::Value::String(LEFT_OUT.to_owned()),
        toml::Value::Table(table) => {
            for (key, value) in table {
                redact(key, value);
            }
        }
        toml::Value::Array(items) => {
            for item in items {
                redact(key, item);
            }
        }
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names_a_place = ["_file", "_path", "_dir"]
        .iter()
        .any(|end| key.ends_with(end));
    !names_a_place && SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// Any text: passwords in URLs, and our own tokens.
pub(crate) fn text(text: &str) -> String {
    tokens(&urls(text))
}

/// `gsp_` and the like with what follows, without what follows.
fn tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = token::TokenKind::ALL
        .iter()
        .filter_map(|kind| Some((rest.find(kind.prefix())?, kind.prefix())))
        .min()
    {
        let (at, prefix) = found;
        let (before, from) = rest.split_at(at);
        let body = from.strip_prefix(prefix).unwrap_or_default();
        let end = body
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(body.len());
        out.push_str(before);
        out.push_str(prefix);
        if end >= MIN_TOKEN {
            out.push_str(LEFT_OUT);
        } else {
            out.push_str(body.split_at(end).0);
        }
        rest = body.split_at(end).1;
    }
    out.push_str(rest);
    out
}

/// `scheme://user:password@host` without what stands before the `@`.
fn urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let authority = after
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '`' | '<' | '>')
            })
            .map_or(after, |end| after.split_at(end).0);
        let host = match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(LEFT_OUT);
                out.push('@');
                host
            }
            None => authority,
        };
        out.push_str(host);
        rest = after.split_at(authority.len()).1;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sounds_secret_is_left_out_and_the_rest_stays() {
        let text = "name = \"host\"\nproxy = \"http://user:hunter2@proxy:3128\"\nproxy_password = \"hunter2\"\n[a]\n  \"api_token\"=\"hunter2\"\ngateway_token_file = \"/etc/t\"\nb = { password = \"hunter2\" }\nc = [{ secret = \"hunter2\" }]\nd_secret = \"\"\"\nhunter2\n\"\"\"\ne = [\"http://u:hunter2@h\"]\n";
        let out = config(text);
        assert!(!out.contains("hunter2"), "{out}");
        for kept in ["name = \"host\"", "@proxy:3128", "/etc/t"] {
            assert!(out.contains(kept), "{kept} is missing in {out}");
        }
    }

    #[test]
    fn what_is_no_toml_is_left_out_and_not_quoted() {
        let out = config("password hunter2\n");
        assert!(out.starts_with('#') && !out.contains("hunter2"), "{out}");
    }

    #[test]
    fn our_own_tokens_are_left_out_wherever_they_stand() {
        let secret = "a2".repeat(26);
        for kind in token::TokenKind::ALL {
            let prefix = kind.prefix();
            let out = text(&format!(
                "a {prefix}{secret}, and {prefix}word {prefix}{secret}"
            ));
            assert!(!out.contains(&secret), "{out}");
            assert!(out.contains(&format!("{prefix}word")), "{out}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_left_out_wherever_it_stands() {
        let out = urls(
            "tried https://a:b@x.y/z?q=1, then http://c@d and ws://e:f@g@h \"https://plain/p\"",
        );
        for secret in ["a:b", "c@d", "e:f"] {
            assert!(!out.contains(secret), "{secret} is in {out}");
        }
        assert!(
            out.contains("@x.y/z?q=1") && out.contains("https://plain/p"),
            "{out}"
        );
    }
}
