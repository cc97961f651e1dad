//! Links and lists among strangers who lie: what they say neither keeps the honest from being heard nor costs more than a bound.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests fail where they stand; their numbers are small"
)]

mod common;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Daemon, Running, make, noise, wait};
use socket2::{Domain, Socket, Type};
use swarmtorrent::base::hash::{InfoHash, Sha1Hash};
use swarmtorrent::codec::catalog::{CatalogMessage, Entry, ITEMS_MAX};
use swarmtorrent::codec::extension::{ExtensionHandshake, ExtensionIds, ExtensionKind};
use swarmtorrent::codec::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use swarmtorrent::codec::wire::{Handshake, Message, Reserved};
use swarmtorrent::protocol::catalog;

/// An `info` of 586 KiB: a torrent of 30,000 pieces.
fn long_info() -> Vec<u8> {
    let pieces = 30_000;
    let head = format!("d6:lengthi{}e4:name1:x12:piece lengthi16384e6:pieces{}:", pieces * 16_384, pieces * 20);
    [head.as_bytes(), &noise(5, pieces * 20), b"e"].concat()
}

fn piece_of(info: &[u8], piece: u32) -> Vec<u8> {
    info.chunks(METADATA_PIECE_LEN as usize).nth(piece as usize).unwrap_or_default().to_vec()
}

/// A stranger's end of a connection; nothing waits on it.
struct Stranger {
    stream: TcpStream,
    heard: Vec<u8>,
    unsent: Vec<u8>,
}

impl Stranger {
    /// Connects from an address of its own, and introduces itself with what it says of its extensions.
    fn connect(to: SocketAddr, number: u8, info_hash: InfoHash, extensions: &ExtensionHandshake<'_>) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, number], 0)).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        Self::greet(socket.into(), number, info_hash, extensions)
    }

    fn greet(stream: TcpStream, number: u8, info_hash: InfoHash, extensions: &ExtensionHandshake<'_>) -> Self {
        stream.set_nonblocking(true).unwrap();
        let handshake = Handshake { reserved: Reserved::new(true, true, false), info_hash, peer_id: [number; 20] };
        let mut stranger = Self { stream, heard: Vec::new(), unsent: handshake.to_bytes().to_vec() };
        let mut payload = Vec::new();
        extensions.write(&mut payload);
        stranger.extended(0, &payload);
        stranger
    }

    fn extended(&mut self, id: u8, payload: &[u8]) {
        Message::Extended { id, payload }.write(&mut self.unsent);
    }

    fn metadata(&mut self, message: &MetadataMessage<'_>) {
        let mut payload = Vec::new();
        message.write(&mut payload);
        self.extended(ExtensionKind::Metadata.id(), &payload);
    }

    /// Sends what it can; false once the other end has closed.
    fn send(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// Reads what has come; false once the other end has closed.
    fn read(&mut self) -> bool {
        let mut buf = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return false,
                Ok(read) => self.heard.extend_from_slice(&buf[..read]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// The payloads of the messages that came of the extension with our number `id`.
    fn hear(&mut self, id: u8) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        if self.heard.first() == Some(&19) {
            if self.heard.len() < 68 {
                return payloads;
            }
            self.heard.drain(..68);
        }
        while let Some(len) = self.heard.first_chunk().map(|len| u32::from_be_bytes(*len) as usize) {
            if self.heard.len() < 4 + len {
                break;
            }
            let message: Vec<u8> = self.heard.drain(..4 + len).skip(4).collect();
            if message.starts_with(&[20, id]) {
                payloads.push(message[2..].to_vec());
            }
        }
        payloads
    }
}

fn has_info_of(size: u32) -> ExtensionHandshake<'static> {
    let ids = ExtensionIds::of(&[ExtensionKind::Metadata]);
    ExtensionHandshake { ids, metadata_size: Some(size), ..ExtensionHandshake::default() }
}

/// How somebody answers who is asked for a piece.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Garbage, of a size that is wrong anyway.
    OtherSize,
    Garbage,
    Silent,
    OtherTotal,
    /// Other pieces than those that it is asked for.
    Unasked,
    Rejects,
}

