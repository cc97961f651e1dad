//! Links to the newest version of something (BEP 46), with libtorrent as the node that keeps the item and as the seeder.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Daemon, LIBTORRENT_DHT, Running, free_port, has_libtorrent, make, noise, wait};
use ring::signature::{Ed25519KeyPair, KeyPair};
use swarmtorrent::base::hash::Sha1Hash;
use swarmtorrent::codec::krpc::{Author, Body, Item, Message, Query, Want};
use swarmtorrent::protocol::dht::items::{mutable_target, signed_bytes};

const SALT: &[u8] = b"n";
const LEN: usize = 700_000;

/// Seeds noise in a directory of its own; the port of its node, and the hash. None if libtorrent is not installed.
fn seed(dir: &Path, number: u64, node: u16) -> Option<(Running, u16, String)> {
    if !has_libtorrent() {
        return None;
    }
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join("content.bin");
    std::fs::write(&path, noise(number, LEN)).unwrap();
    let (_, torrent, hash) = make(&path, dir, &[]);
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-c", LIBTORRENT_DHT]).arg(torrent).arg(dir).args([port.to_string(), node.to_string()]);
    Some((Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()), port, hash))
}

/// What the node at `port` of loopback says to a query; none while it says nothing.
fn ask(port: u16, query: Query<'_>) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let body = Body::Query { id: Sha1Hash([3; 20]), read_only: true, query };
    let mut packet = Vec::new();
    Message { transaction: b"aa", seen_as: None, version: None, body }.write(&mut packet);
    socket.send_to(&packet, ("127.0.0.1", port)).unwrap();
    let mut answer = vec![0; 2000];
    let len = socket.recv(&mut answer).ok()?;
    answer.truncate(len);
    Some(answer)
}

