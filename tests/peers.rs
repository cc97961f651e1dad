//! A peer of our own making against a daemon: what goes over the wire, message by message.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

mod common;

use common::{Daemon, make, noise, wait};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const PIECE_LEN: u32 = 32 * 1024;
const BLOCK_LEN: u32 = 16 * 1024;
const LEN: usize = 100 * PIECE_LEN as usize;

/// A connection after both handshakes, with the fast extension agreed on.
struct Wire(TcpStream);

impl Wire {
    fn connect(daemon: &Daemon, hash: &str, id: &[u8; 20]) -> Self {
        let mut stream = TcpStream::connect(daemon.listen).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let hash: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap()).collect();
        let reserved = [0, 0, 0, 0, 0, 0, 0, 4];
        stream.write_all(&[&b"\x13BitTorrent protocol"[..], &reserved, &hash, id].concat()).unwrap();
        let mut theirs = [0; 68];
        stream.read_exact(&mut theirs).unwrap();
        assert_eq!(theirs[28..48], hash);
        Self(stream)
    }

    fn say(&mut self, id: u8, payload: &[u8]) {
        let len = u32::try_from(payload.len() + 1).unwrap();
        self.0.write_all(&[&len.to_be_bytes()[..], &[id], payload].concat()).unwrap();
    }

    fn request(&mut self, piece: u32, offset: u32) {
        let numbers = [piece, offset, BLOCK_LEN].map(u32::to_be_bytes);
        self.say(6, &numbers.concat());
    }

    /// The next message that is no keep-alive.
    fn hear(&mut self) -> (u8, Vec<u8>) {
        loop {
            let mut len = [0; 4];
            self.0.read_exact(&mut len).unwrap();
            let mut message = vec![0; u32::from_be_bytes(len) as usize];
            self.0.read_exact(&mut message).unwrap();
            if let Some((&id, payload)) = message.split_first() {
                return (id, payload.to_vec());
            }
        }
    }
}

/// What a daemon with each `encryption` gets from one with another: whether it came ciphered, or not at all.
#[test]
fn plain_and_ciphered_streams_store_equal_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let content = noise(7, 5_000_001);
    let mut st = None;
    for (seeds, leeches, ciphered) in [
        ("off", "prefer", Some(false)), // it hangs up on the handshake, and is dialled again
        ("prefer", "off", Some(false)),
        ("allow", "prefer", Some(false)),
        ("prefer", "require", Some(true)),
        ("require", "allow", None), // it dials plainly
        ("require", "require", Some(true)),
        ("off", "require", None),
    ] {
        let dirs = [temp.path().join(format!("{seeds}-{leeches}-s")), temp.path().join(format!("{seeds}-{leeches}-l"))];
        std::fs::create_dir_all(dirs[0].join("downloads")).unwrap();
        std::fs::write(dirs[0].join("downloads/content"), &content).unwrap();
        let st = st.get_or_insert_with(|| make(&dirs[0].join("downloads/content"), temp.path(), &[]).0);
        // Daemon::start has a `[peers]` of its own, so the key goes in beside it.
        let seeder = Daemon::start_with_peers(&dirs[0], &format!("encryption = \"{seeds}\"\n"));
        let leecher = Daemon::start_with_peers(&dirs[1], &format!("encryption = \"{leeches}\"\n"));
        seeder.add(st, "");
        seeder.wait_state("seeding", 20);
        seeder.ask("limit up 2M");
        leecher.add(st, "");
        leecher.ask(&format!("connect all {}", seeder.listen));
        if let Some(ciphered) = ciphered {
            wait("there is a peer", 10, || {
                leecher.json("peers all").first().is_some_and(|peer| peer["down_rate"].as_u64() > Some(0))
            });
            assert_eq!(leecher.json("peers all")[0]["encrypted"], ciphered, "{leeches} from {seeds}");
            seeder.ask("limit up 0");
            leecher.wait_state("seeding", 20);
            assert!(std::fs::read(dirs[1].join("downloads/content")).unwrap() == content, "{leeches} from {seeds}");
        } else {
            wait("it was tried", 10, || {
                let stats = leecher.ask("stats");
                stats.iter().any(|line| line.starts_with("peers.dialled ") && line != "peers.dialled 0")
            });
            assert_eq!(leecher.torrent()["downloaded"], 0, "{leeches} from {seeds}");
        }
        assert_eq!(leecher.terminate(), 0);
        assert_eq!(seeder.terminate(), 0);
    }
}

