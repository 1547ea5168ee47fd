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

/// A configuration file: values of keys that sound secret, and passwords in URLs. Keys that name a file keep their value.
pub(crate) fn config(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        match line.split_once('=') {
            Some((key, _)) if is_secret(key) => {
                out.push_str(key);
                out.push_str("= \"");
                out.push_str(LEFT_OUT);
                out.push('"');
            }
            _ => out.push_str(&urls(line)),
        }
        out.push('\n');
    }
    out
}

fn is_secret(key: &str) -> bool {
    let key = key.trim().to_ascii_lowercase();
    let names_a_place = ["_file", "_path", "_dir"]
        .iter()
        .any(|end| key.trim_matches('"').ends_with(end));
    !names_a_place && SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// `scheme://user:password@host` without what stands before the `@`, and opaque tokens of ours.
pub(crate) fn urls(text: &str) -> String {
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
        let text = "name = \"host\"\nproxy = \"http://user:hunter2@proxy:3128\"\nproxy_password = \"hunter2\"\n[a]\n  \"api_token\"=\"hunter2\"\ngateway_token_file = \"/etc/t\"\n";
        let out = config(text);
        assert!(!out.contains("hunter2"), "{out}");
        for kept in ["name = \"host\"", "@proxy:3128", "/etc/t", "[a]"] {
            assert!(out.contains(kept), "{kept} is missing in {out}");
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
