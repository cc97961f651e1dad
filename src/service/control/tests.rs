//! Whole conversations, and the fields that scripts rely on.

use std::time::Duration;

use serde_json::Value;

use super::request::{Host, Report, Request};
use super::session::{PARTS_MAX, Session, WAITING_MAX};
use crate::base::hash::{Sha1Hash, Sha256Hash};
use crate::base::ids::{AckId, TorrentId};
use crate::base::time::Time;
use crate::codec::control::{Closing, LINE_MAX, closing};
use crate::codec::import::Import;
use crate::protocol::dht::items::{OwnedAuthor, OwnedItem};
use crate::torrent::command::{Answer, Command, Refusal, RefusalKind, Source, Status, Which};
use crate::torrent::dht_command::{DhtAnswer, DhtState, NodeRow, Progress, Swarm};
use crate::torrent::event::{Event, Filter, What};
use crate::torrent::listing::Listing;
use crate::torrent::settings::SettingRow;
use crate::torrent::snapshot::{FileRow, Follows, PeerRow, PieceState, Priority, State, Summary, TrackerRow};
use crate::torrent::why::Reason;

const NOW: Time = Time::ZERO;

fn row(name: &str) -> Summary {
    Summary {
        queue: Some(3),
        settings: vec![SettingRow { key: "ratio", value: "1.5".to_owned(), from: "rule 2".to_owned() }],
        info_hash: Sha1Hash::of(name.as_bytes()),
        st_id: Some(Sha256Hash::of(name.as_bytes())),
        name: name.to_owned(),
        state: State::Downloading,
        error: None,
        described: true,
        size: 2000,
        wanted: 1000,
        have_bytes: 600,
        have_wanted_bytes: 500,
        checked: None,
        down_rate: 2048,
        up_rate: 10,
        downloaded: 500,
        uploaded: 250,
        wasted: 1,
        peers: 3,
        seeds: 1,
        eta: Some(75),
        label: "l".to_owned(),
        added: 1_700_000_000,
        finished: None,
        dir: "/srv/d".into(),
        private: false,
        pieces: (10, 4),
        piece_len: 16_384,
        comment: None,
        moving: None,
        move_error: None,
        hook: None,
        dht_item: None,
        created_by: Some("x".to_owned()),
        follows: Some(Follows { target: Sha1Hash([7; 20]), seq: Some(-4) }),
    }
}

/// Asks `line` and answers what is asked with `report`; gives everything that is said.
fn ask(line: &str, report: Report) -> String {
    let mut session = Session::new(NOW);
    session.handle_input(line.as_bytes());
    session.handle_end();
    while session.poll_request(NOW).is_some() {
        session.reply(NOW, Ok(report.clone()), None);
    }
    let said = String::from_utf8(session.output().to_vec()).unwrap();
    session.handle_sent(NOW, said.len());
    assert!(session.is_over());
    said
}

