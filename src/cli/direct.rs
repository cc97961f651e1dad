//! The daemon's commands as words of the tool: `swarmtorrent pause ID` is `swarmtorrent ctl pause ID`.
//!
//! Tables are made for the reader: with colours and as wide as the terminal, or plain in a pipe. Only words that mean nothing else to
//! the tool are here, so `show`, `get` and `tracker` of the daemon stay behind `ctl`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::ctl::{self, CONTENT_MAX};
use crate::cli::daemon::Daemon;
use crate::cli::output::say_raw;
use crate::cli::paint::{Colour, Paper, Table};
use crate::codec::control::json_text;
use crate::codec::units::{human_duration, human_size};
use crate::daemon::load::{METAINFO_MAX, read_regular};

/// Digits of an id in a list, as the daemon shows it.
pub(crate) const ID_DIGITS: usize = 12;

/// What every one of these commands takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The daemon's control socket; the user's own if there is one, else that of the system.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A JSON object a line, sizes in bytes; of a question what is asked for, of anything else what became of it.
    #[arg(long)]
    json: bool,
    /// What the command takes; `swarmtorrent ctl help COMMAND` tells.
    #[arg(value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Has the daemon carry out `word`. False if it refused; the reply then said why.
///
/// # Errors
/// One sentence for the user.
pub(crate) fn run(word: &str, args: &Args) -> Result<bool, String> {
    let mut words = vec![word.to_owned()];
    for argument in &args.arguments {
        words.push(whole_path(word, argument, words.len())?);
    }
    let rows: Option<fn(&[Value]) -> Table> = match word {
        "list" => Some(list),
        "files" => Some(files),
        "peers" => Some(peers),
        "trackers" => Some(trackers),
        _ => None,
    };
    let is_question = rows.is_some() || ["status", "why", "stats"].contains(&word);
    if rows.is_some() || (is_question && args.json) {
        words.insert(0, "json".to_owned());
        let (found, _) = Daemon::connect(args.socket.as_deref())?.ask(&ctl::line(&words)?)?;
        say_raw(&match rows {
            Some(table) if !args.json => table(&found).write(Paper::stdout()),
            _ => found.iter().map(|row| json_text(row) + "\n").collect(),
        });
        return Ok(true);
    }
    if args.json {
        words.insert(0, "json".to_owned());
    }
    // What does not fit into a line goes in parts: the daemon may not be able to read the file itself.
    let is_large =
        |word: &String| Path::new(word).metadata().is_ok_and(|file| file.is_file() && file.len() > CONTENT_MAX);
    if let ("add", Some(source)) = (word, words.iter_mut().find(|word| is_large(word))) {
        let bytes = read_regular(Path::new(&*source), METAINFO_MAX)?;
        let mut daemon = Daemon::connect(args.socket.as_deref())?;
        daemon.send_parts(&bytes)?;
        "parts:".clone_into(source);
        return ctl::send_last(&mut daemon, &words);
    }
    ctl::send(args.socket.as_deref(), &words)
}