/// CPU time of another process, seconds.
fn cpu_secs(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the daemon is watched while nothing happens")]
fn without_descriptors_it_waits_and_goes_on_when_there_are_some() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "");
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(open + 3), maximum: Some(open + 3) };
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let strangers: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(daemon.listen).unwrap()).collect();
    let before = cpu_secs(daemon.pid());
    std::thread::sleep(Duration::from_secs(3));
    let spent = cpu_secs(daemon.pid()) - before;
    assert!(spent < 0.3, "{spent} s of CPU in 3 s");
    drop(strangers);
    wait("it answers again", 10, || daemon.ask("version").last().is_some_and(|line| line.starts_with("OK")));
    let mut stranger = TcpStream::connect(daemon.listen).unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stranger.write_all(b"no handshake at all, but long enough to be judged as one, which takes 68 bytes").unwrap();
    assert_eq!(stranger.read(&mut [0; 1]).map_err(|error| error.kind()).unwrap_or(0), 0, "it is accepted, and closed");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_choked_newcomer_may_have_a_few_pieces_once() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(temp.path().join("d/downloads")).unwrap();
    std::fs::write(temp.path().join("d/downloads/content"), noise(7, LEN)).unwrap();
    let (st, _, hash) =
        make(&temp.path().join("d/downloads/content"), temp.path(), &["--piece-length", &PIECE_LEN.to_string()]);
    let daemon = Daemon::start(&temp.path().join("d"), "");
    daemon.add(&st, "");
    daemon.wait_state("seeding", 20);
    // What nobody else has is for those who have a slot: first somebody comes who has nearly everything.
    let mut owner = Wire::connect(&daemon, &hash, b"-XX0001-owner-------");
    let pieces = LEN.div_ceil(PIECE_LEN as usize);
    let mut field = vec![0xff; pieces.div_ceil(8)];
    *field.last_mut().unwrap() = 0; // whatever its spare bits are
    owner.say(5, &field);
    wait("it is known what the owner has", 10, || {
        daemon.json("peers all").first().is_some_and(|peer| peer["progress"].as_f64() > Some(0.5))
    });
    let mut wire = Wire::connect(&daemon, &hash, b"-XX0001-newcomer----");
    wire.say(15, &[]); // have none
    let mut allowed = Vec::new();
    while allowed.len() < 4 {
        let (id, payload) = wire.hear();
        if id == 17 {
            allowed.push(u32::from_be_bytes(payload.try_into().unwrap()));
        }
    }
    let content = noise(7, LEN);
    for &piece in &allowed {
        for offset in [0, BLOCK_LEN] {
            wire.request(piece, offset);
            let (id, payload) = wire.hear();
            let start = (piece * PIECE_LEN + offset) as usize;
            assert!(id == 7 && payload[8..] == content[start..start + BLOCK_LEN as usize], "message {id}");
        }
    }
    wire.request(allowed[0], 0);
    assert_eq!(wire.hear().0, 16, "rejected: it had them all, and is choked");
    let other = (0..100).find(|piece| !allowed.contains(piece)).unwrap();
    wire.request(other, 0);
    assert_eq!(wire.hear().0, 16);
}

#[test]
fn who_is_in_the_blocklist_is_neither_dialled_nor_let_in_until_it_is_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let content = temp.path().join("seed/downloads/content");
    std::fs::create_dir_all(content.parent().unwrap()).unwrap();
    std::fs::write(&content, noise(9, 3_000_000)).unwrap();
    let (st, _, hash) = make(&content, temp.path(), &[]);
    let list = temp.path().join("list.p2p");
    std::fs::write(&list, "Ourselves: loopback:127.0.0.0-127.255.255.255\n").unwrap();
    let seed = Daemon::start(&temp.path().join("seed"), "");
    let keys = format!("block = [\"10.0.0.0/8\", \"{}\"]\n", list.display());
    let leech = Daemon::start_with_peers(&temp.path().join("leech"), &keys);
    seed.add(&st, "");
    seed.wait_state("seeding", 10);
    leech.add(&st, "");
    let blocked = |daemon: &Daemon| {
        let rows = daemon.json("stats");
        rows.iter().find(|row| row["name"] == "peers.blocked").unwrap()["value"].as_u64().unwrap()
    };
    leech.ask(&format!("connect {hash} {}", seed.listen));
    wait("it is not dialled", 10, || blocked(&leech) == 1);
    let mut stranger = TcpStream::connect(leech.listen).unwrap();
    assert_eq!(stranger.read(&mut [0; 1]).unwrap(), 0, "nor is anybody let in");
    assert!(blocked(&leech) >= 2);
    assert_eq!((leech.torrent()["have_bytes"].as_u64(), blocked(&seed)), (Some(0), 0));

    std::fs::write(&list, "192.0.2.1\n").unwrap();
    assert_eq!(leech.ask("reload"), ["2 ranges of addresses are blocked now", "OK"]);
    leech.ask(&format!("connect {hash} {}", seed.listen));
    leech.wait_state("seeding", 20);

    // A connection ends once its other end is blocked.
    let wire = Wire::connect(&leech, &hash, b"-XX0001-abcdefghijkl");
    std::fs::write(&list, "127.0.0.1\n").unwrap();
    assert_eq!(leech.ask("reload").last().unwrap(), "OK");
    let mut stream = wire.0;
    let mut rest = Vec::new();
    // Whether it ends or is reset, it is over.
    let _ = stream.read_to_end(&mut rest);
    wait("nobody is left", 10, || leech.json("status")[0]["connections"] == 0);
    std::fs::write(&list, "<html>\n").unwrap();
    let told = leech.ask("reload");
    assert!(told[0].contains("not one line of it") && told[0].contains("what was blocked still is"), "{told:?}");
    assert!(
        blocked(&leech) > 2 && TcpStream::connect(leech.listen).unwrap().read(&mut [0; 1]).is_ok_and(|len| len == 0)
    );
}
