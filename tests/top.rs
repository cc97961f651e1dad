//! `swarmtorrent top` and `swarmtorrent list` at a real terminal, with a real daemon.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Daemon, make, noise, tool, wait};
use rustix::process::Signal;
use terminal::Terminal;

const TOOL: &str = env!("CARGO_BIN_EXE_swarmtorrent");

/// A daemon with a torrent of these names, each paused and with nothing of it here; the last one's hash.
fn daemon(dir: &Path, names: &[&str]) -> (Daemon, Vec<String>) {
    let daemon = Daemon::start(dir, "");
    let mut hashes = Vec::new();
    for (seed, name) in names.iter().enumerate() {
        let content = dir.join("made").join(name);
        std::fs::create_dir_all(content.parent().unwrap()).unwrap();
        std::fs::write(&content, noise(seed as u64, 300_000)).unwrap();
        let out = dir.join(format!("out{seed}"));
        std::fs::create_dir_all(&out).unwrap();
        let (_, torrent, hash) = make(&content, &out, &["--piece-length", "16384"]);
        daemon.add(&torrent, "paused=yes label=isos");
        hashes.push(hash);
    }
    (daemon, hashes)
}

fn top(dir: &Path, columns: u16, rows: u16) -> Terminal {
    let socket = dir.join("control");
    Terminal::start(Path::new(TOOL), &["top", "--socket", socket.to_str().unwrap()], &[], columns, rows)
}

fn state(daemon: &Daemon, id: &str) -> String {
    daemon.json(&format!("show {id}"))[0]["state"].as_str().unwrap().to_owned()
}

#[test]
fn keys_do_at_the_daemon_what_they_say_and_it_may_go_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, hashes) = daemon(dir.path(), &["alpha.iso", "beta.iso"]);
    let listen = daemon.listen;
    let mut top = top(dir.path(), 100, 30);
    top.wait_for("alpha.iso  isos");
    top.wait_for("2 paused");
    assert!(!top.is_given_back());
    top.press("jr");
    wait("beta goes on", 10, || state(&daemon, &hashes[1]) != "paused");
    assert_eq!(state(&daemon, &hashes[0]), "paused");
    top.wait_for("resumed beta.iso");
    top.press("p");
    wait("beta stops", 10, || state(&daemon, &hashes[1]) == "paused");
    // Panes, help, a filter, another size.
    top.press("?");
    top.wait_for("any key closes this");
    top.press(" 3");
    top.wait_for("priority");
    top.press("5");
    top.wait_for("nobody has it");
    top.press("6");
    top.wait_for("paused  beta.iso");
    top.press("/alph\r");
    top.wait_for("only `alph`: 1 of 2");
    top.resize(60, 12);
    top.wait_for("alpha.iso");
    assert!(!top.screen().contains("beta.iso"));
    top.resize(100, 30);
    top.press("\x1b");
    top.wait_for("beta.iso");
    // The daemon goes, what is known stays; it comes back, and with it what has changed.
    drop(daemon);
    top.wait_for("is swarmtorrentd running?");
    assert!(top.screen().contains("alpha.iso"));
    let daemon = Daemon::start_at(dir.path(), listen, "");
    top.wait_for("2 paused");
    top.press("gd");
    top.wait_for("remove it, and delete its data");
    top.press("n");
    top.press("d");
    top.press("y");
    wait("alpha is removed", 10, || daemon.json("list").len() == 1);
    top.wait_for("removed alpha.iso");
    let children = std::fs::read_dir(format!("/proc/{}/task", top.child.id())).unwrap().count();
    assert_eq!(children, 1, "one thread");
    top.press("q");
    assert_eq!(top.wait_ended(), Some(0));
    assert!(top.is_given_back());
}

#[test]
fn the_terminal_is_given_back_on_signals() {
    let dir = tempfile::tempdir().unwrap();
    let (_daemon, _) = daemon(dir.path(), &["alpha.iso"]);
    let mut top = top(dir.path(), 80, 24);
    top.wait_for("alpha.iso");
    for stop in ["key", "signal"] {
        match stop {
            "key" => top.press("\x1a"),
            _ => top.signal(Signal::TSTP),
        }
        top.wait_stopped();
        assert!(top.is_given_back(), "stopped by a {stop}");
        top.signal(Signal::CONT);
        wait("it takes the terminal again", 10, || !top.is_given_back());
        top.wait_for("alpha.iso");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut top = self::top(dir.path(), 80, 24);
        top.wait_for("alpha.iso");
        top.signal(signal);
        assert_eq!(top.wait_ended(), Some(0));
        assert!(top.is_given_back(), "{signal:?}");
    }
    top.press("\x03");
    assert_eq!(top.wait_ended(), Some(0));
    assert!(top.is_given_back());
}

