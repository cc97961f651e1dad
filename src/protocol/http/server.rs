//! The server's side of one HTTP/1.1 connection: requests come out, answers go in, one at a time and in order.
//!
//! It keeps no input: what is left of it stays with the caller, who puts it in front of what comes next. Bad input is answered
//! here and ends the connection. What is asked has no body (see [`crate::codec::http_request`]); what is answered is one
//! piece of bytes, so that head and body leave together. No TLS, no chunks, no compression: whoever wants those puts a
//! proxy in front.

use std::io::Write as _;
use std::time::Duration;

use crate::base::time::Time;
use crate::codec::http_request::{Persistence, Refusal, Request, parse_head, skip_empty_lines};

/// Bytes of answers that wait to be sent; above it no further request is read until some of them have left. One answer may stand
/// above it.
pub const OUT_MAX: usize = 64 * 1024;
/// Requests of one connection; the answer to the last one ends it.
pub const REQUESTS_MAX: u32 = 1000;
/// How long a head may take, however it trickles: from the accepting, or from the first byte of a later one.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may ask nothing after everything was sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client may take nothing of what waits for it.
const SEND_PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may go on sending after it was refused.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of room for answers that a connection keeps while it has none; a larger one is given back.
const OUT_KEPT_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No byte of the next request has come.
    Idle,
    /// A part of a head has come, or the connection is new.
    Head,
    /// A request was given and waits for its answer.
    Asked { is_head: bool, persistence: Persistence },
    /// A refusal is sent; what the client still sends is thrown away until it ends, or `deadline`. To close with input unread would
    /// have the kernel take the refusal back.
    Lingering,
    /// What waits is sent, and that is all.
    Closing,
}

/// One accepted connection.
///
/// Between two calls its input is either exhausted up to an unfinished head, or `left_over` says that it may hold more.
#[derive(Debug)]
pub struct HttpServer {
    state: State,
    /// Answers; the first `sent` bytes have left.
    out: Vec<u8>,
    sent: usize,
    requests: u32,
    /// The client will send no more.
    ended: bool,
    /// The caller holds input that was not looked at.
    left_over: bool,
    /// When `Idle` or `Head` has taken too long.
    deadline: Time,
    /// When what waits to be sent has waited too long.
    send_deadline: Time,
}

impl HttpServer {
    /// A connection that was just accepted.
    #[must_use]
    pub fn accepted(now: Time) -> Self {
        Self {
            state: State::Head,
            out: Vec::new(),
            sent: 0,
            requests: 0,
            ended: false,
            left_over: false,
            deadline: now + HEAD_PATIENCE,
            send_deadline: Time::NEVER,
        }
    }

