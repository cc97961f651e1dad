//! The real daemon on loopback, in temporary directories.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and measures real time")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use swarmtorrent::codec::udp_tracker::{Request, Response};

use common::{Daemon, free_port, make, noise, tool, wait};

/// A seeding daemon with one file, and the paths of its torrents.
fn seeder(temp: &std::path::Path, len: usize, extra: &str) -> (Daemon, std::path::PathBuf) {
    let home = temp.join("seeder");
    std::fs::create_dir_all(home.join("downloads")).unwrap();
    std::fs::write(home.join("downloads/content"), noise(7, len)).unwrap();
    let (st, _, _) = make(&home.join("downloads/content"), temp, &["--piece-length", "65536"]);
    let daemon = Daemon::start(&home, extra);
    daemon.add(&st, "");
    daemon.wait_state("seeding", 20);
    (daemon, st)
}

#[test]
fn it_downloads_what_another_one_seeds_on_one_thread() {
    let temp = tempfile::tempdir().unwrap();
    let (seeder, st) = seeder(temp.path(), 60_000_001, "");
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "label=mine");
    let named = format!("connect all localhost:{}", seeder.listen.port());
    assert!(leecher.ask(&named).last().unwrap().starts_with("OK"));
    let mut threads = 1;
    wait("it is here", 30, || {
        threads = threads.max(leecher.threads()).max(seeder.threads());
        leecher.torrent()["state"] == "seeding"
    });
    assert_eq!(threads, 1, "hashing, accepting and transferring");
    assert!(std::fs::read(temp.path().join("leecher/downloads/content")).unwrap() == noise(7, 60_000_001));
    let torrent = leecher.torrent();
    assert_eq!((&torrent["downloaded"], &torrent["label"]), (&60_000_001.into(), &"mine".into()));
    assert_eq!(seeder.terminate(), 0);
    assert_eq!(leecher.terminate(), 0);
}

#[test]
fn the_control_socket_says_what_is_wrong() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "");
    assert_eq!(daemon.ask("list").len(), 2, "a header, and OK");
    for (line, code) in [
        ("nonsense", "ERR unknown-command"),
        ("show", "ERR usage"),
        ("show abcd", "ERR not-found"),
        ("add /nowhere/x.torrent", "ERR"),
        ("add 0000", "ERR"),
        ("set all ratio", "ERR usage"),
        ("connect all 127.0.0.1", "ERR invalid"),
        ("connect all nobody:0", "ERR invalid"),
    ] {
        let reply = daemon.ask(line);
        assert!(reply.last().unwrap().starts_with(code), "{line}: {reply:?}");
    }
    std::fs::write(temp.path().join("bad.torrent"), "d4:infod6:lengthi1eee").unwrap();
    let reply = daemon.ask(&format!("add {}/bad.torrent", temp.path().display()));
    assert!(reply[0].starts_with("ERR invalid") && reply[0].contains("name"), "{reply:?}");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn refusal_of_a_large_file_comes_as_soon_as_it_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&temp.path().join("d"), "");
    let file = temp.path().join("bad.torrent");
    for len in [70_000, 700_000, 7_000_000] {
        std::fs::write(&file, format!("d4:info{len}:{}e", "x".repeat(len))).unwrap();
        let since = Instant::now();
        let reply = daemon.ask(&format!("add {}", file.display()));
        assert!(reply[0].starts_with("ERR invalid"), "{reply:?}");
        assert!(since.elapsed() < Duration::from_secs(10), "{:?} for {len} bytes", since.elapsed());
    }
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn all_of_many_large_files_in_a_watch_directory_are_added() {
    const FILES: usize = 150;
    let temp = tempfile::tempdir().unwrap();
    let watch = temp.path().join("d/watch");
    std::fs::create_dir_all(&watch).unwrap();
    for number in 0..FILES {
        let pieces = 4000;
        let mut file =
            format!("d4:infod6:lengthi{pieces}e4:name4:{number:04}12:piece lengthi1e6:pieces{}:", pieces * 20);
        file.push_str(&"x".repeat(pieces * 20));
        file.push_str("ee");
        std::fs::write(watch.join(format!("{number}.torrent")), file).unwrap();
    }
    let daemon = Daemon::start(&temp.path().join("d"), "");
    wait("all are added", 60, || {
        let names = std::fs::read_dir(&watch).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let (added, rest): (Vec<String>, Vec<String>) = names.partition(|name| name.ends_with(".added"));
        assert!(rest.iter().all(|name| name.ends_with(".torrent")), "{rest:?}");
        added.len() == FILES
    });
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn dropped_files_are_taken_and_bad_ones_are_told() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("content"), noise(1, 100_000)).unwrap();
    let (st, _, hash) = make(&temp.path().join("content"), temp.path(), &[]);
    let daemon = Daemon::start(&temp.path().join("d"), "");
    let watch = temp.path().join("d/watch");
    std::fs::copy(&st, watch.join("good.st")).unwrap();
    std::fs::write(watch.join("bad.torrent"), "nonsense").unwrap();
    wait("both are dealt with", 10, || {
        watch.join("good.st.added").exists() && watch.join("bad.torrent.invalid").exists()
    });
    assert_eq!(daemon.torrent()["id"], hash.as_str());
    let reasons: Vec<_> = std::fs::read_dir(&watch)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.ends_with(".reason").then_some(name)
        })
        .collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
}