fn json_lines(command: &str, report: Report) -> Vec<Value> {
    ask(&format!("json {command}\n"), report).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn pipelined_requests_are_answered_in_order_and_after_the_end() {
    let mut session = Session::new(NOW);
    session.handle_input(b"# hello\r\n\r\nshow ab12\r\nversion\nfrob\npau");
    assert_eq!(session.poll_request(NOW), Some(Request::Node(Command::Show(Which::Prefix("ab12".to_owned())))));
    assert_eq!(session.poll_request(NOW), None, "one at a time");
    session.reply(NOW, Err(Refusal::new(RefusalKind::NotFound, "no")), None);
    assert_eq!(session.poll_request(NOW), None);
    session.handle_input(b"se all");
    session.handle_end();
    assert!(!session.is_over() && !session.wants_input());
    assert_eq!(session.poll_request(NOW), Some(Request::Node(Command::Pause(Which::All))), "a last line needs no end");
    session.reply(NOW, Ok(Answer::DoneTo(2).into()), None);
    assert_eq!(session.poll_request(NOW), None);
    let said = String::from_utf8(session.output().to_vec()).unwrap();
    let closings: Vec<_> = said.lines().filter_map(closing).collect();
    assert_eq!(closings, [Closing::Err, Closing::Ok, Closing::Err, Closing::Ok], "{said}");
    assert!(said.contains("ERR unknown-command ") && said.ends_with("OK 2 torrents\n"), "{said}");
    assert!(!session.is_over());
    session.handle_sent(NOW, said.len());
    assert!(session.is_over());
}

#[test]
fn every_split_of_the_input_gives_the_same_conversation() {
    let input = b"json list\r\nadd 'a\nhelp pause\n\"\nstatus x\n";
    let whole = ask(std::str::from_utf8(input).unwrap(), Report::Node(Answer::List(vec![row("a")])));
    for at in 0..input.len() {
        let mut session = Session::new(NOW);
        for part in [&input[..at], &input[at..]] {
            session.handle_input(part);
            while session.poll_request(NOW).is_some() {
                session.reply(NOW, Ok(Report::Node(Answer::List(vec![row("a")]))), None);
            }
        }
        assert_eq!(session.output(), whole.as_bytes(), "{at}");
    }
}

#[test]
fn what_comes_in_parts_is_added_as_a_whole() {
    let mut session = Session::new(NOW);
    let add = |session: &mut Session, lines: &str| {
        session.handle_input(lines.as_bytes());
        let request = session.poll_request(NOW);
        if request.is_some() {
            session.reply(NOW, Ok(Report::Node(Answer::Done)), None);
        }
        let said = String::from_utf8(session.output().to_vec()).unwrap();
        session.handle_sent(NOW, said.len());
        match request {
            Some(Request::Node(Command::Add { source: Source::Metainfo(bytes), options })) => Ok((bytes, options)),
            _ => Err(said),
        }
    };
    let (bytes, options) = add(&mut session, "part ZDQ6aW5m\npart b2RlZQ==\nadd parts: paused=yes\n").unwrap();
    assert_eq!((bytes.as_slice(), options.paused, options.import), (&b"d4:infodee"[..], true, None));
    let said = add(&mut session, "add parts:\n").unwrap_err();
    assert!(said.starts_with("ERR usage no parts"), "{said}");
    let import = Import { have: vec![0x80], added: 7, ..Import::default() };
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, import.to_bytes(b"de"));
    let (bytes, options) = add(&mut session, &format!("part {base64}\nadd parts:\n")).unwrap();
    assert_eq!((bytes.as_slice(), options.import.as_deref()), (&b"de"[..], Some(&import)));
    let said = add(&mut session, "part ???\n").unwrap_err();
    assert!(said.starts_with("ERR invalid part takes base64"), "{said}");
    let line = format!("part {}\n", "AAAA".repeat(16_000));
    for _ in 0..PARTS_MAX / 48_000 {
        assert_eq!(add(&mut session, &line).unwrap_err(), "OK\n");
    }
    let said = add(&mut session, &line).unwrap_err();
    assert!(said.starts_with("ERR invalid parts have at most"), "{said}");
    assert!(add(&mut session, "add parts:\n").is_err(), "and they are forgotten");
}

#[test]
fn a_line_that_is_too_long_is_one_error_and_the_next_is_read() {
    let mut session = Session::new(NOW);
    for _ in 0..40 {
        session.handle_input(&[b'a'; 4096]);
        assert_eq!(session.poll_request(NOW), None);
        assert!(session.wants_input());
    }
    session.handle_input(b"\nversion\n");
    assert_eq!(session.poll_request(NOW), None);
    let said = String::from_utf8(session.output().to_vec()).unwrap();
    assert_eq!(said.lines().filter_map(closing).collect::<Vec<_>>(), [Closing::Err, Closing::Ok], "{said}");
    assert!(said.starts_with("ERR usage "));
}

