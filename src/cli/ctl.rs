//! `swarmtorrent ctl`: one command to a daemon's control socket.
//!
//! It sends one line and prints the reply as it comes. `add FILE` sends the file's contents, for a sandboxed daemon may not read the
//! caller's files; contents that do not fit into a line go by their whole path.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cli::daemon::Daemon;
use crate::cli::output::read_regular;
use crate::codec::control::{Closing, LINE_MAX, quote};

/// Sends one command to a daemon and prints its reply.
///
/// `swarmtorrent ctl help` lists the commands of the daemon.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The daemon's control socket; the user's own if there is one, else that of the system.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(required = true, value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Sends the command and prints the reply. False if the daemon refused it; the reply then said why.
///
/// # Errors
/// One sentence for the user, if there is no reply.
pub fn run(args: &Args) -> Result<bool, String> {
    send(args.socket.as_deref(), &args.command)
}

/// Sends these words to a daemon that is connected already and prints the reply. False if the daemon refused it.
pub(crate) fn send_last(daemon: &mut Daemon, words: &[String]) -> Result<bool, String> {
    Ok(daemon.copy(&line(words)?, true, &mut io::stdout().lock())? == Closing::Ok)
}

/// Sends these words and prints the reply; after `watch`, what comes after it as well.
pub(crate) fn send(socket: Option<&Path>, words: &[String]) -> Result<bool, String> {
    let line = line(words)?;
    let watches = words.iter().find(|word| *word != "json").is_some_and(|word| word == "watch");
    let mut daemon = Daemon::connect(socket)?;
    let mut out = io::stdout().lock();
    let is_done = daemon.copy(&line, !watches, &mut out)? == Closing::Ok;
    if is_done && watches {
        daemon.follow(&mut out)?;
    }
    Ok(is_done)
}

/// The words as one line of the protocol.
pub(crate) fn line(words: &[String]) -> Result<String, String> {
    let mut words = words.to_vec();
    let command = usize::from(words.first().is_some_and(|word| word == "json"));
    if words.get(command).is_some_and(|word| word == "add")
        && let Some(source) = words.iter_mut().skip(command + 1).find(|word| is_file(word))
    {
        *source = content_or_path(Path::new(source))?;
    }
    if words.iter().any(|word| word.chars().any(char::is_control)) {
        return Err("an argument holds a control character, which a command line cannot say".to_owned());
    }
    let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
    if line.len() > LINE_MAX {
        return Err(format!("the command is longer than the {LINE_MAX} bytes that a daemon takes"));
    }
    Ok(line)
}

/// True if an argument of `add` is a file here, and so not a link, a hash or an option.
fn is_file(word: &str) -> bool {
    Path::new(word).is_file() && !word.starts_with("metainfo:")
}

/// Bytes of a file that fits into a line: base64 takes four characters for three, and the rest of the line needs some room.
pub(crate) const CONTENT_MAX: u64 = (LINE_MAX as u64 - 4096) / 4 * 3;

fn content_or_path(path: &Path) -> Result<String, String> {
    let say = |error: io::Error| format!("{}: {error}", path.display());
    if path.metadata().map_err(say)?.len() <= CONTENT_MAX {
        return Ok(format!("metainfo:{}", STANDARD.encode(read_regular(path, CONTENT_MAX)?)));
    }
    let whole = std::path::absolute(path).map_err(say)?;
    whole.to_str().map(str::to_owned).ok_or_else(|| format!("{}: the path is not UTF-8; rename it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_become_one_line() {
        assert_eq!(line(&words(&["move", "abcd", "/a b"])).unwrap(), "move abcd '/a b'");
        assert_eq!(line(&words(&["add", "magnet:?xt=x", "dir=/a b"])).unwrap(), "add magnet:?xt=x dir='/a b'");
        assert!(line(&words(&["set", "abcd", "label", "a\nshutdown"])).is_err(), "no second command");
        assert!(line(&words(&["set", "abcd", "label", &"x".repeat(LINE_MAX)])).is_err());
    }

    #[test]
    fn a_file_goes_by_content_and_a_large_one_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b.torrent");
        let name = path.to_str().unwrap();
        std::fs::write(&path, b"de").unwrap();
        assert_eq!(line(&words(&["json", "add", "paused=yes", name])).unwrap(), "json add paused=yes metainfo:ZGU=");
        std::fs::write(&path, vec![b'x'; LINE_MAX]).unwrap();
        assert_eq!(line(&words(&["add", name])).unwrap(), format!("add '{name}'"));
    }
}
