//! The conversation with one client of the control socket.
//!
//! `handle_input` takes what the client sent, `poll_request` gives the next request once the one before it is answered
//! with `reply`, `output` is what to send. Requests are answered in the order they came, and after the client's end of
//! file everything asked is still answered. One unanswered request holds up only its own client.
//!
//! The reply to a request that changed something is held until the change is on the disk (`handle_ack`). Further requests are
//! carried out meanwhile; their replies are held behind it.
//!
//! A long answer ([`Report::Long`]) is printed while its rows come: [`Session::wants_rows`] tells when there is room for more,
//! [`Session::listing`] says which rows are next, and [`Session::handle_rows`] takes them. The client's next request waits until
//! the answer is complete.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;

use super::commands::{Parsed, Spec, parse};
use super::json;
use super::printer::Printer;
use super::request::{Field, Report, Request, Verdict};
use super::text;
use super::watch;
use crate::base::ids::AckId;
use crate::base::time::Time;
use crate::codec::control::{
    LINE_MAX, parse_line, push_err, push_json, push_json_err, push_json_ok, push_ok, push_payload,
};
use crate::codec::import::Import;
use crate::torrent::command::{Command, Refusal, RefusalKind, Source};
use crate::torrent::event::{Event, Filter};
use crate::torrent::listing::Listing;

/// The protocol's number.
const PROTOCOL: u32 = 1;
/// Bytes of replies that may wait for a client; when the next reply is due and more wait, the client is disconnected. A
/// single reply is never cut, however long.
pub const WAITING_MAX: usize = 8 * 1024 * 1024;
/// While more than this waits, a client that goes on reading is asked for patience: its next request stays unread.
const PAUSE_LEN: usize = 256 * 1024;
/// A long answer is collected while fewer bytes wait for the client.
const ROWS_WAITING_MAX: usize = 64 * 1024;
/// Bytes of output that are sent before their memory is used again.
const SENT_MAX: usize = 64 * 1024;
/// A client that read nothing for so long while replies waited is a slow one: its requests are carried out regardless,
/// until [`WAITING_MAX`] ends it.
const PATIENCE: Duration = Duration::from_millis(250);
/// Replies that may be held until changes are on the disk. With so many, or with more than [`PAUSE_LEN`] bytes of them, the
/// client's next request stays unread.
const HELD_MAX: usize = 1024;
/// Lines that are answered without anybody's help in a row; [`Session::is_ready`] tells whether there are more.
const LINES_MAX: usize = 64;
/// Bytes of requests that may wait. The driver reads no more then; the kernel makes the client wait.
const INPUT_MAX: usize = 2 * LINE_MAX;

/// Bytes of a file that a client may send in parts before it is added; more are refused, and those that came forgotten. (Tests are not to
/// take half a minute for it.)
pub(super) const PARTS_MAX: usize = if cfg!(test) { 1024 * 1024 } else { 32 * 1024 * 1024 };

/// One client. Invariant: `pending` is the form of the answer to the one request that `poll_request` gave and that
/// `reply` has not answered. While `long` is being printed nothing else is.
#[derive(Debug)]
pub struct Session {
    input: Vec<u8>,
    /// Inside a line that was too long, whose error has been written: skip to its end.
    is_skipping: bool,
    has_ended: bool,
    output: String,
    /// What comes after `output` once the changes that it acknowledges are on the disk.
    held: VecDeque<Held>,
    /// Bytes of `held`.
    held_len: usize,
    /// How much of `output` is sent.
    sent: usize,
    /// When the client last took something, or began to owe it.
    taken_at: Time,
    pending: Option<Form>,
    /// The answer that is being printed.
    long: Option<Printer>,
    /// Events that come after `long`.
    behind: String,
    is_overrun: bool,
    /// What came in parts and was not added yet.
    parts: Vec<u8>,
    /// What it wants to hear of unasked, and whether as JSON.
    watching: Option<(Filter, bool)>,
}