#[test]
fn a_second_daemon_and_a_bad_config_are_refused_with_their_own_status() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "");
    let again =
        Command::new(env!("CARGO_BIN_EXE_swarmtorrentd")).arg("-c").arg(daemon.dir.join("config.toml")).output();
    assert_eq!(again.unwrap().status.code(), Some(3));
    std::fs::write(temp.path().join("bad.toml"), "[peers]\nmax_connections = 5\nmax_conections = 6\n").unwrap();
    let bad =
        Command::new(env!("CARGO_BIN_EXE_swarmtorrentd")).arg("-c").arg(temp.path().join("bad.toml")).output().unwrap();
    let told = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(bad.status.code() == Some(2) && told.contains("bad.toml:3") && told.contains("max_connections"), "{told}");
}

#[test]
fn killed_again_and_again_it_loses_nothing_and_claims_nothing_false() {
    let kills: u32 = std::env::var("SWARMTORRENT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let temp = tempfile::tempdir().unwrap();
    let rate = 8_000_000_u64;
    let len = usize::try_from(rate).unwrap() / 2 * kills as usize + 4_000_000;
    let (seeder, st) = seeder(temp.path(), len, &format!("[limits]\nup = \"{rate}\"\n"));
    let home = temp.path().join("leecher");
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut leecher = Daemon::start_at(&home, listen, "");
    leecher.add(&st, "");
    let have = |daemon: &Daemon| daemon.torrent()["have_bytes"].as_u64().unwrap();
    for _ in 0..kills {
        leecher.ask(&format!("connect all {}", seeder.listen));
        let before = have(&leecher);
        wait("it moves on", 20, || have(&leecher) >= (before + rate / 4).min(len as u64));
        leecher.kill();
        leecher = Daemon::start_at(&home, listen, "");
    }
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 60);
    assert!(std::fs::read(home.join("downloads/content")).unwrap() == noise(7, len));
    let uploaded = seeder.torrent()["uploaded"].as_u64().unwrap();
    let again = uploaded - len as u64;
    eprintln!("{kills} kills: {again} bytes came again, {} a kill", again / u64::from(kills));
    assert!(again <= rate * u64::from(kills), "{again} bytes came again in {kills} kills");
}

