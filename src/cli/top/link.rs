//! The conversation with a daemon that may be slow, go away and come back: nothing here ever waits.
//!
//! One connection carries questions, their answers in the same order, and what `watch` tells in between. Nothing more is asked while
//! much is unanswered, so a daemon that hangs makes nothing grow.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use mio::net::UnixStream;
use serde_json::Value;

use super::model::Pane;
use crate::cli::daemon::unreachable_at;

/// Bytes read in one go; keys have their turn after that.
const READ_MAX: usize = 4 << 20;
/// Bytes of one line of a reply; who sends a longer one is no daemon of ours, and is left.
const REPLY_LINE_MAX: usize = 16 << 20;
/// Questions that may be unanswered; more are not asked.
const UNANSWERED_MAX: usize = 64;

/// What was asked, to know its answer by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// Torrents that have changed.
    List,
    /// The whole node.
    Status,
    /// What a pane shows of a torrent.
    Detail(Pane, String),
    /// To be told what happens.
    Watch,
    /// To do something; what it is, for the user.
    Act(String),
}

/// Something that came.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    /// The answer to a question: its lines, and its closing line or why it was refused.
    Answer(Question, Vec<String>, Result<Value, String>),
    /// What `watch` tells.
    Event(Value),
    /// The daemon has gone: why.
    Lost(String),
}

/// An end of the line.
#[derive(Debug)]
pub(super) struct Link {
    socket: PathBuf,
    stream: Option<UnixStream>,
    input: Vec<u8>,
    output: Vec<u8>,
    asked: VecDeque<Question>,
    rows: Vec<String>,
    news: VecDeque<News>,
}

impl Link {
    /// Not connected yet.
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            stream: None,
            input: Vec::new(),
            output: Vec::new(),
            asked: VecDeque::new(),
            rows: Vec::new(),
            news: VecDeque::new(),
        }
    }

    /// Tries to connect, if it is not.
    ///
    /// # Errors
    /// One sentence for the user; it may be tried again.
    pub(super) fn connect(&mut self) -> Result<(), String> {
        if self.stream.is_none() {
            self.stream =
                Some(UnixStream::connect(&self.socket).map_err(|error| unreachable_at(&self.socket, &error))?);
        }
        Ok(())
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// The descriptor to wait for, and whether something waits to be written to it.
    pub(super) fn descriptor(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.stream.as_ref().map(|stream| (stream.as_fd(), !self.output.is_empty()))
    }

    /// True if an answer to such a question is still to come.
    pub(super) fn awaits(&self, is_such: impl Fn(&Question) -> bool) -> bool {
        self.asked.iter().any(is_such)
    }

    /// Asks. False if there is nobody to ask, or too much unanswered.
    pub(super) fn ask(&mut self, line: &str, question: Question) -> bool {
        if self.stream.is_none() || self.asked.len() >= UNANSWERED_MAX {
            return false;
        }
        self.output.extend_from_slice(line.as_bytes());
        self.output.push(b'\n');
        self.asked.push_back(question);
        self.write();
        true
    }

    /// Reads and writes as much as goes without waiting.
    pub(super) fn turn(&mut self) {
        self.write();
        self.read();
    }

    /// What came next.
    pub(super) fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    fn write(&mut self) {
        while let Some(stream) = self.stream.as_mut().filter(|_| !self.output.is_empty()) {
            match stream.write(&self.output) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lose(error.to_string()),
            }
        }
    }

    fn read(&mut self) {
        let mut buf = [0; 64 * 1024];
        let mut left = READ_MAX;
        while left > 0
            && let Some(stream) = &mut self.stream
        {
            match stream.read(&mut buf) {
                Ok(0) => return self.lose("it has gone".to_owned()),
                Ok(len) => {
                    left = left.saturating_sub(len);
                    self.take(&buf[..len]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lose(error.to_string()),
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.input.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = String::from_utf8_lossy(&self.input).into_owned();
            self.input.clear();
            self.take_line(line);
        }
        self.input.extend_from_slice(bytes);
        if self.input.len() > REPLY_LINE_MAX {
            self.lose("what answers there is no swarmtorrentd".to_owned());
        }
    }

    fn take_line(&mut self, line: String) {
        // Within a text these quotes would have backslashes before them.
        if line.contains("\"event\":\"") {
            self.news.extend(serde_json::from_str(&line).ok().map(News::Event));
            return;
        }
        let Some(closing) = closing(&line) else { return self.rows.push(line) };
        let rows = std::mem::take(&mut self.rows);
        if let Some(question) = self.asked.pop_front() {
            self.news.push_back(News::Answer(question, rows, closing));
        }
    }

    fn lose(&mut self, why: String) {
        let socket = self.socket.clone();
        *self = Self { news: std::mem::take(&mut self.news), ..Self::new(&socket) };
        self.news.push_back(News::Lost(format!("{}: {why}", socket.display())));
    }
}

/// What a closing line says, in either form; none if the line closes nothing. `ok` always stands first.
fn closing(line: &str) -> Option<Result<Value, String>> {
    if line == "OK" || line.starts_with("OK ") {
        return Some(Ok(Value::Null));
    }
    if let Some(refusal) = line.strip_prefix("ERR ") {
        return Some(Err(refusal.split_once(' ').map_or(refusal, |(_, message)| message).to_owned()));
    }
    if !line.starts_with("{\"ok\":") {
        return None;
    }
    let object: Value = serde_json::from_str(line).ok()?;
    match object["ok"].as_bool()? {
        true => Some(Ok(object)),
        false => Some(Err(object["message"].as_str().unwrap_or("the daemon refused it").to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;

    #[test]
    fn answers_find_their_questions_and_events_come_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut link = Link::new(&path);
        assert!(link.connect().unwrap_err().contains("is swarmtorrentd running?"));
        assert!(!link.ask("json status", Question::Status), "nobody is there");
        let listener = UnixListener::bind(&path).unwrap();
        link.connect().unwrap();
        assert!(link.ask("json watch", Question::Watch) && link.ask("pause x", Question::Act("paused".into())));
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "json watch");
        let said =
            "{\"ok\":true}\n{\"at\":5,\"event\":\"added\"}\n{\"name\":\"\\\"event\\\":\\\"\"}\nERR not-found no\n";
        (&stream).write_all(said.as_bytes()).unwrap();
        link.turn();
        assert_eq!(link.poll_news(), Some(News::Answer(Question::Watch, vec![], Ok(json!({ "ok": true })))));
        assert_eq!(link.poll_news(), Some(News::Event(json!({ "at": 5, "event": "added" }))));
        let row = "{\"name\":\"\\\"event\\\":\\\"\"}".to_owned();
        assert_eq!(link.poll_news(), Some(News::Answer(Question::Act("paused".into()), vec![row], Err("no".into()))));
        (&stream).write_all(b"half").unwrap();
        drop((stream, lines));
        link.turn();
        assert!(matches!(link.poll_news(), Some(News::Lost(why)) if why.contains("it has gone")));
        assert!(!link.is_connected() && link.descriptor().is_none());
        link.connect().unwrap();
        assert!(link.is_connected(), "it may come back");
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_not_asked_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut link = Link::new(&path);
        link.connect().unwrap();
        let asked = (0..1000).filter(|_| link.ask("status", Question::Status)).count();
        assert_eq!(asked, UNANSWERED_MAX);
        assert!(link.awaits(|question| *question == Question::Status));
    }
}
