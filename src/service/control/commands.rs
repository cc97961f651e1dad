//! The commands: the table that `help` prints, and words turned into [`Request`]s.
//!
//! A command that stands in the table is carried out; any other word is refused as `unknown-command`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::dht;
use super::request::{Alternatively, Field, Request};
use crate::codec::control::Word;
use crate::codec::units::{SIZE_FORM, parse_size};
use crate::codec::url::host_and_port;
use crate::torrent::command::{AddOptions, Command, Direction, FilePattern, Refusal, RefusalKind, Source, Which};
use crate::torrent::event::{self, Kind};
use crate::torrent::snapshot::{Priority, State};

/// One command, as `help` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Its word.
    pub word: &'static str,
    /// Its arguments.
    pub arguments: &'static str,
    /// What it does.
    pub about: &'static str,
}

const fn spec(word: &'static str, arguments: &'static str, about: &'static str) -> Spec {
    Spec { word, arguments, about }
}

/// Every command of this version, in the order of `help`.
pub const COMMANDS: &[Spec] = &[
    spec("help", "[COMMAND]", "what there is"),
    spec("version", "", "program, protocol and build"),
    spec("status", "", "the whole node: uptime, torrents, rates, addresses, disk, memory"),
    spec("list", "[STATE…] [sort=FIELD] [label=L] [since=N]", "a row a torrent; since=N: what has changed"),
    spec("show", "ID", "everything of one torrent"),
    spec("files", "ID", "its files and how much each is wanted"),
    spec("peers", "ID", "its peers"),
    spec("trackers", "ID", "its trackers"),
    spec("pieces", "ID", "its piece map"),
    spec("why", "ID", "why it does not move, and what would help"),
    spec(
        "add",
        "SOURCE [dir=D] [label=L] [paused=yes] [only=0,2-4] [sequential=yes] [verify=no]",
        "a path, metainfo:BASE64, parts:, a magnet link or a bare hash",
    ),
    spec("part", "BASE64", "bytes of a file for `add parts:`, in as many lines as it takes"),
    spec("remove", "ID [data=yes]", "take a torrent out; data=yes deletes its files"),
    spec("pause", "ID", "stop it"),
    spec("resume", "ID", "start it again"),
    spec("verify", "ID", "hash its content again"),
    spec("announce", "ID", "ask its trackers now"),
    spec("set", "ID KEY VALUE", "change a setting of a torrent; VALUE `default` takes it back"),
    spec("get", "ID [KEY]", "its settings, and where each comes from"),
    spec("priority", "ID FILE off|low|normal|high", "FILE: index, range or glob"),
    spec("limit", "down|up RATE", "global rate limit in bytes a second, with K, M or G; 0 = none"),
    spec("limit alternative", "on|off|auto", "have [limits.alternative] hold, or not, or by the clock"),
    spec("move", "ID DIR", "move its content, and serve it meanwhile; to where it is: call that off"),
    spec("rename", "ID FILE NAME", "FILE: index, or glob of one; . is the file or directory that holds all"),
    spec("connect", "ID HOST:PORT", "dial one peer now"),
    spec("magnet", "ID", "its magnet link"),
    spec("catalog", "HOST:PORT", "what a SwarmTorrent node shares; ask again until it says `OK done`"),
    spec("export", "ID FILE [format=st|torrent]", "write its metainfo to a new file"),
    spec("dht", "", "the DHT's state: its nodes, what it keeps for others"),
    spec("dht find", "HASH", "peers of a hash; ask again for more until it says `OK done`"),
    spec("dht sample", "[N]", "hashes that other nodes know, and names of those that are here; ask again as above"),
    spec("dht get", "TARGET [salt=S]", "an item that others keep (BEP 44); ask again as above"),
    spec("dht put", "VALUE [key=K seq=N sig=S] [salt=S]", "have others keep an item; ask again as above"),
    spec("tracker", "", "the tracker server: swarms, peers, requests, errors"),
    spec("watch", "[ID] [events=KIND,…]", "what happens, a line each, until the client goes"),
    spec("stats", "", "every counter"),
    spec("log", "LEVEL [TARGET]", "change what is logged: off, error, warn, info, debug, trace"),
    spec(
        "reload",
        "",
        "read the config again, and say of each key that has changed what it was and is, or that it waits for a restart",
    ),
    spec("shutdown", "", "save, say goodbye to trackers, end"),
];

