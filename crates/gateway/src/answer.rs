//! An app's answer: its head, read strictly and written anew.

use crate::{
    cookies,
    framing::Framing,
    headers::{AnswerField, answer_field, tokens},
    request::{content_length_of, line},
};
use std::mem::MaybeUninit;

/// Largest head of an answer, in bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    #[error("the answer is not HTTP/1.1")]
    Syntax,
    #[error("the head of the answer has more than {MAX_HEAD} bytes or {MAX_FIELDS} fields")]
    TooLarge,
    #[error("the answer says in two ways how long it is")]
    Length,
    #[error("the answer's Transfer-Encoding is not `chunked`")]
    TransferEncoding,
    #[error("the answer switches protocols without being asked")]
    Unasked,
    #[error("too many interim answers")]
    TooManyInterim,
}

/// What the question was, as far as it decides how the answer is read and passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) is_head: bool,
    pub(crate) is_http10: bool,
    pub(crate) upgrade: bool,
    /// Whether the client's connection stays open after the answer, as far as we know.
    pub(crate) keep_alive: bool,
}

#[derive(Debug)]
pub(crate) enum Answer {
    /// 1xx but 101: another answer follows.
    Interim,
    /// 101: what follows is the other protocol.
    Switch,
    Final {
        status: u16,
        framing: Framing,
        /// Whether the app's connection can take another request after this.
        upstream_stays: bool,
        client_stays: bool,
    },
}