#[test]
fn the_longest_line_is_taken() {
    let mut line = format!("show {}", "a".repeat(LINE_MAX - 5));
    let mut session = Session::new(NOW);
    session.handle_input(line.as_bytes());
    session.handle_input(b"\r\n");
    assert_eq!(session.poll_request(NOW), None);
    assert!(session.output().starts_with(b"ERR invalid "));
    line.push('a');
    assert!(ask(&line, Answer::Done.into()).starts_with("ERR usage "), "one more byte");
}

#[test]
fn hostile_bytes_are_answered_with_errors() {
    let mut session = Session::new(NOW);
    session.handle_input(b"\xff\xfe\n\x1b[2J\nlist \"\n\0\njson \xff\njson\njson json list\n");
    session.handle_end();
    assert_eq!(session.poll_request(NOW), None);
    let said = String::from_utf8(session.output().to_vec()).unwrap();
    let closings: Vec<_> = said.lines().map(closing).collect();
    assert_eq!(closings, [Some(Closing::Err); 7], "{said}");
}

#[test]
fn a_client_that_reads_is_never_cut_off() {
    let mut session = Session::new(NOW);
    let (mut asked, mut answered, mut most) = (0, 0, 0);
    while answered < 2000 {
        while asked < 2000 && session.wants_input() {
            session.handle_input(b"list\n");
            asked += 1;
        }
        while session.poll_request(NOW).is_some() {
            session.reply(NOW, Ok(Report::Lines(vec!["x".repeat(60_000)])), None);
            answered += 1;
        }
        assert!(!session.is_over(), "{answered}");
        most = most.max(session.output().len());
        let len = session.output().len().min(100_000);
        session.handle_sent(NOW, len);
    }
    assert!(most < 400_000, "{most}: the client is made to wait instead");
}

#[test]
fn a_client_that_does_not_read_is_cut_off_at_the_bound() {
    let mut session = Session::new(NOW);
    let mut now = NOW;
    for _ in 0..1000 {
        if session.is_over() {
            break;
        }
        session.handle_input(b"list\n");
        while session.poll_request(now).is_some() {
            session.reply(now, Ok(Report::Lines(vec!["x".repeat(60_000)])), None);
        }
        if !session.poll_timeout().is_never() {
            now = now.max(session.poll_timeout());
        }
    }
    assert!(session.is_over());
    assert!(session.output().len() < WAITING_MAX + 100_000, "{}", session.output().len());
    assert!(now >= NOW + Duration::from_millis(250), "it had time to read");
}

#[test]
fn one_long_reply_is_not_cut() {
    let mut session = Session::new(NOW);
    session.handle_input(b"list\n");
    session.poll_request(NOW);
    session.reply(NOW, Ok(Report::Lines(vec!["x".repeat(WAITING_MAX + 1)])), None);
    assert!(!session.is_over());
    assert!(session.output().ends_with(b"\nOK\n"));
}

#[test]
fn the_list_is_a_table_sorted_as_asked() {
    let mut fast = row("fast\nOK");
    fast.down_rate = 5 << 20;
    let said = ask("list sort=down\n", Answer::List(vec![row("slow"), fast]).into());
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 4);
    let heads: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(heads, ["id", "state", "done", "down", "up", "ratio", "peers", "eta", "size", "name"]);
    assert!(lines[1].contains("downloading  50.0%  5.0M") && lines[1].ends_with("1m15s  2.0K  fast\\nOK"), "{said}");
    assert!(lines[2].ends_with("slow"));
    assert_eq!(lines[3], "OK");
}

#[test]
fn an_empty_list_is_its_head() {
    assert_eq!(ask("list", Answer::List(Vec::new()).into()).lines().count(), 2);
    assert_eq!(ask("json list", Answer::List(Vec::new()).into()), "{\"ok\":true}\n");
}