fn answer(stranger: &mut Stranger, manner: Manner, size: u32, info: &[u8]) {
    for payload in stranger.hear(ExtensionKind::Metadata.id()) {
        let Some(MetadataMessage::Request(piece)) = MetadataMessage::parse(&payload) else { continue };
        let len = METADATA_PIECE_LEN.min(size.saturating_sub(piece * METADATA_PIECE_LEN)) as usize;
        let garbage = vec![7; len];
        let good = piece_of(info, piece);
        let (piece, total_size, bytes) = match manner {
            Manner::Silent => continue,
            Manner::Rejects => {
                stranger.metadata(&MetadataMessage::Reject(piece));
                continue;
            }
            Manner::Honest => (piece, size, good),
            Manner::OtherSize | Manner::Garbage => (piece, size, garbage),
            Manner::OtherTotal => (piece, size + 1, good),
            Manner::Unasked => (piece + 1_000_000, size, garbage),
        };
        stranger.metadata(&MetadataMessage::Data { piece, total_size, bytes: &bytes });
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "strangers take turns until a deadline")]
fn a_link_is_described_by_one_honest_peer_among_liars() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "[storage]\nallocate = \"sparse\"\n[limits]\nmin_free_space = \"0\"\n");
    let info = long_info();
    let (hash, size) = (Sha1Hash::of(&info), info.len() as u32);
    daemon.ask(&format!("add magnet:?xt=urn:btih:{hash}"));
    let everybody = [
        (size - 1000, Manner::OtherSize),
        (1 << 31, Manner::OtherSize),
        (0, Manner::OtherSize),
        (size, Manner::Silent),
        (size, Manner::Silent),
        (size, Manner::Garbage),
        (size, Manner::OtherTotal),
        (size, Manner::Unasked),
        (size, Manner::Rejects),
        (size, Manner::Honest),
    ];
    let mut strangers: Vec<(Stranger, Manner, u32)> = Vec::new();
    for (number, (claimed, manner)) in (2..).zip(everybody) {
        strangers.push((Stranger::connect(daemon.listen, number, hash, &has_info_of(claimed)), manner, claimed));
    }
    strangers.iter_mut().for_each(|(stranger, ..)| assert!(stranger.send()));
    wait("they are peers", 10, || daemon.json("peers all").len() == everybody.len());
    let start = Instant::now();
    let before = daemon.memory_kib();
    let mut most = before;
    while daemon.torrent()["name"] != "x" {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}; the log:\n{}", daemon.ask("why all"), daemon.log());
        for (stranger, manner, size) in &mut strangers {
            stranger.read();
            answer(stranger, *manner, *size, &info);
            stranger.send();
        }
        most = most.max(daemon.memory_kib());
        std::thread::sleep(Duration::from_millis(5));
    }
    most = most.max(daemon.memory_kib());
    let grown = most - before;
    println!("described after {:?}, {grown} KiB of memory for an info of {} KiB", start.elapsed(), size >> 10);
    // The draft, the metainfo, and the copy of it that is being saved.
    assert!(grown < 3 * u64::from(size >> 10) + 2048, "{grown} KiB for {size} bytes");
    let why = daemon.ask("why all");
    assert!(!why[0].contains("description"), "{why:?}");
}

