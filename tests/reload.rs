//! The config file read again by a running daemon: what it says of each key, and that it is so.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

mod common;

use common::{Daemon, free_port, make, noise, wait};
use rustix::process::{Pid, Signal, kill_process};

/// Writes the config with each of these replaced, which must be there.
fn edit(dir: &Path, changes: &[(&str, &str)]) {
    let path = dir.join("config.toml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    for (old, new) in changes {
        assert!(config.contains(old), "{old} is not in\n{config}");
        config = config.replacen(old, new, 1);
    }
    std::fs::write(path, config).unwrap();
}

fn hang_up(daemon: &Daemon) {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
}

/// A peer that has introduced itself plainly, and was answered; none if it was hung up on.
fn plain_peer(addr: SocketAddr, hash: &str, id: &[u8; 20]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let hash: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap()).collect();
    stream.write_all(&[&b"\x13BitTorrent protocol"[..], &[0; 8], &hash, id].concat()).ok()?;
    stream.read_exact(&mut [0; 68]).ok().map(|()| stream)
}

/// Reads until the other end hangs up, which it must.
fn ends(mut stream: TcpStream) {
    let mut buf = [0; 4096];
    while let Ok(len) = stream.read(&mut buf) {
        if len == 0 {
            return;
        }
    }
    assert!(stream.write_all(&[0; 4]).and_then(|()| stream.write_all(&[0; 4])).is_err(), "it should have ended");
}

fn connections(daemon: &Daemon) -> u64 {
    daemon.json("status")[0]["connections"].as_u64().unwrap()
}

#[test]
fn every_change_is_told_and_holds_at_once_or_waits_for_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("daemon");
    let here = dir.display().to_string();
    std::fs::write(temp.path().join("first"), noise(1, 100_000)).unwrap();
    std::fs::write(temp.path().join("second"), noise(2, 100_000)).unwrap();
    let keys = "encryption = \"allow\"\nmax_connections = 50\n";
    let daemon = Daemon::launch(&dir, SocketAddr::from(([127, 0, 0, 1], free_port())), keys, "");
    assert_eq!(daemon.ask("reload"), ["nothing has changed", "OK"]);
    edit(
        &dir,
        &[
            (&format!("downloads = \"{here}/downloads\""), &format!("downloads = \"{here}/elsewhere\"")),
            (&format!("state = \"{here}/state\""), &format!("state = \"{here}/other\"")),
            (
                &format!("socket = \"{here}/control\""),
                &format!("socket = \"{here}/control\"\nmode = \"0600\"\ngroup = \"1\""),
            ),
            ("encryption = \"allow\"", "encryption = \"require\"\npex = false\nupload_slots = 3\nmax_half_open = 7"),
            ("level = \"debug\"", "level = \"info\"\n[trackers]\ntimeout = \"3s\"\n[storage]\nbackend = \"mmap\""),
            ("[dht]\nenabled = false", "[dht]\nenabled = false\nread_only = true"),
        ],
    );
    let (_, torrent, hash) = make(&temp.path().join("first"), temp.path(), &[]);
    std::fs::create_dir_all(dir.join("downloads")).unwrap();
    std::fs::copy(temp.path().join("first"), dir.join("downloads/first")).unwrap();
    daemon.add(&torrent, "");
    daemon.wait_state("seeding", 10);
    let before = plain_peer(daemon.listen, &hash, b"-XX0001-abcdefghijkl").unwrap();
    let inode = std::fs::metadata(dir.join("control")).unwrap().ino();
    assert_eq!(
        daemon.ask("reload"),
        [
            "control.group:  → 1".replace("  ", " \"\" "),
            "control.mode: 0660 → 0600".to_owned(),
            "log.level: debug → info".to_owned(),
            format!("paths.downloads: {here}/downloads → {here}/elsewhere"),
            "peers.encryption: allow → require".to_owned(),
            "peers.max_half_open: 50 → 7".to_owned(),
            "peers.pex: true → false".to_owned(),
            "peers.upload_slots: auto → 3".to_owned(),
            "storage.backend: pread → mmap".to_owned(),
            "trackers.timeout: 15s → 3s".to_owned(),
            "dht.read_only has changed: restart to apply".to_owned(),
            "paths.state has changed: restart to apply".to_owned(),
            "OK".to_owned(),
        ]
    );
    // Who speaks plainly is spoken with no more.
    ends(before);
    assert!(plain_peer(daemon.listen, &hash, b"-XX0002-abcdefghijkl").is_none());
    let socket = std::fs::metadata(dir.join("control")).unwrap();
    assert_eq!((socket.permissions().mode() & 0o777, socket.gid(), socket.ino()), (0o600, 1, inode));
    // What is new goes elsewhere, and what was there stays.
    let (_, torrent, _) = make(&temp.path().join("second"), &dir, &[]);
    daemon.add(&torrent, "paused=yes");
    let dirs: Vec<_> = daemon.json("list").iter().map(|row| row["dir"].as_str().unwrap().to_owned()).collect();
    assert!(dirs.contains(&format!("{here}/downloads")) && dirs.contains(&format!("{here}/elsewhere")), "{dirs:?}");
    assert_eq!(daemon.json("status")[0]["downloads"].as_str(), Some(format!("{here}/elsewhere").as_str()));
    // Back again, by a signal; a restart is waited for no longer once the file says what is so.
    edit(
        &dir,
        &[
            (&format!("state = \"{here}/other\""), &format!("state = \"{here}/state\"")),
            ("encryption = \"require\"", "encryption = \"prefer\""),
            ("mode = \"0600\"\ngroup = \"1\"", "mode = \"0640\""),
        ],
    );
    hang_up(&daemon);
    wait("the log tells", 5, || daemon.log().contains("reload: dht.read_only has changed: restart to apply"));
    assert!(daemon.log().contains("reload: peers.encryption: require → prefer"));
    assert!(!daemon.log().contains("reload: paths.state"));
    assert!(plain_peer(daemon.listen, &hash, b"-XX0003-abcdefghijkl").is_some());
    let socket = std::fs::metadata(dir.join("control")).unwrap();
    assert_eq!((socket.permissions().mode() & 0o777, socket.gid()), (0o640, rustix::process::getegid().as_raw()));
    assert_eq!(daemon.threads(), 1);
}