/// Bytes of a label; a longer one is refused.
const LABEL_MAX: usize = 255;

/// A request line, understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parsed {
    /// Answered by the session itself: tell about these.
    Help(Vec<Spec>),
    /// Answered by the session itself.
    Version,
    /// For the session: bytes of a file that comes in parts.
    Part(Vec<u8>),
    /// For the session: what came in parts is to be added.
    AddParts(AddOptions),
    /// For the daemon; a list in its answer is sorted so.
    Request(Request, Option<Field>),
}

/// Reads a command and its arguments.
///
/// # Errors
/// `unknown-command`, `unsupported`, `usage` with the command's form, or `invalid` with what is wrong with a value.
pub(super) fn parse(words: &[Word]) -> Result<Parsed, Refusal> {
    let Some((command, rest)) = words.split_first() else {
        return Err(Refusal::new(RefusalKind::Usage, "say a command; `help` lists them"));
    };
    let of_two = rest.first().map(|second| format!("{} {}", command.text, second.text));
    let two = COMMANDS.iter().find(|spec| Some(spec.word) == of_two.as_deref());
    let rest = if two.is_some() { &rest[1..] } else { rest };
    let Some(spec) = two.or_else(|| COMMANDS.iter().find(|spec| spec.word == command.text)) else {
        return Err(Refusal::new(
            RefusalKind::UnknownCommand,
            format!("there is no command `{}`; `help` lists them", command.text),
        ));
    };
    let mut arguments = Arguments::new(spec, rest);
    let parsed = command_of(spec.word, &mut arguments)?;
    arguments.finish()?;
    Ok(parsed)
}

fn command_of(word: &str, arguments: &mut Arguments<'_>) -> Result<Parsed, Refusal> {
    let node = match word {
        "help" => return help(arguments),
        "version" => return Ok(Parsed::Version),
        "list" => return list(arguments),
        "add" => return add(arguments),
        "part" => return base64(arguments.next()?, "part takes").map(Parsed::Part),
        "export" => return export(arguments).map(|request| Parsed::Request(request, None)),
        "watch" => return watch(arguments).map(|request| Parsed::Request(request, None)),
        "log" => return log_level(arguments).map(|request| Parsed::Request(request, None)),
        "limit alternative" => {
            let mode = match arguments.next()? {
                "on" => Alternatively::On,
                "off" => Alternatively::Off,
                "auto" => Alternatively::Auto,
                _ => return Err(arguments.usage()),
            };
            return Ok(Parsed::Request(Request::Alternative(mode), None));
        }
        "reload" => return Ok(Parsed::Request(Request::Reload, None)),
        "status" => Command::Status,
        "stats" => Command::Stats,
        "tracker" => Command::Tracker,
        "shutdown" => Command::Shutdown,
        "show" => Command::Show(arguments.which()?),
        "files" => Command::Files(arguments.which()?),
        "peers" => Command::Peers(arguments.which()?),
        "trackers" => Command::Trackers(arguments.which()?),
        "pieces" => Command::Pieces(arguments.which()?),
        "why" => Command::Why(arguments.which()?),
        "pause" => Command::Pause(arguments.which()?),
        "resume" => Command::Resume(arguments.which()?),
        "verify" => Command::Verify(arguments.which()?),
        "announce" => Command::Announce(arguments.which()?),
        "magnet" => Command::Magnet(arguments.which()?),
        "dht" | "dht find" | "dht sample" | "dht get" | "dht put" => Command::Dht(dht::parse(word, arguments)?),
        "remove" => {
            let data = arguments.option("data").map(yes_or_no).transpose()?.unwrap_or(false);
            Command::Remove { which: arguments.which()?, data }
        }
        "set" => {
            let (which, key, value) = (arguments.which()?, arguments.next()?, arguments.next()?);
            Command::Set { which, key: key.to_owned(), value: value.to_owned() }
        }
        "get" => Command::Get { which: arguments.which()?, key: arguments.maybe_next().map(str::to_owned) },
        "priority" => {
            let (which, files, priority) = (arguments.which()?, arguments.next()?, arguments.next()?);
            let priority = Priority::from_word(priority).ok_or_else(|| arguments.usage())?;
            Command::Prioritize { which, files: file_pattern(files), priority }
        }
        "limit" => {
            let direction = match arguments.next()? {
                "down" => Direction::Down,
                "up" => Direction::Up,
                _ => return Err(arguments.usage()),
            };
            let rate = arguments.next()?;
            let rate_bytes =
                parse_size(rate).ok_or_else(|| invalid(format!("a rate is {SIZE_FORM}, a second; not `{rate}`")))?;
            Command::Limit { direction, rate_bytes }
        }
        "rename" => Command::Rename {
            which: arguments.which()?,
            file: file_pattern(arguments.next()?),
            name: arguments.next()?.to_owned(),
        },
        "move" => Command::Move { which: arguments.which()?, dir: absolute(arguments.next()?)? },
        "connect" => {
            let (which, (host, port)) = (arguments.which()?, node(arguments.next()?)?);
            Command::Connect { which, host, port }
        }
        "catalog" => {
            let (host, port) = node(arguments.next()?)?;
            Command::Catalog { host, port }
        }
        _ => unreachable!("every command of the table is read above"),
    };
    Ok(Parsed::Request(Request::Node(node), None))
}

