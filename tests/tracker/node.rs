//! The clients of npm's `bittorrent-tracker`, by UDP and HTTP, in the steps that its own tests go; and requests of its tests.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use swarmtorrent::base::hash::InfoHash;
use swarmtorrent::codec::http_tracker::{parse_announce, parse_scrape};

use crate::{Served, Web, failure, loopback, percent};

/// Where `tests/run` installs it.
fn package() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let package = cache.join("swarmtorrent-tests/node_modules/bittorrent-tracker/index.js");
    let has_node = Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok();
    (has_node && package.is_file()).then_some(package)
}

#[test]
fn its_clients_start_update_complete_stop_and_scrape() {
    let Some(package) = package() else {
        eprintln!("left out: bittorrent-tracker is not installed; tests/run does that where there is npm");
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let six = "http = [\"127.0.0.1:0\", \"[::1]:0\"]";
    let served = Served::start_at(temp.path(), six);
    let six = served.state()["http"][1].as_str().unwrap().to_owned();
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tracker/client.mjs"))
        .arg(package)
        .args([format!("udp://{}/announce", served.udp), format!("http://{}/announce", served.http)])
        .arg(format!("http://{six}/announce"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.lines().filter(|line| line.starts_with("good ")).count(), 3, "{told}");
    // Everybody has left again.
    assert_eq!(served.state()["peers"], 0);
    assert_eq!(served.state()["errors"]["malformed"], 0);
}

/// `+` and `*`, which must be escaped, and `"`, which need not be: webtorrent's issue 196.
#[test]
fn a_hash_with_special_characters_is_read_as_it_is_escaped() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    let hash = InfoHash::from_hex("a2a15537542b22925ad10486bf7a8b2a9c42f0d1").unwrap();
    let mut web = Web::connect(loopback(1), served.http);
    for (number, escaped) in [
        "%A2%A1U7T%2B%22%92Z%D1%04%86%BFz%8B%2A%9CB%F0%D1",
        "%A2%A1U7T+%22%92Z%D1%04%86%BFz%8B*%9CB%F0%D1",
        &percent(&hash.0),
    ]
    .iter()
    .enumerate()
    {
        let query = format!("info_hash={escaped}&peer_id=01234567890123456789&port={}", 6881 + number);
        let answer = parse_announce(&web.get(&format!("/announce?{query}")).body).unwrap().unwrap();
        assert_eq!(answer.peers.len(), number, "{escaped}");
        let scraped = web.get(&format!("/scrape?info_hash={escaped}")).body;
        assert_eq!(parse_scrape(&scraped, &hash).unwrap().unwrap().leechers, Some(number as u32 + 1));
    }
}

/// What its server throws at; `left` that is missing is no seed.
#[test]
fn what_its_server_refuses_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    let mut web = Web::connect(loopback(1), served.http);
    let (hash, id) = (percent(&[7; 20]), "peer_id=01234567890123456789");
    for (query, reason) in [
        (format!("{id}&port=1"), "info_hash is missing"),
        (format!("info_hash={}&{id}&port=1", percent(&[7; 19])), "info_hash is not 20 bytes"),
        (format!("info_hash={hash}&info_hash={hash}&{id}&port=1"), "info_hash stands there twice"),
        (format!("info_hash={hash}&port=1"), "peer_id is missing"),
        (format!("info_hash={hash}&peer_id=0123456789&port=1"), "peer_id is not 20 bytes"),
        (format!("info_hash={hash}&{id}"), "port is missing"),
        (format!("info_hash={hash}&{id}&port=0"), "port is not a number"),
        (format!("info_hash={hash}&{id}&port=-1"), "port is not a number"),
        (format!("info_hash={hash}&{id}&port=65536"), "port is not a number"),
        (format!("info_hash={hash}&{id}&port=six"), "port is not a number"),
    ] {
        let answer = web.get(&format!("/announce?{query}"));
        assert_eq!(answer.status, 200, "clients read no reason in another status");
        assert!(failure(&answer.body).contains(reason), "{query}: {}", failure(&answer.body));
    }
    for query in ["", "?info_hash=", "?info_hash=%07%07"] {
        assert!(!failure(&web.get(&format!("/scrape{query}")).body).is_empty());
    }
    assert_eq!(web.get("/stats").status, 404);
    assert_eq!(served.state()["swarms"], 0);
    web.get(&format!("/announce?info_hash={hash}&{id}&port=1"));
    let scraped = web.get(&format!("/scrape?info_hash={hash}")).body;
    let counts = parse_scrape(&scraped, &swarmtorrent::base::hash::Sha1Hash([7; 20])).unwrap().unwrap();
    assert_eq!((counts.seeders, counts.leechers, counts.downloaded), (Some(0), Some(1), Some(0)));
}

/// Its test of a scrape by hand, of two swarms; and in dictionaries, as whoever does not say `compact=0` is not answered.
#[test]
fn two_swarms_are_scraped_at_once_and_peers_are_dictionaries_for_who_wants_them() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start_at(temp.path(), "http = [\"[::1]:0\"]");
    let [one, two] = [[1; 20], [2; 20]].map(swarmtorrent::base::hash::Sha1Hash);
    let mut web = Web::connect(IpAddr::V6(Ipv6Addr::LOCALHOST), served.http);
    let id = "peer_id=01234567890123456789";
    web.get(&format!("/announce?info_hash={}&{id}&port=6881&left=0", percent(&one.0)));
    let body = web.get(&format!("/scrape?info_hash={}&info_hash={}", percent(&two.0), percent(&one.0))).body;
    let seeds = |hash| parse_scrape(&body, hash).unwrap().unwrap().seeders;
    assert_eq!((seeds(&one), seeds(&two)), (Some(1), Some(0)));
    assert_eq!(body.windows(12).filter(|window| *window == b"10:downloade").count(), 2, "{}", body.escape_ascii());
    let listed = web.get(&format!("/announce?info_hash={}&{id}&port=6882&left=1&compact=0", percent(&one.0))).body;
    assert!(listed.windows(28).any(|window| window == b"5:peersld2:ip3:::14:porti688"), "{}", listed.escape_ascii());
    let answer = parse_announce(&listed).unwrap().unwrap();
    assert_eq!(answer.peers, ["[::1]:6881".parse().unwrap()]);
}