#[test]
fn fewer_connections_may_be_than_there_are() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("daemon");
    std::fs::create_dir_all(dir.join("downloads")).unwrap();
    std::fs::write(dir.join("downloads/content"), noise(1, 100_000)).unwrap();
    let (_, torrent, hash) = make(&dir.join("downloads/content"), temp.path(), &[]);
    let daemon = Daemon::start_with_peers(&dir, "max_connections = 60\nmax_per_torrent = 50\n");
    daemon.add(&torrent, "");
    daemon.wait_state("seeding", 10);
    let peer = |at: u8| {
        let mut id = *b"-XX0001-abcdefghijkl";
        id[19] = at;
        plain_peer(daemon.listen, &hash, &id).unwrap()
    };
    let mut peers: Vec<TcpStream> = (b'a'..b'a' + 10).map(peer).collect();
    let silent: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(daemon.listen).unwrap()).collect();
    wait("they are here", 10, || connections(&daemon) == 15);
    edit(&dir, &[("max_connections = 60", "max_connections = 8")]);
    assert_eq!(daemon.ask("reload"), ["peers.max_connections: 60 → 8", "OK"]);
    assert_eq!(connections(&daemon), 8);
    silent.into_iter().for_each(ends); // who says nothing goes first,
    peers.drain(8..).for_each(ends); // then who came last
    edit(&dir, &[("max_per_torrent = 50", "max_per_torrent = 3")]);
    assert_eq!(daemon.ask("reload"), ["peers.max_per_torrent: 50 → 3", "OK"]);
    assert_eq!(connections(&daemon), 3);
    assert_eq!(daemon.ask(&format!("get {hash} max-peers")), ["max-peers: 3 (config)", "OK"]);
    edit(&dir, &[("max_per_torrent = 3", "max_per_torrent = 4")]);
    assert_eq!(daemon.ask("reload"), ["peers.max_per_torrent: 3 → 4", "OK"]);
    assert!(plain_peer(daemon.listen, &hash, b"-XX0001-abcdefghijkz").is_some());
}

