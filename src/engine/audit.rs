//! What a driver that checks the engine may see of it; decided on by nobody.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::{Piece, Span};
use crate::base::hash::InfoHash;
use crate::base::ids::StoreId;
use crate::base::storage::Storage;
use crate::engine::Engine;
use crate::service::tracker::{Tracker, View as TrackerView};
use crate::torrent::torrent::Torrent;

/// One torrent as it is.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The wire hash.
    pub info_hash: InfoHash,
    /// Its content in the storage.
    pub store: Option<StoreId>,
    /// The pieces it claims.
    pub have: &'a Bitfield,
    /// Everything wanted is here.
    pub is_finished: bool,
    /// Payload received in this run.
    pub downloaded: u64,
    /// Payload sent in this run.
    pub uploaded: u64,
    /// Payload received in vain in this run.
    pub wasted: u64,
    /// Pieces that were whole and wrong.
    pub failed: u64,
    torrent: &'a Torrent,
}

impl View<'_> {
    /// Where a piece is in the content.
    #[must_use]
    pub fn piece_span(&self, piece: u32) -> Span {
        self.torrent.piece_span(Piece(piece))
    }
}

impl<S: Storage> Engine<S> {
    /// Every torrent.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.torrents.values().map(|torrent| View {
            info_hash: torrent.info_hash(),
            store: torrent.store(),
            have: &torrent.have,
            is_finished: torrent.is_finished(),
            downloaded: torrent.down.total_bytes(),
            uploaded: torrent.up.total_bytes(),
            wasted: torrent.wasted,
            failed: torrent.failed,
            torrent,
        })
    }

    /// True if every piece of which `span` holds a part was verified, or `store` was closed.
    #[must_use]
    pub fn holds(&self, store: StoreId, span: Span) -> bool {
        let torrent = self.torrents.values().find(|torrent| torrent.store() == Some(store));
        torrent.is_none_or(|torrent| torrent.geometry().pieces_of(span).all(|piece| torrent.have.get(piece)))
    }

    /// A file that more than one torrent may write to; there should be none.
    #[must_use]
    pub fn two_writers(&self) -> Option<PathBuf> {
        if self.torrents.len() < 2 {
            return None;
        }
        let may_write = |torrent: &&Torrent| {
            torrent.may_write() && !torrent.is_asleep() && !torrent.is_link() && !torrent.is_peek()
        };
        let mut seen = BTreeSet::new();
        for content in self.torrents.values().filter(may_write).map(Torrent::content) {
            let entries = content.files.entries().filter(|entry| !entry.pad && entry.span.len > 0);
            let mut paths = entries.map(|entry| content.dir.join(entry.path));
            if let Some(path) = paths.find(|path| !seen.insert(path.clone())) {
                return Some(path);
            }
        }
        None
    }

    /// The size of the tracker server, if there is one.
    #[must_use]
    pub fn tracker_view(&self) -> Option<TrackerView> {
        self.tracker.as_ref().map(Tracker::view)
    }

    /// Messages that peers sent.
    #[must_use]
    pub fn messages_in(&self) -> u64 {
        self.stats.peer_messages_in
    }

    /// Ends without a word, as a crash does; what is left is the storage.
    #[must_use]
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// What must hold whenever the engine rests.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        assert!(self.connections.len() <= self.config.connections_max, "connections");
        assert!(self.half_open <= self.config.half_open_max, "connections being made");
        assert!(self.touched.is_empty(), "every torrent that was touched is settled");
        if let Some(nodes) = &self.dht {
            nodes.questions.check();
        }
        self.check_path_index();
        self.followed.check();
        self.newcomers.check();
        if let Some(tracker) = &self.tracker {
            tracker.check();
        }
        assert!(self.served.count() <= self.config.tracker.connections_max, "connections to the tracker server");
        for torrent in self.torrents.values() {
            // One may be on its way while another one is being made.
            assert!(torrent.peers.len() <= torrent.connections_max, "peers of a torrent");
            for peer in torrent.peers.values() {
                peer.machine.check();
            }
            torrent.exchange.check(torrent.peers.values());
            torrent.candidates.check();
            if let Some(download) = &torrent.download {
                download.picker.check();
                download.partials.check();
                for (conn, block) in download.partials.asked() {
                    let awaits = torrent.peers.get(&conn).is_some_and(|peer| peer.machine.awaits(block));
                    assert!(awaits, "a peer that was asked for {block:?} is waited for");
                }
            }
        }
    }
}
