//! `swarmtorrent import` of what real clients have left: transmission, rtorrent, libtorrent, qBittorrent.
//!
//! Each seeds what lies there and is ended. The daemon then seeds it at once and hashes nothing; of what was damaged meanwhile it claims
//! nothing. A client that is not installed is left out, and the test says so.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Daemon, Running, free_port, has_libtorrent, make, noise, tool, wait};
use serde_json::Value;

/// A client that is left with two torrents, of a directory and of a file, both seeding.
struct Left {
    _temp: tempfile::TempDir,
    /// Where the content is, and where the client's state.
    content: PathBuf,
    state: PathBuf,
    /// The hashes, that of the directory first.
    hashes: [String; 2],
    word: &'static str,
}

const TORRENTS: [&str; 2] = ["set", "one.iso"];

fn is_here(program: &str) -> bool {
    let here = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !here {
        eprintln!("left out: {program} is not installed");
    }
    here
}

/// Lays the content and makes the torrents; `run` starts the client with them, which is ended by a signal once `is_ready`.
fn leave(
    word: &'static str,
    state: &str,
    run: impl FnOnce(&Path, &Path, &[PathBuf; 2]) -> Command,
    is_ready: impl Fn(&Path) -> bool,
) -> Left {
    let temp = tempfile::tempdir().unwrap();
    let content = temp.path().join("content");
    std::fs::create_dir_all(content.join("set/below")).unwrap();
    let files = [("set/a.bin", 700_000), ("set/below/b.bin", 300_001), ("set/c.txt", 10), ("one.iso", 1_000_000)];
    for (at, (name, len)) in files.into_iter().enumerate() {
        std::fs::write(content.join(name), noise(at as u64, len)).unwrap();
    }
    let made = TORRENTS.map(|name| {
        let out = temp.path().join(format!("made.{name}"));
        std::fs::create_dir_all(&out).unwrap();
        let extra = ["--piece-length", "32768", "--tracker", "http://127.0.0.1:1/announce"];
        make(&content.join(name), &out, &extra)
    });
    let hashes = made.clone().map(|(_, _, hash)| hash);
    let home = temp.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    let log = std::fs::File::create(temp.path().join("log")).unwrap();
    let mut command = run(&home, &content, &made.map(|(_, torrent, _)| torrent));
    command.env("HOME", &home).env("TERM", "dumb").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut client = Running(command.spawn().unwrap());
    wait(&format!("{word} seeds both"), 60, || is_ready(&home));
    end(&mut client.0);
    let state = home.join(state);
    Left { _temp: temp, content, state, hashes, word }
}

fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut ended = false;
    for _ in 0..2 {
        // rtorrent waits for its trackers, until it is asked a second time.
        let start = std::time::Duration::from_secs(10);
        ended = ended || wait_at_most(child, start);
        if !ended {
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        }
    }
    assert!(ended, "it ends");
}

#[expect(clippy::disallowed_methods, reason = "tests are outside the daemon")]
fn wait_at_most(child: &mut Child, time: std::time::Duration) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < time {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    false
}

impl Left {
    fn daemon(&self, name: &str) -> Daemon {
        // What the client left is what is tried: no peers, and nothing of a second daemon's.
        Daemon::start(&self._temp.path().join(name), "")
    }

    fn import(&self, daemon: &Daemon, extra: &[&str]) -> String {
        let socket = daemon.dir.join("control");
        let (socket, state) = (socket.to_str().unwrap(), self.state.to_str().unwrap());
        tool(&[&["import", self.word, state, "--socket", socket], extra].concat())
    }

    fn show(&self, daemon: &Daemon, torrent: usize) -> Value {
        daemon.json(&format!("show {}", self.hashes[torrent])).remove(0)
    }

