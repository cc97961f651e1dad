//! Signals as a source of events: end, reload, dump.
//!
//! They are registered like any other descriptor, so nothing of ours ever runs inside a signal handler. SIGXFSZ is taken and dropped: a
//! file that may not grow is an error of a call, not the end of the process. So is SIGPIPE, which Rust ignores from the start.

use std::io;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};

/// What somebody wants of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End cleanly (SIGTERM, SIGINT); asked a second time, at once.
    Terminate,
    /// Read the config again (SIGHUP).
    Reload,
    /// Write the state of everything to the log (SIGUSR1).
    Dump,
}

/// The signals of this process. There should be one.
pub struct Signals(signal_hook_mio::v1_0::Signals);

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals(..)")
    }
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// If the kernel has no pipe for them.
    pub fn new() -> io::Result<Self> {
        signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGXFSZ]).map(Self)
    }

    /// What came since the last call; each kind once, in an order of no meaning.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> + '_ {
        self.0.pending().filter_map(|number| match number {
            SIGTERM | SIGINT => Some(Signal::Terminate),
            SIGHUP => Some(Signal::Reload),
            SIGUSR1 => Some(Signal::Dump),
            _ => None,
        })
    }
}

impl Source for Signals {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGPIPE;
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn signals_are_values_and_what_would_kill_us_is_nothing() {
        let mut signals = Signals::new().unwrap();
        raise(SIGXFSZ).unwrap();
        raise(SIGPIPE).unwrap();
        assert_eq!(signals.pending().next(), None);
        raise(SIGHUP).unwrap();
        raise(SIGHUP).unwrap();
        raise(SIGUSR1).unwrap();
        let pending: Vec<Signal> = signals.pending().collect();
        assert_eq!(pending.len(), 2);
        assert!(pending.contains(&Signal::Reload) && pending.contains(&Signal::Dump));
    }
}