#[test]
fn who_asks_for_our_info_without_end_costs_little() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "[storage]\nallocate = \"sparse\"\n[limits]\nmin_free_space = \"0\"\n");
    let info = long_info();
    let (hash, pieces) = (Sha1Hash::of(&info), (info.len() as u32).div_ceil(METADATA_PIECE_LEN));
    let torrent = temp.path().join("x.torrent");
    std::fs::write(&torrent, [b"d4:info", &info[..], b"e"].concat()).unwrap();
    daemon.add(&torrent, "verify=no");
    daemon.wait_state("downloading", 10);
    let mut strangers: Vec<Stranger> =
        (2..22).map(|number| Stranger::connect(daemon.listen, number, hash, &has_info_of(5))).collect();
    strangers.iter_mut().for_each(|stranger| assert!(stranger.send()));
    wait("they are peers", 10, || daemon.json("peers all").len() == 20);
    let before = daemon.memory_kib();
    for stranger in &mut strangers {
        (0..20_000).for_each(|number| stranger.metadata(&MetadataMessage::Request(number % pieces)));
        stranger.send();
    }
    // Nobody reads what comes. The daemon goes on, and keeps little of it.
    wait("they are heard", 20, || {
        strangers.iter_mut().for_each(|stranger| assert!(stranger.send()));
        let stats = daemon.ask("stats");
        let row = stats.iter().find_map(|line| line.strip_prefix("peers.messages_in ")).unwrap();
        row.parse::<u64>().unwrap() > 20_000
    });
    let grown = daemon.memory_kib().saturating_sub(before);
    println!("{grown} KiB for twenty who ask and do not read");
    assert!(grown < 20 * 400, "{grown} KiB");
    // Who reads gets all of it, and each piece no more than a few times.
    let stranger = &mut strangers[0];
    let mut had: Vec<u32> = Vec::new();
    wait("one of them gets it all", 20, || {
        stranger.send();
        stranger.read();
        for payload in stranger.hear(ExtensionKind::Metadata.id()) {
            if let Some(MetadataMessage::Data { piece, bytes, .. }) = MetadataMessage::parse(&payload) {
                assert!(bytes == piece_of(&info, piece));
                had.push(piece);
            }
        }
        stranger.unsent.is_empty() && had.iter().collect::<BTreeSet<_>>().len() == pieces as usize
    });
    assert!(had.len() <= 4 * pieces as usize, "{} pieces", had.len());
}

#[test]
fn a_link_and_a_file_of_other_hashes_do_not_get_mixed_up() {
    let temp = tempfile::tempdir().unwrap();
    let content = temp.path().join("content");
    std::fs::write(&content, noise(1, 100_000)).unwrap();
    let (st, _, hash) = make(&content, temp.path(), &[]);
    let shown: serde_json::Value =
        serde_json::from_str(&common::tool(&["show", "--json", st.to_str().unwrap()])).unwrap();
    let st_id = shown["st_id"].as_str().unwrap().to_owned();
    let daemon = Daemon::start(&temp.path().join("d"), "");
    // By its st-id alone one cannot know that it has another hash on the wire.
    assert!(daemon.ask(&format!("add {st_id}"))[0].starts_with("OK"));
    let reply = daemon.ask(&format!("add {}", st.display()));
    assert!(reply[0].starts_with("ERR exists"), "{reply:?}");
    assert_eq!(daemon.ask(&format!("remove {}", &st_id[..12])), ["OK"]);
    daemon.add(&st, &format!("dir={}", temp.path().display()));
    daemon.wait_state("seeding", 20);
    assert_eq!(daemon.torrent()["id"], hash.as_str());
    for id in [&st_id[..12], &hash[..12]] {
        assert!(daemon.ask(&format!("show {id}")).last().unwrap().starts_with("OK"));
    }
    assert_eq!(daemon.terminate(), 0);
}

/// Somebody who is asked for what he shares.
struct Lister {
    listener: TcpListener,
    at: SocketAddr,
}

impl Lister {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { at: listener.local_addr().unwrap(), listener }
    }

    fn accept(&self) -> Option<Stranger> {
        let (stream, _) = self.listener.accept().ok()?;
        let ids = ExtensionIds::of(&[ExtensionKind::Catalog]);
        let extensions = ExtensionHandshake { ids, ..ExtensionHandshake::default() };
        Some(Stranger::greet(stream, 9, catalog::hash(), &extensions))
    }
}

fn page(page: u32, pages: u32, name: &str) -> Vec<u8> {
    let item = |number: usize| Entry {
        info_hash: Sha1Hash::of(&[page as u8, (page >> 8) as u8, number as u8]),
        st_id: None,
        name: name.to_owned(),
        size: u64::MAX >> 1,
    };
    let mut payload = Vec::new();
    CatalogMessage::Page { page, pages, items: (0..ITEMS_MAX).map(item).collect() }.write(&mut payload);
    payload
}

/// Lists as many pages as it is asked for, and the same ones again and again, until `is_over`.
fn list(lister: &Lister, pages: u32, name: &str, mut is_over: impl FnMut() -> bool) {
    let mut strangers: Vec<Stranger> = Vec::new();
    wait("the list comes to an end", 60, || {
        strangers.extend(lister.accept());
        for stranger in &mut strangers {
            stranger.read();
            for payload in stranger.hear(ExtensionKind::Catalog.id()) {
                if let Some(CatalogMessage::Request(number)) = CatalogMessage::parse(&payload) {
                    let payload = page(number, pages, name);
                    stranger.extended(ExtensionKind::Catalog.id(), &payload);
                    stranger.extended(ExtensionKind::Catalog.id(), &payload);
                }
            }
            stranger.send();
        }
        is_over()
    });
}