    /// What must hold of each client.
    fn check(&self) {
        let daemon = self.daemon("daemon");
        let told = self.import(&daemon, &["--dry-run"]);
        assert!(told.contains("31 of 31 pieces") && told.contains("2 would be taken over"), "{told}");
        assert!(daemon.json("list").is_empty());
        let told = self.import(&daemon, &[]);
        assert!(told.contains("2 taken over") && !told.contains("hashed"), "{told}");
        for torrent in 0..2 {
            let row = self.show(&daemon, torrent);
            assert_eq!((&row["progress"], &row["dir"]), (&1.0.into(), &self.content.to_str().unwrap().into()), "{row}");
            assert!(row["finished"].is_u64() && row["state"] != "checking", "{row}");
            wait("it seeds", 10, || self.show(&daemon, torrent)["state"] == "seeding");
        }
        assert!(!daemon.log().contains(" checked, "), "nothing is hashed: {}", daemon.log());
        let trackers = daemon.json(&format!("trackers {}", self.hashes[0]));
        assert_eq!(trackers[0]["url"], "http://127.0.0.1:1/announce");
        // It is as if it had always been ours: a restart claims the same, and a leecher gets what is right.
        let (dir, listen) = (daemon.dir.clone(), daemon.listen);
        assert_eq!(daemon.terminate(), 0);
        let daemon = Daemon::start_at(&dir, listen, "");
        wait("both seed again", 10, || daemon.json("list").iter().all(|row| row["state"] == "seeding"));
        let leecher = self.daemon("leecher");
        for (torrent, name) in TORRENTS.into_iter().enumerate() {
            leecher.add(&self._temp.path().join(format!("made.{name}/made.torrent")), "");
            leecher.ask(&format!("connect {} {}", self.hashes[torrent], daemon.listen));
            wait("it is got", 30, || self.show(&leecher, torrent)["state"] == "seeding");
        }
        let twice = Command::new(env!("CARGO_BIN_EXE_swarmtorrent"))
            .args(["import", self.word, self.state.to_str().unwrap(), "--socket"])
            .arg(daemon.dir.join("control"))
            .output()
            .unwrap();
        assert_eq!(twice.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&twice.stdout).contains("is there already"), "{twice:?}");
        self.check_damaged();
    }

    /// One file is cut, one was changed since: neither is claimed, and all that is right is found again.
    fn check_damaged(&self) {
        let file = std::fs::File::options().write(true).open(self.content.join("set/below/b.bin")).unwrap();
        file.set_len(200_000).unwrap();
        let mut bytes = std::fs::read(self.content.join("one.iso")).unwrap();
        bytes[500_000] ^= 1;
        std::fs::write(self.content.join("one.iso"), bytes).unwrap();
        // Changed later than anybody has known it, whatever the clock's grain.
        let later = std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
        let changed = std::fs::File::options().write(true).open(self.content.join("one.iso")).unwrap();
        changed.set_modified(later).unwrap();
        let daemon = self.daemon("damaged");
        self.import(&daemon, &["--dry-run"]);
        let told = self.import(&daemon, &[]);
        assert!(told.contains("2 taken over"), "{told}");
        wait("what is doubtful is hashed", 20, || daemon.json("list").iter().all(|row| row["state"] == "downloading"));
        let log = daemon.log();
        assert!(log.contains("are hashed: their files are not as it knew them") && log.contains(" checked, "), "{log}");
        let row = self.show(&daemon, 1);
        assert_eq!(row["have_pieces"], 30, "one of one.iso is not right: {row}");
        // 700,000 bytes are 21 whole pieces; the cut file has its first 200,000 bytes.
        let row = self.show(&daemon, 0);
        assert_eq!(row["have_pieces"], 900_000 / 32_768, "{row}");
    }
}

#[test]
fn transmission() {
    if !is_here("transmission-daemon") || !is_here("transmission-remote") {
        return;
    }
    let run = |home: &Path, content: &Path, torrents: &[PathBuf; 2]| {
        std::fs::create_dir_all(home.join("watch")).unwrap();
        for (at, torrent) in torrents.iter().enumerate() {
            std::fs::copy(torrent, home.join(format!("watch/{at}.torrent"))).unwrap();
        }
        let rpc = free_port();
        std::fs::write(home.join("rpc"), rpc.to_string()).unwrap();
        let settings = serde_json::json!({
            "download-dir": content, "watch-dir": home.join("watch"), "watch-dir-enabled": true, "peer-port": free_port(),
            "rpc-port": rpc, "rpc-whitelist-enabled": false, "dht-enabled": false, "lpd-enabled": false, "utp-enabled": false,
            "pex-enabled": false, "port-forwarding-enabled": false, "bind-address-ipv4": "127.0.0.1",
        });
        std::fs::write(home.join("settings.json"), settings.to_string()).unwrap();
        let mut command = Command::new("transmission-daemon");
        command.args(["-f", "-g"]).arg(home);
        command
    };
    let is_ready = |home: &Path| {
        let port = std::fs::read_to_string(home.join("rpc")).unwrap();
        let list = Command::new("transmission-remote").args([&port, "-l"]).output().unwrap();
        String::from_utf8_lossy(&list.stdout).matches("100%").count() == 2
    };
    leave("transmission", "", run, is_ready).check();
}

