//! `swarmtorrent top`: a live screen of a daemon.
//!
//! One loop waits for the keyboard, the daemon and signals at once, and for nothing else. What has changed is asked for once a second
//! (`list since=N`), so ten thousand torrents cost as much as those of them that move.

mod keys;
mod link;
mod model;
mod screen;
mod view;

use std::io::stdin;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::base::time::Time;
use crate::cli::daemon::socket;
use crate::cli::paint::has_colours;
use crate::codec::control::escape;
use crate::reactor::clock::Clock;
use keys::{Wish, press};
use link::{Link, News, Question};
use model::{Model, Pane};
use screen::{Screen, Signal, Signals, broken};

/// How often a daemon that is not there is called.
const CALL_INTERVAL: Duration = Duration::from_secs(1);
/// How long it is waited for the rest of a key once one was pressed; nothing is read where that is nothing.
const KEY_WAIT: Duration = Duration::from_millis(1);
/// How long a daemon may take to answer before that is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a pane's answer for which a second more is waited before it is asked for again: a list of 100,000 files is not fetched
/// every second.
const DETAIL_BYTES_A_SECOND: u64 = 200_000;
/// Pieces of a torrent whose map is asked for; of more there is none.
const MAP_PIECES_MAX: u64 = 1_000_000;

/// Shows a live screen of a daemon: its torrents, and peers, files, trackers and pieces of one of them.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The daemon's control socket; the user's own if there is one, else that of the system.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Seconds between two looks at the daemon.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let mut link = Link::new(&socket(args.socket.as_deref()));
    link.connect()?;
    let signals = Signals::new()?;
    let screen = Screen::enter()?;
    let now = Time::ZERO;
    let mut top = Top {
        link,
        signals,
        screen,
        model: Model::new(),
        interval: Duration::from_secs(args.interval),
        look_at: now,
        asked_at: now,
        detail_at: now,
        is_new: true,
        colours: has_colours(|name| std::env::var_os(name)),
    };
    let clock = Clock::start();
    while top.round(&clock)? {}
    Ok(())
}

/// The whole of it. The screen is the last to go, so that the terminal is given back whatever happens.
#[derive(Debug)]
struct Top {
    link: Link,
    signals: Signals,
    model: Model,
    interval: Duration,
    /// When the daemon is asked, or called, next.
    look_at: Time,
    /// When the daemon was asked last.
    asked_at: Time,
    /// When the pane is asked for next.
    detail_at: Time,
    /// A connection at which nothing was asked yet.
    is_new: bool,
    colours: bool,
    screen: Screen,
}

impl Top {
    /// Asks, draws, waits, and takes what came. False if that was all.
    fn round(&mut self, clock: &Clock) -> Result<bool, String> {
        self.look(clock.now());
        let (model, colours) = (&mut self.model, self.colours);
        self.screen.draw(|frame| view::draw(frame, model, colours))?;
        // What is still on its way, such as the first list of ten thousand, is not worth a new screen.
        loop {
            let has_keys = self.wait(clock.now())?;
            for signal in self.signals.pending() {
                match signal {
                    Signal::End => return Ok(false),
                    Signal::Stop => self.screen.suspend()?,
                    Signal::Go => self.screen.resume()?,
                    Signal::Resized => return Ok(true),
                }
            }
            if has_keys && !self.take_keys()? {
                return Ok(false);
            }
            self.link.turn();
            let has_news = self.take_news(clock.now());
            if has_keys || has_news || clock.now() >= self.look_at {
                return Ok(true);
            }
        }
    }

    /// Asks what it is time to ask.
    fn look(&mut self, now: Time) {
        if now >= self.look_at {
            self.look_at = now + self.interval;
            if !self.link.is_connected() {
                self.look_at = now + CALL_INTERVAL;
                match self.link.connect() {
                    Ok(()) => self.is_new = true,
                    Err(why) => self.model.lose(why),
                }
            }
            if std::mem::take(&mut self.is_new) {
                let kinds = "added,removed,metadata,state,finished,error";
                self.link.ask(&format!("json watch events={kinds}"), Question::Watch);
            }
            if self.link.awaits(|question| matches!(question, Question::List | Question::Status)) {
                let secs = now.since(self.asked_at).as_secs();
                if secs >= PATIENCE.as_secs() {
                    self.model.trouble = Some(format!("the daemon has not answered for {secs} seconds"));
                }
            } else {
                self.asked_at = now;
                self.link.ask(&format!("json list since={}", self.model.since), Question::List);
                self.link.ask("json status", Question::Status);
            }
        }
        self.look_closer(now);
    }