fn node(text: &str) -> Result<(String, u16), Refusal> {
    host_and_port(text).ok_or_else(|| {
        invalid(format!(
            "`{text}` is not HOST:PORT, such as 192.0.2.7:6881, [2001:db8::7]:6881 or peer.example.org:6881"
        ))
    })
}

fn watch(arguments: &mut Arguments<'_>) -> Result<Request, Refusal> {
    let kinds = match arguments.option("events") {
        Some(words) => event::kinds(words).map_err(|word| {
            let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
            invalid(format!("`{word}` is no kind of event; there are {}", all.join(", ")))
        })?,
        None => Vec::new(),
    };
    let which = if arguments.has_next() { Some(arguments.which()?) } else { None };
    Ok(Request::Watch { which: which.filter(|which| *which != Which::All), kinds })
}

fn help(arguments: &mut Arguments<'_>) -> Result<Parsed, Refusal> {
    let Some(word) = arguments.maybe_next() else {
        return Ok(Parsed::Help(COMMANDS.to_vec()));
    };
    let is_it = |spec: &&Spec| spec.word.split(' ').next() == Some(word);
    let specs: Vec<Spec> = COMMANDS.iter().filter(is_it).copied().collect();
    match specs.is_empty() {
        false => Ok(Parsed::Help(specs)),
        true => Err(Refusal::new(RefusalKind::NotFound, format!("there is no command `{word}`; `help` lists them"))),
    }
}

fn list(arguments: &mut Arguments<'_>) -> Result<Parsed, Refusal> {
    let label = arguments.option("label").map(str::to_owned);
    let sort = arguments.option("sort").map(sort_field).transpose()?;
    if let Some(since) = arguments.option("since") {
        let number =
            since.parse().map_err(|_| invalid(format!("since={since}: not a number that a list has given")))?;
        return match (label, sort, arguments.has_next()) {
            (None, None, false) => Ok(Parsed::Request(Request::Node(Command::Changes(number)), None)),
            _ => Err(invalid("since= gives every change; choose and sort what it gives".to_owned())),
        };
    }
    let mut states = Vec::new();
    while let Some(word) = arguments.maybe_next() {
        let state = State::ALL.into_iter().find(|state| state.word() == word).ok_or_else(|| {
            let known: Vec<_> = State::ALL.iter().map(|state| state.word()).collect();
            invalid(format!("`{word}` is not a state; there are {}", known.join(", ")))
        })?;
        if !states.contains(&state) {
            states.push(state);
        }
    }
    Ok(Parsed::Request(Request::Node(Command::List { states, label }), sort))
}

