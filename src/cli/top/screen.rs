//! The terminal: taken over as long as we show something on it, and given back however we end.

use std::io::{self, IsTerminal, Stdout, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::{Frame, Terminal};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::low_level::emulate_default_handler;

/// The screen, ours while this lives.
#[derive(Debug)]
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// One sentence for the user, if there is none to take.
    pub(super) fn enter() -> Result<Self, String> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if !io::stdin().is_terminal() || !stdout().is_terminal() || is_dumb {
            return Err("this is no terminal that can show a screen; `swarmtorrent list` needs none".to_owned());
        }
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        take().map_err(|error| broken(&error))?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()));
        terminal.map(Self).map_err(|error| {
            give_back();
            broken(&error)
        })
    }

    /// Shows what `draw` draws.
    ///
    /// # Errors
    /// One sentence, if the terminal has gone.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<(), String> {
        self.0.draw(draw).map(drop).map_err(|error| broken(&error))
    }

    /// Gives the terminal back, stops, and takes it again once somebody has us go on.
    ///
    /// # Errors
    /// One sentence, if the terminal has gone.
    pub(super) fn suspend(&mut self) -> Result<(), String> {
        give_back();
        emulate_default_handler(SIGTSTP).map_err(|error| broken(&error))?;
        self.resume()
    }

    /// Takes the terminal again: somebody else may have used it.
    ///
    /// # Errors
    /// One sentence, if the terminal has gone.
    pub(super) fn resume(&mut self) -> Result<(), String> {
        // `clear` would ask the terminal where its cursor is, and wait for the answer; a size, even if it is the same, draws all anew.
        let anew = |terminal: &mut Terminal<_>| terminal.size().and_then(|size| terminal.resize(size.into()));
        take().and_then(|()| anew(&mut self.0)).map_err(|error| broken(&error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// A terminal that cannot be given back has gone: there is nobody to tell.
fn give_back() {
    let _gone = execute!(stdout(), LeaveAlternateScreen, Show);
    let _gone = disable_raw_mode();
}

pub(super) fn broken(error: &io::Error) -> String {
    format!("the terminal: {error}")
}

/// What a signal wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// To end.
    End,
    /// To stop until we are continued.
    Stop,
    /// We were continued.
    Go,
    /// The terminal has another size.
    Resized,
}

/// The signals of this process, as a descriptor to wait for.
#[derive(Debug)]
pub(super) struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// One sentence, if the kernel has no socket for them.
    pub(super) fn new() -> Result<Self, String> {
        let told = |error: io::Error| format!("signals cannot be taken: {error}");
        let (read, write) = UnixStream::pair().map_err(told)?;
        let all = [SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH];
        SignalDelivery::with_pipe(read, write, SignalOnly, all).map(Self).map_err(told)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }

    /// What came since the last call.
    pub(super) fn pending(&mut self) -> Vec<Signal> {
        let wanted = |number| match number {
            SIGTERM | SIGINT | SIGHUP => Signal::End,
            SIGTSTP => Signal::Stop,
            SIGCONT => Signal::Go,
            _ => Signal::Resized,
        };
        self.0.pending().map(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NAME: &str = "cli::top::screen::tests::a_panic_gives_the_terminal_back_and_is_read_on_it";

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_read_on_it() {
        if std::env::var_os("SWARMTORRENT_TEST_INSIDE").is_some() {
            let _screen = Screen::enter().unwrap();
            panic!("on purpose");
        }
        let again = format!("{} --exact {NAME} --nocapture", std::env::current_exe().unwrap().display());
        let mut script = Command::new("script");
        script.args(["-qec", &again, "/dev/null"]).env("SWARMTORRENT_TEST_INSIDE", "1").env("TERM", "xterm");
        let Ok(output) = script.output() else { return eprintln!("left out: there is no script(1)") };
        let text = String::from_utf8_lossy(&output.stdout);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?} in {text:?}"));
        assert!(at("\x1b[?1049h") < at("\x1b[?1049l"), "{text:?}");
        assert!(at("\x1b[?1049l") < at("on purpose"), "{text:?}");
        assert!(text.contains("\x1b[?25h"), "{text:?}");
    }
}