/// Output that is held.
#[derive(Debug)]
struct Held {
    text: String,
    /// What it waits for; `None` if only for what is held before it.
    ack: Option<AckId>,
    /// Whether it says that a change was made. Then it says something else if the change cannot be saved.
    is_ok: bool,
    is_json: bool,
}

/// How a reply is to be written.
#[derive(Debug, Clone, Copy)]
struct Form {
    is_json: bool,
    sort: Option<Field>,
}

impl Session {
    /// A client that has just connected.
    #[must_use]
    pub const fn new(now: Time) -> Self {
        Self {
            input: Vec::new(),
            is_skipping: false,
            has_ended: false,
            output: String::new(),
            held: VecDeque::new(),
            held_len: 0,
            sent: 0,
            taken_at: now,
            pending: None,
            long: None,
            behind: String::new(),
            is_overrun: false,
            parts: Vec::new(),
            watching: None,
        }
    }

    /// Takes what the client sent; ask [`Session::wants_input`] first.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The client will send no more. A last line without its end counts.
    pub fn handle_end(&mut self) {
        self.has_ended = true;
    }

    /// `len` bytes of [`Session::output`] are sent.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn handle_sent(&mut self, now: Time, len: usize) {
        assert!(len <= self.waiting(), "no more is sent than was there");
        self.sent += len;
        if len > 0 {
            self.taken_at = now;
        }
        if self.sent == self.output.len() {
            self.sent = 0;
            self.output.clear();
            self.output.shrink_to(PAUSE_LEN);
        }
        if self.sent >= SENT_MAX && self.sent >= self.waiting() {
            // A long answer would grow on and on if what is sent were kept until all of it is.
            let end = self.output.floor_char_boundary(self.sent);
            self.output.drain(..end);
            self.sent -= end;
        }
    }

    /// Answers the request that [`Session::poll_request`] returned last. With an `ack` the reply is held until
    /// [`Session::handle_ack`] is called with it.
    ///
    /// # Panics
    /// If there is none.
    pub fn reply(&mut self, now: Time, verdict: Verdict, ack: Option<AckId>) {
        let Form { is_json, sort } = self.pending.take().expect("a reply follows its request");
        if let Ok(Report::Watching(filter)) = &verdict {
            self.watching = Some((filter.clone(), is_json));
        }
        let is_ok = verdict.is_ok();
        if let Ok(Report::Long(listing)) = verdict {
            self.push(now, None, is_json, |_| {});
            self.long = Some(Printer::new(listing, is_json, sort));
            return;
        }
        self.push(now, ack, is_json, |out| match verdict {
            Ok(mut report) => {
                if let Some(field) = sort {
                    text::sort(&mut report, field);
                }
                if is_json {
                    let detail = json::push(out, &report);
                    push_json_ok(out, &detail);
                } else {
                    let detail = text::push(out, &report);
                    push_ok(out, &detail);
                }
            }
            Err(refusal) => push_refusal(out, is_json, &refusal),
        });
        if let Some(held) = self.held.back_mut().filter(|_| ack.is_some()) {
            held.is_ok = is_ok;
        }
    }

    /// Whether rows of a long answer are wanted: there is an answer to complete, and room for more of it. A client that reads
    /// nothing though it has asked for more is not waited for, until [`WAITING_MAX`] ends it.
    #[must_use]
    pub fn wants_rows(&self, now: Time) -> bool {
        // Events that came meanwhile are sent after the answer: they do not hold it up.
        let waiting = self.waiting() + self.held_len;
        self.long.is_some() && !self.is_overrun && (waiting < ROWS_WAITING_MAX || now >= self.impatient_at())
    }

    /// Which rows of a long answer are next.
    pub fn listing(&mut self) -> Option<&mut Listing> {
        self.long.as_mut().map(Printer::listing)
    }

    /// Takes the next rows of the long answer, the last ones if `is_last`; or why there are none.
    pub fn handle_rows(&mut self, now: Time, rows: Result<(Report, bool), Refusal>) {
        let Some(mut printer) = self.long.take() else { return };
        let is_json = printer.is_json();
        let mut is_complete = true;
        self.push(now, None, is_json, |out| match rows {
            Ok((report, is_last)) => is_complete = printer.print(out, &report, is_last),
            Err(refusal) => push_refusal(out, is_json, &refusal),
        });
        if !is_complete {
            self.long = Some(printer);
        } else if !self.behind.is_empty() {
            let behind = std::mem::take(&mut self.behind);
            self.push(now, None, is_json, |out| out.push_str(&behind));
        }
    }

    /// When a client that takes nothing is not waited for any more.
    fn impatient_at(&self) -> Time {
        let keeps_others = self.waiting() > 0 && self.has_line();
        if keeps_others { self.taken_at + PATIENCE } else { Time::NEVER }
    }

    /// The changes that `ack` stands for are on the disk, or could not be saved: then that is the reply. What is held for nothing
    /// else any more is output.
    pub fn handle_ack(&mut self, now: Time, ack: AckId, result: &Result<(), Refusal>) {
        let Some(held) = self.held.iter_mut().find(|held| held.ack == Some(ack)) else { return };
        held.ack = None;
        if let Err(refusal) = result
            && held.is_ok
        {
            self.held_len -= held.text.len();
            held.text.clear();
            push_refusal(&mut held.text, held.is_json, refusal);
            self.held_len += held.text.len();
        }
        while let Some(held) = self.held.pop_front_if(|held| held.ack.is_none()) {
            self.held_len -= held.text.len();
            self.begin_output(now);
            self.output.push_str(&held.text);
        }
    }

    /// Tells a client of an event, if it watches and wants to hear of it. Whoever lets too much wait is disconnected.
    pub fn tell(&mut self, now: Time, event: &Event) {
        let Some((_, is_json)) = self.watching.as_ref().filter(|(filter, _)| filter.wants(event)) else { return };
        let is_json = *is_json;
        if self.is_overrun || self.held_len + self.behind.len() > WAITING_MAX {
            self.is_overrun = true;
            return;
        }
        let push = if is_json { watch::push_json_line } else { watch::push_text };
        if self.long.is_some() {
            return push(&mut self.behind, event);
        }
        self.push(now, None, is_json, |out| push(out, event));
    }

    /// True if it is told what happens.
    #[must_use]
    pub const fn is_watching(&self) -> bool {
        self.watching.is_some()
    }

    /// The next request; none while one is unanswered, while the client should read first, or when there is no more, unless
    /// [`Session::is_ready`].
    pub fn poll_request(&mut self, now: Time) -> Option<Request> {
        for _ in 0..LINES_MAX {
            if self.pending.is_some()
                || self.long.is_some()
                || self.is_overrun
                || self.is_paused(now)
                || self.is_holding_much()
            {
                return None;
            }
            let line = self.take_line(now)?;
            if let Some(request) = self.read_line(now, &line) {
                return Some(request);
            }
        }
        None
    }

    /// When [`Session::poll_request`] may give something though nothing else happened.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        if self.long.is_some() {
            return if self.is_overrun { Time::NEVER } else { self.impatient_at() };
        }
        let may_wait = self.pending.is_none() && !self.input.is_empty() && self.waiting() > PAUSE_LEN;
        if may_wait && !self.is_overrun { self.taken_at + PATIENCE } else { Time::NEVER }
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output.as_bytes()[self.sent..]
    }

    /// True if more may be read from the client now.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.has_ended && !self.is_overrun && self.input.len() < INPUT_MAX
    }

    /// True if it has asked what is not answered yet; the begin of a line asks nothing.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.pending.is_some() || self.long.is_some() || !self.held.is_empty() || self.has_line()
    }

    /// Whether a request, or the rest of the input, waits to be read.
    fn has_line(&self) -> bool {
        self.input.contains(&b'\n') || (self.has_ended && !self.input.is_empty())
    }

    /// True if [`Session::poll_request`] has something to do right now, or rows are wanted.
    #[must_use]
    pub fn is_ready(&self, now: Time) -> bool {
        if self.long.is_some() {
            return self.wants_rows(now);
        }
        let may = self.pending.is_none() && !self.is_overrun && !self.is_paused(now) && !self.is_holding_much();
        may && (self.has_line() || self.input.len() > LINE_MAX || (self.is_skipping && !self.input.is_empty()))
    }

    /// When it last took something of what waits for it, or that began to wait.
    #[must_use]
    pub const fn taken_at(&self) -> Time {
        self.taken_at
    }

    /// True if it let more wait than [`WAITING_MAX`].
    #[must_use]
    pub const fn is_overrun(&self) -> bool {
        self.is_overrun
    }

    /// True when the connection should be closed: everything is said, or the client let too much wait.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_overrun || (self.has_ended && !self.is_asking() && self.input.is_empty() && self.output().is_empty())
    }

    /// Bytes that wait for it.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Bytes that are kept for it: what waits for it, and what is held.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.waiting() + self.held_len + self.behind.len()
    }

    /// Whether so much is held that further requests wait for the disk.
    fn is_holding_much(&self) -> bool {
        self.held.len() >= HELD_MAX || self.held_len > PAUSE_LEN
    }

    /// Writes a reply or an event: into the output, or behind what is held.
    fn push(&mut self, now: Time, ack: Option<AckId>, is_json: bool, write: impl FnOnce(&mut String)) {
        if ack.is_none() && self.held.is_empty() {
            self.begin_output(now);
            if !self.is_overrun {
                write(&mut self.output);
            }
            return;
        }
        if ack.is_some() || self.held.back().is_some_and(|held| held.ack.is_some()) {
            self.held.push_back(Held { text: String::new(), ack, is_ok: false, is_json });
        }
        let held = self.held.back_mut().expect("something is held");
        let before = held.text.len();
        write(&mut held.text);
        self.held_len += held.text.len() - before;
    }

    fn is_paused(&self, now: Time) -> bool {
        self.waiting() > PAUSE_LEN && now < self.taken_at + PATIENCE
    }

    /// Before each reply: counts what waits, and notes when waiting began.
    fn begin_output(&mut self, now: Time) {
        if self.waiting() == 0 {
            self.taken_at = now;
        }
        if self.waiting() > WAITING_MAX {
            self.is_overrun = true;
        }
    }

    /// The next line, without its end.
    fn take_line(&mut self, now: Time) -> Option<Vec<u8>> {
        loop {
            let end = self.input.iter().position(|&byte| byte == b'\n');
            if self.is_skipping {
                self.input.drain(..end.map_or(self.input.len(), |at| at + 1));
                self.is_skipping = end.is_none() && !self.has_ended;
                end?;
                continue;
            }
            let len = end.unwrap_or(self.input.len());
            let text_len = if len > 0 && self.input[len - 1] == b'\r' { len - 1 } else { len };
            if text_len > LINE_MAX {
                self.is_skipping = true;
                let message = format!(
                    "a request has at most {LINE_MAX} bytes; give a path instead of metainfo: for a large file"
                );
                let refusal = Refusal::new(RefusalKind::Usage, message);
                self.push(now, None, false, |out| push_refusal(out, false, &refusal));
                continue;
            }
            if end.is_none() && (!self.has_ended || self.input.is_empty()) {
                return None;
            }
            let mut line: Vec<u8> = self.input.drain(..(len + 1).min(self.input.len())).collect();
            line.truncate(text_len);
            return Some(line);
        }
    }

    /// Answers the line if it can be answered here; gives the request if not.
    fn read_line(&mut self, now: Time, line: &[u8]) -> Option<Request> {
        let (is_json, parsed) = match parse_line(line) {
            Ok(None) => return None,
            Ok(Some(words)) => match words.split_first() {
                Some((first, rest)) if first.text == "json" => (true, parse(rest)),
                _ => (false, parse(&words)),
            },
            Err(error) => (line.starts_with(b"json "), Err(Refusal::new(RefusalKind::Usage, error.to_string()))),
        };
        match parsed.and_then(|parsed| self.gather(parsed)) {
            Ok(Parsed::Request(request, sort)) => {
                self.pending = Some(Form { is_json, sort });
                return Some(request);
            }
            Ok(Parsed::Part(_) | Parsed::AddParts(_)) => self.push(now, None, is_json, |out| push_done(out, is_json)),
            Ok(Parsed::Help(specs)) => self.push(now, None, is_json, |out| push_help(out, is_json, &specs)),
            Ok(Parsed::Version) => self.push(now, None, is_json, |out| push_version(out, is_json)),
            Err(refusal) => self.push(now, None, is_json, |out| push_refusal(out, is_json, &refusal)),
        }
        None
    }

    /// What comes in parts is kept until all of it is to be added.
    fn gather(&mut self, parsed: Parsed) -> Result<Parsed, Refusal> {
        match parsed {
            Parsed::Part(bytes) => {
                if self.parts.len() + bytes.len() > PARTS_MAX {
                    self.parts = Vec::new();
                    let message = format!("parts have at most {PARTS_MAX} bytes together; add it by its path");
                    return Err(Refusal::new(RefusalKind::Invalid, message));
                }
                self.parts.extend_from_slice(&bytes);
                Ok(Parsed::Part(Vec::new()))
            }
            Parsed::AddParts(mut options) => {
                let bytes = std::mem::take(&mut self.parts);
                let source = match Import::parse(&bytes) {
                    Some((import, metainfo)) => {
                        options.import = Some(Box::new(import));
                        metainfo.to_vec()
                    }
                    None if bytes.is_empty() => {
                        let message = "no parts came before; `part` sends them";
                        return Err(Refusal::new(RefusalKind::Usage, message));
                    }
                    None => bytes,
                };
                let command = Command::Add { source: Source::Metainfo(source), options };
                Ok(Parsed::Request(Request::Node(command), None))
            }
            parsed => Ok(parsed),
        }
    }
}

