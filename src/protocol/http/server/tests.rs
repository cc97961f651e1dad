use proptest::prelude::*;

use super::*;
use crate::codec::http::{HEAD_MAX, ResponseReader};
use crate::codec::http_request::REQUEST_LINE_MAX;

const STREAM: &[u8] = b"\r\nGET /announce?a=1 HTTP/1.1\r\nHost: t\r\n\r\nGET http://t/scrape?b HTTP/1.1\nX-Forwarded-For: 1.2.3.4\n\n\n\
    HEAD /c HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /d HTTP/1.1\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n\r\n";

const SECOND: Duration = Duration::from_secs(1);

/// A client's bytes, as the engine keeps them between two calls.
struct Client {
    now: Time,
    server: HttpServer,
    kept: Vec<u8>,
    asked: Vec<String>,
    heard: Vec<u8>,
}

impl Client {
    fn new() -> Self {
        let now = Time::from_secs(100);
        Self { now, server: HttpServer::accepted(now), kept: Vec::new(), asked: Vec::new(), heard: Vec::new() }
    }

    /// Sends without hearing the answer.
    fn send(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let buf = std::mem::take(&mut self.kept);
        let mut input = &buf[..];
        if let Some(request) = self.server.handle_input(self.now, &mut input) {
            let Request { path, query, forwarded_for, is_head } = request;
            let (head, client) = (if is_head { "HEAD " } else { "" }, forwarded_for.unwrap_or("-"));
            self.asked.push(format!("{head}{path} {query} {client}"));
        }
        self.kept = input.to_vec();
    }

    fn hear(&mut self) {
        let outgoing = self.server.outgoing();
        self.heard.extend_from_slice(outgoing);
        let count = outgoing.len();
        self.server.advance(self.now, count);
    }

    /// Sends, and every request is answered with its number.
    fn ask(&mut self, bytes: &[u8]) {
        self.send(bytes);
        while self.server.is_asked() {
            let body = self.asked.len().to_string();
            self.server.respond(self.now, 200, "text/plain", body.as_bytes());
            self.send(b"");
        }
        self.hear();
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.heard).unwrap()
    }

    fn patience(&self) -> Duration {
        self.server.poll_timeout().since(self.now)
    }
}

/// The status of what the server says on its own to `bytes`.
fn refused(bytes: &[u8]) -> u16 {
    let mut client = Client::new();
    client.send(bytes);
    client.hear();
    assert!(client.asked.is_empty() && client.server.is_over() && client.kept.is_empty());
    assert!(client.text().contains("\r\nConnection: close\r\n"));
    let response = ResponseReader::new(100).handle_input(&client.heard).unwrap().unwrap();
    assert!(!response.body.is_empty());
    response.status
}

#[test]
fn an_answer_leaves_in_one_piece() {
    let mut client = Client::new();
    client.send(b"GET /announce?x HTTP/1.1\r\nHost: t\r\n\r\n");
    client.server.respond(client.now, 200, "text/plain", b"d8:intervali5ee");
    let whole = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\nd8:intervali5ee";
    assert_eq!(client.server.outgoing(), whole);
    client.server.advance(client.now, 20);
    assert_eq!(client.server.outgoing(), &whole[20..]);
    client.server.advance(client.now, 50);
    assert_eq!(client.server.outgoing(), &whole[70..]);
    assert!(!client.server.is_over());
}

#[test]
fn pipelined_requests_are_given_one_by_one_and_answered_in_order() {
    let mut client = Client::new();
    client.send(STREAM);
    client.send(b"");
    assert_eq!(client.asked, ["/announce a=1 -"], "the second waits until the first is answered");
    client.ask(b"");
    assert_eq!(client.asked, ["/announce a=1 -", "/scrape b 1.2.3.4", "HEAD /c  -", "/d  -"]);
    assert!(client.server.is_over() && client.kept.is_empty(), "what follows `close` is nobody's");
    let answer = |lines: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n{lines}\r\n{body}")
    };
    let expected = [("", "1"), ("", "2"), ("Connection: keep-alive\r\n", ""), ("Connection: close\r\n", "4")]
        .map(|(l, b)| answer(l, b));
    assert_eq!(client.text(), expected.concat());
}

