//! Announces over HTTP: a connection each, or many over one.
//!
//! Whoever asks waits for the oldest [`STEP`] of [`WINDOW`] requests, and looks at no other meanwhile: that is three or four
//! system calls for each. A connection that the tracker closed ends with a reset, so that neither side remembers it.

use std::collections::VecDeque;
use std::io::Write;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Socket, Type};
use swarmtorrent::base::hash::InfoHash;

use super::announcer::{FEW, port_of, source_ip};
use super::{ANSWERED, STRIDE, Told, peer};

/// Requests under way.
pub const WINDOW: usize = 64;
/// So many answers are waited for, and then so many requests made.
const STEP: usize = 16;
const READ_EVERY: u64 = 64;
/// An answer takes no longer.
const SILENCE: Duration = Duration::from_secs(5);

/// Whom to ask, and how.
#[derive(Debug, Clone, Copy)]
pub struct To {
    pub addr: SocketAddr,
    /// Whether connections are kept.
    pub keep_alive: bool,
    /// Whether answers are looked at.
    pub is_read: bool,
}

/// A request on its way.
struct UnderWay {
    socket: Socket,
    /// Of the address.
    source: usize,
}

/// The first part of each request: up to the hash.
fn heads(hashes: &[InfoHash]) -> Vec<Vec<u8>> {
    let escape = |byte: &u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'~' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let head = |hash: &InfoHash| {
        format!("GET /announce?info_hash={}&peer_id=-BN0100-", hash.0.iter().map(escape).collect::<String>())
            .into_bytes()
    };
    hashes.iter().map(head).collect()
}

impl To {
    /// The end of a request.
    fn tail(self, source: usize, port: u16, event: &str, out: &mut Vec<u8>) {
        let (left, addr) = (u8::from(!port.is_multiple_of(8)), self.addr);
        let how = if self.keep_alive { "keep-alive" } else { "close" };
        let written = write!(
            out,
            "{source:06}{port:06}&port={port}&uploaded=0&downloaded=0&left={left}&compact=1&numwant={ANSWERED}{event} HTTP/1.1\r\n\
             Host: {addr}\r\nConnection: {how}\r\n\r\n"
        );
        written.expect("memory takes all");
    }

    fn open(self, from: IpAddr, source: usize) -> UnderWay {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, None).unwrap();
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        if self.keep_alive {
            socket.set_read_timeout(Some(SILENCE)).unwrap();
        }
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&self.addr.into()).unwrap_or_else(|error| panic!("{}: {error}", self.addr));
        UnderWay { socket, source }
    }

    /// Waits for an answer: to its end, or to that of the connection.
    fn answer<'a>(self, socket: &Socket, buf: &'a mut [MaybeUninit<u8>]) -> &'a [u8] {
        let flags = if self.keep_alive { RecvFlags::empty() } else { RecvFlags::WAITALL };
        recv(socket, buf, flags).map_or(&[], |((read, _), _)| read)
    }

    fn check(self, answer: &[u8], read: bool) {
        let is_whole = || answer.windows(11).any(|bytes| bytes == format!("5:peers{}:", 6 * ANSWERED).as_bytes());
        let is_one = answer.starts_with(b"HTTP/1.") && answer.get(9..12) == Some(b"200");
        assert!(is_one && (!read || is_whole()), "{}: {}", self.addr, answer.escape_ascii());
    }
}

/// Asks for a while.
pub fn run(to: To, hashes: &[InfoHash], asked: Duration) -> Told {
    let (heads, start) = (heads(hashes), Instant::now());
    let tails: Vec<Vec<u8>> = (0..FEW)
        .map(|source| {
            let mut tail = Vec::new();
            to.tail(source, port_of(source), "", &mut tail);
            tail
        })
        .collect();
    let next = |number: usize, request: &mut Vec<u8>, source: usize| {
        if start.elapsed() >= asked {
            return false;
        }
        request.extend(&heads[number.wrapping_mul(STRIDE) % heads.len()]);
        request.extend(&tails[source]);
        true
    };
    exchange(to, 80, FEW, true, next)
}

/// Announces `count` peers, as many for each swarm.
pub fn fill(to: To, hashes: &[InfoHash], count: usize) {
    let heads = heads(hashes);
    let mut left: Vec<Vec<usize>> = vec![Vec::new(); peer::SOURCES];
    (0..count).rev().for_each(|number| left[peer::source(number, hashes.len())].push(number));
    let next = |_, request: &mut Vec<u8>, source: usize| {
        let Some(number) = left[source].pop() else { return false };
        let (swarm, port) = peer::of(number, hashes.len());
        request.extend(&heads[swarm]);
        to.tail(source, port, "&event=started", request);
        true
    };
    let told = exchange(to, 81, peer::SOURCES, false, next);
    // A tracker may close a connection that it kept.
    assert!(told.answers >= count as u64 / 1000 * 999, "{}: {} of {count} peers were taken", to.addr, told.answers);
}

/// Exchanges what `next` writes for a source, until there is no more.
fn exchange(
    to: To,
    network: u8,
    sources: usize,
    is_full: bool,
    mut next: impl FnMut(usize, &mut Vec<u8>, usize) -> bool,
) -> Told {
    let (mut told, mut request, mut buf) = (Told::default(), Vec::new(), [MaybeUninit::uninit(); 4096]);
    let (start, mut number) = (Instant::now(), 0);
    let mut free: VecDeque<(usize, Option<UnderWay>)> = (0..WINDOW).map(|at| (at % sources, None)).collect();
    let mut under_way: VecDeque<UnderWay> = VecDeque::new();
    while !free.is_empty() || !under_way.is_empty() {
        for (source, kept) in free.drain(..) {
            request.clear();
            if next(number, &mut request, source) {
                let way = kept.unwrap_or_else(|| to.open(source_ip(network, source, false), source));
                // One that was closed meanwhile says so when its answer is waited for.
                let _ = (&way.socket).write_all(&request);
                under_way.push_back(way);
                number += 1;
            }
        }
        let count = STEP.min(under_way.len());
        // The newest first: whoever waits for each wakes for each, and the one that answers pays for that.
        for way in under_way.drain(..count).rev() {
            let answer = to.answer(&way.socket, &mut buf);
            if answer.is_empty() {
                told.lost += 1;
            } else {
                if to.is_read {
                    to.check(answer, is_full && told.answers.is_multiple_of(READ_EVERY));
                }
                (told.answers, told.answer_len) = (told.answers + 1, answer.len());
            }
            let source = way.source;
            free.push_back((source, (to.keep_alive && !answer.is_empty()).then_some(way)));
        }
    }
    told.took = start.elapsed();
    told
}