fn sort_field(word: &str) -> Result<Field, Refusal> {
    Field::ALL.iter().find(|(name, _)| *name == word).map(|(_, field)| *field).ok_or_else(|| {
        let known: Vec<_> = Field::ALL.iter().map(|(name, _)| *name).collect();
        invalid(format!("a list cannot be sorted by `{word}`; there are {}", known.join(", ")))
    })
}

fn add(arguments: &mut Arguments<'_>) -> Result<Parsed, Refusal> {
    let yes = |value: Option<&str>| value.map(yes_or_no).transpose();
    let label = arguments.option("label").unwrap_or_default();
    if label.len() > LABEL_MAX {
        return Err(invalid(format!("a label has at most {LABEL_MAX} bytes")));
    }
    let options = AddOptions {
        dir: arguments.option("dir").map(absolute).transpose()?,
        label: label.to_owned(),
        paused: yes(arguments.option("paused"))?.unwrap_or(false),
        shared: false,
        peek: false,
        only: arguments.option("only").map(ranges).transpose()?.unwrap_or_default(),
        sequential: yes(arguments.option("sequential"))?.unwrap_or(false),
        verify: yes(arguments.option("verify"))?,
        import: None,
    };
    let source = arguments.next()?;
    if source == "parts:" {
        return Ok(Parsed::AddParts(options));
    }
    add_one(source, options).map(|request| Parsed::Request(request, None))
}

fn base64(text: &str, what: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD.decode(text).map_err(|error| invalid(format!("{what} base64, and this is none: {error}")))
}

fn add_one(source: &str, options: AddOptions) -> Result<Request, Refusal> {
    if let Some(text) = source.strip_prefix("metainfo:") {
        let source = Source::Metainfo(base64(text, "what follows metainfo: is")?);
        return Ok(Request::Node(Command::Add { source, options }));
    }
    if source.starts_with("http://") || source.starts_with("https://") {
        return Ok(Request::AddUrl { url: source.to_owned(), options });
    }
    let is_hash = matches!(source.len(), 40 | 64) && source.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash || source.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:")) {
        return Ok(Request::Node(Command::Add { source: Source::Link(source.to_owned()), options }));
    }
    Ok(Request::AddFile { path: absolute(source)?, options })
}

fn export(arguments: &mut Arguments<'_>) -> Result<Request, Refusal> {
    let (needs_st, as_torrent) = match arguments.option("format") {
        None => (false, false),
        Some("st") => (true, false),
        Some("torrent") => (false, true),
        Some(_) => return Err(arguments.usage()),
    };
    let which = arguments.which()?;
    let path = absolute(arguments.next()?)?;
    Ok(Request::Export { command: Command::Export { which, as_torrent }, needs_st, path })
}

fn log_level(arguments: &mut Arguments<'_>) -> Result<Request, Refusal> {
    let level = arguments.next()?;
    let level = level
        .parse()
        .map_err(|_| invalid(format!("`{level}` is not a level; there are off, error, warn, info, debug, trace")))?;
    Ok(Request::Log { level, target: arguments.maybe_next().map(str::to_owned) })
}

fn file_pattern(text: &str) -> FilePattern {
    match range(text) {
        Some((first, last)) => FilePattern::Range(first, last),
        None => FilePattern::Glob(text.to_owned()),
    }
}

/// `3` or `2-4`.
fn range(text: &str) -> Option<(usize, usize)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let index = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let (first, last) = (index(first)?, index(last)?);
    (first <= last).then_some((first, last))
}

fn ranges(text: &str) -> Result<Vec<(usize, usize)>, Refusal> {
    text.split(',')
        .map(|part| {
            range(part).ok_or_else(|| invalid(format!("`{part}` is not a file's index or a range such as 2-4")))
        })
        .collect()
}

fn absolute(text: &str) -> Result<PathBuf, Refusal> {
    let path = Path::new(text);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(invalid(format!(
        "`{text}` is not a whole path; give one that begins with /, for the daemon does not know where you are"
    )))
}

fn yes_or_no(text: &str) -> Result<bool, Refusal> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(invalid(format!("`{text}` is neither yes nor no"))),
    }
}