#[test]
fn bad_input_is_answered_and_ends_the_connection() {
    assert_eq!(refused(b"\x16\x03\x01\x02\0\x01"), 400);
    assert_eq!(refused(b"GET /a b HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(refused(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"), 405);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), 413);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 413);
    assert_eq!(refused(b"GET / HTTP/2.0\r\n\r\n"), 505);
    assert_eq!(refused(&[b"GET /", &vec![b'a'; 1 << 20][..]].concat()), 414);
    assert_eq!(refused(&[b"GET / HTTP/1.1\r\nA: ", &vec![b'a'; 1 << 20][..]].concat()), 431);
    let mut client = Client::new();
    client.ask(b"GET / HTTP/1.1\r\n\r\nPUT / HTTP/1.1\r\n\r\n");
    assert!(client.text().ends_with("\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\nMethod Not Allowed"));
    assert!(client.text().starts_with("HTTP/1.1 200 OK\r\n") && client.server.is_over());
}

#[test]
fn a_line_that_trickles_is_refused_before_more_than_its_bound_is_kept() {
    let mut client = Client::new();
    client.send(b"GET /");
    while client.server.outgoing().is_empty() {
        client.send(b"aaaaaaaa");
        assert!(client.kept.len() <= REQUEST_LINE_MAX + 8);
    }
    assert!(client.server.outgoing().starts_with(b"HTTP/1.1 414 "));
    let mut client = Client::new();
    client.send(b"GET / HTTP/1.1\r\nA: ");
    while client.server.outgoing().is_empty() {
        client.send(b"aaaaaaaa");
        assert!(client.kept.len() <= HEAD_MAX + 8);
    }
    assert!(client.server.outgoing().starts_with(b"HTTP/1.1 431 "));
    client.send(b"more");
    assert!(client.kept.is_empty(), "nobody will look at it");
}

#[test]
fn a_head_has_ten_seconds_however_it_trickles() {
    let mut client = Client::new();
    assert_eq!(client.patience(), HEAD_PATIENCE);
    for byte in b"\r\nGET / HT" {
        client.now += SECOND;
        assert!(!client.server.handle_timeout(client.now - SECOND));
        client.send(&[*byte]);
    }
    assert!(client.server.handle_timeout(client.now));

    let mut client = Client::new();
    client.ask(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.patience(), KEEP_ALIVE);
    client.now += 14 * SECOND;
    client.send(b"\r\n\r\n");
    assert_eq!(client.patience(), SECOND, "empty lines are no request");
    client.send(b"G");
    assert_eq!(client.patience(), HEAD_PATIENCE);
    client.now += SECOND;
    client.send(b"ET / HTTP/1.1\r\n\r\n");
    assert!(client.server.poll_timeout().is_never(), "an answer is looked for");
    client.now += 1000 * SECOND;
    assert!(!client.server.handle_timeout(client.now));
    client.ask(b"");
    assert_eq!((client.asked.len(), client.patience()), (2, KEEP_ALIVE));
}

#[test]
fn a_client_that_takes_nothing_is_left_after_half_a_minute() {
    let mut client = Client::new();
    client.send(b"GET / HTTP/1.1\r\n\r\n");
    client.server.respond(client.now, 200, "text/plain", &[b'a'; 1000]);
    assert_eq!(client.patience(), SEND_PATIENCE);
    client.now += 29 * SECOND;
    client.server.advance(client.now, 1);
    assert_eq!(client.patience(), SEND_PATIENCE);
    client.now += 29 * SECOND;
    client.server.advance(client.now, 0);
    assert_eq!(client.patience(), SECOND, "nothing was taken");
    client.hear();
    assert_eq!(client.patience(), KEEP_ALIVE, "it is idle from the moment that everything was sent");
}

#[test]
fn no_request_is_read_while_too_much_waits_to_be_sent() {
    let mut client = Client::new();
    client.send(&b"GET / HTTP/1.1\r\n\r\n".repeat(3));
    client.server.respond(client.now, 200, "text/plain", &vec![b'a'; OUT_MAX]);
    assert!(client.server.is_full());
    client.send(b"");
    assert_eq!(client.asked.len(), 1);
    client.now += SECOND;
    client.server.advance(client.now, 1000);
    assert!(!client.server.is_full());
    client.ask(b"");
    assert_eq!(client.asked.len(), 3);
    assert!(client.server.out.capacity() <= OUT_KEPT_MAX, "large room is given back");
}