#[test]
fn json_has_the_fields_that_scripts_rely_on() {
    let lines = json_lines("list", Answer::List(vec![row("a"), row("b")]).into());
    assert_eq!(lines.len(), 3);
    for field in [
        "id",
        "st_id",
        "name",
        "state",
        "error",
        "size",
        "wanted",
        "have_bytes",
        "progress",
        "down_rate",
        "up_rate",
        "downloaded",
        "uploaded",
        "ratio",
        "peers",
        "seeds",
        "eta",
        "label",
        "added",
        "finished",
        "dir",
    ] {
        assert!(keys(&lines[0]).contains(&field), "{field}");
    }
    assert_eq!(lines[0]["id"], Sha1Hash::of(b"a").to_string());
    assert_eq!(lines[0]["progress"], 0.5);
    assert_eq!(lines[0]["ratio"], 0.5);
    assert_eq!(lines[0]["finished"], Value::Null);
    assert_eq!(lines[2], serde_json::json!({ "ok": true }));

    let peer = PeerRow {
        addr: "1.2.3.4:5".parse().unwrap(),
        client: "x\u{1b}".to_owned(),
        flags: "D".to_owned(),
        progress: 1.0,
        down_rate: 1,
        up_rate: 2,
        transport: "tcp",
        encrypted: false,
        source: "tracker",
    };
    let lines = json_lines("peers abcd", Answer::Peers(vec![peer]).into());
    for field in ["addr", "client", "flags", "progress", "down_rate", "up_rate", "transport", "encrypted", "source"] {
        assert!(keys(&lines[0]).contains(&field), "{field}");
    }
}

#[test]
fn status_in_json_has_the_keys_of_the_text() {
    let figures = Status { listen: vec!["[::1]:6881".parse().unwrap()], ..Status::default() };
    let host = Host { state_dir: "/s".into(), disk_free: Some(1), memory: 4096, threads: 1, ..Host::default() };
    let report = Report::Status(Box::new(figures), host);
    let json = json_lines("status", report.clone()).remove(0);
    let text = ask("status", report);
    for line in text.lines().filter(|line| closing(line).is_none()) {
        let key = line.split_once(": ").expect(line).0.replace(' ', "_");
        assert!(keys(&json).contains(&key.as_str()), "{key}");
    }
    assert_eq!(json["listen"], serde_json::json!(["[::1]:6881"]));
    assert_eq!((&json["threads"], &json["state_dir"], &json["memory"]), (&1.into(), &"/s".into(), &4096.into()));
}

#[test]
fn closing_lines_carry_what_was_done() {
    let id = Sha1Hash::of(b"a");
    assert_eq!(ask("add metainfo:", Answer::Added(id).into()), format!("OK {id}\n"));
    assert_eq!(ask("json add metainfo:", Answer::Added(id).into()), format!("{{\"ok\":true,\"id\":\"{id}\"}}\n"));
    assert_eq!(ask("pause abcd", Answer::DoneTo(1).into()), "OK\n");
    assert_eq!(ask("magnet abcd", Answer::Link("magnet:?xt=x".to_owned()).into()), "magnet:?xt=x\nOK\n");
    assert_eq!(ask("json frob", Answer::Done.into()).matches("\"code\":\"unknown-command\"").count(), 1);
}

#[test]
fn every_answer_has_both_forms() {
    let file = FileRow { index: 0, path: "a/b".into(), size: 2, have_bytes: 1, priority: Priority::High };
    let tracker = TrackerRow {
        tier: 0,
        url: "http://t/announce".to_owned(),
        state: "working",
        next: Some(90),
        seeders: Some(1),
        leechers: None,
        downloaded: None,
        peers: 3,
        message: Some("OK\nERR".to_owned()),
    };
    let answers = [
        ("show abcd", Answer::Show(Box::new(row("a")))),
        ("files abcd", Answer::Files(vec![file])),
        ("trackers abcd", Answer::Trackers(vec![tracker])),
        ("pieces abcd", Answer::Pieces(vec![PieceState::Have, PieceState::Missing(1)])),
        ("why abcd", Answer::Why(vec![Reason::new("peers", "OK, nobody has it")])),
        (
            "get abcd",
            Answer::Settings(vec![SettingRow { key: "label", value: "a=b".to_owned(), from: "own".to_owned() }]),
        ),
        ("stats", Answer::Stats(vec![("peers.dialled".to_owned(), 3)])),
    ];
    for (line, answer) in answers {
        let text = ask(line, answer.clone().into());
        assert_eq!(text.lines().filter_map(closing).count(), 1, "{text}");
        assert!(text.ends_with("\nOK\n") && text.lines().count() > 1, "{text}");
        assert!(json_lines(line, answer.into()).len() > 1);
    }
}

