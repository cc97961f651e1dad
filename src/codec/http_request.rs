//! HTTP/1.1: the head of a request, as a server reads it.
//!
//! Only what has no body is taken, GET and HEAD: where a request ends is then never in doubt, and nothing can be smuggled behind
//! it. Parts borrow the input. A head that is refused says with which status.

use std::mem::MaybeUninit;

use crate::codec::http::HEAD_MAX;

/// Bytes of a request's first line without its end; a longer one is refused with 414.
pub const REQUEST_LINE_MAX: usize = 4 * 1024;
/// Lines of a head after the first; more are refused with 431.
const LINES_MAX: usize = 64;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'b> {
    /// The target up to `?`, as it came: nothing of it is decoded. It begins with `/`.
    pub path: &'b str,
    /// What follows the `?`; empty if there is none.
    pub query: &'b str,
    /// The last `X-Forwarded-For` line: whom a proxy in front of us speaks for. Anybody can send one, so it is to be believed only
    /// from an address that is known to be a proxy.
    pub forwarded_for: Option<&'b str>,
    /// Only the head of an answer is wanted.
    pub is_head: bool,
}

/// A whole head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'b> {
    /// What it asks.
    pub request: Request<'b>,
    /// Bytes of it, with the empty line at its end.
    pub len: usize,
    /// What is to become of the connection.
    pub persistence: Persistence,
}

/// What is to become of the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It closes: the client wants that, or is too old to want anything else.
    Close,
    /// It stays, as HTTP/1.1 has it.
    Stay,
    /// It stays, and the answer has to say so, as this client speaks HTTP/1.0.
    StayAndSay,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not HTTP, or asks for nothing that could be on a server.
    Malformed,
    /// It is neither GET nor HEAD.
    Method,
    /// It has a body.
    Body,
    /// Its first line is longer than [`REQUEST_LINE_MAX`].
    LongLine,
    /// Its head is longer than [`HEAD_MAX`] or has too many lines.
    LongHead,
    /// It is not of HTTP/1.0 or 1.1.
    Version,
}

impl Refusal {
    /// The status that answers it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Method => 405,
            Self::Body => 413,
            Self::LongLine => 414,
            Self::LongHead => 431,
            Self::Version => 505,
        }
    }
}

/// Without the empty lines that may stand in front of a request (RFC 9112, section 2.2).
#[must_use]
pub fn skip_empty_lines(mut input: &[u8]) -> &[u8] {
    while let [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] = input {
        input = rest;
    }
    input
}

/// The head that `input` begins with; none if it is not whole yet. Empty lines have been skipped before.
///
/// # Errors
/// See [`Refusal`]; what is too long is refused before it is whole.
pub fn parse_head(input: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    let bounded = &input[..input.len().min(HEAD_MAX)];
    let mut lines = [const { MaybeUninit::uninit() }; LINES_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(bounded, &mut lines) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => {
            // A line may end with two bytes, the first of which is the last that came.
            let line_len = bounded.iter().take(REQUEST_LINE_MAX + 2).position(|&byte| byte == b'\n');
            return match line_len {
                None if bounded.len() > REQUEST_LINE_MAX + 1 => Err(Refusal::LongLine),
                _ if bounded.len() == HEAD_MAX => Err(Refusal::LongHead),
                _ => Ok(None),
            };
        }
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::LongHead),
        Err(httparse::Error::Version) if names_a_version(bounded) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::Malformed),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::Malformed);
    };
    if method.len() + target.len() + " HTTP/1.1 ".len() > REQUEST_LINE_MAX {
        return Err(Refusal::LongLine);
    }
    let is_head = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Refusal::Method),
    };
    let (mut forwarded_for, mut asks_close, mut asks_stay) = (None, false, false);
    for line in parsed.headers.iter() {
        let is = |name: &str| line.name.eq_ignore_ascii_case(name);
        match line.name.len() {
            10 if is("Connection") => {
                for word in line.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    asks_close |= word.eq_ignore_ascii_case(b"close");
                    asks_stay |= word.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is("Content-Length") => match line.value {
                [] => return Err(Refusal::Malformed),
                digits if !digits.iter().all(u8::is_ascii_digit) => return Err(Refusal::Malformed),
                digits if digits.iter().any(|&digit| digit != b'0') => return Err(Refusal::Body),
                _ => {}
            },
            15 if is("X-Forwarded-For") => forwarded_for = std::str::from_utf8(line.value).ok(),
            17 if is("Transfer-Encoding") => return Err(Refusal::Body),
            _ => {}
        }
    }
    let (path, query) = split_target(target).ok_or(Refusal::Malformed)?;
    let persistence = match minor {
        _ if asks_close => Persistence::Close,
        0 if asks_stay => Persistence::StayAndSay,
        0 => Persistence::Close,
        _ => Persistence::Stay,
    };
    Ok(Some(Head { request: Request { path, query, forwarded_for, is_head }, len, persistence }))
}

