//! Light readers: they ask for blocks as fast as they come, and throw them away.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use swarmtorrent::codec::metainfo::Metainfo;

const BLOCK_LEN: u64 = 16 * 1024;
const BUF_LEN: usize = 256 * 1024;
/// Blocks that each reader reads at least.
const SHARE_MIN: u64 = 256;
const UNCHOKE: u8 = 1;
const BITFIELD: u8 = 5;
const PIECE: u8 = 7;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Pieces {
    info_hash: [u8; 20],
    piece_len: u64,
    len: u64,
    /// Blocks asked for and not yet here; asked anew when half of them came.
    pipeline: u64,
}

impl Pieces {
    pub fn of(torrent: &Path, piece_len: u64, len: u64, pipeline: u64) -> Self {
        Self { info_hash: info_hash(torrent), piece_len, len, pipeline }
    }

    /// See [`greeting`].
    pub fn greeting(&self, then: &[u8]) -> Vec<u8> {
        greeting(&self.info_hash, then)
    }

    fn blocks(&self) -> u64 {
        self.len / BLOCK_LEN
    }
}

/// The hash of a torrent's info dictionary.
pub fn info_hash(torrent: &Path) -> [u8; 20] {
    let torrent = Metainfo::parse(&std::fs::read(torrent).unwrap()).unwrap();
    torrent.info_hash.0
}

/// The handshake of BEP 3 without extensions, which not all know, and what is said `then`.
pub fn greeting(info_hash: &[u8; 20], then: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(info_hash);
    bytes.extend(b"-XX0001-");
    // Some clients take no second connection of an id that they know.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    bytes.extend(crate::noise(COUNT.fetch_add(1, Ordering::Relaxed), 12));
    bytes.extend(then);
    bytes
}

/// Waits until who listens at `to` has everything: it says so to whoever connects.
pub fn wait_for_seed(to: SocketAddr, pieces: &Pieces, patience: Duration) -> Option<()> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if says_all(to, pieces) {
            return Some(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    None
}

/// Whether who listens at `to` says that it has everything.
pub fn says_all(to: SocketAddr, pieces: &Pieces) -> bool {
    ask_for_field(to, pieces).unwrap_or(0) == pieces.len.div_ceil(pieces.piece_len)
}

/// How many pieces who listens at `to` says that it has.
fn ask_for_field(to: SocketAddr, pieces: &Pieces) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(&pieces.greeting(&[]))?;
    stream.read_exact(&mut [0; 68])?;
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        let mut message = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut message)?;
        if message.first() == Some(&BITFIELD) {
            return Ok(message[1..].iter().map(|byte| u64::from(byte.count_ones())).sum());
        }
    }
}

/// One connection.
struct Reader {
    stream: mio::net::TcpStream,
    /// Next block to ask for, and blocks got, counted within its share.
    asked: u64,
    got: u64,
    open: bool,
    greeted: bool,
    /// Bytes of the present message that are still to come, after its head.
    left: usize,
    /// A head that is not whole yet.
    head: Vec<u8>,
}

/// What came.
#[derive(Debug, Clone, Copy)]
pub struct Got {
    pub bytes: u64,
    /// What the slowest reader had when half of everything was there, as a share of the mean.
    pub slowest: f64,
}

/// Reads the content once, a share each, or more often if the shares would be too small to compare.
pub fn read_all(to: SocketAddr, pieces: &Pieces, connections: usize, patience: Duration) -> Option<Got> {
    let share = pieces.len / pieces.piece_len / connections as u64 * (pieces.piece_len / BLOCK_LEN);
    let share = share.max(SHARE_MIN);
    let mut poll = Poll::new().unwrap();
    let mut readers = Vec::new();
    for number in 0..connections {
        let mut stream = connect_from(number, to).unwrap();
        stream.write_all(&pieces.greeting(&[])).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), Interest::READABLE).unwrap();
        readers.push(Reader { stream, asked: 0, got: 0, open: false, greeted: false, left: 68, head: Vec::new() });
    }
    let (mut events, mut buf) = (Events::with_capacity(1024), vec![0; BUF_LEN]);
    let (start, mut busy, total) = (Instant::now(), connections, share * connections as u64);
    let (mut got, mut slowest) = (0, None);
    while busy > 0 {
        if start.elapsed() > patience {
            println!("  {got} of {total} blocks in {patience:?}");
            return None;
        }
        poll.poll(&mut events, Some(Duration::from_secs(1))).unwrap();
        for event in &events {
            let number = event.token().0;
            let reader = &mut readers[number];
            let before = reader.got;
            if before == share {
                continue;
            }
            loop {
                match reader.stream.read(&mut buf) {
                    Ok(read) if read > 0 => {
                        let greeted = reader.greeted;
                        reader.step(&buf[..read]);
                        if reader.greeted && !greeted {
                            // Interested. With the handshake it would be too early for some.
                            let _ = reader.stream.write_all(&[0, 0, 0, 1, 2]);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    end => {
                        println!("  reader {number} was cut off after {} of {share} blocks: {end:?}", reader.got);
                        return None;
                    }
                }
                if let Err(error) = reader.ask(pieces, number as u64 * share, share) {
                    println!("  reader {number} was cut off after {} of {share} blocks: {error}", reader.got);
                    return None;
                }
            }
            got += reader.got - before;
            busy -= usize::from(reader.got == share);
        }
        if slowest.is_none() && got >= total / 2 {
            let least = readers.iter().map(|reader| reader.got).min().expect("a reader");
            slowest = Some(least as f64 * connections as f64 / got as f64);
        }
    }
    Some(Got { bytes: total * BLOCK_LEN, slowest: slowest.expect("half came") })
}

/// Connects from an address of loopback of its own: clients take few connections of one.
pub fn connect_from(number: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
    let [.., high, low] = u32::try_from(number).unwrap().to_be_bytes();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 1, high, low], 0)).into())?;
    socket.connect(&to.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

impl Reader {
    fn step(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let now = self.left.min(bytes.len());
            self.left -= now;
            bytes = &bytes[now..];
            self.greeted |= self.left == 0;
            if self.left > 0 || bytes.is_empty() {
                return;
            }
            let now = (5 - self.head.len()).min(bytes.len());
            self.head.extend(&bytes[..now]);
            if self.head.len() >= 4 && self.head[..4] == [0; 4] {
                bytes = &bytes[4 - (self.head.len() - now)..];
                self.head.clear();
                continue;
            }
            bytes = &bytes[now..];
            if self.head.len() < 5 {
                return;
            }
            self.left = u32::from_be_bytes(self.head[..4].try_into().unwrap()) as usize - 1;
            match self.head[4] {
                UNCHOKE => self.open = true,
                0 => self.open = false,
                PIECE => self.got += 1,
                _ => {}
            }
            self.head.clear();
        }
    }

    fn ask(&mut self, pieces: &Pieces, first: u64, share: u64) -> std::io::Result<()> {
        let under_way = self.asked - self.got;
        if !self.open || under_way > pieces.pipeline / 2 || self.asked == share {
            return Ok(());
        }
        let mut message = Vec::new();
        for block in self.asked..share.min(self.got + pieces.pipeline) {
            let offset = (first + block) % pieces.blocks() * BLOCK_LEN;
            message.extend([0, 0, 0, 13, 6]);
            for number in [offset / pieces.piece_len, offset % pieces.piece_len, BLOCK_LEN] {
                message.extend(u32::try_from(number).unwrap().to_be_bytes());
            }
            self.asked = block + 1;
        }
        self.stream.write_all(&message)
    }
}
