//! Who is let in: a closed tracker's lists and pass keys, and how they change while it runs.

use std::path::Path;

use swarmtorrent::base::hash::InfoHash;
use swarmtorrent::codec::udp_tracker::Response;

use crate::common::{Daemon, make, noise, wait};
use crate::{Asker, Served, Web, announce, failure, loopback, target};

fn is_let_in_by_udp(served: &Served, hash: InfoHash, path: &str) -> bool {
    match Asker::connect(loopback(1), served.udp).announce(&announce(hash, 6881, 0), path) {
        Response::Announce { .. } => true,
        Response::Error { message, .. } => {
            assert!(message.contains("does not track this torrent") || message.contains("pass key"), "{message}");
            false
        }
        other => panic!("{other:?}"),
    }
}

fn is_let_in_by_http(served: &Served, hash: InfoHash) -> bool {
    let answer = Web::connect(loopback(2), served.http).get(&target(hash, 6881, "left=0"));
    let is_let_in = !answer.body.starts_with(b"d14:failure reason");
    assert!(is_let_in || failure(&answer.body).contains("does not track this torrent"));
    is_let_in
}

/// Not while a list may be read between the two questions.
fn is_let_in(served: &Served, hash: InfoHash) -> bool {
    let (udp, http) = (is_let_in_by_udp(served, hash, ""), is_let_in_by_http(served, hash));
    assert_eq!(udp, http);
    udp
}

#[test]
fn a_closed_tracker_takes_what_its_list_says_and_looks_at_it_again() {
    let temp = tempfile::tempdir().unwrap();
    let (list, other) = (temp.path().join("allowed"), temp.path().join("other"));
    let [one, two, three] = [b"1", b"2", b"3"].map(|text| InfoHash::of(text));
    std::fs::write(&list, format!("{one}\n")).unwrap();
    std::fs::write(&other, format!("{three}\n")).unwrap();
    let served = Served::start(&temp.path().join("d"), &format!("open = false\nallow_file = \"{}\"\n", list.display()));
    assert!(is_let_in(&served, one) && !is_let_in(&served, two));
    assert_eq!((&served.state()["allowed"], &served.state()["errors"]["not_allowed"]), (&1.into(), &2.into()));

    std::fs::write(&list, format!("{one}\n{two}\n")).unwrap();
    wait("the file was read again", 10, || is_let_in_by_udp(&served, two, ""));
    assert!(is_let_in_by_http(&served, two));
    // Nonsense changes nothing.
    std::fs::write(&list, "nonsense\n").unwrap();
    wait("it is complained about", 10, || served.daemon.log().contains("`nonsense` is neither"));
    assert!(is_let_in(&served, two));

    // Another list in the config, which is read again at a signal alone.
    let config = temp.path().join("d/config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace(list.to_str().unwrap(), other.to_str().unwrap());
    std::fs::write(&config, text).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(served.daemon.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    wait("the other list holds", 10, || is_let_in_by_udp(&served, three, ""));
    assert!(is_let_in(&served, three) && !is_let_in(&served, one));
}

#[test]
fn a_directory_of_torrents_is_a_list() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, content) = (temp.path().join("torrents"), temp.path().join("content"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&content, noise(1, 100_000)).unwrap();
    let (_, torrent, hash) = make(&content, temp.path(), &[]);
    let hash = InfoHash::from_hex(&hash).unwrap();
    let served = Served::start(&temp.path().join("d"), &format!("open = false\nallow_file = \"{}\"\n", dir.display()));
    assert!(!is_let_in(&served, hash));
    std::fs::rename(torrent, dir.join("a.torrent")).unwrap();
    wait("the torrent was found", 10, || is_let_in_by_udp(&served, hash, ""));
    assert!(is_let_in_by_http(&served, hash));
    std::fs::remove_file(dir.join("a.torrent")).unwrap();
    wait("it is no longer", 10, || !is_let_in_by_udp(&served, hash, ""));
    assert!(!is_let_in_by_http(&served, hash));
}

/// Our own client, which seeds `content` at a tracker.
fn client(dir: &Path, content: &Path, url: &str) -> Daemon {
    std::fs::create_dir_all(dir).unwrap();
    let (st, ..) = make(content, dir, &["--tracker", url]);
    let daemon = Daemon::start(&dir.join("d"), "");
    daemon.add(&st, &format!("dir={}", content.parent().unwrap().display()));
    daemon
}

#[test]
fn a_pass_key_in_the_address_is_what_lets_our_own_client_in() {
    let temp = tempfile::tempdir().unwrap();
    let keys = temp.path().join("keys");
    std::fs::write(&keys, "# friends\ns3cret\nother\n").unwrap();
    let content = temp.path().join("content");
    std::fs::write(&content, noise(2, 100_000)).unwrap();
    let served = Served::start(&temp.path().join("t"), &format!("keys_file = \"{}\"\n", keys.display()));
    let urls =
        |key: &str| [format!("udp://{}/{key}/announce", served.udp), format!("http://{}/{key}/announce", served.http)];
    for (number, url) in urls("s3cret").iter().enumerate() {
        let daemon = client(&temp.path().join(format!("good{number}")), &content, url);
        wait("its key is good", 20, || daemon.json("trackers all")[0]["state"] == "working");
    }
    assert_eq!(served.state()["errors"]["key"], 0);
    for (number, url) in urls("wrong").iter().enumerate() {
        let daemon = client(&temp.path().join(format!("bad{number}")), &content, url);
        wait("it is told what is wrong", 20, || {
            daemon.json("trackers all")[0]
                .to_string()
                .contains("pass key in the announce address is missing or unknown")
        });
        assert_ne!(daemon.json("trackers all")[0]["state"], "working");
    }
    assert!(served.state()["errors"]["key"].as_u64() >= Some(2));
    assert!(!served.daemon.log().contains("s3cret"), "keys are secrets");

    // A key that is taken away is good no longer.
    assert!(is_let_in_by_udp(&served, InfoHash::of(b"x"), "/other/announce"));
    std::fs::write(&keys, "s3cret\n").unwrap();
    wait("the key is gone", 10, || !is_let_in_by_udp(&served, InfoHash::of(b"x"), "/other/announce"));
    assert!(is_let_in_by_udp(&served, InfoHash::of(b"x"), "/s3cret/announce?a=b"));
}