#[test]
fn help_lists_every_command_with_its_arguments() {
    let said = ask("help", Answer::Done.into());
    assert_eq!(said.lines().count(), super::commands::COMMANDS.len() + 1);
    assert!(said.contains("\nlist [STATE…] [sort=FIELD] [label=L]"), "{said}");
    assert_eq!(ask("help pause", Answer::Done.into()).lines().count(), 2);
    assert_eq!(json_lines("help", Answer::Done.into())[1]["command"], "version");
    assert!(ask("version", Answer::Done.into()).contains("\nprotocol: 1\n"));
}

#[test]
fn what_is_known_of_the_dht_is_told_with_how_far_the_search_is() {
    let going = Progress { searches: true, answers: 3 };
    let peers = Answer::Dht(DhtAnswer::Peers(vec!["1.2.3.4:5".parse().unwrap()], Some((1, 2)), going));
    let find = format!("dht find {}", "ab".repeat(20));
    assert_eq!(ask(&find, peers.clone().into()), "1.2.3.4:5\nOK searching, about 1 seeds and 2 others\n");
    let lines = json_lines(&find, peers.into());
    assert_eq!(lines[0], serde_json::json!({ "addr": "1.2.3.4:5" }));
    assert_eq!(
        lines[1],
        serde_json::json!({ "ok": true, "state": "searching", "answers": 3, "seeds": 1, "others": 2 })
    );

    let hash = Sha1Hash::of(b"x");
    let swarm = |name: Option<&str>, size| Swarm { info_hash: hash, name: name.map(str::to_owned), size };
    let swarms = DhtAnswer::Swarms(vec![swarm(Some("OK\n"), Some(2048)), swarm(None, None)], Progress::default());
    let said = ask("dht sample", Answer::Dht(swarms.clone()).into());
    assert_eq!(said.lines().nth(1).unwrap(), format!("{hash}  2.0K  OK\\n"));
    assert!(said.ends_with(&format!("{hash}     -  -\nOK done\n")), "{said}");
    assert_eq!(json_lines("dht sample", Answer::Dht(swarms).into())[1]["name"], Value::Null);

    let author = OwnedAuthor { key: [1; 32], salt: b"s".to_vec(), version: 7, signature: [2; 64] };
    let item = OwnedItem { value: b"3:a\nb".to_vec(), author: Some(author) };
    let get = format!("dht get {} salt=s", "ab".repeat(20));
    let said = ask(&get, Answer::Dht(DhtAnswer::Item(Some(item.clone()), Progress::default())).into());
    assert!(said.starts_with("value: 3:a\\nb\ntext: a\\nb\nkey: 0101"), "{said}");
    let json = json_lines(&get, Answer::Dht(DhtAnswer::Item(Some(item), Progress::default())).into());
    assert_eq!(
        (&json[0]["value"], &json[0]["text"], &json[0]["seq"]),
        (&"333a610a62".into(), &"a\nb".into(), &7.into())
    );
    assert_eq!(ask(&get, Answer::Dht(DhtAnswer::Item(None, going)).into()), "OK searching\n");
    let put = Answer::Dht(DhtAnswer::Put(hash, 8, Progress::default()));
    assert_eq!(ask("dht put x", put.into()), format!("target: {hash}\nnodes: 8\nOK done\n"));
}