/// A directory that the user names from where they are, as the daemon must hear it: `move ID DIR` and `add … dir=DIR`.
fn whole_path(word: &str, argument: &str, place: usize) -> Result<String, String> {
    let (key, path) = match (word, place, argument.strip_prefix("dir=")) {
        ("move", 2, _) => ("", argument),
        ("add", _, Some(path)) => ("dir=", path),
        _ => return Ok(argument.to_owned()),
    };
    let whole = std::path::absolute(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(format!("{key}{}", whole.display()))
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or("-").to_owned()
}

fn plain(row: &Value, key: &str) -> (String, Colour) {
    (text(row, key), Colour::Plain)
}

fn count(row: &Value, key: &str) -> (String, Colour) {
    (row[key].as_u64().map_or_else(|| "-".to_owned(), |count| count.to_string()), Colour::Plain)
}

fn size(row: &Value, key: &str) -> (String, Colour) {
    (human_size(row[key].as_u64().unwrap_or(0)), Colour::Plain)
}

/// A rate; one of nothing is not worth a look.
fn rate(row: &Value, key: &str) -> (String, Colour) {
    let rate = row[key].as_u64().unwrap_or(0);
    (human_size(rate), if rate == 0 { Colour::Dim } else { Colour::Plain })
}

fn percent(share: f64) -> String {
    // What is not whole is not shown as if it were.
    format!("{:.1}%", (share * 1000.0).floor() / 10.0)
}

fn list(rows: &[Value]) -> Table {
    let mut table = Table::new(&["id", "state", ">done", ">down", ">up", ">ratio", ">peers", ">eta", ">size", "name"]);
    for row in rows {
        if row["gone"] == true {
            continue;
        }
        let state = text(row, "state");
        let colour = Colour::of_state(&state);
        let done = row["checked"].as_f64().or(row["progress"].as_f64()).unwrap_or(0.0);
        let name = match row["error"].as_str() {
            Some(error) => (format!("{}: {error}", text(row, "name")), Colour::Red),
            None => plain(row, "name"),
        };
        table.row([
            (text(row, "id").chars().take(ID_DIGITS).collect(), Colour::Dim),
            (state, colour),
            (percent(done), Colour::Plain),
            rate(row, "down_rate"),
            rate(row, "up_rate"),
            (format!("{:.2}", row["ratio"].as_f64().unwrap_or(0.0)), Colour::Plain),
            count(row, "peers"),
            (row["eta"].as_u64().map_or_else(|| "-".to_owned(), human_duration), Colour::Plain),
            size(row, "size"),
            name,
        ]);
    }
    table
}

fn files(rows: &[Value]) -> Table {
    let mut table = Table::new(&[">file", "priority", ">done", ">size", "path"]);
    for row in rows {
        let (have, size_bytes) = (row["have_bytes"].as_f64().unwrap_or(0.0), row["size"].as_f64().unwrap_or(0.0));
        let share = if size_bytes > 0.0 { have / size_bytes } else { 1.0 };
        let colour = if text(row, "priority") == "off" { Colour::Dim } else { Colour::Plain };
        table.row([
            count(row, "index"),
            (text(row, "priority"), colour),
            (percent(share), Colour::Plain),
            size(row, "size"),
            (text(row, "path"), colour),
        ]);
    }
    table
}

fn peers(rows: &[Value]) -> Table {
    let mut table = Table::new(&["address", "flags", ">done", ">down", ">up", "transport", "source", "client"]);
    for row in rows {
        table.row([
            plain(row, "addr"),
            plain(row, "flags"),
            (percent(row["progress"].as_f64().unwrap_or(0.0)), Colour::Plain),
            rate(row, "down_rate"),
            rate(row, "up_rate"),
            plain(row, "transport"),
            plain(row, "source"),
            plain(row, "client"),
        ]);
    }
    table
}

fn trackers(rows: &[Value]) -> Table {
    let mut table = Table::new(&[">tier", "state", ">next", ">seeders", ">leechers", ">peers", "address", "message"]);
    for row in rows {
        let state = text(row, "state");
        let colour = match state.as_str() {
            "working" => Colour::Green,
            "failed" => Colour::Red,
            _ => Colour::Plain,
        };
        table.row([
            count(row, "tier"),
            (state, colour),
            (row["next"].as_u64().map_or_else(|| "-".to_owned(), human_duration), Colour::Plain),
            count(row, "seeders"),
            count(row, "leechers"),
            count(row, "peers"),
            plain(row, "url"),
            (row["message"].as_str().unwrap_or_default().to_owned(), colour),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_names_what_is_wrong_and_strangers_stay_in_their_cells() {
        let row = json!({ "id": "ab".repeat(20), "state": "error", "error": "no room", "name": "x\x1b[2J", "progress": 0.9999,
            "down_rate": 0, "up_rate": 2048, "ratio": 1.5, "peers": 3, "eta": null, "size": 1 << 30 });
        let text = list(&[row]).write(Paper { width: None, colours: false });
        let expected = "abababababab  error  99.9%     0  2.0K   1.50      3    -  1.0G  x\\x1b[2J: no room\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn directories_are_named_from_where_the_user_is() {
        let here = std::env::current_dir().unwrap();
        let whole = |word, argument, place| whole_path(word, argument, place).unwrap();
        assert_eq!(whole("move", "isos", 2), here.join("isos").to_str().unwrap());
        assert_eq!(whole("move", "abcd", 1), "abcd");
        assert_eq!(whole("add", "dir=isos", 1), format!("dir={}", here.join("isos").display()));
        assert_eq!((whole("add", "dir=/a", 2), whole("set", "dir=a", 2)), ("dir=/a".into(), "dir=a".into()));
    }

    #[test]
    fn what_a_daemon_does_not_say_is_a_dash() {
        for table in [list, files, peers, trackers] {
            let text = table(&[json!({})]).write(Paper { width: Some(60), colours: false });
            assert_eq!(text.lines().count(), 2, "{text}");
        }
    }
}
