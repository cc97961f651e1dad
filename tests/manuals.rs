//! The manuals say what the programs understand.
//!
//! What is between `.\" generated` and `.\" end` in `man/` is made from the definitions of the command lines and from the table of the
//! control socket's commands: `SWARMTORRENT_WRITE_MANUALS=1 cargo test --test manuals` writes it, and without that it must be what
//! stands there. Everything else in these files is written by hand. The keys of the config are written by hand, too, and must be those
//! that its parser knows.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory};
use swarmtorrent::cli::main::command;
use swarmtorrent::daemon::args::Args;
use swarmtorrent::daemon::config::Settings;
use swarmtorrent::service::control::commands::COMMANDS;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// Text of ours as mdoc: what is in backquotes is literal, and each sentence begins a line.
fn text(text: &str) -> String {
    let mut out = String::new();
    for (at, paragraph) in text.split("\n\n").enumerate() {
        if at > 0 {
            out += ".Pp\n";
        }
        let mut paragraph =
            paragraph.trim().replace('\\', "\\e").replace('…', "...").replace('\n', " ").replace(". ", ".\n");
        if !paragraph.ends_with(['.', ':']) {
            paragraph.push('.');
        }
        let mut parts = paragraph.split('`');
        let mut opening = push_lines(&mut out, parts.next().unwrap());
        while let Some(literal) = parts.next() {
            let after = parts.next().unwrap_or_default();
            let end = after.find(|c: char| !",.;:)".contains(c)).unwrap_or(after.len());
            let punctuation: String = after[..end].chars().map(|c| format!(" {c}")).collect();
            out += &format!(".Ql {opening}\"{}\"{punctuation}\n", literal.replace('"', "\\(dq"));
            opening = push_lines(&mut out, &after[end..]);
        }
    }
    out
}

/// Lines of text; a parenthesis that opens at their end is given back, for it belongs to what follows.
fn push_lines(out: &mut String, text: &str) -> &'static str {
    let (text, opening) = text.strip_suffix('(').map_or((text, ""), |text| (text, "( "));
    for line in text.split('\n').map(str::trim).filter(|line| !line.is_empty()) {
        *out += &format!("{}{line}\n", if line.starts_with(['.', '\'']) { "\\&" } else { "" });
    }
    opening
}