#[test]
fn the_state_of_the_dht_has_the_same_facts_in_both_forms() {
    let node = NodeRow {
        id: Sha1Hash::of(b"id"),
        listen: "[::1]:6881".parse().unwrap(),
        seen_as: Some("2001:db8::1".parse().unwrap()),
        nodes: 12,
        good: 9,
    };
    let state = DhtState { nodes: vec![node], names: vec![("node.example".to_owned(), 1)], ..DhtState::default() };
    let state = Answer::Dht(DhtAnswer::State(Box::new(state)));
    let said = ask("dht", state.clone().into());
    for line in ["ipv6 listen: [::1]:6881", "ipv6 address: 2001:db8::1", "ipv6 good: 9", "unresolved: node.example:1"] {
        assert!(said.lines().any(|other| other == line), "{line}: {said}");
    }
    let json = json_lines("dht", state.into()).remove(0);
    assert_eq!(json["families"][0]["address"], "2001:db8::1");
    let fields = json.as_object().unwrap().len() - 1 + json["families"][0].as_object().unwrap().len() - 1;
    assert_eq!(fields, said.lines().count() - 1, "{said}");
}

fn output(session: &mut Session) -> String {
    let text = String::from_utf8(session.output().to_vec()).unwrap();
    session.handle_sent(NOW, text.len());
    text
}

#[test]
fn held_replies_keep_their_order_and_later_requests_are_carried_out_meanwhile() {
    let mut session = Session::new(NOW);
    session.handle_input(b"pause all\nlist\nversion\npause all\nnonsense\n");
    session.handle_end();
    assert!(session.poll_request(NOW).is_some());
    session.reply(NOW, Ok(Answer::DoneTo(1).into()), Some(AckId(1)));
    assert!(session.poll_request(NOW).is_some(), "the disk holds up no further request");
    session.reply(NOW, Ok(Report::Node(Answer::List(vec![row("a")]))), None);
    assert!(session.poll_request(NOW).is_some());
    session.reply(NOW, Ok(Answer::DoneTo(2).into()), Some(AckId(2)));
    assert!(session.poll_request(NOW).is_none());
    assert_eq!(output(&mut session), "");
    assert!(session.is_asking() && !session.is_over());
    session.handle_ack(NOW, AckId(2), &Ok(()));
    assert_eq!(output(&mut session), "", "the first reply is still held");
    session.handle_ack(NOW, AckId(1), &Ok(()));
    let text = output(&mut session);
    let closing: Vec<&str> = text.lines().filter(|line| line.starts_with("OK") || line.starts_with("ERR")).collect();
    assert_eq!(closing.len(), 5, "{text}");
    assert_eq!((closing[0], closing[3]), ("OK", "OK 2 torrents"), "{text}");
    assert!(closing[4].starts_with("ERR unknown-command"), "{text}");
    assert!(session.is_over());
}

#[test]
fn reply_to_a_change_that_cannot_be_saved_is_an_error() {
    let mut session = Session::new(NOW);
    session.handle_input(b"json pause all\npause all\n");
    for ack in [1, 2] {
        assert!(session.poll_request(NOW).is_some());
        session.reply(NOW, Ok(Answer::DoneTo(1).into()), Some(AckId(ack)));
    }
    let refusal = Refusal::new(RefusalKind::Io, "no space");
    session.handle_ack(NOW, AckId(1), &Err(refusal.clone()));
    let json: Value = serde_json::from_str(&output(&mut session)).unwrap();
    assert_eq!((&json["ok"], &json["code"]), (&false.into(), &"io".into()));
    session.handle_ack(NOW, AckId(2), &Err(refusal.clone()));
    assert_eq!(output(&mut session), "ERR io no space\n");
    // A request that was refused changed nothing that could be saved.
    session.handle_input(b"pause abcd\n");
    assert!(session.poll_request(NOW).is_some());
    session.reply(NOW, Err(Refusal::new(RefusalKind::NotFound, "no such torrent")), Some(AckId(3)));
    session.handle_ack(NOW, AckId(3), &Err(refusal));
    assert_eq!(output(&mut session), "ERR not-found no such torrent\n");
}

