//! A daemon at the other end of its control socket, for commands that ask and wait for the reply.
//!
//! `swarmtorrent top`, which may wait for nobody, has its own end of the line in `cli/top/link.rs`.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::codec::control::{Closing, closing, escape};
use crate::service::control::place::{SYSTEM_SOCKET, user_socket};

/// Bytes in one line of `part`: three of them take four characters.
const PART_LEN: usize = 45_000;

/// The user's own socket if it is there, else that of the system; or the one that is named.
pub(crate) fn socket(named: Option<&Path>) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    let own = user_socket(|name| std::env::var_os(name));
    if own.exists() { own } else { SYSTEM_SOCKET.into() }
}

/// A connection to a daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

impl Daemon {
    /// Connects to the daemon at this socket, or at the usual one.
    ///
    /// # Errors
    /// One sentence for the user.
    pub(crate) fn connect(named: Option<&Path>) -> Result<Self, String> {
        let socket = socket(named);
        let stream = UnixStream::connect(&socket).map_err(|error| unreachable_at(&socket, &error))?;
        Ok(Self { stream: BufReader::new(stream), socket })
    }

    /// Asks one line, in which `json` stands first, and gives the objects of the reply and of its closing line.
    ///
    /// # Errors
    /// What the daemon says against it, or that it is not there any more.
    pub(crate) fn ask(&mut self, line: &str) -> Result<(Vec<Value>, Value), String> {
        self.send(line)?;
        let mut rows = Vec::new();
        let mut text = String::new();
        loop {
            text.clear();
            if self.stream.read_line(&mut text).map_err(|error| self.broken(&error))? == 0 {
                return Err(self.gone());
            }
            let object: Value = serde_json::from_str(&text)
                .map_err(|_| format!("{}: what answers there is no swarmtorrentd", self.socket.display()))?;
            match closing(text.trim_end_matches('\n')) {
                None => rows.push(object),
                Some(Closing::Ok) => return Ok((rows, object)),
                Some(Closing::Err) => {
                    return Err(escape(object["message"].as_str().unwrap_or("the daemon refused it")).into_owned());
                }
            }
        }
    }

    /// Sends bytes in parts, for an `add parts:` that follows.
    ///
    /// # Errors
    /// What the daemon says against it, or that it is not there any more.
    pub(crate) fn send_parts(&mut self, bytes: &[u8]) -> Result<(), String> {
        for part in bytes.chunks(PART_LEN) {
            self.ask(&format!("json part {}", STANDARD.encode(part)))?;
        }
        Ok(())
    }

    /// Sends a line and gives what comes back, line by line, until its closing line. If it is the `last` one the daemon is told so,
    /// and ends by itself even if that line asks nothing.
    ///
    /// # Errors
    /// One sentence for the user; that whoever reads `out` has gone is none.
    pub(crate) fn copy(&mut self, line: &str, last: bool, out: &mut impl Write) -> Result<Closing, String> {
        self.send(line)?;
        if last {
            self.stream.get_ref().shutdown(Shutdown::Write).map_err(|error| self.broken(&error))?;
        }
        match copy_reply(&mut self.stream, out) {
            Ok(Some(closing)) => Ok(closing),
            Ok(None) => Err(self.gone()),
            // Whoever read us has seen enough: `ctl list | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Closing::Ok),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// What comes unasked, after `watch`: every line, until the daemon goes.
    ///
    /// # Errors
    /// One sentence for the user; that whoever reads `out` has gone is none.
    pub(crate) fn follow(&mut self, out: &mut impl Write) -> Result<(), String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line).map_err(|error| self.broken(&error))? == 0 {
                return Err(format!("{}: the daemon has gone", self.socket.display()));
            }
            match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(format!("standard output: {error}")),
            }
        }
    }

    fn send(&mut self, line: &str) -> Result<(), String> {
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        sent.and_then(|()| self.stream.get_mut().write_all(b"\n")).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.socket.display())
    }

    fn gone(&self) -> String {
        format!("{}: the daemon hung up before it answered", self.socket.display())
    }
}

/// Why nobody is reached at a socket.
pub(crate) fn unreachable_at(socket: &Path, error: &io::Error) -> String {
    format!("{}: {error}; is swarmtorrentd running? --socket PATH names another socket", socket.display())
}

/// Copies every line of the reply; its closing line is none if the other end went before it.
fn copy_reply(reply: &mut impl BufRead, out: &mut impl Write) -> io::Result<Option<Closing>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_ends_with_its_closing_line() {
        let ask = |reply: &str| {
            let mut out = Vec::new();
            let closing = copy_reply(&mut reply.as_bytes(), &mut out).unwrap();
            (closing, String::from_utf8(out).unwrap())
        };
        assert_eq!(ask("a\nOK\nb\n"), (Some(Closing::Ok), "a\nOK\n".to_owned()));
        assert_eq!(ask("ERR usage x\n"), (Some(Closing::Err), "ERR usage x\n".to_owned()));
        assert_eq!(ask("{\"ok\":false,\"code\":\"io\"}\n").0, Some(Closing::Err));
        assert_eq!(ask("a\n").0, None);
    }

    #[test]
    fn a_socket_that_is_named_is_taken() {
        assert_eq!(socket(Some(Path::new("/x"))), Path::new("/x"));
        assert!(Daemon::connect(Some(Path::new("/nowhere/x"))).unwrap_err().contains("is swarmtorrentd running?"));
    }
}
