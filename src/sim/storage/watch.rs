//! Who writes what: a block has one writer, and what is whole, or claimed, is written no more.

use std::collections::BTreeMap;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::BLOCK_LEN;
use crate::base::ids::ConnId;
use crate::base::time::Time;
use crate::torrent::partial::LANDING_STALL;

/// Who writes a block, and how far it is; nobody if whoever did is gone.
#[derive(Debug, Clone, Copy)]
struct Writing {
    by: Option<ConnId>,
    until: u64,
    at: Time,
}

/// What is known of one content's writers since it was opened.
#[derive(Debug)]
pub(super) struct Watch {
    /// Bytes of the content, and of a piece.
    len: u64,
    piece_len: u64,
    /// Bytes of a block: no more than a piece.
    block_len: u64,
    /// The pieces that the engine says it has.
    claimed: Option<Bitfield>,
    /// By block of the content: what is being written.
    writing: BTreeMap<u32, Writing>,
    /// Blocks all of which was written, or all since a piece was wrong.
    written: Bitfield,
}

impl Watch {
    pub(super) fn new(len: u64, piece_len: u64) -> Self {
        let block_len = u64::from(BLOCK_LEN).min(piece_len);
        let blocks = u32::try_from(len.div_ceil(block_len)).expect("simulated content fits memory");
        Self { len, piece_len, block_len, claimed: None, writing: BTreeMap::new(), written: Bitfield::new(blocks) }
    }

    /// The content is closed: nobody writes, and nothing is claimed.
    pub(super) fn close(&mut self) {
        self.claimed = None;
        self.reopen();
    }

    /// The content is opened: nobody has written yet.
    pub(super) fn reopen(&mut self) {
        self.writing.clear();
        self.written.clear_all();
    }

    /// The engine claims these pieces; those of a second torrent of the content may have another length, and are passed over.
    pub(super) fn claim(&mut self, have: &Bitfield) {
        if u64::from(have.len()) == self.len.div_ceil(self.piece_len) {
            self.claimed = Some(have.clone());
        }
    }

    /// The engine claims something.
    pub(super) fn claims_any(&self) -> bool {
        self.claimed.as_ref().is_some_and(|claimed| claimed.count() > 0)
    }

    /// A piece was wrong: what was written whole may be written again.
    pub(super) fn fail(&mut self) {
        self.written.clear_all();
    }

    /// A connection is gone: what it wrote may be taken over.
    pub(super) fn forget(&mut self, conn: ConnId) {
        for writing in self.writing.values_mut().filter(|writing| writing.by == Some(conn)) {
            writing.by = None;
        }
    }

    /// Somebody writes: a block has one writer, and what is whole is written no more.
    pub(super) fn write(&mut self, now: Time, by: Option<ConnId>, offset: u64, len: u64) -> Result<(), String> {
        let mut at = offset;
        while at < offset + len {
            let block = u32::try_from(at / self.block_len).expect("simulated content fits memory");
            let start = u64::from(block) * self.block_len;
            let whole = (start + self.block_len).min(self.len);
            let end = whole.min(offset + len);
            let piece = at / self.piece_len;
            if self.claimed.as_ref().is_some_and(|claimed| claimed.get(u32::try_from(piece).expect("a piece"))) {
                return Err(format!("block {block} is written although piece {piece} is claimed"));
            }
            if self.written.get(block) {
                return Err(format!("block {block} is written although all of it was"));
            }
            let before = self.writing.get(&block).copied().unwrap_or(Writing { by, until: start, at: now });
            let is_taken_over = before.by != by;
            if is_taken_over && before.by.is_some() && now.since(before.at) < LANDING_STALL {
                return Err(format!("block {block} is written by two at once: {:?} and {by:?}", before.by));
            }
            let until = if is_taken_over { start } else { before.until };
            if at != until && at != start {
                return Err(format!("block {block} is written at {at}, not at {until}"));
            }
            if end == whole {
                self.written.set(block);
                self.writing.remove(&block);
            } else {
                self.writing.insert(block, Writing { by, until: end, at: now });
            }
            at = end;
        }
        Ok(())
    }
}