/// Path and query of a target in origin form, or in the absolute form that is sent to proxies.
fn split_target(target: &str) -> Option<(&str, &str)> {
    let local = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return None;
        }
        let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
        if authority_len == 0 {
            return None;
        }
        &rest[authority_len..]
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Some((if path.is_empty() { "/" } else { path }, query))
}

/// True if the third word of the first line is a version of HTTP, whatever its number.
fn names_a_version(head: &[u8]) -> bool {
    head.split(|&byte| byte == b' ').nth(2).is_some_and(|word| word.starts_with(b"HTTP/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(bytes: &str) -> Request<'_> {
        parse_head(bytes.as_bytes()).unwrap().unwrap().request
    }

    fn refusal(bytes: &str) -> Refusal {
        parse_head(bytes.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_head_says_what_is_asked() {
        let bytes = "GET /announce?info_hash=%01&x=? HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2, ::3\r\n\r\nGET";
        let head = parse_head(bytes.as_bytes()).unwrap().unwrap();
        let (path, query) = ("/announce", "info_hash=%01&x=?");
        let request = Request { path, query, forwarded_for: Some("2.2.2.2, ::3"), is_head: false };
        assert_eq!(head, Head { request, len: bytes.len() - 3, persistence: Persistence::Stay });
        assert!(asked("HEAD / HTTP/1.0\n\n").is_head);
        for cut in 0..bytes.len() - 3 {
            assert_eq!(parse_head(&bytes.as_bytes()[..cut]), Ok(None));
        }
    }

    #[test]
    fn a_target_in_absolute_form_loses_its_scheme_and_authority() {
        for (target, path, query) in [
            ("/a/b?c", "/a/b", "c"),
            ("http://host:80/a?b=http://x/", "/a", "b=http://x/"),
            ("HTTPS://host", "/", ""),
            ("http://host?q", "/", "q"),
            ("//a", "//a", ""),
        ] {
            let bytes = format!("GET {target} HTTP/1.1\r\n\r\n");
            let request = asked(&bytes);
            assert_eq!((request.path, request.query), (path, query), "{target}");
        }
        for target in ["*", "host:80", "ftp://host/", "http:///x", "a/b", "?x"] {
            assert_eq!(refusal(&format!("GET {target} HTTP/1.1\r\n\r\n")), Refusal::Malformed, "{target}");
        }
    }

    #[test]
    fn a_connection_stays_as_the_version_and_the_client_have_it() {
        for (version, lines, persistence) in [
            ("1.1", "", Persistence::Stay),
            ("1.1", "Connection: keep-alive\r\n", Persistence::Stay),
            ("1.1", "Connection: TE, Close\r\n", Persistence::Close),
            ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", Persistence::Close),
            ("1.0", "", Persistence::Close),
            ("1.0", "Connection: Keep-Alive\r\n", Persistence::StayAndSay),
        ] {
            let bytes = format!("GET / HTTP/{version}\r\n{lines}\r\n");
            assert_eq!(parse_head(bytes.as_bytes()).unwrap().unwrap().persistence, persistence, "{bytes}");
        }
    }

    #[test]
    fn what_has_a_body_is_refused_and_so_is_what_is_not_http() {
        for (bytes, expected) in [
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", Refusal::Method),
            ("get / HTTP/1.1\r\n\r\n", Refusal::Method),
            ("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", Refusal::Body),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 99999999999999999999999\r\n\r\n", Refusal::Body),
            ("GET / HTTP/1.1\r\nContent-Length: -3\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/1.1\r\nContent-Length: +0\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Refusal::Body),
            ("GET / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", Refusal::Malformed),
            ("GET / HTTP/2.0\r\n\r\n", Refusal::Version),
            ("GET / HTTP/1.2\r\n\r\n", Refusal::Version),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::Version),
            ("GET /\r\n\r\n", Refusal::Malformed),
            ("GET / x y\r\n\r\n", Refusal::Malformed),
            ("hello world\r\n", Refusal::Malformed),
            ("\u{16}\u{3}\u{1}\0", Refusal::Malformed),
            ("\u{13}BitTorrent protocol", Refusal::Malformed),
        ] {
            assert_eq!(refusal(bytes), expected, "{bytes}");
        }
        assert!(parse_head(b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").is_ok());
    }

    #[test]
    fn the_bounds_are_met_exactly_and_before_the_head_is_whole() {
        let with_line = |len: usize| format!("GET /{} HTTP/1.1", "a".repeat(len - "GET / HTTP/1.1".len()));
        let longest = with_line(REQUEST_LINE_MAX);
        assert!(parse_head(format!("{longest}\r\n\r\n").as_bytes()).unwrap().is_some());
        assert_eq!(refusal(&format!("{}\r\n\r\n", with_line(REQUEST_LINE_MAX + 1))), Refusal::LongLine);
        for cut in 0..=longest.len() {
            assert_eq!(parse_head(&longest.as_bytes()[..cut]), Ok(None));
        }
        assert_eq!(parse_head(format!("{longest}\r").as_bytes()), Ok(None));
        assert_eq!(refusal(&format!("GET /{}", "a".repeat(REQUEST_LINE_MAX))), Refusal::LongLine);
        assert_eq!(refusal(&format!("GET /{}", "a".repeat(1 << 20))), Refusal::LongLine);

        let start = "GET / HTTP/1.1\r\nA: ";
        let with_head = |len: usize| format!("{start}{}\r\n\r\n", "a".repeat(len - start.len() - 4));
        assert_eq!(parse_head(with_head(HEAD_MAX).as_bytes()).unwrap().unwrap().len, HEAD_MAX);
        assert_eq!(refusal(&with_head(HEAD_MAX + 1)), Refusal::LongHead);
        assert_eq!(parse_head(&with_head(HEAD_MAX).as_bytes()[..HEAD_MAX - 1]), Ok(None));
        let many = |lines: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(lines));
        assert!(parse_head(many(LINES_MAX).as_bytes()).is_ok());
        assert_eq!(refusal(&many(LINES_MAX + 1)), Refusal::LongHead);
    }

    #[test]
    fn empty_lines_are_skipped_and_half_a_line_end_waits() {
        assert_eq!(skip_empty_lines(b"\r\n\n\r\nGET"), b"GET");
        assert_eq!(skip_empty_lines(b"\r\n\r"), b"\r");
        assert_eq!(parse_head(b"\r"), Ok(None));
        assert_eq!(parse_head(b"\rG"), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_a_refusal(bytes: Vec<u8>, at in 0..60_usize) {
            let _ = parse_head(&bytes);
            let mut mixed = b"GET /announce?a=b HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec();
            mixed.splice(at..at, bytes);
            if let Ok(Some(head)) = parse_head(&mixed) {
                prop_assert!(head.len <= mixed.len() && head.request.path.starts_with('/'));
            }
        }
    }
}
