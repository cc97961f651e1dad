//! What can be seen of a torrent, copied out: rows for lists.

use std::path::PathBuf;

use crate::base::bytes::Rope;
use crate::base::geometry::Piece;
use crate::base::hash::Sha1Hash;
use crate::base::ids::ConnId;
use crate::base::steps;
use crate::base::time::Time;
use crate::codec::catalog::{Entry, dht_item};
use crate::codec::magnet::Magnet;
use crate::torrent::command::{Refusal, RefusalKind};
use crate::torrent::peers::TorrentPeer;
use crate::torrent::snapshot::{FileRow, PeerRow, PieceState, Priority, Summary, TrackerRow};
use crate::torrent::torrent::Torrent;

impl Torrent {
    /// Payload ever received.
    #[must_use]
    pub fn downloaded(&self) -> u64 {
        self.downloaded_before + self.down.total_bytes()
    }

    /// Payload ever sent.
    #[must_use]
    pub fn uploaded(&self) -> u64 {
        self.uploaded_before + self.up.total_bytes()
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub(crate) fn ratio(&self) -> f64 {
        let base = if self.downloaded() > 0 { self.downloaded() } else { self.geometry().total_len() };
        if base == 0 { 0.0 } else { self.uploaded() as f64 / base as f64 }
    }

    /// It at a glance.
    #[must_use]
    pub fn summary(&self, now: Time) -> Summary {
        let (wanted, have_wanted_bytes) = (self.layout.wanted_bytes(), self.layout.have_wanted_bytes(&self.have));
        let down_rate = self.down.rate_bytes(now);
        Summary {
            info_hash: self.info_hash(),
            st_id: self.st_id(),
            name: self.head.name.clone(),
            state: self.state(),
            error: self.fault.as_ref().map(|fault| fault.message.as_str()).or(self.broken()).map(str::to_owned),
            described: !self.is_link(),
            size: self.geometry().total_len(),
            wanted,
            have_bytes: self.layout.have_bytes_total(&self.have),
            have_wanted_bytes,
            checked: self.check_progress(),
            down_rate,
            up_rate: self.up.rate_bytes(now),
            downloaded: self.downloaded(),
            uploaded: self.uploaded(),
            wasted: self.wasted,
            peers: count(self.peers.len()),
            seeds: count(self.peers.values().filter(|peer| peer.is_seed()).count()),
            eta: (wanted - have_wanted_bytes).checked_div(down_rate).filter(|_| wanted > have_wanted_bytes),
            queue: None,
            settings: Vec::new(),
            label: self.settings.label.clone(),
            added: self.added,
            finished: self.finished,
            dir: self.dir.clone(),
            private: self.head.private,
            pieces: (self.geometry().pieces(), self.have.count()),
            piece_len: self.geometry().piece_len(),
            comment: self.body.0.as_deref().and_then(|meta| meta.comment.clone()),
            created_by: self.body.0.as_deref().and_then(|meta| meta.created_by.clone()),
            dht_item: self.settings.shared.then(|| Sha1Hash::of(&self.dht_item())),
            moving: self.moving(),
            move_error: self.move_error().map(str::to_owned),
            hook: None,
            follows: None,
        }
    }

    /// How many files [`Torrent::file_row`] knows, pad files among them.
    ///
    /// # Panics
    /// If the torrent is hibernated.
    #[must_use]
    pub fn listed_files(&self) -> usize {
        self.layout.files().len()
    }

    /// The file at `index`, its path only if `with_path`; `None` if it is a pad file.
    ///
    /// # Panics
    /// If the torrent is hibernated, or there is no such file.
    #[must_use]
    pub fn file_row(&self, index: usize, with_path: bool) -> Option<FileRow> {
        let entry = Some(self.layout.files().entry(index)).filter(|entry| !entry.pad)?;
        if with_path {
            steps::add_bytes(entry.path.as_os_str().len());
        }
        Some(FileRow {
            index,
            path: if with_path { entry.path.to_owned() } else { PathBuf::new() },
            size: entry.span.len,
            have_bytes: self.layout.have_bytes(index, &self.have),
            priority: self.layout.priority(index),
        })
    }

    /// The connections of its peers, in the order of their addresses.
    #[must_use]
    pub fn conns(&self) -> Vec<ConnId> {
        let established = self.peers.iter().filter(|(_, peer)| peer.established);
        let mut conns: Vec<_> = established.map(|(conn, peer)| (peer.addr, *conn)).collect();
        // Sorting compares each about as often as the length has binary digits; a comparison takes less than half a step.
        steps::add(self.peers.len() * conns.len().checked_ilog2().unwrap_or(0) as usize / 2);
        conns.sort_by_key(|(addr, _)| *addr);
        conns.into_iter().map(|(_, conn)| conn).collect()
    }

    /// The peer at `conn`; `None` if it is not connected any more.
    #[must_use]
    pub fn peer_row(&self, now: Time, conn: ConnId) -> Option<PeerRow> {
        self.peers.get(&conn).map(|peer| self.row_of_peer(now, peer))
    }

    fn row_of_peer(&self, now: Time, peer: &TorrentPeer) -> PeerRow {
        let machine = &peer.machine;
        let mut flags = String::new();
        if machine.am_interested() {
            flags.push(if machine.peer_choking() { 'd' } else { 'D' });
        }
        if machine.peer_interested() {
            flags.push(if machine.am_choking() { 'u' } else { 'U' });
        }
        for (flag, is_set) in [('S', machine.is_snubbed(now)), ('E', peer.encrypted), ('I', peer.incoming)] {
            if is_set {
                flags.push(flag);
            }
        }
        let pieces = self.geometry().pieces();
        PeerRow {
            addr: peer.addr,
            client: machine.client(),
            flags,
            progress: if pieces == 0 {
                f64::from(u8::from(!self.is_link()))
            } else {
                f64::from(peer.field.count()) / f64::from(pieces)
            },
            down_rate: machine.down().rate_bytes(now),
            up_rate: machine.up().rate_bytes(now),
            transport: "tcp",
            encrypted: peer.encrypted,
            source: peer.origin.word(),
        }
    }

    /// Its trackers, by tier.
    #[must_use]
    pub fn tracker_rows(&self, now: Time) -> Vec<TrackerRow> {
        self.announces.rows(now)
    }

    /// What is known of `piece`.
    #[must_use]
    pub fn piece_state(&self, piece: Piece) -> PieceState {
        if self.have.get(piece.0) {
            return PieceState::Have;
        }
        match &self.download {
            Some(download) if download.partials.contains(piece) => PieceState::Partial,
            _ if !self.layout.is_wanted(piece) => PieceState::Unwanted,
            Some(download) => {
                PieceState::Missing(u16::try_from(download.picker.availability(piece)).unwrap_or(u16::MAX))
            }
            None => PieceState::Missing(0),
        }
    }

    /// What others are told of it where it is shared.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry { info_hash: self.info_hash(), st_id: self.st_id(), name: self.name().to_owned(), size: self.size() }
    }

