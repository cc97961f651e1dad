//! `swarmtorrent ctl`: one command to a daemon's control socket.
//!
//! It sends one line and prints the reply as it comes. `add FILE` sends the file's contents, for a sandboxed daemon may not read the
//! caller's files; contents that do not fit into a line go by their whole path.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::codec::control::{Closing, LINE_MAX, closing, quote};
use crate::service::control::place::{SYSTEM_SOCKET, user_socket};

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
    let line = line(&args.command)?;
    let socket = args.socket.clone().unwrap_or_else(default_socket);
    let mut stream = UnixStream::connect(&socket).map_err(|error| {
        format!("{}: {error}; is swarmtorrentd running? --socket PATH names another socket", socket.display())
    })?;
    let broken = |error: io::Error| format!("{}: {error}", socket.display());
    stream.write_all(line.as_bytes()).map_err(broken)?;
    stream.shutdown(Shutdown::Write).map_err(broken)?;
    match print(BufReader::new(stream), &mut io::stdout().lock()) {
        Ok(Some(closing)) => Ok(closing == Closing::Ok),
        Ok(None) => Err(format!("{}: the daemon hung up before it answered", socket.display())),
        // Whoever read us has seen enough: `ctl list | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(broken(error)),
    }
}

/// Prints every line of the reply; its closing line is none if the other end went before it.
fn print(mut reply: impl BufRead, out: &mut impl Write) -> io::Result<Option<Closing>> {
    let mut line = String::new();
    loop {
        line.clear();
        if reply.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        out.write_all(line.as_bytes())?;
        if let Some(closing) = closing(line.trim_end_matches('\n')) {
            out.flush()?;
            return Ok(Some(closing));
        }
    }
}

/// The words as one line of the protocol.
fn line(words: &[String]) -> Result<String, String> {
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
    Ok(line + "\n")
}

/// True if an argument of `add` is a file here, and so not a link, a hash or an option.
fn is_file(word: &str) -> bool {
    Path::new(word).is_file() && !word.starts_with("metainfo:")
}

fn content_or_path(path: &Path) -> Result<String, String> {
    let say = |error: io::Error| format!("{}: {error}", path.display());
    // Base64 takes four characters for three bytes; the rest of the line needs some room.
    let most = (LINE_MAX as u64 - 4096) / 4 * 3;
    if path.metadata().map_err(say)?.len() <= most {
        return Ok(format!("metainfo:{}", STANDARD.encode(std::fs::read(path).map_err(say)?)));
    }
    let whole = std::path::absolute(path).map_err(say)?;
    whole.to_str().map(str::to_owned).ok_or_else(|| format!("{}: the path is not UTF-8; rename it", path.display()))
}

/// The user's own socket if it is there, else that of the system.
fn default_socket() -> PathBuf {
    let own = user_socket(|name| std::env::var_os(name));
    if own.exists() { own } else { SYSTEM_SOCKET.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_become_one_line() {
        assert_eq!(line(&words(&["move", "abcd", "/a b"])).unwrap(), "move abcd '/a b'\n");
        assert_eq!(line(&words(&["add", "magnet:?xt=x", "dir=/a b"])).unwrap(), "add magnet:?xt=x dir='/a b'\n");
        assert!(line(&words(&["set", "abcd", "label", "a\nshutdown"])).is_err(), "no second command");
        assert!(line(&words(&["set", "abcd", "label", &"x".repeat(LINE_MAX)])).is_err());
    }

    #[test]
    fn a_file_goes_by_content_and_a_large_one_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b.torrent");
        let name = path.to_str().unwrap();
        std::fs::write(&path, b"de").unwrap();
        assert_eq!(line(&words(&["json", "add", "paused=yes", name])).unwrap(), "json add paused=yes metainfo:ZGU=\n");
        std::fs::write(&path, vec![b'x'; LINE_MAX]).unwrap();
        assert_eq!(line(&words(&["add", name])).unwrap(), format!("add '{name}'\n"));
    }

    #[test]
    fn the_reply_ends_with_its_closing_line() {
        let ask = |reply: &str| {
            let mut out = Vec::new();
            let closing = print(reply.as_bytes(), &mut out).unwrap();
            (closing, String::from_utf8(out).unwrap())
        };
        assert_eq!(ask("a\nOK\nb\n"), (Some(Closing::Ok), "a\nOK\n".to_owned()));
        assert_eq!(ask("ERR usage x\n"), (Some(Closing::Err), "ERR usage x\n".to_owned()));
        assert_eq!(ask("{\"ok\":false,\"code\":\"io\"}\n").0, Some(Closing::Err));
        assert_eq!(ask("a\n").0, None);
    }
}
