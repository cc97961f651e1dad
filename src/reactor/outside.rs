//! Descriptors that are not the engine's: the control socket, its clients, inotify, signals.
//!
//! Their owner (the daemon, the tool) registers them and gets their readiness back as values from each turn. Edges, as the kernel
//! gives them: whoever gets one reads until `WouldBlock`, or asks to be called again with `Reactor::set_deadline`.

use std::io;

use mio::event::{Event, Source};
use mio::{Interest, Registry};

use crate::base::arena::{Arena, Id};
use crate::reactor::tokens::Whose;

/// Marks the keys of outsiders.
#[derive(Debug)]
pub enum OutsideKey {}

/// A descriptor that was registered from outside.
pub type OutsideId = Id<OutsideKey>;

/// What the kernel said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsideEvent {
    /// About which.
    pub id: OutsideId,
    /// There is something to read, the other end has gone, or there is an error that a read will tell.
    pub readable: bool,
    /// There is room to write, or an error that a write will tell.
    pub writable: bool,
}

/// Who is registered. There is no bound here: who registers has its own (the control socket's clients).
#[derive(Debug, Default)]
pub(crate) struct Outsiders {
    known: Arena<OutsideKey, ()>,
}

impl Outsiders {
    pub(crate) fn register(
        &mut self,
        registry: &Registry,
        source: &mut impl Source,
        interests: Interest,
    ) -> io::Result<OutsideId> {
        let id = self.known.insert(());
        match registry.register(source, Whose::Outside(id).token(), interests) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.known.remove(id);
                Err(error)
            }
        }
    }

    pub(crate) fn deregister(
        &mut self,
        registry: &Registry,
        id: OutsideId,
        source: &mut impl Source,
    ) -> io::Result<()> {
        self.known.remove(id);
        registry.deregister(source)
    }

    /// The event for its owner; none if it was taken out.
    pub(crate) fn event(&self, id: OutsideId, event: &Event) -> Option<OutsideEvent> {
        let failed = event.is_error();
        self.known.contains(id).then(|| OutsideEvent {
            id,
            readable: event.is_readable() || event.is_read_closed() || failed,
            writable: event.is_writable() || failed,
        })
    }
}
