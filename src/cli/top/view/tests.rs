use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

use super::super::model::tests::of;
use super::super::model::{Model, Pane};
use super::*;

/// The screen as lines of text.
fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, true)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let cells = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
    (0..height).map(|y| cells(y).trim_end().to_owned()).collect()
}

fn detail(model: &mut Model, pane: Pane, rows: &[&str]) {
    model.look_at(pane);
    model.detail = rows.iter().map(|row| (*row).to_owned()).collect();
    model.detail_of = model.selected().map(|torrent| (pane, torrent.id.clone()));
}

#[test]
fn a_list_has_bars_states_and_rates() {
    let mut model = of(3);
    model.take_status(&[json!({ "uptime": 61, "torrents": 3, "seeding": 2, "down_rate": 2048 }).to_string()]);
    let lines = screen(&mut model, 100, 20);
    assert!(lines[0].starts_with("swarmtorrent up 1m01s, 3 torrents, 2 seeding, 0 peers"), "{}", lines[0]);
    assert!(lines[1].contains("down 2.0K/s") && lines[1].contains("up 0/s"), "{}", lines[1]);
    assert!(lines[3].starts_with("name▼") && lines[3].contains("state"), "{}", lines[3]);
    for part in ["torrent 00001", "downloading", "██████░░░░░░  50.0%", "1000"] {
        assert!(lines[5].contains(part), "{part} in {}", lines[5]);
    }
    assert!(lines[19].contains("q quit"), "{}", lines[19]);
}

#[test]
fn ten_thousand_torrents_are_scrolled_and_not_drawn() {
    let mut model = of(10_000);
    model.select(5000);
    let lines = screen(&mut model, 80, 24);
    assert!(lines.iter().any(|line| line.starts_with("torrent 05000")), "{lines:#?}");
    model.select(usize::MAX);
    let lines = screen(&mut model, 80, 24);
    assert!(lines.iter().any(|line| line.starts_with("torrent 09999")), "{lines:#?}");
    model.select(0);
    assert!(screen(&mut model, 80, 24)[4].starts_with("torrent 00000"));
}

#[test]
fn no_screen_is_too_small_and_none_too_large() {
    let mut model = of(50);
    for pane in Pane::ALL {
        detail(&mut model, pane, &["{\"message\":\"x\"}", "      0  ##..!!"]);
        for dialog in [None, Some(Dialog::Help), Some(Dialog::Remove("x".into(), "y".into())), Some(Dialog::Filter)] {
            model.dialog = dialog;
            for (width, height) in [(1, 1), (2, 3), (5, 16), (300, 2), (20, 100), (300, 100)] {
                screen(&mut model, width, height);
            }
        }
    }
}

#[test]
fn what_strangers_wrote_does_nothing_to_the_terminal() {
    let mut model = Model::new();
    let evil = "a\x1b[2J\u{9b}31m\u{202e}\n";
    let row =
        json!({ "id": "ab".repeat(20), "name": evil, "state": "error", "error": evil, "label": evil, "dir": evil });
    model.take_list(&[row.to_string()], &json!({ "since": 1, "all": true }));
    let row = json!({ "addr": evil, "client": evil, "path": evil, "url": evil, "message": evil }).to_string();
    model.trouble = Some(evil.to_owned());
    for pane in Pane::ALL {
        detail(&mut model, pane, &[&row]);
        for dialog in [None, Some(Dialog::Remove("x".into(), evil.into()))] {
            model.dialog = dialog;
            let lines = screen(&mut model, 200, 40);
            let text = lines.concat();
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
            assert!(text.contains("a\\x1b[2J"), "{text}");
        }
    }
}

#[test]
fn a_map_of_any_length_is_one_picture() {
    let mut model = of(1);
    let line = |at: usize, marks: &str| format!("{at:>7}  {marks}");
    let rows = [line(0, &"#".repeat(64)), line(64, &".".repeat(32)), "# here  + partly here".to_owned()];
    detail(&mut model, Pane::Pieces, &rows.each_ref().map(String::as_str));
    let lines = screen(&mut model, 80, 40);
    let map: String = lines.iter().skip_while(|line| !line.contains("5 Pieces")).skip(1).take(2).cloned().collect();
    assert_eq!((map.matches('█').count(), map.matches('·').count()), (64, 32), "{lines:#?}");
    let long: Vec<String> = (0..10_000).map(|at| line(at * 64, &"#".repeat(64))).collect();
    detail(&mut model, Pane::Pieces, &long.iter().map(String::as_str).collect::<Vec<_>>());
    let lines = screen(&mut model, 80, 40);
    assert!(lines.iter().any(|line| line.contains("a place") && !line.contains(" 1 a place")), "{lines:#?}");
}

#[test]
fn peers_files_and_trackers_are_tables_that_scroll() {
    let mut model = of(1);
    let rows: Vec<String> = (0..100).map(|at| json!({ "path": format!("f{at}"), "size": 5 }).to_string()).collect();
    detail(&mut model, Pane::Files, &rows.iter().map(String::as_str).collect::<Vec<_>>());
    model.scrolled = 40;
    assert!(screen(&mut model, 80, 40).iter().any(|line| line.contains("f40")));
    model.scrolled = 1000;
    assert!(screen(&mut model, 80, 40).iter().any(|line| line.contains("f99")), "no further than the last");
    let peer = json!({ "addr": "192.0.2.7:1", "client": "x 1.0", "flags": "DU", "progress": 1.0, "down_rate": 2048 });
    detail(&mut model, Pane::Peers, &[&peer.to_string()]);
    let lines = screen(&mut model, 100, 40);
    let line = lines.iter().find(|line| line.contains("192.0.2.7:1")).unwrap();
    assert!(line.contains("100%") && line.contains("2.0K") && line.contains("x 1.0"), "{line}");
}

#[test]
fn a_daemon_that_is_away_is_told_and_what_was_known_stays() {
    let mut model = of(2);
    model.lose("/run/x: it has gone".into());
    let lines = screen(&mut model, 80, 20);
    assert!(lines[0].contains("it has gone") && lines[4].contains("torrent 00000"), "{lines:#?}");
}

#[test]
fn without_colours_there_are_none() {
    let mut model = of(3);
    let mut terminal = Terminal::new(TestBackend::new(80, 30)).unwrap();
    terminal.draw(|frame| draw(frame, &mut model, false)).unwrap();
    let buffer = terminal.backend().buffer();
    assert!(buffer.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
}