/// Has the node at `port` keep the item that names a torrent: it verifies the signature, and says so or an error.
fn publish(pair: &Ed25519KeyPair, port: u16, version: i64, value: &[u8]) {
    let key: &[u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    let target = mutable_target(key, SALT);
    let signature = pair.sign(&signed_bytes(SALT, version, value));
    let author = Author { key, salt: SALT, version, signature: signature.as_ref().try_into().unwrap() };
    let mut is_kept = false;
    wait("the item is kept", 30, || {
        let Some(answer) = ask(port, Query::Get { target, want: Want::default(), newer_than: None }) else {
            return false;
        };
        let Body::Response { response, .. } = Message::parse(&answer).unwrap().body else { return false };
        let item = Item { value, author: Some(author) };
        let Some(answer) = ask(port, Query::Put { token: response.token.unwrap(), item, replaces: None }) else {
            return false;
        };
        is_kept = matches!(Message::parse(&answer).unwrap().body, Body::Response { .. });
        true
    });
    assert!(is_kept, "libtorrent takes version {version}");
}

fn names(hash: &str) -> Vec<u8> {
    let hash = Sha1Hash::from_hex(hash).unwrap();
    [&b"d2:ih20:"[..], &hash.0, b"e"].concat()
}

#[test]
fn a_link_to_a_key_is_followed_from_version_to_version() {
    let temp = tempfile::tempdir().unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    let target = mutable_target(&key, SALT).to_string();
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let link = format!("magnet:?xs=urn:btpk:{hex}&s=6e&dn=feed");

    let first = free_port();
    let dht = format!("[dht]\nbootstrap = [\"127.0.0.1:{first}\"]\n");
    let begin = Daemon::start_at(&temp.path().join("begin"), ([127, 0, 0, 1], first).into(), &dht);
    let Some((_one, node, hash)) = seed(&temp.path().join("one"), 1, first) else { return };

    // Only the link is known, and nobody has an item.
    let dir = temp.path().join("ours");
    let ours = Daemon::start(&dir, &dht);
    assert_eq!(ours.ask(&format!("add '{link}' label=feeds")), [format!("OK {target}")]);
    assert!(ours.ask(&format!("add '{link}'")).last().unwrap().starts_with("ERR exists "));
    let row = ours.torrent();
    assert_eq!((&row["state"], &row["id"], &row["seq"]), (&"metadata".into(), &(*target).into(), &None::<i64>.into()));
    wait("it says why", 30, || ours.ask("why all")[0].starts_with("no DHT node has an item of its link's key"));
    assert_eq!(ours.ask("magnet all")[0], link);

    // What names no torrent helps nobody.
    publish(&pair, node, 1, b"de");
    ours.ask("announce all");
    wait("it says that", 60, || {
        ours.ask("why all")[0].starts_with("the newest item of its link's key names no torrent")
    });

    publish(&pair, node, 2, &names(&hash));
    ours.ask("announce all");
    wait("the first version is here", 90, || ours.torrent()["state"] == "seeding");
    let row = ours.torrent();
    assert_eq!((&row["id"], &row["seq"], &row["label"]), (&hash.clone().into(), &2.into(), &"feeds".into()));
    assert_eq!(row["follows"], *target);
    assert_eq!(std::fs::read(dir.join("downloads/content.bin")).unwrap(), noise(1, LEN));
    let shown = ours.json(&format!("show {target}")).remove(0);
    assert_eq!(shown["id"], hash, "the place of the item means the newest version");
    assert!(ours.ask("magnet all")[0].ends_with(&format!("&xs=urn:btpk:{hex}&s=6e")));

    // The next run goes on, and has others keep the version.
    assert_eq!(ours.terminate(), 0);
    let ours = Daemon::start(&dir, &dht);
    wait("it seeds again", 30, || ours.torrent()["state"] == "seeding");
    assert_eq!(ours.torrent()["seq"], 2);
    wait("another node keeps the item", 60, || begin.json("dht")[0]["items"] == 1);

    // A newer version is a torrent beside it.
    let Some((_two, _, newer)) = seed(&temp.path().join("two"), 2, first) else { return };
    publish(&pair, node, 7, &names(&newer));
    wait("the second version is here", 120, || {
        ours.ask(&format!("announce {target}"));
        let row = ours.json(&format!("show {target}")).remove(0);
        row["id"] == newer && row["state"] == "seeding"
    });
    let beside = dir.join(format!("downloads/{}-7/content.bin", &target[..12]));
    assert_eq!(std::fs::read(beside).unwrap(), noise(2, LEN));
    assert_eq!(std::fs::read(dir.join("downloads/content.bin")).unwrap(), noise(1, LEN));
    let rows = ours.json("list");
    assert_eq!(rows.len(), 2);
    let old = rows.iter().find(|row| row["id"] == hash).unwrap();
    assert!(old["state"] == "seeding" && old["follows"].is_null() && old["label"] == "feeds", "{old}");

    // Who removes the newest follows no more.
    assert!(ours.ask(&format!("remove {target}")).last().unwrap().starts_with("OK"));
    assert!(ours.ask(&format!("show {target}")).last().unwrap().starts_with("ERR not-found "));
    assert_eq!(ours.json("list").len(), 1);
    // The last entry of the journal about what is followed is an empty list.
    wait("it is forgotten", 10, || {
        let journal = std::fs::read(dir.join("state/journal")).unwrap();
        journal.windows(10).rfind(|window| window.starts_with(b"followed")).is_some_and(|last| last.ends_with(b"le"))
    });
}

#[test]
fn a_link_to_a_key_that_was_not_found_outlives_a_restart_and_wants_the_dht() {
    let temp = tempfile::tempdir().unwrap();
    let link = format!("magnet:?xs=urn:btpk:{}", "07".repeat(32));
    let target = mutable_target(&[7; 32], b"").to_string();
    let off = Daemon::start(&temp.path().join("off"), "");
    assert!(off.ask(&format!("add '{link}'")).last().unwrap().starts_with("ERR unsupported "));
    assert!(off.ask("add magnet:?xs=urn:btpk:07").last().unwrap().starts_with("ERR invalid "));

    let port = free_port();
    let dht = format!("[dht]\nbootstrap = [\"127.0.0.1:{port}\"]\n");
    let dir = temp.path().join("ours");
    let ours = Daemon::start(&dir, &dht);
    // A watch directory takes a link as well.
    std::fs::write(dir.join("watch/feed.magnet"), &link).unwrap();
    wait("it is taken", 20, || dir.join("watch/feed.magnet.added").exists());
    assert_eq!(ours.terminate(), 0);
    let ours = Daemon::start(&dir, &dht);
    let row = ours.torrent();
    assert_eq!((&row["state"], &row["follows"]), (&"metadata".into(), &(*target).into()));
    assert!(ours.ask("why all")[0].starts_with("no DHT node answers"), "{:?}", ours.ask("why all"));
    assert_eq!(ours.ask("remove all"), ["OK"]);
    assert_eq!(ours.terminate(), 0);
    assert!(Daemon::start(&dir, &dht).json("list").is_empty());
}
