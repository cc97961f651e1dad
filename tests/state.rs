//! What the real daemon keeps between runs: its journal, what describes torrents, and what it believes of either.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and measures real time")]

mod common;

use std::path::{Path, PathBuf};

use common::{Daemon, make, noise, wait};

const LEN: usize = 3_000_000;
const PIECE_LEN: usize = 65_536;

/// A daemon that seeded one file and was ended, in `dir/home`: the hash of the torrent and its `.st`.
fn ended(dir: &Path) -> (String, PathBuf) {
    let home = dir.join("home");
    std::fs::create_dir_all(home.join("downloads")).unwrap();
    std::fs::write(home.join("downloads/content"), noise(7, LEN)).unwrap();
    let (st, _, hash) = make(&home.join("downloads/content"), dir, &["--piece-length", "65536"]);
    let daemon = Daemon::start(&home, "");
    daemon.add(&st, "label=mine");
    daemon.wait_state("seeding", 20);
    assert_eq!(daemon.terminate(), 0);
    (hash, st)
}

fn count(daemon: &Daemon, name: &str) -> u64 {
    let rows = daemon.ask("stats");
    rows.iter()
        .find_map(|row| row.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("{name}: {rows:?}"))
}

fn pieces_hashed(daemon: &Daemon) -> u64 {
    count(daemon, "pieces.checked")
}

#[test]
fn a_start_hashes_nothing_and_looks_at_no_file_until_somebody_comes() {
    let temp = tempfile::tempdir().unwrap();
    let (_, st) = ended(temp.path());
    let home = temp.path().join("home");
    let daemon = Daemon::start(&home, "");
    let torrent = daemon.torrent();
    assert_eq!(
        (&torrent["state"], &torrent["label"], &torrent["have_bytes"]),
        (&"seeding".into(), &"mine".into(), &LEN.into())
    );
    assert!(!open_files(&daemon).iter().any(|path| path.ends_with("content")));
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    assert!(leecher.ask(&format!("connect all {}", daemon.listen)).last().unwrap().starts_with("OK"));
    leecher.wait_state("seeding", 20);
    assert_eq!(pieces_hashed(&daemon), 0);
    assert_eq!(daemon.ask("files all").len(), 3, "a header, a file, and OK");
    drop(leecher);
    assert_eq!(daemon.terminate(), 0);
    // What it gave while it was awake is counted, and so is the time that it only slept.
    let daemon = Daemon::start(&home, "");
    assert!(daemon.torrent()["uploaded"].as_u64().unwrap() >= LEN as u64);
    assert_eq!(daemon.terminate(), 0);
    let daemon = Daemon::start(&home, "");
    assert!(daemon.torrent()["uploaded"].as_u64().unwrap() >= LEN as u64);
}

fn open_files(daemon: &Daemon) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect()
}

#[test]
fn what_was_changed_meanwhile_is_hashed_before_anybody_gets_it() {
    let temp = tempfile::tempdir().unwrap();
    let (_, st) = ended(temp.path());
    let home = temp.path().join("home");
    let mut content = noise(7, LEN);
    content[PIECE_LEN * 3 + 5] ^= 1;
    std::fs::write(home.join("downloads/content"), &content).unwrap();
    let daemon = Daemon::start(&home, "");
    assert_eq!(daemon.torrent()["state"], "seeding", "nobody has looked");
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    let connect = format!("connect all {}", daemon.listen);
    wait("it has all that is right", 20, || {
        leecher.ask(&connect);
        leecher.torrent()["have_bytes"] == (LEN - PIECE_LEN)
    });
    assert_eq!(daemon.torrent()["have_bytes"], LEN - PIECE_LEN);
    assert_eq!(count(&leecher, "pieces.failed"), 0, "nothing wrong was sent");
}

#[test]
fn a_record_that_is_saved_before_anybody_looked_claims_no_more_than_the_last() {
    let temp = tempfile::tempdir().unwrap();
    ended(temp.path());
    let home = temp.path().join("home");
    // Changed in place: as long as it was, and the same file.
    let mut content = noise(7, LEN);
    content[PIECE_LEN * 3 + 5] ^= 1;
    std::fs::write(home.join("downloads/content"), &content).unwrap();
    let daemon = Daemon::start(&home, "");
    daemon.ask("set all label other");
    let journal = || std::fs::read(home.join("state/journal")).unwrap();
    wait("that is saved", 10, || journal().windows(12).any(|part| part == b"5:label5:oth"));
    daemon.kill();
    let daemon = Daemon::start(&home, "");
    daemon.ask("files all");
    wait("every piece was hashed", 20, || pieces_hashed(&daemon) == LEN.div_ceil(PIECE_LEN) as u64);
    assert_eq!(daemon.torrent()["have_bytes"], LEN - PIECE_LEN);
}