const HOSTILE: &str = "../../etc/passwd\u{1b}[2J\r\n\u{9b}31m\u{202e}OK ";

fn is_harmless(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'))
}

#[test]
fn a_list_of_hostile_names_without_end_does_nothing_to_the_tool() {
    let lister = Lister::new();
    for arguments in [&["ls"][..], &["ls", "--json"]] {
        let out = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_swarmtorrent"))
            .args(arguments)
            .arg(lister.at.to_string())
            .stdout(Stdio::from(out.reopen().unwrap()))
            .spawn()
            .unwrap();
        let mut child = Running(child);
        let mut status = None;
        list(&lister, 1_000_000, HOSTILE, || {
            status = child.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
        let said = std::fs::read_to_string(out.path()).unwrap();
        assert!(said.lines().count() > 1000 && said.len() < 8 << 20, "{} lines", said.lines().count());
        assert!(is_harmless(&said), "{:?}", said.lines().next());
        assert!(said.lines().all(|line| !line.starts_with("OK")));
    }
}

#[test]
fn a_list_of_hostile_names_without_end_is_bounded_in_the_daemon() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "");
    let lister = Lister::new();
    let before = daemon.memory_kib();
    let (mut reply, mut rounds) = (Vec::new(), 0);
    list(&lister, 1_000_000, HOSTILE, || {
        rounds += 1;
        if rounds % 50 != 1 {
            return false;
        }
        reply = daemon.ask(&format!("catalog {}", lister.at));
        reply.last().is_some_and(|line| line == "OK done")
    });
    let grown = daemon.memory_kib().saturating_sub(before);
    println!("{} rows, {grown} KiB", reply.len());
    assert!(reply.len() > 1000 && reply.iter().all(|line| is_harmless(line)), "{:?}", &reply[..2]);
    assert!(reply[..reply.len() - 1].iter().all(|line| !line.starts_with("OK") && !line.starts_with("ERR")));
    assert!(grown < 32 << 10, "{grown} KiB");
    // Who closes, and who says nothing that makes sense, is told of.
    for garbage in [&b""[..], b"\x13BitTorrent protocol", &[0xff; 5000]] {
        let lister = Lister::new();
        wait("it has failed", 20, || {
            if let Ok((mut stream, _)) = lister.listener.accept() {
                drop(stream.write_all(garbage));
            }
            daemon.ask(&format!("catalog {}", lister.at))[0].starts_with("ERR io")
        });
    }
}

/// A directory of many small files that are shared each for itself.
fn share_many(dir: &Path, count: usize) {
    std::fs::create_dir_all(dir).unwrap();
    (0..count).for_each(|number| std::fs::write(dir.join(format!("{number:04}")), [1, number as u8]).unwrap());
}

#[test]
fn who_asks_for_our_list_without_end_costs_little() {
    let temp = tempfile::tempdir().unwrap();
    let share = temp.path().join("share");
    share_many(&share, 300);
    let daemon = Daemon::start(&temp.path().join("d"), &format!("[[share]]\npath = \"{}\"\n", share.display()));
    wait("all are shared", 60, || daemon.json("list seeding").len() == 300);
    let ids = ExtensionIds::of(&[ExtensionKind::Catalog]);
    let extensions = ExtensionHandshake { ids, ..ExtensionHandshake::default() };
    let before = daemon.memory_kib();
    for number in 2..22 {
        let mut stranger = Stranger::connect(daemon.listen, number, catalog::hash(), &extensions);
        for page in [0, 1, 2, 3, u32::MAX].into_iter().cycle().take(2000) {
            let mut payload = Vec::new();
            CatalogMessage::Request(page).write(&mut payload);
            stranger.extended(ExtensionKind::Catalog.id(), &payload);
        }
        wait("it is parted with", 20, || !stranger.send() || !stranger.read());
    }
    let grown = daemon.memory_kib().saturating_sub(before);
    println!("{grown} KiB");
    assert!(grown < 4096, "{grown} KiB");
}