#[test]
fn client_whose_replies_are_held_sends_no_endless_requests() {
    let mut session = Session::new(NOW);
    let mut carried_out = 0;
    for _ in 0..100 {
        session.handle_input(&b"pause all\n".repeat(100));
        while session.poll_request(NOW).is_some() {
            session.reply(NOW, Ok(Answer::DoneTo(1).into()), Some(AckId(carried_out)));
            carried_out += 1;
        }
    }
    assert_eq!(carried_out, 1024);
    assert!(!session.is_ready(NOW) && !session.is_overrun());
    session.handle_ack(NOW, AckId(0), &Ok(()));
    assert!(session.is_ready(NOW));
}

/// A client that asked for files, and then for what is `behind`; its answer has begun.
fn listing_files(line: &str, behind: &str) -> Session {
    let mut session = Session::new(NOW);
    session.handle_input(format!("{line}\n{behind}").as_bytes());
    begin_listing(&mut session);
    session
}

fn begin_listing(session: &mut Session) {
    assert!(session.poll_request(NOW).is_some());
    let listing = Listing::Files { torrent: TorrentId::from_bits(0), next: 0, without_paths: false };
    session.reply(NOW, Ok(Report::Long(listing)), None);
}

/// A slice of rows.
fn files(from: usize, count: usize) -> Report {
    let row = |index: usize| FileRow {
        index,
        path: format!("{index}").into(),
        size: 9,
        have_bytes: 1,
        priority: Priority::High,
    };
    Answer::Files((from..from + count).map(row).collect()).into()
}

#[test]
fn long_answer_waits_for_a_client_that_does_not_read() {
    let mut session = listing_files("json files abcd", "");
    let (mut next, mut said) = (0, 0);
    while next < 100_000 {
        while session.wants_rows(NOW) {
            session.handle_rows(NOW, Ok((files(next, 100), false)));
            next += 100;
        }
        assert!(session.kept() >= 64 * 1024 && session.kept() < 80 * 1024, "{}", session.kept());
        assert!(!session.is_ready(NOW) && session.is_asking());
        assert_eq!((session.poll_request(NOW), session.poll_timeout()), (None, Time::NEVER), "it costs nothing");
        // All of it is read only at times.
        let len = if next % 1000 == 0 { session.waiting() } else { session.waiting() - 1 };
        session.handle_sent(NOW, len);
        said += len;
    }
    session.handle_rows(NOW, Ok((files(next, 1), true)));
    assert!(session.output().ends_with(b"{\"ok\":true}\n") && said > 1_000_000);
    assert!(!session.is_asking());
}

#[test]
fn events_wait_for_the_end_of_a_long_answer() {
    for (line, json) in [("files abcd", ""), ("json files abcd", "json ")] {
        let mut session = Session::new(NOW);
        session.handle_input(format!("{json}watch\n{line}\n").as_bytes());
        assert!(session.poll_request(NOW).is_some());
        let filter = Filter { info_hash: None, kinds: Vec::new() };
        session.reply(NOW, Ok(Report::Watching(filter)), None);
        begin_listing(&mut session);
        let event = Event { at: 1, info_hash: None, name: String::new(), what: What::Lost(7) };
        session.tell(NOW, &event);
        let passes: &[bool] = if json.is_empty() { &[false, true, false] } else { &[false] };
        for is_last in passes {
            session.handle_rows(NOW, Ok((files(0, 2), *is_last)));
            session.tell(NOW, &event);
        }
        session.handle_rows(NOW, Ok((files(2, 1), true)));
        session.tell(NOW, &event);
        let said = output(&mut session);
        let lines: Vec<&str> = said.lines().collect();
        let events = lines.iter().filter(|line| line.contains("lost")).count();
        assert_eq!(events, passes.len() + 2, "{said}");
        let closing = lines.iter().rposition(|line| closing(line).is_some()).unwrap();
        assert!(lines[..closing].iter().all(|line| !line.contains("lost")), "{said}");
    }
}

