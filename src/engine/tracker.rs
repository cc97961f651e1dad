//! The tracker server among the rest of the node.

use crate::base::config::Config;
use crate::base::rng::Rng;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::service::tracker::{Allowed, Tracker};
use crate::torrent::command::{Answer, Refusal, RefusalKind, Reply};

/// The server, if it has somewhere to listen.
pub(super) fn new(config: &Config, rng: &mut Rng) -> Option<Tracker> {
    config.tracker.is_on().then(|| Tracker::new(Time::ZERO, &config.tracker, rng.fork("tracker")))
}

impl<S: Storage> Engine<S> {
    /// The tracker server, if there is one, serves other swarms and keys from now on.
    pub fn allow(&mut self, allowed: Allowed) {
        if let Some(tracker) = &mut self.tracker {
            tracker.allow(allowed);
        }
    }

    pub(super) fn handle_tracker_timeout(&mut self, now: Time) {
        if let Some(tracker) = &mut self.tracker {
            tracker.handle_timeout(now);
        }
    }

    pub(super) fn tracker_state(&self, now: Time) -> Reply {
        match &self.tracker {
            Some(tracker) => Ok(Answer::Tracker(Box::new(tracker.state(now)))),
            None => {
                let message = "the tracker server is off; give it an address in [tracker] udp or http";
                Err(Refusal::new(RefusalKind::Unsupported, message))
            }
        }
    }

    pub(super) fn tracker_rows(&self) -> Vec<(String, u64)> {
        self.tracker.as_ref().map(Tracker::rows).unwrap_or_default()
    }
}