fn push_refusal(out: &mut String, is_json: bool, refusal: &Refusal) {
    let push = if is_json { push_json_err } else { push_err };
    push(out, refusal.kind.word(), &refusal.message);
}

fn push_help(out: &mut String, is_json: bool, specs: &[Spec]) {
    for spec in specs {
        if is_json {
            let line = json!({ "command": spec.word, "arguments": spec.arguments, "about": spec.about });
            push_json(out, &line);
        } else {
            let form = format!("{} {}", spec.word, spec.arguments);
            push_payload(out, &format!("{:<36} {}", form.trim_end(), spec.about));
        }
    }
    push_done(out, is_json);
}

fn push_version(out: &mut String, is_json: bool) {
    let (version, build) = (env!("CARGO_PKG_VERSION"), if cfg!(debug_assertions) { "debug" } else { "release" });
    if is_json {
        let line = json!({ "program": "swarmtorrentd", "version": version, "protocol": PROTOCOL, "build": build });
        push_json(out, &line);
    } else {
        for line in
            [format!("program: swarmtorrentd {version}"), format!("protocol: {PROTOCOL}"), format!("build: {build}")]
        {
            push_payload(out, &line);
        }
    }
    push_done(out, is_json);
}

fn push_done(out: &mut String, is_json: bool) {
    if is_json {
        push_json_ok(out, &[]);
    } else {
        push_ok(out, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::TorrentId;
    use crate::torrent::command::Answer;

    #[test]
    fn memory_of_a_long_answer_is_bounded_while_it_is_read() {
        let mut session = Session::new(Time::ZERO);
        session.handle_input("json stats\n".as_bytes());
        assert!(session.poll_request(Time::ZERO).is_some());
        let listing = Listing::Pieces { torrent: TorrentId::from_bits(0), next: 0 };
        session.reply(Time::ZERO, Ok(Report::Long(listing)), None);
        for _ in 0..1000 {
            while session.wants_rows(Time::ZERO) {
                // Letters of two bytes, so that some are sent by half.
                let rows = Answer::Stats(vec![("ä".repeat(200), 7); 20]);
                session.handle_rows(Time::ZERO, Ok((rows.into(), false)));
            }
            assert!(session.output.len() < 4 * SENT_MAX, "{}", session.output.len());
            session.handle_sent(Time::ZERO, 20_001);
        }
    }
}
