//! Pieces in progress: which block was asked of whom, who is writing it, and the hash as far as it has come.
//!
//! **One writer a block**: several peers may be asked for one block in the end game, but only one may be landing it; the
//! payload of a second one is refused, unless the first has stalled. Payload that continues a piece's prefix is hashed at
//! once; the rest of a piece is read back when it is full.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::{BLOCK_LEN, Block, Geometry, Piece};
use crate::base::hash::{PieceHash, PieceHasher};
use crate::base::ids::ConnId;
use crate::base::sabotage::{self, Sabotage};
use crate::base::steps;
use crate::base::time::Time;
use crate::torrent::snapshot::Priority;

/// Peers that are asked for one block at the same time, in the end game; nobody more is.
pub const REQUESTERS_MAX: usize = 3;
/// Blocks of all wanted pieces in progress together, `PIECE_WEIGHT` more for each piece; beyond it no piece is started until one
/// is done (one always may be).
pub const BLOCKS_MAX: usize = 64 * 1024;
/// What a piece counts for besides its blocks: about as much memory as so many of them.
const PIECE_WEIGHT: usize = 4;
/// Open pieces that are looked at when one peer is asked for blocks, the most wanted and nearest to being full first.
const OPEN_LOOKS_MAX: usize = 1024;
/// Blocks that are looked at in the end game when one peer is asked for blocks that others were asked for as well.
const AGAIN_LOOKS_MAX: usize = 4096;
/// A block whose payload has not come on for so long may be landed by another peer.
pub const LANDING_STALL: Duration = Duration::from_secs(10);

/// Where a stored block came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSource {
    /// Who sent it; none if it was on the disk when we started.
    pub from: Option<SocketAddr>,
    /// CRC-32C of its bytes, to tell later whether it was the corrupt one; meaningless without a sender.
    pub crc: u32,
}

/// Who may be asked for a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parole {
    /// Anybody.
    Anyone,
    /// One peer alone, so that it is clear who sent what; the first that asks.
    First,
    /// This one.
    Only(ConnId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Missing,
    Landing { by: ConnId, from: SocketAddr, got: u32, since: Time },
    Stored { from: Option<SocketAddr> },
}

#[derive(Debug, Clone, Copy)]
struct BlockState {
    stage: Stage,
    asked: [Option<ConnId>; REQUESTERS_MAX],
    crc: u32,
}

impl BlockState {
    const NEW: Self = Self { stage: Stage::Missing, asked: [None; REQUESTERS_MAX], crc: 0 };

    fn is_free(&self) -> bool {
        self.stage == Stage::Missing && self.asked.iter().all(Option::is_none)
    }

    /// True if `conn` was asked for it, or is landing it.
    fn concerns(&self, conn: ConnId) -> bool {
        self.asked.contains(&Some(conn)) || matches!(self.stage, Stage::Landing { by, .. } if by == conn)
    }

    fn forget(&mut self, conn: ConnId) {
        self.asked.iter_mut().filter(|asked| **asked == Some(conn)).for_each(|asked| *asked = None);
    }
}

/// A running hash, and as it was where the block that is being hashed begins: a sender that goes away in the middle of
/// it takes its half back.
#[derive(Debug, Clone)]
struct Running {
    hasher: PieceHasher,
    /// Bytes of the piece that were hashed.
    len: u32,
}

/// The order in which pieces are asked for: the most wanted first, of those the nearest to being full.
type Rank = (Reverse<Priority>, u32, Piece);

#[derive(Debug)]
struct Partial {
    priority: Priority,
    blocks: Box<[BlockState]>,
    stored: u32,
    /// Blocks that nobody was asked for.
    free: u32,
    /// No block before this one is free.
    first_free: u32,
    running: Running,
    at_block: Running,
    /// CRC-32C of what was read back of the present block.
    read_crc: u32,
    /// What was read back is not what came from a peer: the disk's fault.
    spoilt: bool,
    parole: Parole,
    /// When it was begun among others.
    number: u64,
}