#[test]
fn without_a_terminal_or_a_daemon_there_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control");
    let top = || {
        let output = Command::new(TOOL).args(["top", "--socket"]).arg(&socket).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, why) = top();
    assert!(code == Some(1) && why.contains("is swarmtorrentd running?"), "{why}");
    let (_daemon, _) = daemon(dir.path(), &[]);
    let (code, why) = top();
    assert!(code == Some(1) && why.contains("swarmtorrent list"), "{why}");
    let args = ["top", "--socket", socket.to_str().unwrap()];
    let mut dumb = Terminal::start(Path::new(TOOL), &args, &[("TERM", "dumb")], 80, 24);
    assert_eq!(dumb.wait_ended(), Some(1));
    assert!(dumb.screen().contains("swarmtorrent list") && !dumb.written.contains(&0x1b));
}

#[test]
fn a_list_is_made_for_who_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("{}.iso", "long".repeat(30));
    let (daemon, hashes) = daemon(dir.path(), &[&name]);
    let socket = dir.path().join("control");
    let args = ["list", "--socket", socket.to_str().unwrap()];
    let plain = tool(&args);
    assert!(plain.starts_with("id            state") && plain.contains(&name) && !plain.contains('\x1b'), "{plain}");
    let json = tool(&[&args[..], &["--json"]].concat());
    let row: serde_json::Value = serde_json::from_str(&json).expect("one object and nothing else");
    assert_eq!((&row["id"], &row["label"]), (&hashes[0].clone().into(), &"isos".into()));
    let shown = |env: &[(&str, &str)]| {
        let mut list = Terminal::start(Path::new(TOOL), &args, env, 90, 24);
        assert_eq!(list.wait_ended(), Some(0));
        (list.screen(), list.written.contains(&0x1b))
    };
    let (text, has_colours) = shown(&[]);
    assert!(has_colours && text.contains("longlong…") && text.lines().count() == 2, "{text}");
    let (text, has_colours) = shown(&[("NO_COLOR", "1")]);
    assert!(!has_colours && text.contains("longlong…"), "{text}");
    assert!(!shown(&[("TERM", "dumb")]).1);
    // The other commands of the daemon that are words of the tool.
    let ask = |words: &[&str]| tool(&[words, &args[1..]].concat());
    assert!(ask(&["files", &hashes[0]]).contains("normal"));
    assert!(ask(&["status"]).contains("torrents: 1"));
    assert!(ask(&["why", &hashes[0]]).contains("paused"));
    assert!(ask(&["list", "seeding"]).lines().count() == 1);
    ask(&["set", &hashes[0], "label", "a b"]);
    assert_eq!(daemon.torrent()["label"], "a b");
    ask(&["resume", &hashes[0]]);
    wait("it goes on", 10, || daemon.torrent()["state"] != "paused");
    // A torrent file that does not fit into a line.
    let pieces = 3000;
    let mut large =
        format!("d4:infod6:lengthi{}e4:name5:large12:piece lengthi16384e6:pieces{}:", pieces * 16_384, pieces * 20);
    large += &"x".repeat(pieces * 20);
    let path = dir.path().join("large.torrent");
    std::fs::write(&path, large + "ee").unwrap();
    assert!(ask(&["add", path.to_str().unwrap(), "paused=yes", "verify=no"]).starts_with("OK "));
    assert!(ask(&["list", "paused"]).contains("large"));
    ask(&["remove", daemon.json("list paused")[0]["id"].as_str().unwrap()]);
    ask(&["remove", &hashes[0]]);
    assert!(daemon.json("list").is_empty());
    let refused = Command::new(TOOL).args(["peers", "abcd", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("no torrent"));
}