fn is_switch(arg: &Arg) -> bool {
    !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn values(arg: &Arg) -> String {
    let names = arg.get_value_names().map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    names.unwrap_or_else(|| arg.get_id().to_string().to_uppercase()).replace('…', "...")
}

/// `Fl o , Fl -output Ar FILE`, or one of the two forms.
fn option(arg: &Arg, is_whole: bool) -> String {
    let value = if is_switch(arg) { String::new() } else { format!(" Ar {}", values(arg)) };
    let (short, long) = (arg.get_short().map(|c| format!("Fl {c}")), arg.get_long().map(|long| format!("Fl -{long}")));
    match (short, long, is_whole) {
        (Some(short), Some(long), true) => format!("{short}{value} , {long}{value}"),
        (Some(one), _, _) | (None, Some(one), _) => format!("{one}{value}"),
        (None, None, _) => value.trim().to_owned(),
    }
}

fn arguments(command: &Command) -> Vec<&Arg> {
    let is_own = |arg: &&Arg| !["help", "version"].contains(&arg.get_id().as_str()) && !arg.is_hide_set();
    let (options, places): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(is_own).partition(|arg| !arg.is_positional());
    [options, places].concat()
}

/// A command and what it takes, in a line.
fn synopsis(command: &Command) -> String {
    let mut line = command.get_name().to_owned();
    for arg in arguments(command) {
        let many = if matches!(arg.get_action(), ArgAction::Append) { " Ns ..." } else { "" };
        let form = option(arg, false);
        line += &if arg.is_required_set() {
            format!(" {form}{}", many.replace("Ns ", ""))
        } else {
            format!(" Oo {form} Oc{many}")
        };
    }
    line
}

fn list(args: &[&Arg]) -> String {
    let mut out = ".Bl -tag -width Ds\n".to_owned();
    for arg in args {
        out += &format!(".It {}\n", option(arg, true));
        out += &text(&arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default());
        let choices = if is_switch(arg) { Vec::new() } else { arg.get_possible_values() };
        let has_help = choices.iter().any(|choice| choice.get_help().is_some());
        let names: Vec<_> = choices.iter().map(|choice| format!("`{}`", choice.get_name())).collect();
        if has_help {
            for (name, choice) in names.iter().zip(&choices) {
                let help = choice.get_help().map(|help| format!(": {help}")).unwrap_or_default();
                out += &text(&format!("{name}{help}"));
            }
        } else if !names.is_empty() {
            out += &text(&format!("One of {}", names.join(", ")));
        }
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !is_switch(arg) && !defaults.is_empty() {
            out += &text(&format!("Default: `{}`", defaults.join(" ")));
        }
    }
    out + ".El\n"
}

fn about(command: &Command) -> String {
    text(&command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default())
}

/// Every command of the tool. Those that follow one another and take the same have it said once.
fn tool_commands() -> String {
    let tool = command();
    let commands: Vec<&Command> = tool.get_subcommands().filter(|one| one.get_name() != "help").collect();
    let takes = |command: &Command| -> Vec<String> {
        arguments(command).iter().map(|arg| format!("{} {:?}", option(arg, true), arg.get_help())).collect()
    };
    let mut out = ".Bl -tag -width Ds\n".to_owned();
    let mut same = Vec::new();
    for (at, command) in commands.iter().enumerate() {
        out += &format!(".It Cm {}\n{}", synopsis(command), about(command));
        same.push(command.get_name());
        if commands.get(at + 1).is_some_and(|next| takes(next) == takes(command)) {
            continue;
        }
        if same.len() > 1 {
            out += &format!(".Pp\nEach of the last {} takes:\n", same.len());
        }
        if !arguments(command).is_empty() {
            out += &list(&arguments(command));
        }
        same.clear();
    }
    out + ".El\n"
}

/// Every command of the control socket.
fn control_commands() -> String {
    let mut out = ".Bl -tag -width Ds\n".to_owned();
    for spec in COMMANDS {
        let mut form = format!(".It Ic \"{}\"", spec.word);
        for word in spec.arguments.replace('…', "...").split_whitespace() {
            let inner = word.trim_matches(['[', ']']);
            let said = match inner.split_once('=') {
                Some((key, value)) => format!("Ic {key} Ns = Ns Ar {value}"),
                None if inner.chars().any(|c| c.is_ascii_uppercase()) => format!("Ar {inner}"),
                None => format!("Cm {inner}"),
            };
            form += if word.starts_with('[') { " Oo " } else { " " };
            form += &said;
            form += if word.ends_with(']') { " Oc" } else { "" };
        }
        let about = spec.about;
        let first = about.chars().next().unwrap().to_uppercase();
        out += &format!("{form}\n{}", text(&format!("{first}{}", &about[1..])));
    }
    out + ".El\n"
}

/// The manual with these in the place of what was generated before, in order.
fn renewed(manual: &str, parts: &[String]) -> String {
    let (begin, end) = (".\\\" generated", ".\\\" end\n");
    let mut pieces = manual.split(begin);
    let mut out = pieces.next().unwrap().to_owned();
    let mut parts = parts.iter();
    for piece in pieces {
        let (line, rest) = piece.split_once('\n').unwrap();
        let (_, after) = rest.split_once(end).expect("what is generated has an end");
        let part = parts.next().expect("no more places than parts");
        out += &format!("{begin}{line}\n{part}{end}{after}");
    }
    assert!(parts.next().is_none(), "a part has no place");
    out
}

fn check(name: &str, parts: &[String]) {
    let manual = read(name);
    let renewed = renewed(&manual, parts);
    if std::env::var_os("SWARMTORRENT_WRITE_MANUALS").is_some() {
        return std::fs::write(path(name), renewed).unwrap();
    }
    if manual != renewed {
        let differs = manual.lines().zip(renewed.lines()).find(|(is, should)| is != should);
        panic!("{name} is not what the definitions give: {differs:?}; see the top of tests/manuals.rs");
    }
}

#[test]
fn the_tools_manual_has_every_command_and_option() {
    check("man/swarmtorrent.1", &[tool_commands()]);
}

#[test]
fn the_daemons_manual_has_every_option_and_every_command_of_its_socket() {
    check("man/swarmtorrentd.8", &[list(&arguments(&Args::command())), control_commands()]);
}

#[test]
fn what_is_written_is_right() {
    assert_eq!(text("Do `a b`, and\nthat. It is \\n"), "Do\n.Ql \"a b\" ,\nand that.\nIt is \\en.\n");
    assert_eq!(text(".st or `x`"), "\\&.st or\n.Ql \"x\" .\n");
    assert_eq!(
        renewed("a\n.\\\" generated x\nold\n.\\\" end\nb", &["new\n".into()]),
        "a\n.\\\" generated x\nnew\n.\\\" end\nb"
    );
    for control in
        ["remove\" Ar ID Oo Ic data Ns = Ns Ar yes Oc", "limit\" Cm down|up Ar RATE", "stats\"\nEvery counter."]
    {
        assert!(control_commands().contains(control), "{control} in {}", control_commands());
    }
}

/// The keys that the config's parser names where it finds one that it does not know, in this table.
fn keys_of(table: &str) -> Option<Vec<String>> {
    let unknown = "zzzzzzzzzzzz";
    let why = Settings::parse(&format!("{table}\n{unknown} = 1\n"), Path::new("x")).unwrap_err().to_string();
    let (_, keys) = why.split_once(&format!("unknown key `{unknown}`, there are "))?;
    Some(keys.split([',', ' ']).filter(|word| !word.is_empty() && *word != "and").map(str::to_owned).collect())
}

/// Every section and key of the config, as its parser has them.
fn keys_of_parser() -> BTreeSet<String> {
    let mut tables: Vec<String> = keys_of("").expect("there are sections");
    let mut keys = BTreeSet::new();
    while let Some(table) = tables.pop() {
        match keys_of(&format!("[{table}]")).or_else(|| keys_of(&format!("[[{table}]]"))) {
            Some(within) => tables.extend(within.iter().map(|key| format!("{table}.{key}"))),
            None => _ = keys.insert(table),
        }
    }
    keys
}

fn keys_of_manual() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut section = String::new();
    for line in read("man/swarmtorrentd.toml.5").lines() {
        if let Some(name) = line.strip_prefix(".Ss [") {
            name.trim_matches(['[', ']']).clone_into(&mut section);
        } else if let Some(words) = line.strip_prefix(".It Ic ") {
            keys.extend(words.split(" , ").map(|key| format!("{section}.{}", key.trim_start_matches("Ic "))));
        }
    }
    keys
}

#[test]
fn the_manual_of_the_config_has_every_key_and_no_other() {
    let (parser, manual) = (keys_of_parser(), keys_of_manual());
    assert!(parser.len() > 50 && parser.contains("peers.listen"), "{parser:?}");
    let missing: Vec<_> = parser.difference(&manual).collect();
    let unknown: Vec<_> = manual.difference(&parser).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not in the manual: {missing:?}; in no config: {unknown:?}");
}