/// All pieces in progress of one torrent. Invariants: `open` holds the rank of every wanted piece with a free block, `full` every
/// piece all of whose blocks are stored, `untouched` every piece all of whose blocks are free, `concerned` every connection with each block that it was asked for or is landing, and
/// `on_parole` every connection with each piece of which it alone is asked; nothing else is in them.
#[derive(Debug)]
pub struct Partials {
    geometry: Geometry,
    pieces: BTreeMap<Piece, Partial>,
    open: BTreeSet<Rank>,
    full: BTreeSet<Piece>,
    untouched: BTreeSet<Piece>,
    concerned: BTreeSet<(ConnId, Piece, u32)>,
    on_parole: BTreeSet<(ConnId, Piece)>,
    /// Pieces that are about to be started.
    reserved: BTreeSet<Piece>,
    /// What the wanted ones and the reserved ones count for.
    blocks: usize,
    /// Where `open_for` goes on, if the first pieces suit nobody; `None` is at the beginning.
    open_from: Option<Rank>,
    /// Where the end game goes on.
    again_from: (Piece, u32),
    /// How many were ever begun.
    begun: u64,
    /// The piece that each peer was last asked for, so that pieces are finished before others are begun.
    last: BTreeMap<ConnId, Piece>,
}

impl Partials {
    /// None.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            pieces: BTreeMap::new(),
            open: BTreeSet::new(),
            full: BTreeSet::new(),
            untouched: BTreeSet::new(),
            concerned: BTreeSet::new(),
            on_parole: BTreeSet::new(),
            reserved: BTreeSet::new(),
            blocks: 0,
            open_from: None,
            again_from: (Piece(0), 0),
            begun: 0,
            last: BTreeMap::new(),
        }
    }

    /// `piece` is about to be started, as soon as there is room for it: it counts from now on.
    pub fn reserve(&mut self, piece: Piece) {
        if self.reserved.insert(piece) {
            self.blocks += weight(&self.geometry, piece);
        }
    }

    /// True if `piece` is about to be started.
    #[must_use]
    pub fn is_reserved(&self, piece: Piece) -> bool {
        self.reserved.contains(&piece)
    }

    /// `piece` is not about to be started any more; false if it was not.
    pub fn unreserve(&mut self, piece: Piece) -> bool {
        let was_reserved = self.reserved.remove(&piece);
        if was_reserved {
            self.blocks -= weight(&self.geometry, piece);
        }
        was_reserved
    }

    /// Begins `piece`. On `parole` all of it is asked of one peer, so that a second failure has one name.
    pub fn start(&mut self, piece: Piece, hash: PieceHash, priority: Priority, parole: bool) {
        self.unreserve(piece);
        let count = self.geometry.blocks_of(piece);
        steps::add_bytes(count as usize * size_of::<BlockState>());
        let running = Running { hasher: hash.hasher(), len: 0 };
        let partial = Partial {
            priority,
            blocks: vec![BlockState::NEW; count as usize].into_boxed_slice(),
            stored: 0,
            free: count,
            first_free: 0,
            at_block: running.clone(),
            running,
            read_crc: 0,
            spoilt: false,
            parole: if parole { Parole::First } else { Parole::Anyone },
            number: self.begun,
        };
        self.begun += 1;
        self.blocks += partial.wanted_blocks();
        self.open.extend(partial.rank(piece));
        self.untouched.insert(piece);
        let old = self.pieces.insert(piece, partial);
        assert!(old.is_none(), "piece {} was in progress already", piece.0);
    }

    /// Begins `piece` with blocks that are on the disk.
    pub fn restore(&mut self, piece: Piece, hash: PieceHash, priority: Priority, blocks: &Bitfield) {
        self.start(piece, hash, priority, false);
        self.change(piece, |partial| {
            for (state, index) in partial.blocks.iter_mut().zip(0..) {
                if blocks.get(index) {
                    state.stage = Stage::Stored { from: None };
                    partial.stored += 1;
                    partial.free -= 1;
                }
            }
        });
        if self.is_full(piece) {
            self.full.insert(piece);
        }
    }

    /// How much pieces are wanted has changed. Nobody is asked for those that are wanted no more; what was asked may come.
    pub fn set_priorities(&mut self, priority_of: impl Fn(Piece) -> Priority) {
        for (&piece, partial) in &mut self.pieces {
            partial.priority = priority_of(piece);
        }
        let reserved: usize = self.reserved.iter().map(|&piece| weight(&self.geometry, piece)).sum();
        self.blocks = self.pieces.values().map(Partial::wanted_blocks).sum::<usize>() + reserved;
        self.open = self.pieces.iter().filter_map(|(&piece, partial)| partial.rank(piece)).collect();
    }

    /// Changes a piece in progress, and its place among the open ones with it; none if it is not in progress.
    fn change<R>(&mut self, piece: Piece, change: impl FnOnce(&mut Partial) -> R) -> Option<R> {
        let partial = self.pieces.get_mut(&piece)?;
        let before = partial.rank(piece);
        let result = change(partial);
        move_rank(&mut self.open, before, partial.rank(piece));
        if partial.is_untouched() {
            self.untouched.insert(piece);
        } else {
            self.untouched.remove(&piece);
        }
        Some(result)
    }

    /// The pieces that are in progress or about to be started.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.pieces.keys().chain(&self.reserved).copied()
    }

    /// True if `piece` is in progress.
    #[must_use]
    pub fn contains(&self, piece: Piece) -> bool {
        self.pieces.contains_key(&piece)
    }

    /// True if all of `piece` is asked of `conn` alone, so that it is clear who sent what.
    #[must_use]
    pub fn is_left_to(&self, piece: Piece, conn: ConnId) -> bool {
        self.pieces.get(&piece).is_some_and(|partial| partial.parole == Parole::Only(conn))
    }

    /// No further piece should be started now.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.blocks >= BLOCKS_MAX
    }

    /// The pieces of which `conn` may be asked blocks that nobody was asked for, in the order in which it should be: the most wanted
    /// ones first, of those the one that it was asked for last, then the one of the least `rarity`, then the one nearest to being
    /// full, then the one begun first. Looks at the first `OPEN_LOOKS_MAX` pieces; if none of them suits, at as many behind those that
    /// the call before looked at; or at those in `only` alone.
    pub fn open_for(
        &mut self,
        conn: ConnId,
        only: Option<&[Piece]>,
        may_ask: impl Fn(Piece) -> bool,
        rarity: impl Fn(Piece) -> u32,
    ) -> Vec<Piece> {
        let mut looked = 0;
        let suits = |&(_, _, piece): &Rank| may_ask(piece) && self.pieces[&piece].is_open_to(conn);
        let mut ranks: Vec<Rank> = match only {
            Some(only) => {
                let rank = |piece: &Piece| self.pieces.get(piece).and_then(|partial| partial.rank(*piece));
                only.iter().inspect(|_| looked += 1).filter_map(rank).filter(suits).collect()
            }
            None => {
                let last = self.last_asked(conn).and_then(|piece| self.pieces[&piece].rank(piece));
                let first = self.open.iter().take(OPEN_LOOKS_MAX).copied().inspect(|_| looked += 1);
                let mut ranks: Vec<Rank> = first.filter(suits).collect();
                ranks.extend(last.filter(|last| looked == OPEN_LOOKS_MAX && suits(last) && !ranks.contains(last)));
                if looked == OPEN_LOOKS_MAX && ranks.is_empty() {
                    let from = self.open_from.map_or(Bound::Unbounded, Bound::Excluded);
                    let further = self.open.range((from, Bound::Unbounded)).take(OPEN_LOOKS_MAX).copied();
                    let mut latest = None;
                    ranks.extend(further.inspect(|rank| (looked, latest) = (looked + 1, Some(*rank))).filter(suits));
                    self.open_from = latest;
                }
                ranks
            }
        };
        steps::add(2 * looked);
        let last = self.last_asked(conn);
        ranks.sort_by_cached_key(|&(priority, free, piece)| {
            (priority, last != Some(piece), rarity(piece), free, self.pieces[&piece].number)
        });
        ranks.into_iter().map(|(_, _, piece)| piece).collect()
    }

    /// The piece in progress that `conn` was asked for last.
    #[must_use]
    pub fn last_asked(&self, conn: ConnId) -> Option<Piece> {
        self.last.get(&conn).copied().filter(|piece| self.pieces.contains_key(piece))
    }

    /// How many pieces are in progress, or about to be started.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len() + self.reserved.len()
    }

    /// True if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Updates `concerned` after a change of the block at `index` of `piece`, as far as `conn` goes.
    fn note_concern(&mut self, conn: ConnId, piece: Piece, index: u32) {
        let concerns = self.pieces.get(&piece).is_some_and(|partial| partial.blocks[index as usize].concerns(conn));
        if concerns {
            self.concerned.insert((conn, piece, index));
        } else {
            self.concerned.remove(&(conn, piece, index));
        }
    }

    /// Chooses up to `count` blocks of the open `piece` that nobody was asked for and notes that `conn` is.
    ///
    /// # Panics
    /// If the piece is not in progress.
    pub fn ask(&mut self, conn: ConnId, piece: Piece, count: usize, chosen: &mut Vec<Block>) {
        let before = chosen.len();
        let geometry = self.geometry;
        self.last.insert(conn, piece);
        let is_on_parole = self.change(piece, |partial| {
            if partial.parole == Parole::First {
                partial.parole = Parole::Only(conn);
            }
            let mut looked = 0;
            let states = partial.blocks.iter_mut().zip(0..).skip(partial.first_free as usize);
            for (state, index) in states.inspect(|_| looked += 1).filter(|(state, _)| state.is_free()).take(count) {
                state.asked[0] = Some(conn);
                chosen.push(geometry.block(piece, index));
                partial.first_free = index + 1;
            }
            steps::add(looked);
            partial.free -= u32::try_from(chosen.len() - before).expect("no more than there are blocks");
            partial.parole == Parole::Only(conn)
        });
        if is_on_parole.expect("an open piece is in progress") {
            self.on_parole.insert((conn, piece));
        }
        self.concerned.extend(chosen[before..].iter().map(|block| (conn, piece, block.offset / BLOCK_LEN)));
    }

    /// The end game: chooses up to `count` blocks that others were asked for and have not begun to send, and notes that
    /// `conn` is asked as well. Looks at `AGAIN_LOOKS_MAX` blocks, behind those that were looked at before.
    pub fn ask_again(&mut self, conn: ConnId, count: usize, may_ask: impl Fn(Piece) -> bool, chosen: &mut Vec<Block>) {
        let before = chosen.len();
        let (first, from) = self.again_from;
        let mut looked = 0;
        let ahead = self.pieces.range(first..).map(|(piece, partial)| {
            let begin = if *piece == first { from as usize } else { 0 };
            (*piece, partial, begin..usize::MAX)
        });
        let behind = self.pieces.range(..=first).map(|(piece, partial)| {
            let end = if *piece == first { from as usize } else { usize::MAX };
            (*piece, partial, 0..end)
        });
        'pieces: for (piece, partial, range) in ahead.chain(behind) {
            looked += 1;
            if partial.parole != Parole::Anyone || partial.priority == Priority::Off || !may_ask(piece) {
                if looked >= AGAIN_LOOKS_MAX {
                    self.again_from = (piece, 0);
                    break;
                }
                continue;
            }
            for (state, index) in partial.blocks.iter().zip(0..).take(range.end).skip(range.start) {
                if chosen.len() - before == count || looked >= AGAIN_LOOKS_MAX {
                    self.again_from = (piece, index);
                    break 'pieces;
                }
                looked += 1;
                let has_room = state.asked.iter().any(Option::is_none);
                if has_room && state.stage == Stage::Missing && !state.is_free() && !state.asked.contains(&Some(conn)) {
                    chosen.push(self.geometry.block(piece, index));
                }
            }
        }
        steps::add(looked);
        for block in &chosen[before..] {
            let index = block.offset / BLOCK_LEN;
            let partial = self.pieces.get_mut(&block.piece).expect("it was just looked at");
            let asked = &mut partial.blocks[index as usize].asked;
            *asked.iter_mut().find(|place| place.is_none()).expect("it had room") = Some(conn);
            self.concerned.insert((conn, block.piece, index));
        }
    }

    /// The payload of `block` begins to come from `conn`: true if it may be written.
    pub fn land(&mut self, now: Time, block: Block, conn: ConnId, from: SocketAddr) -> bool {
        let geometry = self.geometry;
        let Some(index) = geometry.index_of(block) else { return false };
        let mut stalled = None;
        let taken = self.change(block.piece, |partial| {
            match partial.blocks[index as usize].stage {
                Stage::Stored { .. } => return false,
                Stage::Landing { since, .. }
                    if now.since(since) < LANDING_STALL && !sabotage::is_broken(Sabotage::TwoWriters) =>
                {
                    return false;
                }
                Stage::Landing { by, .. } => {
                    stalled = Some(by);
                    partial.take_back(&geometry, block);
                }
                Stage::Missing => {}
            }
            let state = &mut partial.blocks[index as usize];
            partial.free -= u32::from(state.is_free()); // asked, given up, and it comes after all
            state.stage = Stage::Landing { by: conn, from, got: 0, since: now };
            state.crc = 0;
            true
        });
        if taken == Some(true) {
            for conn in stalled.into_iter().chain([conn]) {
                self.note_concern(conn, block.piece, index);
            }
        }
        taken == Some(true)
    }

    /// Payload of a block that `conn` is landing, in order; false if it is not (any more).
    pub fn landed(&mut self, now: Time, block: Block, conn: ConnId, offset: u32, bytes: &[u8]) -> bool {
        let Some(index) = self.geometry.index_of(block) else { return false };
        let Some(partial) = self.pieces.get_mut(&block.piece) else { return false };
        let state = &mut partial.blocks[index as usize];
        let Stage::Landing { by, got, since, .. } = &mut state.stage else { return false };
        let len = u32::try_from(bytes.len()).expect("no longer than a block");
        if *by != conn || *got != offset || offset + len > block.len {
            return false;
        }
        *got += len;
        *since = now;
        state.crc = crc32c::crc32c_append(state.crc, bytes);
        if partial.running.len == block.offset + offset {
            if offset == 0 {
                partial.at_block = partial.running.clone();
            }
            partial.running.hasher.update(bytes);
            partial.running.len += len;
        }
        true
    }

    /// `block` is whole and written; others who were asked for it are appended to `others`. False if it was not landing.
    pub fn stored(&mut self, block: Block, conn: ConnId, others: &mut Vec<ConnId>) -> bool {
        let Some(index) = self.geometry.index_of(block) else { return false };
        let Some(partial) = self.pieces.get_mut(&block.piece) else { return false };
        let state = &mut partial.blocks[index as usize];
        match state.stage {
            Stage::Landing { by, from, got, .. } if by == conn && got == block.len => {
                state.stage = Stage::Stored { from: Some(from) };
                others.extend(state.asked.iter().flatten().filter(|&&asked| asked != conn));
                let asked = std::mem::replace(&mut state.asked, [None; REQUESTERS_MAX]);
                partial.stored += 1;
                if partial.is_full() {
                    self.full.insert(block.piece);
                }
                for conn in asked.into_iter().flatten().chain([conn]) {
                    self.concerned.remove(&(conn, block.piece, index));
                }
                true
            }
            _ => false,
        }
    }

    /// The payload of `block` that `conn` sends is thrown away: it will not send it again, and somebody must be asked should
    /// whoever is landing it never finish.
    pub fn refused(&mut self, block: Block, conn: ConnId) {
        let Some(index) = self.geometry.index_of(block) else { return };
        self.change(block.piece, |partial| partial.release(index, conn));
        self.note_concern(conn, block.piece, index);
    }

    /// `conn` will not send `block`.
    pub fn rejected(&mut self, block: Block, conn: ConnId) {
        let Some(index) = self.geometry.index_of(block) else { return };
        self.change(block.piece, |partial| {
            partial.release(index, conn);
            if partial.parole == Parole::Only(conn) {
                partial.parole = Parole::First;
            }
        });
        self.on_parole.remove(&(conn, block.piece));
        self.note_concern(conn, block.piece, index);
    }

    /// `conn` will send nothing more of what it was asked; what it had half sent counts for nothing. True if there are blocks now
    /// of which others may be asked.
    pub fn lost(&mut self, conn: ConnId) -> bool {
        self.last.remove(&conn);
        let geometry = self.geometry;
        let mut is_freed = false;
        while let Some(&(_, piece, index)) =
            self.concerned.range((conn, Piece(0), 0)..).next().filter(|of| of.0 == conn)
        {
            self.concerned.remove(&(conn, piece, index));
            is_freed |= self.change(piece, |partial| {
                let before = partial.free;
                if matches!(partial.blocks[index as usize].stage, Stage::Landing { by, .. } if by == conn) {
                    partial.take_back(&geometry, geometry.block(piece, index));
                }
                partial.release(index, conn);
                partial.free > before
            }) == Some(true);
            steps::add(4);
        }
        while let Some(&(_, piece)) = self.on_parole.range((conn, Piece(0))..).next().filter(|of| of.0 == conn) {
            self.on_parole.remove(&(conn, piece));
            is_freed |= self.change(piece, |partial| partial.parole = Parole::First).is_some();
        }
        is_freed
    }

    /// Takes out a piece in progress of which nothing is here, on its way or asked for, if there is one.
    pub fn take_untouched(&mut self) -> Option<Piece> {
        let piece = *self.untouched.first()?;
        self.take(piece);
        Some(piece)
    }

    /// True once every block of `piece` is stored.
    #[must_use]
    pub fn is_full(&self, piece: Piece) -> bool {
        self.pieces.get(&piece).is_some_and(Partial::is_full)
    }

    /// The hash of a full piece, if all of it was hashed on arrival or read back since.
    #[must_use]
    pub fn hash(&self, piece: Piece) -> Option<PieceHash> {
        let partial = self.pieces.get(&piece).filter(|partial| partial.is_full())?;
        (partial.running.len == self.geometry.len_of(piece)).then(|| partial.running.hasher.clone().finish())
    }

    /// A full piece that must be read back: the piece, where to go on, and how many bytes (`len_max` at most).
    #[must_use]
    pub fn next_unread(&self, len_max: u32) -> Option<(Piece, u32, u32)> {
        self.full.first().map(|&piece| {
            let from = self.pieces[&piece].running.len;
            (piece, from, len_max.min(self.geometry.len_of(piece) - from))
        })
    }

    /// The bytes that `next_unread` named.
    pub fn handle_read(&mut self, piece: Piece, mut bytes: &[u8]) {
        let geometry = self.geometry;
        let Some(partial) = self.pieces.get_mut(&piece) else { return };
        partial.running.hasher.update(bytes);
        while !bytes.is_empty() {
            let index = partial.running.len / BLOCK_LEN;
            let block = geometry.block(piece, index);
            let left = (block.offset + block.len - partial.running.len) as usize;
            let (of_block, rest) = bytes.split_at(left.min(bytes.len()));
            partial.read_crc = crc32c::crc32c_append(partial.read_crc, of_block);
            partial.running.len += u32::try_from(of_block.len()).expect("no more than a block");
            if of_block.len() == left {
                let state = &partial.blocks[index as usize];
                let came = matches!(state.stage, Stage::Stored { from: Some(_) });
                partial.spoilt |= came && state.crc != partial.read_crc;
                partial.read_crc = 0;
            }
            bytes = rest;
        }
    }

    /// True if a block of `piece` was read back otherwise than it came: whoever sent it is not to blame.
    #[must_use]
    pub fn is_spoilt(&self, piece: Piece) -> bool {
        self.pieces.get(&piece).is_some_and(|partial| partial.spoilt)
    }

    /// Takes a piece out; where each of its blocks came from.
    pub fn take(&mut self, piece: Piece) -> Option<Vec<BlockSource>> {
        let partial = self.pieces.remove(&piece)?;
        self.blocks -= partial.wanted_blocks();
        self.full.remove(&piece);
        self.untouched.remove(&piece);
        move_rank(&mut self.open, partial.rank(piece), None);
        for (state, index) in partial.blocks.iter().zip(0..) {
            for &conn in state.asked.iter().flatten() {
                self.concerned.remove(&(conn, piece, index));
            }
        }
        if let Parole::Only(conn) = partial.parole {
            self.on_parole.remove(&(conn, piece));
        }
        steps::add(partial.blocks.len());
        let source = |state: &BlockState| BlockSource {
            from: if let Stage::Stored { from } = state.stage { from } else { None },
            crc: state.crc,
        };
        Some(partial.blocks.iter().map(source).collect())
    }

    /// Pieces with stored blocks, and which those are: what the resume record keeps.
    #[must_use]
    pub fn stored_blocks(&self) -> Vec<(Piece, Bitfield)> {
        let begun = self.pieces.iter().filter(|(_, partial)| partial.stored > 0);
        begun.map(|(&piece, partial)| (piece, partial.stored_field())).collect()
    }

    /// Every block that is missing, and who was asked for it.
    pub fn asked(&self) -> impl Iterator<Item = (ConnId, Block)> {
        let geometry = self.geometry;
        self.pieces.iter().flat_map(move |(&piece, partial)| {
            let missing = partial.blocks.iter().zip(0..).filter(|(state, _)| state.stage == Stage::Missing);
            missing.flat_map(move |(state, index)| {
                state.asked.iter().flatten().map(move |&conn| (conn, geometry.block(piece, index)))
            })
        })
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        let mut blocks = 0;
        for (piece, partial) in &self.pieces {
            let stored = partial.blocks.iter().filter(|state| matches!(state.stage, Stage::Stored { .. })).count();
            let free = partial.blocks.iter().filter(|state| state.is_free()).count();
            assert_eq!(stored, partial.stored as usize, "stored blocks of piece {}", piece.0);
            assert_eq!(free, partial.free as usize, "free blocks of piece {}", piece.0);
            assert!(partial.running.len <= self.geometry.len_of(*piece));
            blocks += partial.wanted_blocks();
        }
        let reserved: usize = self.reserved.iter().map(|&piece| weight(&self.geometry, piece)).sum();
        assert_eq!(blocks + reserved, self.blocks);
        let open: BTreeSet<Rank> = self.pieces.iter().filter_map(|(&piece, partial)| partial.rank(piece)).collect();
        assert_eq!(open, self.open);
        let full = self.pieces.iter().filter(|(_, partial)| partial.is_full()).map(|(piece, _)| *piece);
        assert!(full.eq(self.full.iter().copied()), "full pieces");
        let untouched = self.pieces.iter().filter(|(_, partial)| partial.is_untouched()).map(|(piece, _)| *piece);
        assert!(untouched.eq(self.untouched.iter().copied()), "untouched pieces");
        let mut concerned = BTreeSet::new();
        let mut on_parole = BTreeSet::new();
        for (&piece, partial) in &self.pieces {
            for (state, index) in partial.blocks.iter().zip(0..) {
                assert!(index >= partial.first_free || !state.is_free(), "block {index} of piece {} is free", piece.0);
                let landing = if let Stage::Landing { by, .. } = state.stage { Some(by) } else { None };
                concerned.extend(state.asked.into_iter().flatten().chain(landing).map(|conn| (conn, piece, index)));
            }
            on_parole.extend(if let Parole::Only(conn) = partial.parole { Some((conn, piece)) } else { None });
        }
        assert_eq!(concerned, self.concerned);
        assert_eq!(on_parole, self.on_parole);
    }
}