#[test]
fn many_events_do_not_hold_up_a_long_answer() {
    let mut session = Session::new(NOW);
    session.handle_input(b"json watch\njson files abcd\n");
    assert!(session.poll_request(NOW).is_some());
    session.reply(NOW, Ok(Report::Watching(Filter { info_hash: None, kinds: Vec::new() })), None);
    begin_listing(&mut session);
    let event = Event { at: 1, info_hash: None, name: "n".repeat(1000), what: What::Lost(7) };
    (0..1000).for_each(|_| session.tell(NOW, &event));
    output(&mut session);
    assert!(session.wants_rows(NOW), "the client has read all that there is");
}

#[test]
fn long_answer_keeps_its_place_among_held_replies() {
    let mut session = Session::new(NOW);
    session.handle_input(b"pause all\njson files abcd\npause all\nversion\n");
    session.handle_end();
    assert!(session.poll_request(NOW).is_some());
    session.reply(NOW, Ok(Answer::DoneTo(1).into()), Some(AckId(1)));
    begin_listing(&mut session);
    session.handle_rows(NOW, Ok((files(0, 1), false)));
    assert!(session.poll_request(NOW).is_none() && session.wants_rows(NOW), "nothing comes between its rows");
    session.handle_rows(NOW, Ok((files(1, 1), true)));
    assert!(session.poll_request(NOW).is_some(), "a short one holds up no request");
    session.reply(NOW, Ok(Answer::DoneTo(3).into()), Some(AckId(2)));
    assert!(session.poll_request(NOW).is_none());
    assert_eq!(output(&mut session), "");
    session.handle_ack(NOW, AckId(2), &Ok(()));
    session.handle_ack(NOW, AckId(1), &Ok(()));
    let said = output(&mut session);
    let kinds: Vec<&str> = said.lines().map(|line| line.get(..8).unwrap_or(line)).collect();
    assert_eq!(kinds[..5], ["OK", "{\"have_b", "{\"have_b", "{\"ok\":tr", "OK 3 tor"], "{said}");
    assert!(session.is_over());
}

#[test]
fn rows_come_while_the_reply_before_them_is_held() {
    let mut session = Session::new(NOW);
    session.handle_input(b"pause all\njson files abcd\n");
    assert!(session.poll_request(NOW).is_some());
    session.reply(NOW, Ok(Answer::DoneTo(1).into()), Some(AckId(1)));
    begin_listing(&mut session);
    let mut next = 0;
    while session.wants_rows(NOW) {
        session.handle_rows(NOW, Ok((files(next, 100), false)));
        next += 100;
    }
    assert!(session.kept() >= 64 * 1024 && session.output().is_empty());
    session.handle_ack(NOW, AckId(1), &Ok(()));
    assert!(output(&mut session).starts_with("OK\n{"));
    assert!(session.wants_rows(NOW));
}

#[test]
fn client_that_asks_on_and_reads_nothing_is_cut_off_in_a_long_answer() {
    let mut session = listing_files("json files abcd", "version\n");
    while session.wants_rows(NOW) {
        session.handle_rows(NOW, Ok((files(0, 100), false)));
    }
    let later = session.poll_timeout();
    assert_eq!(later, NOW + Duration::from_millis(250));
    assert!(!session.is_ready(NOW) && session.is_ready(later));
    while session.wants_rows(later) {
        session.handle_rows(later, Ok((files(0, 100), false)));
    }
    assert!(session.is_overrun() && session.kept() < WAITING_MAX + 100_000, "{}", session.kept());
    // One that asks for nothing more may take its time.
    let mut session = listing_files("json files abcd", "");
    while session.wants_rows(later) {
        session.handle_rows(later, Ok((files(0, 100), false)));
    }
    assert!(!session.is_overrun() && session.kept() < 80 * 1024);
}