/// Reads a head from `bytes` and writes what the client gets to `out`. `None` where it is not whole, else its length.
pub(crate) fn pass(
    bytes: &[u8],
    question: Question,
    out: &mut Vec<u8>,
) -> Result<Option<(usize, Answer)>, BadAnswer> {
    let mut room = [MaybeUninit::uninit(); MAX_FIELDS];
    let mut raw = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut raw, bytes, &mut room);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(BadAnswer::TooLarge),
        Err(_) => return Err(BadAnswer::Syntax),
    };
    let (Some(status), Some(version)) = (raw.code, raw.version) else {
        return Err(BadAnswer::Syntax);
    };
    let fields = Fields::read(raw.headers)?;
    let answer = match status {
        101 if question.upgrade => Answer::Switch,
        101 => return Err(BadAnswer::Unasked),
        100..=199 => Answer::Interim,
        200..=999 => {
            let bodyless = question.is_head || matches!(status, 204 | 304);
            let framing = match (bodyless, fields.chunked, fields.length) {
                (true, _, _) => Framing::Done,
                (false, true, _) if version == 0 || question.is_http10 => {
                    return Err(BadAnswer::TransferEncoding);
                }
                (false, true, _) => Framing::chunked(),
                (false, false, Some(length)) => Framing::length(length),
                (false, false, None) => Framing::UntilEnd,
            };
            let delimited = !matches!(framing, Framing::UntilEnd);
            Answer::Final {
                status,
                upstream_stays: delimited
                    && version == 1
                    && !question.is_http10
                    && !fields.close
                    && !(fields.chunked && fields.length.is_some()),
                // What a client sent before it knew that it would not be switched may be anything.
                client_stays: delimited && question.keep_alive && !question.upgrade,
                framing,
            }
        }
        _ => return Err(BadAnswer::Syntax),
    };
    if matches!(answer, Answer::Interim) && question.is_http10 {
        return Ok(Some((length, answer)));
    }
    write_status(out, status, raw.reason.unwrap_or_default());
    for field in raw.headers.iter() {
        if fields.nominates && fields.is_nominated(raw.headers, field.name) {
            continue;
        }
        match answer_field(field.name) {
            AnswerField::Pass => line(out, field.name, field.value),
            AnswerField::Drop => {}
            AnswerField::SetCookie => cookies::write_set_cookie(out, field.name, field.value),
            AnswerField::ClearSiteData => {
                cookies::write_clear_site_data(out, field.name, field.value);
            }
        }
    }
    match &answer {
        Answer::Interim => {}
        Answer::Switch => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            for field in raw.headers.iter() {
                if field.name.eq_ignore_ascii_case("upgrade") {
                    line(out, "upgrade", field.value);
                }
            }
        }
        Answer::Final {
            framing,
            client_stays,
            ..
        } => {
            match (framing, fields.length) {
                (Framing::Chunked(_), _) => {
                    out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                }
                // Of a bodyless answer it is what a GET would have had.
                (_, Some(length)) if !fields.chunked && status != 204 => {
                    write_length(out, length);
                }
                _ => {}
            }
            if !client_stays {
                out.extend_from_slice(b"connection: close\r\n");
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some((length, answer)))
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    use std::io::Write as _;
    out.extend_from_slice(b"content-length: ");
    // A Vec takes every write.
    drop(write!(out, "{length}"));
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn write_status(out: &mut Vec<u8>, status: u16, reason: &str) {
    use std::io::Write as _;
    if status == 200 && reason == "OK" {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    drop(write!(out, "HTTP/1.1 {status:03} {reason}\r\n"));
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    nominates: bool,
}

impl Fields {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, BadAnswer> {
        let mut read = Self::default();
        for field in fields {
            let name = field.name;
            match name.len() {
                14 if name.eq_ignore_ascii_case("content-length") => {
                    let length = content_length_of(field.value).ok_or(BadAnswer::Length)?;
                    if read.length.is_some_and(|known| known != length) {
                        return Err(BadAnswer::Length);
                    }
                    read.length = Some(length);
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if read.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(BadAnswer::TransferEncoding);
                    }
                    read.chunked = true;
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    for token in tokens(field.value) {
                        if token.eq_ignore_ascii_case(b"close") {
                            read.close = true;
                        } else if !token.eq_ignore_ascii_case(b"keep-alive")
                            && !token.eq_ignore_ascii_case(b"upgrade")
                        {
                            read.nominates = true;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    fn is_nominated(&self, fields: &[httparse::Header<'_>], name: &str) -> bool {
        fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case("connection"))
            .flat_map(|field| tokens(field.value))
            .any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question = Question {
        is_head: false,
        is_http10: false,
        upgrade: false,
        keep_alive: true,
    };

    fn passed(head: &str, question: Question) -> Result<(String, Answer), BadAnswer> {
        let mut out = Vec::new();
        let (length, answer) = pass(head.as_bytes(), question, &mut out)?.expect("whole");
        assert_eq!(length, head.len());
        Ok((String::from_utf8(out).unwrap(), answer))
    }

    #[test]
    fn hop_by_hop_fields_do_not_pass_and_the_length_does() {
        let (out, answer) = passed(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 13\r\nX-A: b\r\n\r\n",
            QUESTION,
        )
        .unwrap();
        assert_eq!(
            out,
            "HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: 13\r\n\r\n"
        );
        assert!(matches!(
            answer,
            Answer::Final {
                status: 200,
                framing: Framing::Length(13),
                upstream_stays: true,
                client_stays: true
            }
        ));
    }

    #[test]
    fn an_answer_without_a_length_ends_with_its_connection() {
        let (out, answer) = passed("HTTP/1.0 200 OK\r\n\r\n", QUESTION).unwrap();
        assert!(out.contains("connection: close\r\n"), "{out}");
        assert!(matches!(
            answer,
            Answer::Final {
                framing: Framing::UntilEnd,
                upstream_stays: false,
                client_stays: false,
                ..
            }
        ));
    }

    #[test]
    fn final_interim_and_switching_answers_set_only_what_an_app_may() {
        let upgrade = Question {
            upgrade: true,
            ..QUESTION
        };
        for (status, question, end) in [
            ("204 No Content", QUESTION, ""),
            ("103 Early Hints", QUESTION, ""),
            (
                "101 Switching Protocols",
                upgrade,
                "connection: upgrade\r\n",
            ),
        ] {
            let head = format!(
                "HTTP/1.1 {status}\r\nSet-Cookie: gitspaces-grant=x\r\nsEt-cOoKiE: a=1; Domain=localhost\r\n\
                 Clear-Site-Data: \"cookies\", \"cache\"\r\nSet-Cookie: b=2\r\n\r\n"
            );
            let (out, _) = passed(&head, question).unwrap();
            assert_eq!(
                out,
                format!(
                    "HTTP/1.1 {status}\r\nsEt-cOoKiE: a=1\r\nClear-Site-Data: \"cache\"\r\nSet-Cookie: b=2\r\n{end}\r\n"
                )
            );
        }
    }

    #[test]
    fn ambiguous_answers_are_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\0; Domain=localhost\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1;\x0bDomain=localhost\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\x7f\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\rSet-Cookie: gitspaces-grant=x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie : gitspaces-grant=x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\n gitspaces-grant=x\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 000 x\r\n\r\n",
        ] {
            assert!(passed(head, QUESTION).is_err(), "{head:?}");
        }
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_no_body() {
        let question = Question {
            is_head: true,
            ..QUESTION
        };
        let (out, answer) =
            passed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", question).unwrap();
        assert!(out.contains("content-length: 5\r\n"));
        assert!(matches!(
            answer,
            Answer::Final {
                framing: Framing::Done,
                upstream_stays: true,
                ..
            }
        ));
    }
}