/// What a wanted piece counts for.
fn weight(geometry: &Geometry, piece: Piece) -> usize {
    geometry.blocks_of(piece) as usize + PIECE_WEIGHT
}

/// A piece that was at `before` in the order is at `after` now.
fn move_rank(open: &mut BTreeSet<Rank>, before: Option<Rank>, after: Option<Rank>) {
    if before != after {
        before.map(|rank| open.remove(&rank));
        open.extend(after);
    }
}

impl Partial {
    /// Its place in the order; none if nobody is to be asked for any of it.
    fn rank(&self, piece: Piece) -> Option<Rank> {
        (self.free > 0 && self.priority != Priority::Off).then_some((Reverse(self.priority), self.free, piece))
    }

    /// What counts towards [`BLOCKS_MAX`].
    fn wanted_blocks(&self) -> usize {
        if self.priority == Priority::Off { 0 } else { self.blocks.len() + PIECE_WEIGHT }
    }

    fn is_full(&self) -> bool {
        self.stored as usize == self.blocks.len()
    }

    /// Nothing of it is here, on its way or asked for.
    fn is_untouched(&self) -> bool {
        self.free as usize == self.blocks.len()
    }

    fn is_open_to(&self, conn: ConnId) -> bool {
        self.free > 0 && (matches!(self.parole, Parole::Anyone | Parole::First) || self.parole == Parole::Only(conn))
    }

