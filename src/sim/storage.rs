//! Content in memory.

use std::io::{self, IoSlice, Write};

use crate::base::arena::Arena;
use crate::base::geometry::Span;
use crate::base::ids::{StoreId, StoreKey};
use crate::base::storage::{Chunk, Content, Fault, FaultKind, SendError, Stamp, Storage};
use crate::sim::node::SimStream;

/// All content of one simulated node.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    stores: Arena<StoreKey, Memory>,
}

#[derive(Debug)]
struct Memory {
    content: Content,
    bytes: Vec<u8>,
    /// True for each page that was ever written.
    written: Vec<bool>,
}

/// Holes are known to this many bytes.
const PAGE_LEN: u64 = 4096;

impl MemoryStorage {
    /// The bytes of a store, for those who check them or lay them there.
    ///
    /// # Panics
    /// If it is not open.
    pub fn bytes_mut(&mut self, store: StoreId) -> &mut [u8] {
        &mut self.stores.get_mut(store).expect("an open store").bytes
    }

    /// The stores, oldest slot first.
    pub fn ids(&self) -> impl Iterator<Item = StoreId> {
        self.stores.ids()
    }

    /// Lays `bytes` into a store as if they had been there before.
    ///
    /// # Panics
    /// If it is not open or `bytes` is not its whole content.
    pub fn fill(&mut self, store: StoreId, bytes: &[u8]) {
        let memory = self.stores.get_mut(store).expect("an open store");
        memory.bytes.copy_from_slice(bytes);
        memory.written.fill(true);
    }

    fn range(&self, store: StoreId, offset: u64, len: u64) -> Result<&[u8], Fault> {
        let gone = || Fault { kind: FaultKind::Gone, message: "the simulated content is not open".into() };
        let memory = self.stores.get(store).ok_or_else(gone)?;
        let start = usize::try_from(offset).map_err(|_| gone())?;
        let end = usize::try_from(offset + len).map_err(|_| gone())?;
        memory.bytes.get(start..end).ok_or_else(gone)
    }
}

impl Storage for MemoryStorage {
    type Stream = SimStream;

    fn open(&mut self, content: Content) -> StoreId {
        let len = content.files.total_len();
        let bytes = vec![0; usize::try_from(len).expect("simulated content fits memory")];
        let written = vec![false; usize::try_from(len.div_ceil(PAGE_LEN)).expect("as above")];
        self.stores.insert(Memory { content, bytes, written })
    }

    fn close(&mut self, store: StoreId) {
        self.stores.remove(store);
    }

    fn set_wanted(&mut self, store: StoreId, wanted: &[bool]) {
        if let Some(memory) = self.stores.get_mut(store) {
            memory.content.wanted = wanted.to_vec();
        }
    }

    fn prepare(&mut self, store: StoreId, span: Span) -> Result<(), Fault> {
        self.range(store, span.offset, span.len).map(|_| ())
    }

    fn write(&mut self, store: StoreId, offset: u64, bytes: &[IoSlice<'_>]) -> Result<(), Fault> {
        let len: usize = bytes.iter().map(|slice| slice.len()).sum();
        self.range(store, offset, len as u64)?;
        let memory = self.stores.get_mut(store).expect("it has a range");
        let mut at = usize::try_from(offset).expect("it has a range");
        for slice in bytes {
            memory.bytes[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        let first = usize::try_from(offset / PAGE_LEN).expect("it has a range");
        let after = usize::try_from((offset + len as u64).div_ceil(PAGE_LEN)).expect("it has a range");
        memory.written[first..after].fill(true);
        Ok(())
    }

    fn read(&mut self, store: StoreId, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        buf.copy_from_slice(self.range(store, offset, buf.len() as u64)?);
        Ok(())
    }

    fn expect(&mut self, _store: StoreId, _span: Span) {}

    fn resident(&mut self, _store: StoreId, _span: Span) -> bool {
        true
    }

    fn send(&mut self, stream: &mut SimStream, chunks: &[Chunk<'_>]) -> Result<usize, SendError> {
        let mut moved = 0;
        for chunk in chunks {
            let bytes = match *chunk {
                Chunk::Bytes(bytes) => bytes,
                Chunk::Content(store, span) => match self.range(store, span.offset, span.len) {
                    Ok(bytes) => bytes,
                    Err(_) if moved > 0 => return Ok(moved),
                    Err(fault) => return Err(SendError::Content(store, fault)),
                },
            };
            match stream.write(bytes) {
                Ok(taken) => {
                    moved += taken;
                    if taken < bytes.len() {
                        return Ok(moved);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && moved > 0 => return Ok(moved),
                Err(error) => return Err(SendError::Stream(error)),
            }
        }
        Ok(moved)
    }

    fn has_data(&mut self, store: StoreId, span: Span) -> bool {
        self.stores.get(store).is_some_and(|memory| {
            let (first, after) = (span.offset / PAGE_LEN, span.end().div_ceil(PAGE_LEN));
            (first..after).any(|page| usize::try_from(page).is_ok_and(|page| memory.written.get(page) == Some(&true)))
        })
    }

    fn stamp(&mut self, store: StoreId, file: usize) -> Option<Stamp> {
        let memory = self.stores.get(store)?;
        let entry = memory.content.files.entries().get(file)?;
        Some(Stamp { len: entry.span.len, ..Stamp::default() })
    }
}