#[test]
fn a_rate_limit_holds_over_ten_seconds() {
    let temp = tempfile::tempdir().unwrap();
    let (seeder, st) = seeder(temp.path(), 30_000_000, "");
    let leecher = Daemon::start(&temp.path().join("leecher"), "[limits]\ndown = \"1M\"\n");
    leecher.add(&st, "");
    leecher.ask(&format!("connect all {}", seeder.listen));
    let got = || leecher.torrent()["downloaded"].as_u64().unwrap();
    wait("it begins", 10, || got() > 1_000_000);
    let (start, before) = (Instant::now(), got());
    wait("ten seconds pass", 20, || start.elapsed() >= Duration::from_secs(10));
    let (moved, took) = (got() - before, start.elapsed().as_secs_f64());
    let rate = moved as f64 / took;
    assert!((rate - 1_048_576.0).abs() < 0.02 * 1_048_576.0, "{rate} bytes a second");
}

#[test]
fn partial_downloads_write_only_what_shared_pieces_force() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("seeder");
    std::fs::create_dir_all(home.join("downloads/set/deep")).unwrap();
    for (name, len) in [("a", 1_000_000), ("deep/b", 700_001), ("c", 2_000_000)] {
        std::fs::write(home.join("downloads/set").join(name), noise(len as u64, len)).unwrap();
    }
    let (st, _, _) = make(&home.join("downloads/set"), temp.path(), &["--piece-length", "65536"]);
    let seeder = Daemon::start(&home, "");
    seeder.add(&st, "");
    seeder.wait_state("seeding", 20);
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "only=2");
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 20);
    let got = temp.path().join("leecher/downloads/set");
    assert!(std::fs::read(got.join("deep/b")).unwrap() == noise(700_001, 700_001));
    for name in ["a", "c"] {
        use std::os::unix::fs::MetadataExt;
        let bytes = std::fs::metadata(got.join(name)).map_or(0, |meta| meta.blocks() * 512);
        assert!(bytes <= 65_536 + 4096, "{name}: {bytes} bytes");
    }
    leecher.ask("priority all 0 normal");
    leecher.wait_state("downloading", 5);
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 20);
    assert!(std::fs::read(got.join("a")).unwrap() == noise(1_000_000, 1_000_000));
}

#[test]
fn a_file_that_vanishes_stops_its_torrent_and_no_other_until_it_is_back() {
    let temp = tempfile::tempdir().unwrap();
    let (seeder, st) = seeder(temp.path(), 3_000_000, "");
    let file = temp.path().join("seeder/downloads/content");
    std::fs::rename(&file, temp.path().join("away")).unwrap();
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    leecher.ask(&format!("connect all {}", seeder.listen));
    seeder.wait_state("error", 20);
    let told = seeder.torrent()["error"].as_str().unwrap().to_owned();
    assert!(told.contains("content") && told.contains("missing"), "{told}");
    std::fs::rename(temp.path().join("away"), &file).unwrap();
    seeder.wait_state("seeding", 30);
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 30);
}

#[test]
fn a_full_disk_stops_the_torrent_until_there_is_room() {
    let temp = tempfile::tempdir().unwrap();
    let disk = temp.path().join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8M", "tmpfs"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("left out: no file system may be mounted here");
        return;
    }
    let (seeder, st) = seeder(temp.path(), 6_000_000, "");
    std::fs::write(disk.join("ballast"), noise(3, 5_000_000)).unwrap();
    let leecher = Daemon::start(&temp.path().join("leecher"), "[limits]\nmin_free_space = \"0\"\n");
    leecher.add(&st, &format!("dir={}", disk.display()));
    leecher.wait_state("nospace", 20);
    assert!(leecher.torrent()["error"].as_str().unwrap().contains("space"));
    std::fs::remove_file(disk.join("ballast")).unwrap();
    wait("it goes on by itself", 30, || leecher.torrent()["state"] == "downloading");
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 20);
    assert!(std::fs::read(disk.join("content")).unwrap() == noise(7, 6_000_000));
    drop(leecher);
    let _ = Command::new("umount").arg("-l").arg(&disk).status();
}