    /// Gives up a request of `conn`.
    fn release(&mut self, index: u32, conn: ConnId) {
        let state = &mut self.blocks[index as usize];
        let was_free = state.is_free();
        state.forget(conn);
        if state.is_free() && !was_free {
            self.note_free(index);
        }
    }

    /// Nobody is asked for the block at `index` any more.
    fn note_free(&mut self, index: u32) {
        self.free += 1;
        self.first_free = self.first_free.min(index);
    }

    /// A landing block counts for nothing any more.
    fn take_back(&mut self, geometry: &Geometry, block: Block) {
        let index = geometry.index_of(block).expect("it is one of ours");
        self.blocks[index as usize].stage = Stage::Missing;
        if self.blocks[index as usize].is_free() {
            self.note_free(index);
        }
        if self.running.len > block.offset {
            // `at_block` may be behind this block: several blocks can be whole and hashed before the first of them is stored.
            self.running = if self.at_block.len <= block.offset {
                self.at_block.clone()
            } else {
                Running { hasher: self.running.hasher.restarted(), len: 0 }
            };
        }
    }

    fn stored_field(&self) -> Bitfield {
        let mut field = Bitfield::new(u32::try_from(self.blocks.len()).expect("blocks of a piece"));
        for (state, index) in self.blocks.iter().zip(0..) {
            if matches!(state.stage, Stage::Stored { .. }) {
                field.set(index);
            }
        }
        field
    }
}

#[cfg(test)]
mod tests;