    /// Asks for what the pane shows: at once if it shows something else now.
    fn look_closer(&mut self, now: Time) {
        let Some(torrent) = self.model.selected() else { return };
        let (id, pane) = (torrent.id.clone(), self.model.pane);
        let line = match pane {
            Pane::Log => return,
            Pane::Info => format!("json why {id}"),
            Pane::Peers => format!("json peers {id}"),
            Pane::Files => format!("json files {id}"),
            Pane::Trackers => format!("json trackers {id}"),
            Pane::Pieces if torrent.pieces > MAP_PIECES_MAX => return,
            Pane::Pieces => format!("pieces {id}"),
        };
        let is_known = self.model.detail_of.as_ref() == Some(&(pane, id.clone()));
        if (is_known && now < self.detail_at) || self.link.awaits(|asked| matches!(asked, Question::Detail(..))) {
            return;
        }
        self.link.ask(&line, Question::Detail(pane, id));
    }

    /// Waits until there is something to do. True if keys were pressed.
    fn wait(&self, now: Time) -> Result<bool, String> {
        let left = self.look_at.since(now).min(CALL_INTERVAL);
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let stdin = stdin();
        let mut descriptors = vec![
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.descriptor(), PollFlags::IN),
        ];
        if let Some((descriptor, has_output)) = self.link.descriptor() {
            let wanted = if has_output { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            descriptors.push(PollFd::from_borrowed_fd(descriptor, wanted));
        }
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(broken(&error.into())),
        }
        let keyboard = descriptors[0].revents();
        if keyboard.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err("the terminal has gone".to_owned());
        }
        Ok(keyboard.contains(PollFlags::IN))
    }

    /// Does what the keys that were pressed mean. False if we are to end.
    fn take_keys(&mut self) -> Result<bool, String> {
        while event::poll(KEY_WAIT).map_err(|error| broken(&error))? {
            let Event::Key(key) = event::read().map_err(|error| broken(&error))? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match press(&mut self.model, key) {
                Wish::Nothing => {}
                Wish::Quit => return Ok(false),
                Wish::Suspend => self.screen.suspend()?,
                Wish::Act(line, done) => {
                    if !self.link.ask(&line, Question::Act(done)) {
                        "the daemon does not answer; nothing was done".clone_into(&mut self.model.message);
                    }
                    // The answer comes before the list that shows what it did.
                    self.look_at = Time::ZERO;
                }
            }
        }
        Ok(true)
    }

    /// Takes what the daemon said. True if it said something.
    fn take_news(&mut self, now: Time) -> bool {
        let mut has_news = false;
        while let Some(news) = self.link.poll_news() {
            has_news = true;
            match news {
                News::Event(event) => self.model.take_event(&event),
                News::Lost(why) => {
                    self.model.lose(why);
                    self.look_at = now + CALL_INTERVAL;
                }
                News::Answer(question, rows, closing) => self.take_answer(now, question, rows, closing),
            }
        }
        has_news
    }

    fn take_answer(
        &mut self,
        now: Time,
        question: Question,
        rows: Vec<String>,
        closing: Result<serde_json::Value, String>,
    ) {
        match (question, closing) {
            (Question::List, Ok(closing)) => {
                self.model.take_list(&rows, &closing);
                self.model.trouble = None;
            }
            (Question::Status, Ok(_)) => self.model.take_status(&rows),
            (Question::Detail(pane, id), closing) => {
                let bytes: usize = rows.iter().map(String::len).sum();
                self.detail_at = now + self.interval + Duration::from_secs(bytes as u64 / DETAIL_BYTES_A_SECOND);
                self.model.detail = if closing.is_ok() { rows } else { Vec::new() };
                self.model.detail_of = Some((pane, id));
            }
            (Question::Act(done), Ok(_)) => self.model.message = escape(&done).into_owned(),
            (Question::Act(_), Err(why)) => self.model.message = escape(&why).into_owned(),
            (Question::Watch, Ok(_)) => {}
            (question, Err(why)) => self.model.say(format!("{question:?}: {}", escape(&why))),
        }
    }
}
