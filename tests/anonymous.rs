//! `[peers] anonymous`: what a tracker, a peer and a DHT node see of us, byte for byte; and what they see without it.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

mod common;

use common::{Daemon, make, noise, wait};

/// What others saw.
#[derive(Debug)]
struct Seen {
    /// The head of the announce.
    announce: String,
    /// The peer id in the handshakes for two torrents, and that told to the tracker for the first.
    ids: [Vec<u8>; 2],
    /// The extension handshake.
    extensions: String,
    /// A query of the DHT.
    query: String,
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut stream = None;
    wait("somebody comes", 20, || {
        match listener.accept() {
            Ok((accepted, _)) => stream = Some(accepted),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        stream.is_some()
    });
    let stream = stream.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Bytes as text, what is none of it left out.
fn text(bytes: &[u8]) -> String {
    bytes.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect()
}

/// Answers one announce, with one peer; its head.
fn announce(tracker: &TcpListener, peer: SocketAddr) -> String {
    let mut stream = accept(tracker);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let SocketAddr::V4(peer) = peer else { panic!() };
    let mut body = b"d8:intervali1800e5:peers6:".to_vec();
    body.extend([&peer.ip().octets()[..], &peer.port().to_be_bytes(), b"e"].concat());
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[answer.as_bytes(), &body].concat()).unwrap();
    String::from_utf8(head).unwrap()
}

/// Answers a handshake; the peer id in it, and the extension handshake that follows.
fn handshake(listener: &TcpListener) -> (Vec<u8>, String) {
    let mut stream = accept(listener);
    let mut theirs = [0; 68];
    stream.read_exact(&mut theirs).unwrap();
    let mut ours = theirs;
    ours[20..28].copy_from_slice(&[0, 0, 0, 0, 0, 0x10, 0, 5]);
    ours[48..].copy_from_slice(b"-XX0001-abcdefghijkl");
    stream.write_all(&ours).unwrap();
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        let mut message = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut message).unwrap();
        match message.first() {
            Some(20) => return (theirs[48..].to_vec(), text(&message)),
            Some(9) => panic!("the port of the DHT is told"),
            _ => {}
        }
    }
}

fn look(dir: &Path, is_anonymous: bool) -> Seen {
    let [tracker, first, second] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let node = UdpSocket::bind("127.0.0.1:0").unwrap();
    node.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::fs::create_dir_all(dir).unwrap();
    let url = format!("http://{}/announce", tracker.local_addr().unwrap());
    let torrents = ["one", "two"].map(|name| {
        let content = dir.join(name);
        std::fs::write(&content, noise(name.len() as u64 + u64::from(name.as_bytes()[0]), 100_000)).unwrap();
        let out = dir.join(format!("{name}-made"));
        std::fs::create_dir_all(&out).unwrap();
        make(&content, &out, &["--tracker", &url]).0
    });
    let keys = format!("anonymous = {is_anonymous}\nencryption = \"off\"\nlsd = true\n");
    let dht = format!("[dht]\nenabled = true\nbootstrap = [\"{}\"]\n", node.local_addr().unwrap());
    let daemon = Daemon::launch(&dir.join("d"), SocketAddr::from(([127, 0, 0, 1], common::free_port())), &keys, &dht);
    let mut packet = [0; 1500];
    let len = node.recv(&mut packet).unwrap();
    let query = text(&packet[..len]);
    daemon.add(&torrents[0], "");
    let announce_seen = announce(&tracker, first.local_addr().unwrap());
    let (id, extensions) = handshake(&first);
    daemon.add(&torrents[1], "");
    announce(&tracker, second.local_addr().unwrap());
    let (other, _) = handshake(&second);
    let groups =
        || daemon.json("stats").iter().find(|row| row["name"] == "multicast_sockets").unwrap()["value"].clone();
    if is_anonymous {
        assert_eq!(groups(), 0, "the local network is told nothing");
    } else {
        wait("the local network is told", 20, || groups() != 0);
    }
    assert_eq!(daemon.ask("shutdown").last().unwrap(), "OK");
    Seen { announce: announce_seen, ids: [id, other], extensions, query }
}

#[test]
fn others_see_nothing_that_names_us() {
    let temp = tempfile::tempdir().unwrap();
    let seen = look(&temp.path().join("hidden"), true);
    let Seen { announce, ids, extensions, query } = &seen;
    let told: Vec<&str> = announce.lines().map(|line| line.split(':').next().unwrap()).skip(1).collect();
    assert_eq!(told, ["Host", "Accept-Encoding", "Connection", ""], "{announce}");
    assert!(announce.contains("&port=1&") && !announce.contains("SW") && !announce.contains("ip="), "{announce}");
    assert!(ids[0] != ids[1] && ids.iter().all(|id| !id.starts_with(b"-")), "{ids:?}");
    for key in ["1:v", "6:yourip", "1:p", "4:ipv4", "4:ipv6", "4:reqq", "Swarm", "st"] {
        let is_told = extensions.contains(&format!("{key}i")) || extensions.contains(key) && key.len() > 3;
        assert!(!is_told, "{key} in {extensions}");
    }
    assert!(!extensions.contains("1:v") && extensions.contains("ut_metadata"), "{extensions}");
    assert!(query.contains("2:roi1e") && !query.contains("1:v") && !query.contains("SW"), "{query}");

    // And this is what they see otherwise.
    let Seen { announce, ids, extensions, query } = look(&temp.path().join("shown"), false);
    assert!(announce.contains("User-Agent: SwarmTorrent") && announce.contains("peer_id=-SW"), "{announce}");
    assert!(ids[0] == ids[1] && ids[0].starts_with(b"-SW0100-"));
    assert!(
        extensions.contains("1:v") && extensions.contains("6:yourip") && extensions.contains("1:pi"),
        "{extensions}"
    );
    assert!(query.contains("1:v4:SW"), "{query}");
}