/// Damages the bytes `what` wherever they lie in a file, so that nothing of them can be read there.
fn damage(path: &Path, what: &[u8]) -> usize {
    let mut bytes = std::fs::read(path).unwrap();
    let found: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(what)).collect();
    found.iter().for_each(|at| bytes[at + what.len() / 2] ^= 1);
    std::fs::write(path, &bytes).unwrap();
    found.len()
}

/// The metainfo that the pack holds: it ends with the end of its entry, behind which there are zeros.
fn metainfo_of(st: &Path, dir: &Path) -> Vec<u8> {
    let torrent = dir.join("made.torrent");
    assert!(st.exists());
    std::fs::read(torrent).unwrap()
}

#[test]
fn what_is_left_of_a_torrent_that_was_taken_out_is_none() {
    let temp = tempfile::tempdir().unwrap();
    let (hash, st) = ended(temp.path());
    let home = temp.path().join("home");
    // A crash between the two steps of a removal: the metainfo is gone, the record is not.
    std::fs::remove_file(home.join("state/metainfo")).unwrap();
    let daemon = Daemon::start(&home, "");
    assert_eq!(daemon.json("list").len(), 0);
    assert!(daemon.log().contains("is left out"));
    drop(daemon);
    // Or somebody had taken it away, and puts it back: nothing is lost.
    let meta = home.join(format!("state/torrents/{hash}.meta"));
    std::fs::write(&meta, metainfo_of(&st, temp.path())).unwrap();
    let daemon = Daemon::start(&home, "");
    assert!(!meta.exists(), "it was taken into the pack");
    assert_eq!((&daemon.torrent()["state"], &daemon.torrent()["label"]), (&"seeding".into(), &"mine".into()));
    assert!(daemon.ask("remove all").last().unwrap().starts_with("OK"));
    assert_eq!(daemon.terminate(), 0);
    let daemon = Daemon::start(&home, "");
    assert_eq!(daemon.json("list").len(), 0);
    assert!(!daemon.log().rsplit("listens at").next().unwrap().contains("is left out"), "nothing is left of it");
}

#[test]
fn torrent_with_damaged_metainfo_reports_it_and_recovers_when_it_is_put_back() {
    let temp = tempfile::tempdir().unwrap();
    let (hash, st) = ended(temp.path());
    let home = temp.path().join("home");
    let daemon = Daemon::start(&home, "");
    assert!(damage(&home.join("state/metainfo"), b"6:pieces") > 0);
    let reply = daemon.ask("files all");
    assert!(reply[0].starts_with("ERR io ") && reply[0].contains("remove the torrent"), "{reply:?}");
    assert_eq!(daemon.torrent()["state"], "error");
    assert!(daemon.torrent()["error"].as_str().unwrap().contains("cannot be read"));
    assert!(daemon.log().contains("it is damaged"));
    assert!(daemon.ask("show all").last().unwrap().starts_with("OK"));
    let meta = home.join(format!("state/torrents/{hash}.meta"));
    std::fs::write(&meta, metainfo_of(&st, temp.path())).unwrap();
    assert_eq!(daemon.ask("files all").len(), 3);
    assert_eq!(daemon.torrent()["state"], "seeding");
    assert_eq!(pieces_hashed(&daemon), 0);
    assert_eq!(daemon.terminate(), 0);
    let daemon = Daemon::start(&home, "");
    assert!(!meta.exists(), "the next start takes it into the pack");
    assert_eq!(daemon.ask("files all").len(), 3);
}

#[test]
fn a_damaged_or_missing_journal_costs_a_check_and_no_torrent() {
    let temp = tempfile::tempdir().unwrap();
    let (hash, _) = ended(temp.path());
    let home = temp.path().join("home");
    let journal = home.join("state/journal");
    assert!(damage(&journal, format!("torrent {hash}").as_bytes()) > 0, "the headers of all its records");
    let daemon = Daemon::start(&home, "");
    daemon.wait_state("seeding", 20);
    assert_eq!(pieces_hashed(&daemon), LEN.div_ceil(PIECE_LEN) as u64);
    assert_eq!(daemon.torrent()["label"], "", "that was in the record");
    assert!(home.join("state/journal.damaged").exists(), "the last one was cut off");
    drop(daemon);
    std::fs::remove_file(&journal).unwrap();
    let daemon = Daemon::start(&home, "");
    daemon.wait_state("seeding", 20);
    assert_eq!(daemon.terminate(), 0);
}

/// The CRC-32C of version 0.1.0's entries, which anybody can compute.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1))))
}

/// An entry of version 0.1.0's journal.
fn old_entry(name: &str, value: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
    body.extend(name.as_bytes());
    body.extend(value);
    [&b"\xFFsj\n"[..], &crc32c(&body).to_be_bytes(), &body].concat()
}