#[test]
fn hostile_peers_change_nothing_for_others() {
    let temp = tempfile::tempdir().unwrap();
    let (seeder, st) = seeder(temp.path(), 20_000_000, "");
    let hash = swarmtorrent::codec::metainfo::Metainfo::parse(&std::fs::read(&st).unwrap()).unwrap().info_hash;
    let before = seeder.memory_kib();
    let mut hello = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04".to_vec();
    hello.extend(hash.0);
    let mut strangers = Vec::new();
    for number in 0..50_u8 {
        let mut stream = TcpStream::connect(seeder.listen).unwrap();
        let mut bytes = hello.clone();
        bytes.extend([number + 1; 20]);
        match number % 5 {
            0 => bytes.extend([0xff; 64]), // a message of 4 GiB
            1 => bytes = b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            2 => bytes.truncate(usize::from(number)), // and then silence
            3 => (0..40).for_each(|_| bytes.extend([&[0, 0, 0, 25, 7][..], &[0; 24]].concat())), // blocks that nobody asked for
            _ => bytes.extend([0, 0, 0, 2, 4, 0]),                                               // a `have` of one byte
        }
        let _ = stream.write_all(&bytes);
        strangers.push(stream);
    }
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 30);
    wait("all strangers are shown the door", 20, || {
        strangers.iter_mut().all(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let mut buf = [0; 4096];
            loop {
                match stream.read(&mut buf) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(error) => {
                        return !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                    }
                }
            }
        })
    });
    let grown = seeder.memory_kib().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
}

#[test]
fn hostile_trackers_are_told_to_the_user_and_stop_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let answers: [&'static [u8]; 4] = [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /announce\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\nd14:failure reason14:go away\x1b[31m!!e",
    ];
    let mut urls = Vec::new();
    for answer in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        urls.push(format!("http://{}/announce", listener.local_addr().unwrap()));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buf = [0; 4096];
                let _ = stream.read(&mut buf);
                let _ = stream.write_all(answer);
                if answer.ends_with(b"104857600\r\n\r\n") {
                    while stream.write_all(&[b'x'; 65536]).is_ok() {}
                }
            }
        });
    }
    let home = temp.path().join("seeder");
    std::fs::create_dir_all(home.join("downloads")).unwrap();
    std::fs::write(home.join("downloads/content"), noise(7, 1_000_000)).unwrap();
    let args: Vec<&str> = urls.iter().flat_map(|url| ["--tracker", url.as_str()]).collect();
    let (st, _, _) = make(&home.join("downloads/content"), temp.path(), &args);
    let daemon = Daemon::start(&home, "[trackers]\nannounce_to_all = true\ntimeout = \"5s\"\n");
    daemon.add(&st, "");
    wait("every tracker has failed", 20, || daemon.json("trackers all").iter().all(|row| row["state"] == "failed"));
    let told = daemon.ask("trackers all").join("\n");
    for expected in ["does not speak HTTP", "redirects", "longer than allowed", "go away"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(!told.contains('\x1b'));
    assert_eq!(daemon.torrent()["state"], "seeding");
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    leecher.ask(&format!("connect all {}", daemon.listen));
    leecher.wait_state("seeding", 20);
}

/// An HTTP tracker that answers everything with `body`, and what it was asked.
fn http_tracker(body: &'static [u8]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buf = [0; 4096];
            let len = stream.read(&mut buf).unwrap_or(0);
            heard.lock().unwrap().push(String::from_utf8_lossy(&buf[..len]).into_owned());
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(body);
        }
    });
    (url, asked)
}

/// A UDP tracker that refuses everything.
fn refusing_udp_tracker() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", socket.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            let response = match Request::parse(&packet[..len]).unwrap() {
                Request::Connect { transaction } => Response::Connect { transaction, connection: 1 },
                Request::Announce { transaction, .. } | Request::Scrape { transaction, .. } => {
                    Response::Error { transaction, message: "unregistered torrent\0".into() }
                }
            };
            let mut out = Vec::new();
            response.write(&mut out);
            socket.send_to(&out, from).unwrap();
        }
    });
    url
}