/// The picture in the README: `SWARMTORRENT_PICTURE=top.svg cargo test --test top picture` draws it from what the program shows.
#[test]
fn a_picture_of_the_screen_can_be_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["debian-12.8.0-amd64-netinst.iso", "field recordings 2025", "openbsd76.iso", "talks"];
    let (first, last) = (dir.path().join("here"), dir.path().join("there"));
    let picture = std::env::var_os("SWARMTORRENT_PICTURE").map(PathBuf::from);
    // Slow enough for a picture of rates, or fast enough for a test.
    let rate = if picture.is_some() { 5000 } else { 50_000 };
    let (seeder, hashes) = daemon(&first, &names);
    let getter = Daemon::start(&last, "");
    for (seed, hash) in hashes.iter().enumerate() {
        let torrent = first.join(format!("out{seed}/made.torrent"));
        seeder.ask(&format!("remove {hash}"));
        seeder.add(&torrent, &format!("dir={}", first.join("made").display()));
        wait("it seeds", 20, || seeder.json(&format!("show {hash}"))[0]["state"] == "seeding");
        getter.add(&torrent, "label=isos");
        getter.ask(&format!("set {hash} down-limit {}", rate * (seed + 1)));
        seeder.ask(&format!("connect {hash} {}", getter.listen));
    }
    getter.ask(&format!("pause {}", hashes[3]));
    let mut top = top(&last, 110, 28);
    top.wait_for(names[0]);
    top.press("2");
    wait("something is here", 60, || {
        let rows = getter.json("list");
        rows.iter().filter(|row| row["progress"].as_f64().unwrap() > 0.3).count() >= 2
    });
    top.wait_for("127.0.0.1");
    if let Some(path) = picture {
        std::fs::write(path, svg(top.cells())).unwrap();
    }
    top.press("q");
    assert_eq!(top.wait_ended(), Some(0));
}

/// A screen as a picture: text where text is, in the colours of a dark terminal.
fn svg(screen: &vt100::Screen) -> String {
    let (rows, columns) = screen.size();
    let (width, height) = (f64::from(columns) * 8.4 + 20.0, f64::from(rows) * 18.0 + 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" font-size=\"14\" shape-rendering=\"crispEdges\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#16181d\"/>\n"
    );
    for row in 0..rows {
        let y = f64::from(row) * 18.0 + 24.0;
        let mut column = 0;
        while column < columns {
            let style = style(screen.cell(row, column).unwrap());
            let start = column;
            let mut text = String::new();
            while column < columns && self::style(screen.cell(row, column).unwrap()) == style {
                let cell = screen.cell(row, column).unwrap();
                text.push_str(if cell.has_contents() { cell.contents() } else { " " });
                column += 1;
            }
            let x = f64::from(start) * 8.4 + 10.0;
            let length = f64::from(column - start) * 8.4;
            let (colour, is_inverse) = style;
            if is_inverse {
                let top = y - 14.0;
                svg +=
                    &format!("<rect x=\"{x:.1}\" y=\"{top}\" width=\"{length:.1}\" height=\"18\" fill=\"#d8dee9\"/>\n");
            }
            if !text.trim().is_empty() {
                let text = text.replace('&', "&amp;").replace('<', "&lt;");
                let fill = if is_inverse { "#16181d" } else { colour };
                svg += &format!(
                    "<text x=\"{x:.1}\" y=\"{y}\" fill=\"{fill}\" textLength=\"{length:.1}\" xml:space=\"preserve\">{text}</text>\n"
                );
            }
        }
    }
    svg + "</svg>\n"
}

fn style(cell: &vt100::Cell) -> (&'static str, bool) {
    let colour = match cell.fgcolor() {
        vt100::Color::Idx(1) => "#e06c75",
        vt100::Color::Idx(2) => "#98c379",
        vt100::Color::Idx(3) => "#e5c07b",
        vt100::Color::Idx(6) => "#56b6c2",
        _ if cell.dim() => "#7f848e",
        _ => "#d8dee9",
    };
    (colour, cell.inverse())
}

#[test]
fn a_key_that_is_pressed_while_the_window_changes_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, hashes) = daemon(dir.path(), &["alpha.iso"]);
    let mut top = top(dir.path(), 100, 30);
    top.wait_for("1 paused");
    for round in 0..20 {
        let (key, is_paused) = if round % 2 == 0 { ("r", false) } else { ("p", true) };
        top.resize(100 + round % 3, 30);
        top.press(key);
        wait(&format!("it was heard in round {round}"), 10, || (state(&daemon, &hashes[0]) == "paused") == is_paused);
    }
}