/// The newest value of a name in a journal of today.
fn value_of(journal: &[u8], name: &str) -> Vec<u8> {
    use swarmtorrent::codec::journal::{Verify, parse_head, scan};
    let (key, _) = parse_head(journal).unwrap();
    let contents = scan(journal, journal.len() as u64, &key, Verify::All).unwrap();
    let entry = contents.entries.iter().rfind(|entry| entry.name == name).unwrap();
    let range = entry.value.clone().unwrap();
    journal[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
}

#[test]
fn torn_record_that_holds_a_planted_removal_removes_nothing() {
    use swarmtorrent::codec::resume::Record;
    let temp = tempfile::tempdir().unwrap();
    let (hash, _) = ended(temp.path());
    let home = temp.path().join("home");
    let path = home.join("state/journal");
    let content = home.join("downloads/content");
    let name = format!("torrent {hash}");
    let intact = std::fs::read(&path).unwrap();
    let record = Record::parse(&value_of(&intact, &name)).unwrap();
    // What the removal of the torrent with its content would record, in the name of a stranger's tracker: by the format of 0.1.0, and as an
    // entry of today at any offset with a key that the stranger made up.
    let removal = Record { removing: true, ..record.clone() }.to_bytes();
    let mut planted = old_entry(&name, &removal);
    let key = swarmtorrent::codec::journal::Key::new([0; 16]);
    swarmtorrent::codec::journal::write(&mut planted, &key, intact.len() as u64, &name, Some(&removal));
    let (own, _) = swarmtorrent::codec::journal::parse_head(&intact).unwrap();
    let end = intact.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut entry = Vec::new();
    let value = [&[b'x'; 300][..], &planted, &[b'x'; 300]].concat();
    let other = "torrent ffffffffffffffffffffffffffffffffffffffff";
    swarmtorrent::codec::journal::write(&mut entry, &own, end as u64, other, Some(&value));
    for torn in (1..entry.len()).step_by(97) {
        for from_the_front in [false, true] {
            let mut bytes = intact.clone();
            bytes.resize(bytes.len().max(end + entry.len()), 0);
            let written = if from_the_front { torn..entry.len() } else { 0..torn };
            bytes[end + written.start..end + written.end].copy_from_slice(&entry[written]);
            std::fs::write(&path, &bytes).unwrap();
            let daemon = Daemon::start(&home, "");
            assert_eq!((&daemon.torrent()["state"], &daemon.torrent()["label"]), (&"seeding".into(), &"mine".into()));
            daemon.kill();
            assert!(content.exists(), "torn at {torn}");
        }
    }
    // A journal of 0.1.0 that was torn before the daemon was replaced.
    for torn in [400, 600] {
        let mut bytes = b"swarm journal 1\n".to_vec();
        bytes.extend(old_entry(&name, &record.to_bytes()));
        let carrier = old_entry(other, &[&[b'x'; 300][..], &old_entry(&name, &removal), &[b'x'; 300]].concat());
        bytes.extend(&carrier[..carrier.len() - 300 + torn - 400]);
        std::fs::write(&path, &bytes).unwrap();
        let daemon = Daemon::start(&home, "");
        assert_eq!((&daemon.torrent()["state"], &daemon.torrent()["label"]), (&"seeding".into(), &"mine".into()));
        daemon.kill();
        assert!(content.exists() && home.join("state/journal.damaged").exists());
    }
}

#[test]
fn state_of_0_1_0_is_taken_over() {
    let temp = tempfile::tempdir().unwrap();
    let (hash, st) = ended(temp.path());
    let home = temp.path().join("home");
    let journal = home.join("state/journal");
    let name = format!("torrent {hash}");
    let record = value_of(&std::fs::read(&journal).unwrap(), &name);
    std::fs::write(&journal, [&b"swarm journal 1\n"[..], &old_entry(&name, &record)].concat()).unwrap();
    std::fs::remove_file(home.join("state/metainfo")).unwrap();
    let meta = home.join(format!("state/torrents/{hash}.meta"));
    std::fs::write(&meta, metainfo_of(&st, temp.path())).unwrap();
    for _ in 0..2 {
        let daemon = Daemon::start(&home, "");
        assert_eq!((&daemon.torrent()["state"], &daemon.torrent()["label"]), (&"seeding".into(), &"mine".into()));
        assert_eq!((pieces_hashed(&daemon), daemon.ask("files all").len()), (0, 3));
        assert!(!meta.exists() && std::fs::read(&journal).unwrap().starts_with(b"swarm journal 2\n"));
        assert_eq!(daemon.terminate(), 0);
    }
}

#[test]
fn link_whose_metainfo_was_not_saved_before_a_crash_is_a_link_again() {
    use swarmtorrent::base::bitfield::Bitfield;
    use swarmtorrent::codec::resume::Record;
    let temp = tempfile::tempdir().unwrap();
    let (hash, _) = ended(temp.path());
    let home = temp.path().join("home");
    let journal = home.join("state/journal");
    let name = format!("torrent {hash}");
    let record = Record::parse(&value_of(&std::fs::read(&journal).unwrap(), &name)).unwrap();
    let record = Record { clean: false, have: Bitfield::new(record.have.len()), ..record };
    std::fs::write(&journal, [&b"swarm journal 1\n"[..], &old_entry(&name, &record.to_bytes())].concat()).unwrap();
    std::fs::remove_file(home.join("state/metainfo")).unwrap();
    std::fs::write(home.join(format!("state/torrents/{hash}.meta")), format!("magnet:?xt=urn:btih:{hash}")).unwrap();
    let daemon = Daemon::start(&home, "");
    assert_eq!((&daemon.torrent()["state"], &daemon.torrent()["label"]), (&"metadata".into(), &"mine".into()));
    daemon.ask("files all");
    assert_eq!(daemon.torrent()["state"], "metadata");
}

#[test]
fn state_is_private_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("home");
    for umask in ["0002", "0000", "0777"] {
        std::fs::create_dir_all(home.join("downloads")).unwrap();
        std::fs::write(home.join("downloads/content"), noise(7, 100_000)).unwrap();
        let (st, _, _) = make(&home.join("downloads/content"), temp.path(), &[]);
        // One that an older version made; the umask of the third leaves no right at all, which only root can live with.
        let state = home.join("state");
        if umask == "0002" {
            std::fs::create_dir_all(state.join("torrents")).unwrap();
            std::fs::write(state.join("journal"), b"swarm journal 1\n\xFFsj\ntorn").unwrap();
            for path in [state.join("torrents"), state.join("journal")] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
            }
        } else if umask == "0777" && !rustix::process::geteuid().is_root() {
            eprintln!("left out: only root can work without any right");
            break;
        }
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_swarmtorrentd"));
        let daemon = Daemon::launch_by(command, &home, ([127, 0, 0, 1], common::free_port()).into(), "", "");
        daemon.add(&st, "");
        daemon.wait_state("seeding", 20);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        let (files, _) = common::tree(&state);
        assert!(files.len() >= 3, "{files:?}");
        for file in files {
            assert_eq!(mode(&state.join(&file)), 0o600, "{} under umask {umask}", file.display());
        }
        assert_eq!(mode(&state.join("torrents")), 0o700);
        assert_eq!(mode(&state) & 0o022, 0, "nobody else may replace its files");
        assert_eq!(daemon.terminate(), 0);
        std::fs::remove_dir_all(&home).unwrap();
        std::fs::remove_file(temp.path().join("made.st")).unwrap();
        std::fs::remove_file(temp.path().join("made.torrent")).unwrap();
    }
}

