//! Getting pieces: what is asked of whom, where payload lands, and what happens when a piece is full.

use crate::base::bitfield::Bitfield;
use crate::base::geometry::{Block, Piece, Span};
use crate::base::hash::PieceHash;
use crate::base::ids::ConnId;
use crate::base::steps;
use crate::base::storage::{Fault, FaultKind};
use crate::base::time::Time;
use crate::torrent::blame::Blame;
use crate::torrent::event::What;
use crate::torrent::partial::Partials;
use crate::torrent::peers::TorrentPeer;
use crate::torrent::picker::Picker;
use crate::torrent::torrent::{Ask, Torrent};

/// Blocks that one peer is asked for although others were, at once.
const END_GAME_MAX: usize = 16;

/// Pieces in progress for each peer; beyond it those that are begun are finished before a rarer one is.
const BEGUN_PER_PEER_MAX: usize = 2;

/// What a torrent needs only while something wanted is missing.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) picker: Picker,
    pub(crate) partials: Partials,
    pub(crate) blame: Blame,
}

impl Download {
    /// A peer that had `field` is gone. True if others may be asked for what it was asked for.
    pub(crate) fn handle_peer_gone(&mut self, conn: ConnId, field: &Bitfield) -> bool {
        self.picker.remove_field(field);
        self.partials.lost(conn)
    }
}

/// Payload that must be written to the content.
#[derive(Debug, Clone, Copy)]
pub struct Landing<'b> {
    /// Of which block.
    pub block: Block,
    /// Where in the content.
    pub offset: u64,
    /// What.
    pub bytes: &'b [u8],
    /// It is the block's end: once it is written, call [`Torrent::handle_landed`].
    pub last: bool,
}

impl Torrent {
    /// Something wanted is missing: sets up what is needed to get it.
    pub(crate) fn begin_download(&mut self, now: Time) {
        let mut picker = Picker::new(&self.layout, &self.have, self.settings.sequential, self.rng.fork("picker"));
        for peer in self.peers.values() {
            picker.add_field(&peer.field);
        }
        let mut partials = Partials::new(self.geometry());
        for (piece, blocks) in std::mem::take(&mut self.restored) {
            self.note_written(self.piece_span(piece));
            if self.layout.is_wanted(piece) && !self.have.get(piece.0) {
                let hash = self.body.get().pieces.get(piece.index()).expect("every piece has a hash");
                partials.restore(piece, hash, self.layout.piece_priority(piece), &blocks);
                picker.started(piece);
            }
        }
        if partials.next_unread(1).is_some() {
            self.asks.push_back(Ask::Work);
        }
        self.download = Some(Box::new(Download { picker, partials, blame: Blame::default() }));
        self.forget_offers();
        self.reconsider_peers();
        self.candidates.want(now);
        self.look_for_peers(now);
    }

    /// The download stops; what it has of pieces in progress is kept.
    pub(crate) fn suspend_download(&mut self) {
        if let Some(download) = self.download.take() {
            self.restored = download.partials.stored_blocks();
        }
    }

    /// Everything wanted is here.
    pub(crate) fn finish_download(&mut self, now: Time) {
        self.download = None;
        if self.note_complete() {
            self.news.push(What::Finished);
        }
        self.begin_seeding(now);
        self.begin_pace(now);
        let is_first = self.finished.is_none();
        if is_first {
            self.finished = Some(self.epoch_secs + now.as_secs());
            log::info!("{}: finished", self.display_name());
        }
        // Only who has everything has completed; who has what is wanted of it says so in another way (BEP 21).
        let was_partial = std::mem::replace(&mut self.partial_seed, !self.have.is_full());
        if self.partial_seed {
            self.announces.hurry(now);
        } else if is_first || was_partial {
            self.announces.completed(now);
        }
        self.make_empty_files(now);
        self.persistence.touch(now);
        self.apply_policy(now);
        self.turn_changed = true;
        self.reconsider_peers();
    }

    /// Everything wanted may be here. True if that is so for the first time in its life; nothing wanted is nothing complete.
    pub(crate) fn note_complete(&mut self) -> bool {
        let is_something = self.layout.wanted_bytes() > 0 || self.size() == 0;
        let is_first = !self.told_finished && is_something && self.is_finished();
        self.told_finished |= is_first;
        is_first
    }

