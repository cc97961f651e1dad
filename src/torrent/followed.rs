//! A torrent of which only the publisher's key is known (BEP 46): it stands for a version that is still looked for, and does
//! nothing. And what a version takes over from the one before it.

use std::net::SocketAddr;

use crate::base::time::Time;
use crate::torrent::candidates::Origin;
use crate::torrent::settings::Settings;
use crate::torrent::torrent::Torrent;

/// What a user has said of one version, and means of the next.
#[derive(Debug, Clone)]
pub struct Heritage {
    settings: Settings,
    /// The user stopped it.
    pub paused: bool,
    /// Hash what is there, if the user has said so.
    pub verify: Option<bool>,
    /// Peers that the user named.
    peers: Vec<SocketAddr>,
}

impl Torrent {
    /// It stands for a torrent that nobody has named yet.
    #[must_use]
    pub fn awaits_item(&self) -> bool {
        self.description.as_ref().is_some_and(|description| !description.link.names_torrent())
    }

    /// Which of its files are wanted, as the user or the link said before they were known.
    #[must_use]
    pub fn selection(&self) -> Vec<(usize, usize)> {
        self.description.as_ref().map(|description| description.link.select.clone()).unwrap_or_default()
    }

    /// What the next version should have of this one.
    #[must_use]
    pub fn bequeath(&self) -> Heritage {
        Heritage {
            settings: Settings {
                shared: false,
                seeded_enough: false,
                idle_enough: false,
                seeds_on: false,
                super_seed: false,
                ..self.settings.clone()
            },
            // Who has seeded enough of one version has none of the next.
            paused: self.paused && !self.settings.seeded_enough,
            verify: self.description.as_ref().map(|description| description.begin.verify),
            peers: self.candidates.named_by(Origin::User),
        }
    }

    /// Takes over what the version before had.
    pub fn inherit(&mut self, now: Time, heritage: Heritage) {
        self.settings = heritage.settings;
        self.apply_max_peers(now);
        self.apply_policy(now);
        self.add_candidates(now, &heritage.peers, Origin::User);
        self.persistence.touch(now);
    }
}