#[test]
fn what_trackers_say_is_shown_and_one_that_says_never_is_asked_once() {
    let temp = tempfile::tempdir().unwrap();
    let (warning, heard_by_warning) = http_tracker(
        b"d8:completei3e10:incompletei4e8:intervali1800e12:min intervali1e5:peers0:15:warning message10:use https\x07e",
    );
    let (never, heard_by_never) = http_tracker(b"d14:failure reason13:Not a tracker8:retry in5:nevere");
    let (later, _) = http_tracker(b"d14:failure reason10:Overloaded8:retry in2:10e");
    let urls = [warning, never, later, refusing_udp_tracker()];
    let home = temp.path().join("daemon");
    std::fs::create_dir_all(home.join("downloads")).unwrap();
    std::fs::write(home.join("downloads/content"), noise(7, 100_000)).unwrap();
    let args: Vec<&str> = urls.iter().flat_map(|url| ["--tracker", url.as_str()]).collect();
    let (st, _, _) = make(&home.join("downloads/content"), temp.path(), &args);
    let daemon = Daemon::start(&home, "[trackers]\nannounce_to_all = true\n");
    daemon.add(&st, "");
    let rows = || daemon.json("trackers all");
    wait("all have answered", 20, || rows().iter().all(|row| row["state"] == "failed" || row["state"] == "working"));
    let row = |url: &str| rows().into_iter().find(|row| row["url"].as_str().unwrap().starts_with(url)).unwrap();
    let [warning, never, later, udp] = [0, 1, 2, 3].map(|at: usize| row(&urls[at]));
    assert_eq!((&warning["state"], &warning["message"]), (&"working".into(), &"use https".into()));
    assert_eq!((&warning["seeders"], &warning["leechers"]), (&3.into(), &4.into()));
    assert_eq!((&never["state"], &never["message"]), (&"failed".into(), &"it refused for good: Not a tracker".into()));
    assert!(never["next"].is_null(), "{never}");
    assert_eq!(later["message"], "it refused: Overloaded");
    assert!((500..=600).contains(&later["next"].as_u64().unwrap()), "{later}");
    assert_eq!((&udp["state"], &udp["message"]), (&"failed".into(), &"it refused: unregistered torrent".into()));
    let told = daemon.ask("trackers all").join("\n");
    assert!(told.contains("use https") && told.contains("unregistered torrent"), "{told}");

    for command in ["announce all", "pause all", "resume all"] {
        assert!(daemon.ask(command).last().unwrap().starts_with("OK"), "{command}");
    }
    let started =
        |asked: &Mutex<Vec<String>>| asked.lock().unwrap().iter().filter(|line| line.contains("event=started")).count();
    wait("the others are told that it is back", 20, || started(&heard_by_warning) == 2);
    assert_eq!(heard_by_never.lock().unwrap().len(), 1);
}

#[test]
fn the_tool_creates_shows_checks_and_gets() {
    let temp = tempfile::tempdir().unwrap();
    let (seeder, st) = seeder(temp.path(), 5_000_000, "");
    let st_path = st.to_str().unwrap();
    assert!(tool(&["show", st_path]).contains("compatible"));
    let out = temp.path().join("out");
    tool(&["get", st_path, "-o", out.to_str().unwrap(), "--peer", &seeder.listen.to_string()]);
    assert!(tool(&["check", st_path, out.to_str().unwrap()]).contains("ok"));
    let mut content = std::fs::read(out.join("content")).unwrap();
    content[100_000] ^= 1;
    std::fs::write(out.join("content"), content).unwrap();
    let bad = Command::new(env!("CARGO_BIN_EXE_swarmtorrent")).args(["check", st_path]).arg(&out).output().unwrap();
    let told = String::from_utf8_lossy(&bad.stdout).into_owned();
    assert!(bad.status.code() == Some(1) && told.contains("bad pieces: 1"), "{told}");
}