    /// Asks a peer for as many blocks as its pipeline holds: of the piece that it is at first, then of pieces in progress unless
    /// a rarer one can be begun; in the end game also for what others were asked for. A peer that chokes us is asked for the pieces
    /// that it allows (BEP 6).
    pub(crate) fn fill_requests(&mut self, now: Time, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let wanted = peer.machine.wanted(now);
        if wanted == 0 || !peer.machine.am_interested() || peer.field.is_empty() {
            return;
        }
        let shunned = self.shunned(now, conn);
        let begun_max = self.peers.len() * BEGUN_PER_PEER_MAX;
        let Some(Download { picker, partials, .. }) = self.download.as_deref_mut() else { return };
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let TorrentPeer { machine, field, suggested, .. } = peer;
        let only = machine.allowed_only();
        let may_ask = |piece: Piece| field.get(piece.0) && !shunned.contains(&piece);
        let pick = |picker: &mut Picker| match only {
            Some(only) => picker.pick_of(only, may_ask),
            None => picker.pick(field, suggested, may_ask),
        };
        let open = partials.open_for(conn, only, may_ask, |piece| picker.rarity(piece));
        if partials.is_crowded()
            && open.is_empty()
            && let Some(piece) = partials.take_untouched()
        {
            // Peers that take up pieces and drop them leave no room for those that others have.
            picker.returned(piece);
        }
        let is_full = partials.is_crowded();
        let is_crowded = is_full || partials.len() >= begun_max;
        let mut fresh = None;
        let mut started = None;
        let mut blocks = Vec::with_capacity(wanted);
        for piece in open {
            if blocks.len() >= wanted {
                break;
            }
            // What this peer has begun it goes on with; what others have begun waits for what is rarer.
            if !is_crowded && partials.last_asked(conn) != Some(piece) {
                let fresh = *fresh.get_or_insert_with(|| pick(picker));
                started = fresh.filter(|&fresh| picker.is_more_urgent(fresh, piece));
                if started.is_some() {
                    break;
                }
            }
            partials.ask(conn, piece, wanted - blocks.len(), &mut blocks);
        }
        if blocks.len() < wanted && started.is_none() {
            if !is_full {
                started = fresh.unwrap_or_else(|| pick(picker));
            }
            if started.is_none() && picker.is_exhausted() {
                let room = (wanted - blocks.len()).min(END_GAME_MAX);
                partials.ask_again(conn, room, |piece| may_ask(piece) && machine.may_ask(piece), &mut blocks);
            }
        }
        if let Some(piece) = started {
            picker.started(piece);
            partials.reserve(piece);
            self.asks.push_back(Ask::Prepare(piece, conn));
        }
        steps::add(4 * blocks.len() + 1);
        for &block in &blocks {
            machine.request(now, block);
        }
        if !blocks.is_empty() {
            self.asks.push_back(Ask::Wake(conn));
        }
    }

    /// The pieces that failed with a part from this peer and that another one can be asked for.
    fn shunned(&self, now: Time, conn: ConnId) -> Vec<Piece> {
        let (Some(download), Some(peer)) = (&self.download, self.peers.get(&conn)) else { return Vec::new() };
        let mut shunned: Vec<Piece> = download.blame.suspected(peer.addr).collect();
        shunned.retain(|&piece| {
            let can_help = |other: &TorrentPeer| {
                other.established
                    && other.field.get(piece.0)
                    && other.machine.am_interested()
                    && other.machine.may_ask(piece)
                    && !other.machine.is_snubbed(now)
                    && !download.blame.is_suspected(piece, other.addr)
            };
            !download.partials.is_left_to(piece, conn) && self.peers.values().any(can_help)
        });
        shunned
    }

    /// True if room is being made for a piece, so that it can be begun.
    #[must_use]
    pub fn is_about_to_begin(&self, piece: Piece) -> bool {
        self.download.as_ref().is_some_and(|download| download.partials.is_reserved(piece))
    }

    /// Room was made for a part of a piece that is about to begin, or could not be.
    pub fn note_prepared(&mut self, now: Time, part: Span, has_room: bool) {
        self.doubt(part); // files may have been made
        if has_room && self.note_written(part) {
            self.persistence.hurry(now);
        }
    }

    /// There is room for all of a piece, or for one part there is not.
    pub fn handle_prepared(&mut self, now: Time, piece: Piece, conn: ConnId, result: Result<(), Fault>) {
        let Some(download) = self.download.as_deref_mut() else { return };
        if !download.partials.unreserve(piece) {
            return;
        }
        match result {
            Ok(()) => {
                let hash = self.body.get().pieces.get(piece.index()).expect("every piece has a hash");
                let parole = download.blame.is_suspect(piece);
                download.partials.start(piece, hash, self.layout.piece_priority(piece), parole);
                self.reconsider_peer(conn);
            }
            Err(fault) => {
                download.picker.returned(piece);
                self.fail(now, fault);
            }
        }
    }