#[test]
fn rtorrent() {
    if Command::new("rtorrent").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return eprintln!("left out: rtorrent is not installed");
    }
    let run = |home: &Path, content: &Path, torrents: &[PathBuf; 2]| {
        std::fs::create_dir_all(home.join("session")).unwrap();
        let (home, content, port) = (home.display(), content.display(), free_port());
        let mut config = format!(
            "directory.default.set = {content}\nsession.path.set = {home}/session\nsystem.daemon.set = true\n\
             network.port_range.set = {port}-{port}\nnetwork.port_random.set = no\ndht.mode.set = disable\n\
             protocol.pex.set = no\ntrackers.use_udp.set = no\nschedule2 = save, 1, 1, ((session.save))\n"
        );
        for (at, torrent) in torrents.iter().enumerate() {
            // A command's argument ends at a blank, unless it is quoted twice.
            config += &format!("schedule2 = load{at}, 0, 0, \"load.start=\\\"{}\\\"\"\n", torrent.display());
        }
        std::fs::write(format!("{home}/rc"), config).unwrap();
        let mut command = Command::new("rtorrent");
        command.args(["-n", "-o"]).arg(format!("import={home}/rc"));
        command
    };
    let is_ready = |home: &Path| {
        let all = std::fs::read_dir(home.join("session")).into_iter().flatten().flatten();
        let has_all = |bytes: Vec<u8>| bytes.windows(16).any(|part| part == b"8:bitfieldi31e5:");
        all.filter(|entry| has_all(std::fs::read(entry.path()).unwrap_or_default())).count() == 2
    };
    leave("rtorrent", "session", run, is_ready).check();
}

const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us may ignore it
home, content, port = sys.argv[1:4]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False, 'enable_natpmp': False})
for n, t in enumerate(sys.argv[4:]):
    p = lt.add_torrent_params(); p.ti = lt.torrent_info(t); p.save_path = content
    h = s.add_torrent(p)
    while not h.status().is_seeding: time.sleep(.05)
    h.save_resume_data(lt.torrent_handle.save_info_dict)
    saved = None
    while not saved:
        s.wait_for_alert(500)
        saved = next((a for a in s.pop_alerts() if isinstance(a, lt.save_resume_data_alert)), None)
    open(home + '/%d.resume' % n, 'wb').write(lt.write_resume_data_buf(saved.params))
open(home + '/ready', 'w')
time.sleep(240)
";

#[test]
fn libtorrent() {
    if !has_libtorrent() {
        return;
    }
    let run = |home: &Path, content: &Path, torrents: &[PathBuf; 2]| {
        let mut command = Command::new("python3");
        command.args(["-c", LIBTORRENT]).args([home, content]).arg(free_port().to_string()).args(torrents);
        command
    };
    leave("libtorrent", "", run, |home| home.join("ready").exists()).check();
}

#[test]
fn qbittorrent() {
    if !is_here("qbittorrent-nox") {
        return;
    }
    let run = |home: &Path, content: &Path, torrents: &[PathBuf; 2]| {
        let config = home.join("qBittorrent/config");
        std::fs::create_dir_all(&config).unwrap();
        let (port, web, content) = (free_port(), free_port(), content.display());
        let text = format!(
            "[LegalNotice]\nAccepted=true\n[BitTorrent]\nSession\\DefaultSavePath={content}\nSession\\Port={port}\nSession\\DHTEnabled=false\n\
             Session\\LSDEnabled=false\nSession\\PeXEnabled=false\n[Preferences]\nWebUI\\Address=127.0.0.1\nWebUI\\Port={web}\n"
        );
        std::fs::write(config.join("qBittorrent.conf"), text).unwrap();
        let mut command = Command::new("qbittorrent-nox");
        command.arg(format!("--profile={}", home.display())).arg("--skip-dialog=true").args(torrents);
        command
    };
    let is_ready = |home: &Path| {
        let all = std::fs::read_dir(home.join("qBittorrent/data/BT_backup")).into_iter().flatten().flatten();
        let has_all = |bytes: Vec<u8>| bytes.windows(11).any(|part| part == b"6:pieces31:");
        all.filter(|entry| has_all(std::fs::read(entry.path()).unwrap_or_default())).count() == 2
    };
    leave("qbittorrent", "", run, is_ready).check();
}
