//! The connections of an attack, on one thread: each sends what its script says as fast as the daemon reads it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::attack::{Attack, Next, Script};
use crate::daemon::Base;
use crate::geometry::Torrent;
use crate::noise;

const BUF_LEN: usize = 256 << 10;
const HANDSHAKE_LEN: usize = 68;
/// Bytes that one stranger sends before the next one has its turn.
const TURN: usize = 256 << 10;
/// How long a stranger waits until it connects again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long one that hung up waits for the daemon to do so.
const HANG_UP: Duration = Duration::from_secs(1);

/// What the strangers did.
#[derive(Debug, Default)]
pub struct Sent {
    pub sent: u64,
    pub connects: u64,
}

struct Stranger {
    number: usize,
    connection: u64,
    script: Script,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    sent: usize,
    came: Vec<u8>,
    is_introduced: bool,
    is_writable: bool,
    /// The script has no more, for now.
    waits: bool,
    is_done: bool,
    /// It has hung up, and waits until then for the daemon to do so.
    hung_up: Option<Instant>,
    again: Instant,
}

/// Attacks for as long as `lasts`, or until all scripts are done.
pub fn attack(to: SocketAddr, base: &Base, attack: Attack, peers: usize, lasts: Duration) -> Sent {
    let torrents: Vec<Arc<Torrent>> = base.torrents.iter().cloned().map(Arc::new).collect();
    let mut poll = Poll::new().unwrap();
    let (mut events, mut buf) = (Events::with_capacity(1024), vec![0; BUF_LEN]);
    let (start, mut total) = (Instant::now(), Sent::default());
    let mut strangers: Vec<Stranger> =
        (0..peers).map(|number| Stranger::new(number, attack, &torrents, start)).collect();
    while start.elapsed() < lasts {
        let now = Instant::now();
        for stranger in &mut strangers {
            if stranger.stream.is_none() && stranger.again <= now {
                stranger.connect(to, attack, &torrents, &poll, &mut total);
            }
            if stranger.hung_up.is_some_and(|until| until <= now) {
                stranger.close(now);
            }
        }
        let is_busy = strangers.iter().any(Stranger::may_send);
        let timeout = if is_busy { Duration::ZERO } else { Duration::from_millis(5) };
        poll.poll(&mut events, Some(timeout)).unwrap();
        for event in &events {
            let stranger = &mut strangers[event.token().0];
            stranger.is_writable |= event.is_writable();
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                stranger.read(&mut buf);
            }
        }
        for stranger in &mut strangers {
            stranger.write(&mut total);
        }
        if strangers.iter().all(|stranger| stranger.is_done && stranger.out.len() == stranger.sent) {
            // What it has not read yet would be lost if they hung up.
            std::thread::sleep(lasts.saturating_sub(start.elapsed()).min(Duration::from_millis(500)));
            break;
        }
    }
    total
}

impl Stranger {
    fn new(number: usize, attack: Attack, torrents: &[Arc<Torrent>], now: Instant) -> Self {
        let script = Script::new(attack, torrents[number % torrents.len()].clone(), number as u64);
        Self {
            number,
            connection: 0,
            script,
            stream: None,
            out: Vec::new(),
            sent: 0,
            came: Vec::new(),
            is_introduced: false,
            is_writable: false,
            waits: false,
            is_done: false,
            hung_up: None,
            again: now,
        }
    }

    /// Connects from an address of its own: the daemon accepts few connections of one.
    fn connect(&mut self, to: SocketAddr, attack: Attack, torrents: &[Arc<Torrent>], poll: &Poll, total: &mut Sent) {
        let torrent = torrents[(self.number + usize::try_from(self.connection).unwrap()) % torrents.len()].clone();
        self.connection += 1;
        total.connects += 1;
        let seed = (self.number as u64) << 32 | self.connection;
        self.script = Script::new(attack, torrent, seed);
        let [.., high, low] = u32::try_from(self.number).unwrap().to_be_bytes();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 1, high, low], 0)).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _in_progress = socket.connect(&to.into());
        socket.set_tcp_nodelay(true).unwrap();
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(self.number), interest).unwrap();
        self.stream = Some(stream);
        // The fast extension and the extension protocol.
        self.out = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04".to_vec();
        self.out.extend(self.script.info_hash());
        self.out.extend(b"-XX0001-");
        self.out.extend(noise(seed, 12));
        self.out.extend(self.script.greeting());
        (self.sent, self.is_introduced, self.is_writable) = (0, false, false);
        (self.waits, self.is_done, self.hung_up) = (false, false, None);
        self.came.clear();
    }

    fn close(&mut self, now: Instant) {
        (self.stream, self.hung_up, self.again) = (None, None, now + AGAIN);
        self.out.clear();
        self.sent = 0;
    }

    fn may_send(&self) -> bool {
        self.stream.is_some()
            && self.is_writable
            && self.hung_up.is_none()
            && (self.sent < self.out.len() || !self.waits && !self.is_done)
    }

    fn read(&mut self, buf: &mut [u8]) {
        let Some(stream) = &mut self.stream else { return };
        loop {
            match stream.read(buf) {
                Ok(read) if read > 0 => self.came.extend(&buf[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => return self.close(Instant::now()),
            }
        }
        let mut at = 0;
        if !self.is_introduced && self.came.len() >= HANDSHAKE_LEN {
            (self.is_introduced, at) = (true, HANDSHAKE_LEN);
        }
        while self.is_introduced
            && let Some(head) = self.came.get(at..at + 4)
        {
            let len = u32::from_be_bytes(head.try_into().unwrap()) as usize;
            let Some(message) = self.came.get(at + 4..at + 4 + len) else { break };
            if let Some((id, payload)) = message.split_first() {
                self.script.handle_message(*id, payload);
                self.waits = false;
            }
            at += 4 + len;
        }
        self.came.drain(..at);
    }

    fn write(&mut self, total: &mut Sent) {
        let mut turn = 0;
        while self.may_send() && turn < TURN {
            if self.sent == self.out.len() {
                self.sent = 0;
                self.out.clear();
                match self.script.next() {
                    Next::Send(bytes) => self.out = bytes,
                    Next::Wait => self.waits = true,
                    Next::Done => self.is_done = true,
                    Next::HangUp => {
                        // Hanging up at once would throw away what the daemon has not read.
                        let _ = self.stream.as_ref().unwrap().shutdown(Shutdown::Write);
                        self.hung_up = Some(Instant::now() + HANG_UP);
                    }
                }
                continue;
            }
            match self.stream.as_mut().unwrap().write(&self.out[self.sent..]) {
                Ok(sent) => {
                    (self.sent, turn) = (self.sent + sent, turn + sent);
                    total.sent += sent as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(_) => return self.close(Instant::now()),
            }
        }
    }
}