/// Whether a node of the DHT answers there.
fn answers_in_the_dht(addr: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", addr).unwrap();
    let mut reply = [0; 500];
    // It asks, too, who we are.
    while let Ok((len, from)) = socket.recv_from(&mut reply) {
        if from == addr && reply[..len].ends_with(b"1:y1:re") {
            return true;
        }
    }
    false
}

/// Bytes of what a tracker says of a swarm.
fn announce(tracker: SocketAddr, hash: &str) -> Vec<u8> {
    let hash: String = (0..20).map(|at| format!("%{}", &hash[2 * at..2 * at + 2])).collect();
    let mut stream = TcpStream::connect(tracker).unwrap();
    let query =
        format!("info_hash={hash}&peer_id=-XX0001-abcdefghijkl&port=1&uploaded=0&downloaded=0&left=1&compact=1");
    write!(stream, "GET /announce?{query}&numwant=50 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    reply
}

#[test]
fn the_port_moves_while_a_transfer_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let tracker = local(free_port());
    let config = format!("[tracker]\nhttp = [\"{tracker}\"]\ninterval = \"2s\"\n");
    let _tracker = Daemon::start(&temp.path().join("tracker"), &config);
    let content = noise(1, 3_000_000);
    let (seed_dir, leech_dir) = (temp.path().join("seed"), temp.path().join("leech"));
    std::fs::create_dir_all(seed_dir.join("downloads")).unwrap();
    std::fs::write(seed_dir.join("downloads/content"), &content).unwrap();
    let url = format!("http://{tracker}/announce");
    let (_, torrent, hash) = make(&seed_dir.join("downloads/content"), temp.path(), &["--tracker", &url]);
    let seed = Daemon::start(&seed_dir, "[limits]\nup = \"1M\"\n[dht]\nbootstrap = []\n");
    seed.add(&torrent, "");
    seed.wait_state("seeding", 10);
    let leech = Daemon::start(&leech_dir, "");
    leech.add(&torrent, "");
    let have = || leech.torrent()["have_bytes"].as_u64().unwrap();
    wait("it has begun", 20, || have() > 200_000);

    let old = seed.listen.port();
    let new = local(free_port());
    edit(&seed_dir, &[(&format!("listen = [\"{}\"]", seed.listen), &format!("listen = [\"{new}\"]"))]);
    assert_eq!(seed.ask("reload"), [format!("peers.listen: [{}] → [{new}]", seed.listen), "OK".to_owned()]);
    assert_eq!(seed.json("status")[0]["listen"][0].as_str(), Some(new.to_string().as_str()));
    assert_eq!(seed.json("status")[0]["dht_listen"], seed.json("status")[0]["listen"]);
    assert!(answers_in_the_dht(new));
    assert!(TcpStream::connect(local(old)).is_err(), "nobody is let in there any more");
    assert!(plain_peer(new, &hash, b"-XX0001-abcdefghijkl").is_some());
    let so_far = have();
    wait("more of it comes", 20, || have() > so_far + 500_000);
    let from = |daemon: &Daemon| daemon.json(&format!("peers {hash}"))[0]["addr"].as_str().map(str::to_owned);
    assert_eq!(from(&leech), Some(seed.listen.to_string()), "by the connection that it was, for nobody listens there");
    leech.wait_state("seeding", 20);
    assert_eq!(std::fs::read(leech_dir.join("downloads/content")).unwrap(), content);
    let bytes = [&[127, 0, 0, 1][..], &new.port().to_be_bytes()].concat();
    wait("the tracker hears of it", 10, || announce(tracker, &hash).windows(6).any(|window| window == bytes));

    // One that is taken changes nothing; what else the file says holds all the same.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let another = local(free_port());
    edit(
        &seed_dir,
        &[
            (&format!("listen = [\"{new}\"]"), &format!("listen = [\"{another}\", \"{taken}\"]")),
            ("up = \"1M\"", "up = \"2M\""),
        ],
    );
    let told = seed.ask("reload");
    assert!(told[0].starts_with(&format!("peers.listen stays as it was: cannot listen at {taken}: ")), "{told:?}");
    assert_eq!(told[1..], ["limits.up: 1M → 2M", "OK"]);
    assert!(TcpStream::connect(another).is_err());
    assert!(plain_peer(new, &hash, b"-XX0001-abcdefghijkl").is_some());
    drop(holder);
    let told = seed.ask("reload");
    assert!(told[0].contains("the DHT speaks from there") && told[0].ends_with(": restart to apply"), "{told:?}");

    // Without the DHT there may be more of them, in any order, and what stays is never closed.
    let first = leech.listen;
    edit(&leech_dir, &[(&format!("[\"{first}\"]"), &format!("[\"{another}\", \"{first}\"]"))]);
    assert_eq!(leech.ask("reload"), [format!("peers.listen: [{first}] → [{another}, {first}]"), "OK".to_owned()]);
    edit(&leech_dir, &[(&format!("[\"{another}\", \"{first}\"]"), &format!("[\"{first}\", \"{taken}\"]"))]);
    assert_eq!(leech.ask("reload").len(), 2);
    for addr in [first, taken] {
        assert!(plain_peer(addr, &hash, b"-XX0001-abcdefghijkl").is_some(), "{addr}");
    }
    assert!(TcpStream::connect(another).is_err());
}

