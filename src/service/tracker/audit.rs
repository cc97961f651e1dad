//! What whoever checks a tracker may see of it; decided on by nobody.

use crate::service::tracker::Tracker;

/// A tracker's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Swarms that it knows.
    pub swarms: usize,
    /// Peers that it knows.
    pub peers: usize,
    /// Memory that it has for these, bytes.
    pub bytes: usize,
    /// Requests that wait for the store.
    pub waiting: usize,
    /// Peers that wait to be written to it.
    pub to_write: usize,
}

impl Tracker {
    /// Its size.
    #[must_use]
    pub fn view(&self) -> View {
        let (waiting, to_write) = self.shared.as_ref().map_or((0, 0), |shared| shared.held());
        let (swarms, peers, bytes) = (self.swarms.len(), self.swarms.peers(), self.swarms.bytes());
        View { swarms, peers, bytes, waiting, to_write }
    }

    /// What must hold whenever it rests.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        self.swarms.check();
        assert!(self.answers.is_empty(), "every answer that was looked for is handed out");
        if let Some(shared) = &self.shared {
            shared.check();
        }
    }
}