#[test]
fn state_directory_that_cannot_be_used_is_reported_with_what_to_do() {
    common::in_mounts_of_its_own("state_directory_that_cannot_be_used_is_reported_with_what_to_do", || {
        let temp = tempfile::tempdir().unwrap();
        let disk = temp.path().join("disk");
        common::mount_memory(&disk, "64k");
        let config = temp.path().join("config.toml");
        std::fs::write(
            &config,
            format!(
                "watch = []\n[paths]\nstate = \"{0}/state\"\ndownloads = \"{0}\"\n[dht]\nenabled = false\n",
                disk.display()
            ),
        )
        .unwrap();
        let run = || {
            let program = env!("CARGO_BIN_EXE_swarmtorrentd");
            let output = std::process::Command::new(program).arg("-c").arg(&config).output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            String::from_utf8(output.stderr).unwrap()
        };
        let full = std::fs::write(disk.join("filler"), [7; 1 << 20]);
        assert!(full.is_err());
        let told = run();
        assert!(told.contains("cannot be used for state: cannot ") && told.contains("free some space"), "{told}");
        std::fs::remove_file(disk.join("filler")).unwrap();
        let remount = ["-o", "remount,ro", disk.to_str().unwrap()];
        assert!(std::process::Command::new("mount").args(remount).status().unwrap().success());
        let told = run();
        assert!(told.contains("cannot open ") && told.contains("make the file system writable"), "{told}");
    });
}

#[test]
fn all_are_verified_though_they_sleep() {
    let temp = tempfile::tempdir().unwrap();
    ended(temp.path());
    let daemon = Daemon::start(&temp.path().join("home"), "");
    assert!(daemon.ask("verify all").last().unwrap().starts_with("OK"));
    wait("every piece was hashed", 20, || pieces_hashed(&daemon) == LEN.div_ceil(PIECE_LEN) as u64);
    daemon.wait_state("seeding", 20);
}