    /// What nodes of the DHT keep of it where it is shared (BEP 44), bencoded.
    #[must_use]
    pub fn dht_item(&self) -> Vec<u8> {
        dht_item(&self.entry(), self.geometry().piece_len())
    }

    /// The addresses of its trackers, by tier.
    #[must_use]
    pub fn trackers(&self) -> Vec<String> {
        self.body.get().trackers.iter().flatten().cloned().collect()
    }

    /// Its magnet link.
    #[must_use]
    pub fn magnet(&self) -> String {
        self.link().unwrap_or_else(|| Magnet::of(self.body.get()).to_string())
    }

    /// The bytes of its metainfo file.
    ///
    /// # Errors
    /// A pure `.st` has no `.torrent` form; of a torrent that came as a link nothing is known at first.
    pub fn export(&self, as_torrent: bool) -> Result<Vec<u8>, Refusal> {
        if self.is_link() {
            let message = "its description is still being fetched from peers; `why` says how far that is";
            return Err(Refusal::new(RefusalKind::Busy, message));
        }
        if as_torrent && self.body.get().is_pure {
            let message = "a pure .st has no SHA-1 hashes, so it cannot be a .torrent; export it as st";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        }
        Ok(self.body.get().to_bytes(as_torrent))
    }

    /// The bytes that describe it to our next run.
    #[must_use]
    pub fn metainfo_bytes(&self) -> Rope {
        self.link().map_or_else(|| self.body.get().to_parts(false).into(), |link| link.into_bytes().into())
    }

    /// How much a file is wanted.
    #[must_use]
    pub fn file_priority(&self, file: usize) -> Priority {
        self.layout.priority(file)
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