pub(super) fn invalid(message: String) -> Refusal {
    Refusal::new(RefusalKind::Invalid, message)
}

/// The words after a command: options apart, the others in order.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    spec: &'a Spec,
    plain: std::vec::IntoIter<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Arguments<'a> {
    /// A command that has no options takes `key=value` as an ordinary word: a label may be `a=b`.
    fn new(spec: &'a Spec, words: &'a [Word]) -> Self {
        let has_options = spec.arguments.contains('=');
        let option = |word: &'a Word| word.option().filter(|_| has_options);
        Self {
            spec,
            plain: words
                .iter()
                .filter(|word| option(word).is_none())
                .map(|word| word.text.as_str())
                .collect::<Vec<_>>()
                .into_iter(),
            options: words.iter().filter_map(option).collect(),
        }
    }

    /// Takes the option `key`; the last one where it stands twice.
    pub(super) fn option(&mut self, key: &str) -> Option<&'a str> {
        let value = self.options.iter().rfind(|(given, _)| *given == key).map(|(_, value)| *value);
        self.options.retain(|(given, _)| *given != key);
        value
    }

    fn has_next(&self) -> bool {
        self.plain.len() > 0
    }

    pub(super) fn maybe_next(&mut self) -> Option<&'a str> {
        self.plain.next()
    }

    pub(super) fn next(&mut self) -> Result<&'a str, Refusal> {
        self.plain.next().ok_or_else(|| self.usage())
    }

    fn which(&mut self) -> Result<Which, Refusal> {
        let id = self.next()?;
        if id == "all" {
            return Ok(Which::All);
        }
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message =
                format!("no torrent is called `{id}`; name it by the first digits of its id, as `list` shows it");
            return Err(Refusal::new(RefusalKind::NotFound, message));
        }
        if !(4..=64).contains(&id.len()) {
            return Err(invalid(format!("`{id}` is not an id: 4 to 64 hex digits, as `list` shows them")));
        }
        Ok(Which::Prefix(id.to_ascii_lowercase()))
    }

    pub(super) fn usage(&self) -> Refusal {
        let form = format!("{} {}", self.spec.word, self.spec.arguments);
        Refusal::new(RefusalKind::Usage, format!("say: {}", form.trim_end()))
    }

    /// Nothing may be left over.
    fn finish(mut self) -> Result<(), Refusal> {
        if let Some((key, _)) = self.options.first() {
            let message = format!("`{}` has no option `{key}`; {}", self.spec.word, self.usage().message);
            return Err(Refusal::new(RefusalKind::Usage, message));
        }
        if self.plain.next().is_some() { Err(self.usage()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::Sha1Hash;
    use crate::codec::control::parse_line;
    use crate::protocol::dht::items::OwnedItem;
    use crate::torrent::dht_command::DhtCommand;

    fn parse_text(line: &str) -> Result<Parsed, Refusal> {
        parse(&parse_line(line.as_bytes()).unwrap().unwrap())
    }

    fn node(line: &str) -> Command {
        match parse_text(line) {
            Ok(Parsed::Request(Request::Node(command), None)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refusal(line: &str) -> RefusalKind {
        parse_text(line).expect_err(line).kind
    }

    fn one(prefix: &str) -> Which {
        Which::Prefix(prefix.to_owned())
    }

    #[test]
    fn every_command_of_the_table_is_read() {
        let hash = format!(" {}", "a".repeat(40));
        let words = [
            "",
            " abcd",
            " abcd x",
            " abcd /x low",
            " up 1",
            " auto",
            " abcd 1.2.3.4:5",
            " 1.2.3.4:5",
            " abcd /x",
            " info",
            " /x",
            &hash,
        ];
        for spec in COMMANDS {
            let read = words.iter().any(|rest| parse_text(&format!("{}{rest}", spec.word)).is_ok());
            assert!(read, "{}", spec.word);
        }
    }

    #[test]
    fn torrents_are_named_by_prefix_or_all() {
        assert_eq!(node("pause all"), Command::Pause(Which::All));
        assert_eq!(node("show ABCD12"), Command::Show(one("abcd12")));
        assert_eq!(refusal("show abc"), RefusalKind::Invalid);
        assert_eq!(refusal(&format!("show {}", "a".repeat(65))), RefusalKind::Invalid);
        assert_eq!(refusal("show ubuntu"), RefusalKind::NotFound);
        assert_eq!(refusal("show"), RefusalKind::Usage);
        assert_eq!(refusal("show abcd abcd"), RefusalKind::Usage);
    }

    #[test]
    fn sources_are_told_apart_by_their_form() {
        let add = |source| Command::Add { source, options: AddOptions::default() };
        assert_eq!(node("add metainfo:ZGU="), add(Source::Metainfo(b"de".to_vec())));
        let hash = "A9993E364706816ABA3E25717850C26C9CD0D89D";
        assert_eq!(node(&format!("add {hash}")), add(Source::Link(hash.to_owned())));
        assert_eq!(node("add MAGNET:?xt=x"), add(Source::Link("MAGNET:?xt=x".to_owned())));
        let url = parse_text("add https://h/x.torrent?a=b").unwrap();
        assert!(matches!(url, Parsed::Request(Request::AddUrl { url, .. }, None) if url == "https://h/x.torrent?a=b"));
        let file = parse_text("add '/tmp/a b.st'").unwrap();
        assert!(
            matches!(file, Parsed::Request(Request::AddFile { path, .. }, None) if path == Path::new("/tmp/a b.st"))
        );
        assert_eq!(refusal("add b.st"), RefusalKind::Invalid);
        assert_eq!(refusal("add metainfo:???"), RefusalKind::Invalid);
        assert_eq!(refusal("add"), RefusalKind::Usage);
    }

    #[test]
    fn the_options_of_add_are_all_read() {
        let line = "add dir='/a b' metainfo: label=x paused=yes only=0,2-4 sequential=yes verify=no";
        let options = AddOptions {
            shared: false,
            peek: false,
            dir: Some("/a b".into()),
            label: "x".to_owned(),
            paused: true,
            only: vec![(0, 0), (2, 4)],
            sequential: true,
            verify: Some(false),
            import: None,
        };
        assert_eq!(node(line), Command::Add { source: Source::Metainfo(Vec::new()), options });
        assert_eq!(refusal("add /x color=red"), RefusalKind::Usage);
        for bad in ["paused=maybe", "only=", "only=1-", "only=4-2", "only=-1", "only=1,+2", "dir=x", "verify="] {
            assert_eq!(refusal(&format!("add /x {bad}")), RefusalKind::Invalid, "{bad}");
        }
        assert_eq!(refusal(&format!("add /x label={}", "l".repeat(256))), RefusalKind::Invalid);
    }

    #[test]
    fn values_are_read_or_refused() {
        let files = |files| Command::Prioritize { which: one("abcd"), files, priority: Priority::High };
        assert_eq!(node("priority abcd 3 high"), files(FilePattern::Range(3, 3)));
        assert_eq!(node("priority abcd 3-7 high"), files(FilePattern::Range(3, 7)));
        assert_eq!(node("priority abcd '*.iso' high"), files(FilePattern::Glob("*.iso".to_owned())));
        assert_eq!(refusal("priority abcd 3 urgent"), RefusalKind::Usage);
        assert_eq!(node("limit up 20M"), Command::Limit { direction: Direction::Up, rate_bytes: 20 << 20 });
        assert_eq!(refusal("limit up fast"), RefusalKind::Invalid);
        assert_eq!(refusal("limit left 1"), RefusalKind::Usage);
        let label = Command::Set { which: one("abcd"), key: "label".to_owned(), value: "a=b".to_owned() };
        assert_eq!(node("set abcd label a=b"), label);
        assert_eq!(node("remove abcd data=yes"), Command::Remove { which: one("abcd"), data: true });
        let connect = |host: &str| Command::Connect { which: one("abcd"), host: host.to_owned(), port: 7 };
        assert_eq!(node("connect abcd peer.example.org:7"), connect("peer.example.org"));
        assert_eq!(node("connect abcd [2001:db8::7]:7"), connect("2001:db8::7"));
        for bad in ["example.org", "example.org:0", ":7", "2001:db8::7:7", "example.org:70000"] {
            assert_eq!(refusal(&format!("connect abcd {bad}")), RefusalKind::Invalid, "{bad}");
        }
        assert_eq!(refusal("move abcd there"), RefusalKind::Invalid);
        assert_eq!(refusal("log loud"), RefusalKind::Invalid);
    }

    #[test]
    fn lists_are_filtered_and_sorted() {
        let parsed = parse_text("list seeding paused seeding sort=up label=l").unwrap();
        let command = Command::List { states: vec![State::Seeding, State::Paused], label: Some("l".to_owned()) };
        assert_eq!(parsed, Parsed::Request(Request::Node(command), Some(Field::Up)));
        assert_eq!(refusal("list sort=colour"), RefusalKind::Invalid);
        assert_eq!(refusal("list asleep"), RefusalKind::Invalid);
    }

    #[test]
    fn export_says_in_which_form() {
        let parsed = parse_text("export abcd /tmp/x format=torrent").unwrap();
        let command = Command::Export { which: one("abcd"), as_torrent: true };
        assert_eq!(parsed, Parsed::Request(Request::Export { command, needs_st: false, path: "/tmp/x".into() }, None));
        assert_eq!(refusal("export abcd /tmp/x format=zip"), RefusalKind::Usage);
    }

    #[test]
    fn what_is_asked_of_the_dht_is_read_or_refused() {
        let dht = |line: &str| match node(line) {
            Command::Dht(command) => command,
            other => panic!("{other:?}"),
        };
        let hash = "A9993E364706816ABA3E25717850C26C9CD0D89D";
        let target = Sha1Hash::from_hex(hash).unwrap();
        assert_eq!(dht("dht"), DhtCommand::State);
        assert_eq!(dht(&format!("dht find {hash}")), DhtCommand::Find(target));
        assert_eq!((dht("dht sample"), dht("dht sample 7")), (DhtCommand::Sample(100), DhtCommand::Sample(7)));
        assert_eq!(dht(&format!("dht get {hash} salt=a")), DhtCommand::Get { target, salt: b"a".to_vec() });
        let item = OwnedItem { value: b"12:Hello World!".to_vec(), author: None };
        assert_eq!(dht("dht put 'Hello World!'"), DhtCommand::Put(item));
        let (key, sig) = ("0a".repeat(32), "ff".repeat(64));
        let DhtCommand::Put(item) = dht(&format!("dht put x key={key} seq=-4 sig={sig} salt=s")) else { panic!() };
        let author = item.author.unwrap();
        assert_eq!(
            (author.key, author.version, author.signature[63], &author.salt[..]),
            ([10; 32], -4, 255, &b"s"[..])
        );
        for bad in ["dht find abcd", "dht sample 0", "dht sample 9999", "dht get x"] {
            assert_eq!(refusal(bad), RefusalKind::Invalid, "{bad}");
        }
        for bad in
            ["dht put x salt=s", "dht put x seq=1", "dht put", "dht frob", "dht find", "dht put a b", "dht get k=v"]
        {
            assert_eq!(refusal(bad), RefusalKind::Usage, "{bad}");
        }
        for (key, sig) in [("0a", &sig[..]), (&key, "zz"), (&"é".repeat(32), &sig)] {
            assert_eq!(refusal(&format!("dht put x key={key} seq=1 sig={sig}")), RefusalKind::Invalid);
        }
        assert_eq!(refusal(&format!("dht put {}", "x".repeat(1000))), RefusalKind::Invalid);
        assert!(matches!(parse_text("help dht"), Ok(Parsed::Help(specs)) if specs.len() == 5));
    }

    #[test]
    fn unknown_and_missing_commands_are_told_apart() {
        assert_eq!(refusal("frobnicate"), RefusalKind::UnknownCommand);
        assert_eq!(refusal("watch events=x"), RefusalKind::Invalid);
        assert_eq!(refusal("help frobnicate"), RefusalKind::NotFound);
        let pause = COMMANDS.iter().find(|spec| spec.word == "pause").unwrap();
        assert_eq!(parse_text("help pause").unwrap(), Parsed::Help(vec![*pause]));
    }
}