    /// The head of a block is here, its payload follows: takes it, or refuses because another peer is writing there.
    pub(crate) fn handle_head(&mut self, now: Time, conn: ConnId, block: Block) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let addr = peer.addr;
        let Some(download) = &mut self.download else { return peer.machine.refuse_block() };
        if !download.partials.land(now, block, conn, addr) {
            download.partials.refused(block, conn);
            peer.machine.refuse_block();
        }
    }

    /// Payload of a block that was taken.
    pub(crate) fn handle_bytes<'b>(
        &mut self,
        now: Time,
        conn: ConnId,
        block: Block,
        offset: u32,
        bytes: &'b [u8],
        last: bool,
    ) -> Option<Landing<'b>> {
        self.down.add(now, bytes.len() as u64);
        let span = self.head.geometry.span_of_block(block)?;
        let download = self.download.as_mut()?;
        if !download.partials.landed(now, block, conn, offset, bytes) {
            self.wasted += bytes.len() as u64;
            return None;
        }
        self.doubt(span);
        Some(Landing { block, offset: span.offset + u64::from(offset), bytes, last })
    }

    /// A block is whole and written.
    pub fn handle_landed(&mut self, now: Time, conn: ConnId, block: Block) {
        self.content_changed(now);
        let Some(download) = &mut self.download else { return };
        let mut others = Vec::new();
        if !download.partials.stored(block, conn, &mut others) {
            return;
        }
        for other in others {
            if let Some(peer) = self.peers.get_mut(&other) {
                peer.machine.cancel(now, block);
                self.asks.push_back(Ask::Wake(other));
            }
        }
        if download.partials.is_full(block.piece) {
            match download.partials.hash(block.piece) {
                Some(hash) => self.judge(now, block.piece, hash),
                None => self.asks.push_back(Ask::Work),
            }
        }
        self.reconsider_peer(conn);
    }

    /// A full piece was hashed: it is ours, or somebody sent us something else.
    pub(crate) fn judge(&mut self, now: Time, piece: Piece, hash: PieceHash) {
        self.content_changed(now);
        let Some(download) = self.download.as_deref_mut() else { return };
        let is_spoilt = download.partials.is_spoilt(piece);
        let Some(blocks) = download.partials.take(piece) else { return };
        if is_spoilt {
            download.picker.returned(piece);
            let message = format!(
                "piece {} was read back otherwise than it was written to {}; check the disk and the memory",
                piece.0,
                self.dir.display()
            );
            return self.fail(now, Fault { kind: FaultKind::Io, message });
        }
        if self.body.get().pieces.get(piece.index()) == Some(hash) {
            let guilty = download.blame.handle_passed(piece, &blocks);
            download.picker.finished(piece);
            self.have.set(piece.0);
            self.asks.push_back(Ask::Hold(piece));
            self.passed += 1;
            self.news.push(What::Piece(piece));
            // Who gave us a slot and has nothing more for us gives it to others sooner if it knows.
            let mut givers = Vec::new();
            steps::add(self.peers.len());
            for (&conn, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.established) {
                peer.machine.have(piece);
                // Who may not ask yet, and waits for a slot or wants nothing of us, is told with what goes to it next, or at the
                // next tick: most peers of a torrent, and else a packet and a system call each.
                let may_wait = peer.machine.am_choking() && (peer.machine.peer_interested() || peer.field.get(piece.0));
                if !may_wait {
                    self.asks.push_back(Ask::Wake(conn));
                }
                if peer.machine.am_interested() && !peer.machine.peer_choking() && peer.field.get(piece.0) {
                    givers.push(conn);
                }
            }
            for conn in givers {
                self.reconsider_peer(conn);
            }
            self.persistence.touch(now);
            for addr in guilty {
                self.ban(now, addr);
            }
            if self.is_finished() {
                self.finish_download(now);
            }
        } else {
            self.failed += 1;
            self.wasted += u64::from(self.head.geometry.len_of(piece));
            let guilty = download.blame.handle_failed(piece, blocks);
            download.picker.returned(piece);
            if let Some(addr) = guilty {
                self.ban(now, addr);
            }
            log::info!("{}: piece {} is corrupt and is fetched again", self.display_name(), piece.0);
            self.reconsider_peers();
        }
    }

    /// A peer chokes us: without the fast extension it forgets what we asked; others may be asked.
    pub(crate) fn handle_choked(&mut self, now: Time, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.choked_at = now;
        if !peer.machine.is_fast() {
            peer.machine.take_requests(now, false);
            self.give_up(conn);
        }
    }

    /// A peer lets us wait: what it was asked for is asked of others, but for one block that shows when it wakes up.
    pub(crate) fn handle_snubbed(&mut self, now: Time, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.machine.take_requests(now, true);
        self.give_up(conn);
    }

    fn give_up(&mut self, conn: ConnId) {
        if let Some(download) = &mut self.download
            && download.partials.lost(conn)
        {
            self.reconsider_peers();
        }
    }

    /// A peer will not send a block.
    pub(crate) fn handle_rejected(&mut self, conn: ConnId, block: Block) {
        if let Some(download) = &mut self.download {
            download.partials.rejected(block, conn);
            self.reconsider_peers();
        }
    }
}