    /// Steps through `input` and gives the next request, once it is whole; `input` is what follows it then.
    ///
    /// None while more must come, while a request waits for its answer, while [`HttpServer::is_full`], or when the connection is
    /// closing; what is left of `input` belongs in front of what comes next. To be called again with that after every
    /// [`HttpServer::respond`], and once the connection is no longer full.
    pub fn handle_input<'b>(&mut self, now: Time, input: &mut &'b [u8]) -> Option<Request<'b>> {
        match self.state {
            State::Closing | State::Lingering => {
                *input = &[];
                return None;
            }
            State::Asked { .. } => {
                self.left_over = !input.is_empty();
                return None;
            }
            State::Idle | State::Head if self.is_full() => {
                self.left_over = !input.is_empty();
                return None;
            }
            State::Idle | State::Head => {}
        }
        *input = skip_empty_lines(input);
        match parse_head(input) {
            Ok(Some(head)) => {
                *input = &input[head.len..];
                self.left_over = !input.is_empty();
                self.requests += 1;
                let persistence = if self.requests >= REQUESTS_MAX { Persistence::Close } else { head.persistence };
                self.state = State::Asked { is_head: head.request.is_head, persistence };
                Some(head.request)
            }
            Ok(None) => {
                self.left_over = false;
                if self.ended {
                    self.state = State::Closing;
                } else if self.state == State::Idle && !input.is_empty() {
                    self.state = State::Head;
                    self.deadline = now + HEAD_PATIENCE;
                }
                None
            }
            Err(refusal) => {
                self.refuse(now, refusal);
                *input = &[];
                None
            }
        }
    }

    /// The client will send no more. What it asked before is still answered, then the connection is over.
    pub fn handle_end(&mut self) {
        self.ended = true;
        if self.state == State::Lingering || matches!(self.state, State::Idle | State::Head) && !self.left_over {
            self.state = State::Closing;
        }
    }

    /// It is time for what [`HttpServer::poll_timeout`] said; true if the connection is to be closed at once.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Time) -> bool {
        now >= self.poll_timeout()
    }

    /// Answers the request that was given: `body` is of the media type `kind`, and is left out where only a head was asked for.
    ///
    /// # Panics
    /// If there is none.
    pub fn respond(&mut self, now: Time, status: u16, kind: &str, body: &[u8]) {
        let State::Asked { is_head, persistence } = self.state else { panic!("only what was asked is answered") };
        let is_last = self.ended && !self.left_over;
        let persistence = if is_last { Persistence::Close } else { persistence };
        self.write(now, status, kind, persistence, body, is_head);
        self.state = if persistence == Persistence::Close { State::Closing } else { State::Idle };
        self.deadline = now + KEEP_ALIVE;
    }

    /// Bytes to send.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// So many of them were sent.
    pub fn advance(&mut self, now: Time, count: usize) {
        let was_full = self.is_full();
        self.sent += count;
        if count > 0 {
            self.send_deadline = now + SEND_PATIENCE;
        }
        if self.sent == self.out.len() {
            self.sent = 0;
            self.out.clear();
            self.send_deadline = Time::NEVER;
            if self.out.capacity() > OUT_KEPT_MAX {
                self.out = Vec::new();
            }
            if self.state == State::Idle {
                self.deadline = now + KEEP_ALIVE;
            }
        } else if self.sent > self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        if was_full && self.state == State::Head {
            self.deadline = now + HEAD_PATIENCE;
        }
    }

    /// So much waits to be sent that no further request is read; see [`OUT_MAX`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.out.len() - self.sent > OUT_MAX
    }

    /// Everything was sent, and nothing more will come: it is to be closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Closing && self.out.is_empty()
    }

    /// A request was given and waits for its answer.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// When it has taken too long. An answer that is being looked for has all the time that whoever looks for it takes.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let silence = match self.state {
            State::Lingering => self.deadline,
            State::Head if !self.is_full() => self.deadline,
            State::Idle if self.out.is_empty() => self.deadline,
            _ => Time::NEVER,
        };
        silence.min(self.send_deadline)
    }

    /// Says what is wrong, and closes.
    fn refuse(&mut self, now: Time, refusal: Refusal) {
        let status = refusal.status();
        self.write(now, status, "text/plain", Persistence::Close, reason(status).as_bytes(), false);
        self.state = if self.ended { State::Closing } else { State::Lingering };
        self.deadline = now + LINGER;
    }

    fn write(&mut self, now: Time, status: u16, kind: &str, persistence: Persistence, body: &[u8], is_head: bool) {
        /// More than all that stands around `kind` in a head.
        const AROUND_LEN: usize = 160;
        if self.out.is_empty() {
            self.send_deadline = now + SEND_PATIENCE;
        }
        let body_len = body.len();
        let sent_body = if is_head { &[] } else { body };
        self.out.reserve(AROUND_LEN + kind.len() + sent_body.len());
        let connection = match persistence {
            Persistence::Close => "Connection: close\r\n",
            Persistence::Stay => "",
            Persistence::StayAndSay => "Connection: keep-alive\r\n",
        };
        let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let reason = reason(status);
        let written = write!(
            self.out,
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {body_len}\r\n{allow}{connection}\r\n"
        );
        written.expect("a vector takes all");
        self.out.extend_from_slice(sent_body);
    }
}

/// What a status is called (RFC 9110, section 15).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests;