#[test]
fn a_shell_completes_the_words_of_both_programs() {
    let temp = tempfile::tempdir().unwrap();
    for (program, word, expected) in
        [("swarmtorrent", "trac", "tracker trackers"), ("swarmtorrentd", "--print", "--print-config")]
    {
        let script = temp.path().join(program);
        std::fs::write(&script, tool(&["completions", "bash", "--program", program])).unwrap();
        let ask = format!(
            "source {}; COMP_WORDS=({program} {word}); COMP_CWORD=1; _{program} {program} {word} {program}; echo ${{COMPREPLY[@]}}",
            script.display()
        );
        let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), expected);
    }
    for shell in ["zsh", "fish"] {
        assert!(tool(&["completions", shell]).contains("swarmtorrent"), "{shell}");
    }
}

#[test]
fn who_watches_is_told_what_happens_until_it_goes() {
    let temp = tempfile::tempdir().unwrap();
    let (seeder, st) = seeder(temp.path(), 1_000_000, "");
    let daemon = Daemon::start(&temp.path().join("leecher"), "");
    let watch = |words: &str| {
        let mut stream = UnixStream::connect(daemon.dir.join("control")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        writeln!(stream, "{words}").unwrap();
        BufReader::new(stream).lines().map(Result::unwrap)
    };
    let mut all = watch("json watch");
    let mut some = watch("watch events=finished,removed");
    assert_eq!(some.next().unwrap(), "OK");
    let closing: Value = serde_json::from_str(&all.next().unwrap()).unwrap();
    assert_eq!(closing["ok"], true);
    daemon.add(&st, "");
    daemon.ask(&format!("connect all {}", seeder.listen));
    let mut events: Vec<Value> = Vec::new();
    while events.last().is_none_or(|event| event["event"] != "finished") {
        events.push(serde_json::from_str(&all.next().unwrap()).unwrap());
    }
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!(events[0]["event"], "added");
    assert_eq!(events[0]["name"], "content");
    assert_eq!(of("peer")[0]["addr"], seeder.listen.to_string());
    let mut pieces: Vec<u64> = of("piece").iter().map(|event| event["piece"].as_u64().unwrap()).collect();
    pieces.sort_unstable();
    assert_eq!(pieces, (0..16).collect::<Vec<_>>(), "each piece once");
    let states: Vec<&str> = of("state").iter().map(|event| event["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"downloading") && states.last() == Some(&"seeding"), "{states:?}");

    // What has changed is told once.
    let since = |number: u64| {
        let reply = daemon.ask(&format!("json list since={number}"));
        let mut rows: Vec<Value> = reply.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let closing = rows.pop().unwrap();
        (rows, closing["since"].as_u64().unwrap(), closing["all"] == true)
    };
    let (rows, number, all_of_them) = since(0);
    assert!(rows.len() == 1 && all_of_them);
    daemon.ask("set all label x");
    let (rows, later, all_of_them) = since(number);
    assert!(rows[0]["label"] == "x" && later > number && !all_of_them);

    // Another one, which watches one torrent alone and by its prefix.
    let id = daemon.torrent()["id"].as_str().unwrap().to_owned();
    let mut one = watch(&format!("watch {} events=state", &id[..6]));
    assert_eq!(one.next().unwrap(), "OK");
    daemon.ask(&format!("pause {id}"));
    let line = one.next().unwrap();
    assert!(line.ends_with(&format!("state {} paused content", &id[..12])), "{line}");
    assert_eq!(daemon.ask("watch 00000000")[0].split(' ').take(2).collect::<Vec<_>>(), ["ERR", "not-found"]);
    assert!(daemon.ask("watch events=nonsense")[0].starts_with("ERR invalid `nonsense` is no kind of event"));
    daemon.ask(&format!("remove {id}"));
    let (rows, ..) = since(later);
    assert!(rows.len() == 1 && rows[0]["id"] == *id && rows[0]["gone"] == true, "{rows:?}");
    let told: Vec<String> = some.by_ref().take(2).collect();
    assert!(told[0].contains(&format!(" finished {} ", &id[..12])) && told[1].contains(" removed "), "{told:?}");
}
