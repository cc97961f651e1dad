//! Which rate limits hold: the usual ones or the alternative ones, by the clock on the wall unless somebody has said otherwise.
//!
//! It is decided anew each full minute, when the clock is set, and when the config or somebody says something else, and always from what the
//! clock says then: a clock that jumps leaves nothing behind.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::daemon::config::Alternative;
use crate::reactor::calendar::{Minutes, moment, unix_secs};
use crate::service::control::Alternatively;

/// Who decides, and when to look again.
#[derive(Debug)]
pub(super) struct Schedule {
    minutes: Minutes,
    mode: Alternatively,
}

impl Schedule {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { minutes: Minutes::new()?, mode: Alternatively::Auto })
    }

    /// Somebody says that the alternative limits hold, do not, or go by the clock.
    pub(super) fn set_mode(&mut self, mode: Alternatively) {
        self.mode = mode;
    }

    /// The alternative limits, if they hold now: down and up. Waits for the next minute where that may change it.
    pub(super) fn look(&self, alternative: Option<&Alternative>) -> io::Result<Option<(u64, u64)>> {
        let goes_by_clock = self.mode == Alternatively::Auto && alternative.is_some_and(Alternative::has_schedule);
        self.minutes.wait(goes_by_clock)?;
        let now = moment(unix_secs());
        let hold = |alternative: &&Alternative| match self.mode {
            Alternatively::On => true,
            Alternatively::Off => false,
            Alternatively::Auto => now.is_some_and(|now| alternative.hold_at(now.weekday, now.minute)),
        };
        Ok(alternative.filter(hold).map(|alternative| (alternative.down, alternative.up)))
    }

    /// Which limits hold and by whose word, for `status`.
    pub(super) fn words(&self, is_alternative: bool) -> &'static str {
        match (is_alternative, self.mode) {
            (true, Alternatively::On) => "alternative, until `limit alternative auto`",
            (true, _) => "alternative, by the clock",
            (false, Alternatively::Off) => "usual, until `limit alternative auto`",
            (false, _) => "usual",
        }
    }
}

impl AsRawFd for Schedule {
    fn as_raw_fd(&self) -> RawFd {
        self.minutes.as_raw_fd()
    }
}