#[test]
fn a_file_with_a_fault_changes_nothing_and_says_where_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let daemon = Daemon::start(dir, "[limits]\nup = \"1M\"\n");
    let good = std::fs::read_to_string(dir.join("config.toml")).unwrap();
    let line_of = |config: &str, what: &str| config.lines().position(|line| line.contains(what)).unwrap() + 1;
    let changed =
        good.replace("up = \"1M\"", "up = \"7M\"").replace("/downloads", "/elsewhere").replace("debug", "error");
    let mode = || std::fs::metadata(dir.join("control")).unwrap().permissions().mode();
    let before = (daemon.json("status")[0]["up_limit"].clone(), mode());
    for (fault, what) in [
        ("mode = \"0600\"\nmaxconnections = 5", "unknown key `maxconnections`"),
        ("mode = 600", "`control.mode`: invalid type: integer `600`, expected permissions in octal"),
        ("mode = \"0999\"", "permissions in octal from \"0000\" to \"0777\""),
        (
            "mode = \"0600\"\n[storage]\nallocate = \"some\"",
            "`storage.allocate`: unknown variant `some`, expected `full` or `sparse`",
        ),
        (
            "mode = \"0600\"\n[trackers]\ntimeout = \"2d\"",
            "`trackers.timeout`: a duration from \"1s\" to \"1d\" is allowed here",
        ),
    ] {
        let config = changed.replace("[peers]", &format!("{fault}\n[peers]"));
        std::fs::write(dir.join("config.toml"), &config).unwrap();
        let told = daemon.ask("reload");
        let line = line_of(&config, fault.lines().last().unwrap());
        let place = format!("ERR invalid {}:{line}: ", dir.join("config.toml").display());
        assert!(
            told.len() == 1 && told[0].starts_with(&place) && told[0].contains(what),
            "{told:?}, not {place}{what}"
        );
    }
    hang_up(&daemon);
    wait("the log tells", 5, || {
        daemon.log().contains("ERROR reload: ") || daemon.log().contains("from \"1s\" to \"1d\"")
    });
    assert_eq!((daemon.json("status")[0]["up_limit"].clone(), mode()), before);
    std::fs::write(dir.join("config.toml"), good).unwrap();
    assert_eq!(daemon.ask("reload"), ["nothing has changed", "OK"]);
}