#[test]
fn a_full_connection_is_not_blamed_for_a_head_that_we_do_not_read() {
    let mut client = Client::new();
    client.send(b"GET / HTTP/1.1\r\n\r\n");
    client.server.respond(client.now, 200, "text/plain", &[b'a'; 1000]);
    client.send(b"GET / HT");
    client.now += HEAD_PATIENCE;
    assert!(client.server.handle_timeout(client.now), "it is read, and does not come");
    client.send(b"TP/1.1\r\n\r\n");
    client.server.respond(client.now, 200, "text/plain", &vec![b'a'; OUT_MAX]);
    client.send(b"GET / HT");
    assert_eq!(client.patience(), SEND_PATIENCE - HEAD_PATIENCE);
    client.hear();
    assert_eq!(client.patience(), KEEP_ALIVE);
}

#[test]
fn what_was_asked_before_the_end_is_still_answered() {
    let mut client = Client::new();
    client.send(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /half");
    client.server.handle_end();
    assert!(!client.server.is_over());
    client.ask(b"");
    assert_eq!(client.asked, ["/a  -", "/b  -"]);
    assert!(client.server.is_over());

    let mut client = Client::new();
    client.send(b"GET /a HTTP/1.1\r\n\r\n");
    client.server.handle_end();
    client.ask(b"");
    assert!(client.server.is_over() && client.text().contains("\r\nConnection: close\r\n"));

    let mut client = Client::new();
    client.send(b"GET /a HT");
    client.server.handle_end();
    assert!(client.server.is_over() && client.server.outgoing().is_empty());

    let mut client = Client::new();
    client.send(&b"GET / HTTP/1.1\r\n\r\n".repeat(2));
    client.server.respond(client.now, 200, "text/plain", &vec![b'a'; OUT_MAX]);
    client.send(b"");
    client.server.handle_end();
    client.hear();
    client.ask(b"");
    assert!(client.asked.len() == 2 && client.server.is_over(), "it was full, and there was more");
}

#[test]
fn the_last_of_a_thousand_requests_ends_the_connection() {
    let mut client = Client::new();
    for _ in 1..REQUESTS_MAX {
        client.ask(b"GET / HTTP/1.1\r\n\r\n");
    }
    assert!(!client.text().contains("close"));
    client.ask(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert!(client.text().contains("\r\nConnection: close\r\n") && client.server.is_over());
    assert_eq!(client.asked.len(), 1000);
}

#[test]
fn a_connection_that_is_never_quite_drained_holds_no_more_than_waits() {
    let mut client = Client::new();
    for _ in 0..900 {
        client.send(b"GET / HTTP/1.1\r\n\r\n");
        client.server.respond(client.now, 200, "text/plain", &[b'a'; 1000]);
        let count = client.server.outgoing().len() - 1;
        client.server.advance(client.now, count);
    }
    assert!(client.server.out.capacity() < 10_000);
}

#[test]
#[should_panic(expected = "only what was asked")]
fn nothing_is_answered_that_was_not_asked() {
    HttpServer::accepted(Time::ZERO).respond(Time::ZERO, 200, "text/plain", b"");
}

proptest! {
    #[test]
    fn every_split_of_a_stream_gives_the_same_requests_and_answers(
        cuts in proptest::collection::vec(0..STREAM.len(), 0..12), ends in any::<bool>(),
    ) {
        let mut whole = Client::new();
        whole.ask(STREAM);
        let mut cuts = cuts;
        cuts.extend([0, STREAM.len()]);
        cuts.sort_unstable();
        let mut client = Client::new();
        for pair in cuts.windows(2) {
            client.ask(&STREAM[pair[0]..pair[1]]);
        }
        if ends {
            client.server.handle_end();
        }
        prop_assert_eq!(client.asked, whole.asked);
        prop_assert_eq!(client.heard, whole.heard);
    }

    #[test]
    fn mangled_streams_are_answered_or_refused_and_hold_little(
        flips in proptest::collection::vec((0..STREAM.len(), any::<u8>()), 0..6), cut in 0..=STREAM.len(),
        pieces in proptest::collection::vec(1..60_usize, 1..20), waits in 0..4_u32,
    ) {
        let mut bytes = STREAM.to_vec();
        for (at, byte) in flips {
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        let mut client = Client::new();
        let mut rest = &bytes[..];
        for piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            client.ask(now);
            client.now += waits * SECOND;
            if client.server.handle_timeout(client.now) {
                break;
            }
            rest = later;
        }
        client.server.handle_end();
        client.ask(b"");
        prop_assert!(client.server.is_over() && client.asked.len() <= 6);
        prop_assert!(client.heard.len() <= 7 * 200);
    }
}
