//! What one connection has still to send: encoded bytes and spans of content, in the order they were pushed.
//!
//! Content is only named here; whoever sends it takes it from the storage, straight from a mapped file where that can
//! be. Nothing is allocated for a message in the steady state, and nothing is held once [`Outbuf::release`] was called
//! on an empty one.

use std::collections::VecDeque;

use crate::base::geometry::Span;
use crate::base::ids::StoreId;
use crate::base::steps;
use crate::base::storage::Chunk;

/// Encoded bytes that may wait. Above it the connection is not read until they have drained, so that no stranger makes us
/// queue answers without end.
pub const ENCODED_MAX: usize = 64 * 1024;

/// Room that an empty buffer keeps for the next message; more goes back at once.
const KEPT_BYTES: usize = 2048;
/// Room for parts that an empty buffer keeps; more goes back at once.
const KEPT_PARTS: usize = 32;
/// Sent bytes at the front are dropped when they are at least so many and half of all.
const COMPACT_BYTES: usize = 4096;

/// A run of one kind.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// So many of the encoded bytes.
    Bytes(usize),
    /// Content. Shrinks from the front as it is sent.
    Content(StoreId, Span),
}

/// The queue. The `Bytes` parts together are just what `bytes` holds beyond `sent`; no part is empty, no two `Bytes` are
/// neighbours.
#[derive(Debug, Default)]
pub struct Outbuf {
    bytes: Vec<u8>,
    /// How many of `bytes`, from the front, have been sent.
    sent: usize,
    parts: VecDeque<Part>,
    content_bytes: u64,
}

impl Outbuf {
    /// Queues encoded bytes.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.push_with(|out| out.extend_from_slice(bytes));
    }

    /// Queues what `write` appends, with no copy in between.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let more = self.bytes.len() - before;
        steps::add_bytes(more);
        match self.parts.back_mut() {
            _ if more == 0 => {}
            Some(Part::Bytes(len)) => *len += more,
            _ => self.parts.push_back(Part::Bytes(more)),
        }
    }

    /// Queues a span of content; an empty one is nothing.
    pub fn push_content(&mut self, store: StoreId, span: Span) {
        if span.len > 0 {
            self.parts.push_back(Part::Content(store, span));
            self.content_bytes += span.len;
        }
    }

    /// Appends to `chunks` what should be sent next: at most `max_chunks` of them, `max_bytes` together.
    pub fn chunks<'a>(&'a self, max_chunks: usize, max_bytes: usize, chunks: &mut Vec<Chunk<'a>>) {
        let mut encoded = &self.bytes[self.sent..];
        let mut left = max_bytes;
        steps::add(self.parts.len().min(max_chunks));
        for part in self.parts.iter().take(max_chunks) {
            if left == 0 {
                break;
            }
            match *part {
                Part::Bytes(len) => {
                    let (bytes, after) = encoded.split_at(len);
                    encoded = after;
                    let bytes = &bytes[..len.min(left)];
                    left -= bytes.len();
                    chunks.push(Chunk::Bytes(bytes));
                }
                Part::Content(store, span) => {
                    let len = span.len.min(left as u64);
                    left -= usize::try_from(len).expect("at most what is left");
                    chunks.push(Chunk::Content(store, Span { offset: span.offset, len }));
                }
            }
        }
    }

    /// Says that the first `count` bytes have been sent. Returns how many of them were content.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) -> u64 {
        let mut left = count;
        let mut content = 0;
        while left > 0 {
            match self.parts.front_mut().expect("no more was sent than was queued") {
                Part::Bytes(len) => {
                    let gone = left.min(*len);
                    *len -= gone;
                    left -= gone;
                    self.sent += gone;
                    if *len == 0 {
                        self.parts.pop_front();
                    }
                }
                Part::Content(_, span) => {
                    let gone = span.len.min(left as u64);
                    span.offset += gone;
                    span.len -= gone;
                    left -= usize::try_from(gone).expect("at most what is left");
                    content += gone;
                    if span.len == 0 {
                        self.parts.pop_front();
                    }
                }
            }
        }
        self.content_bytes -= content;
        self.compact();
        content
    }

    fn compact(&mut self) {
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.sent = 0;
        } else if self.sent >= COMPACT_BYTES && self.sent >= self.bytes.len() / 2 {
            steps::add_bytes(self.encoded_len());
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        if self.parts.is_empty() {
            self.parts.shrink_to(KEPT_PARTS);
        }
    }

    /// Encoded bytes still to be sent.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Bytes of content still to be sent.
    #[must_use]
    pub fn content_len(&self) -> u64 {
        self.content_bytes
    }

    /// True while more than [`ENCODED_MAX`] encoded bytes wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.encoded_len() > ENCODED_MAX
    }

    /// True if there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Gives the memory of an empty buffer back; nothing otherwise.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ids::StoreId;

    fn store() -> StoreId {
        StoreId::from_bits(5)
    }

    /// What `chunks` would put on the wire: bytes as they are, content as its offsets modulo 251.
    fn flatten(chunks: &[Chunk<'_>]) -> Vec<u8> {
        let mut flat = Vec::new();
        for chunk in chunks {
            match chunk {
                Chunk::Bytes(bytes) => flat.extend_from_slice(bytes),
                Chunk::Content(_, span) => flat.extend((span.offset..span.end()).map(|at| (at % 251) as u8)),
            }
        }
        flat
    }

    #[test]
    fn messages_coalesce_and_content_stays_between_them() {
        let mut out = Outbuf::default();
        out.push_bytes(b"ab");
        out.push_bytes(b"cd");
        out.push_content(store(), Span { offset: 100, len: 10 });
        out.push_bytes(b"ef");
        let mut chunks = Vec::new();
        out.chunks(16, 1000, &mut chunks);
        assert_eq!(chunks.len(), 3);
        assert!(matches!(chunks[0], Chunk::Bytes(b"abcd")));
        assert!(matches!(chunks[1], Chunk::Content(_, Span { offset: 100, len: 10 })));
        assert!(matches!(chunks[2], Chunk::Bytes(b"ef")));
        assert_eq!((out.encoded_len(), out.content_len()), (6, 10));
        assert_eq!(out.advance(7), 3, "the first three bytes of content went");
        chunks = Vec::new();
        out.chunks(1, 1000, &mut chunks);
        assert!(matches!(chunks[..], [Chunk::Content(_, Span { offset: 103, len: 7 })]));
        assert_eq!(out.advance(9), 7);
        assert!(out.is_empty() && out.encoded_len() == 0 && out.content_len() == 0);
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back() {
        let mut out = Outbuf::default();
        out.push_bytes(&[1; 100_000]);
        assert!(out.is_full());
        out.advance(100_000);
        assert!(out.bytes.capacity() <= KEPT_BYTES);
        out.release();
        assert_eq!((out.bytes.capacity(), out.parts.capacity()), (0, 0));
    }

    #[test]
    fn a_buffer_that_is_never_empty_does_not_grow() {
        let mut out = Outbuf::default();
        out.push_bytes(b"x");
        for _ in 0..100_000 {
            out.push_bytes(&[7; 17]);
            out.advance(17);
        }
        assert!(out.bytes.capacity() < 4 * COMPACT_BYTES, "{}", out.bytes.capacity());
    }

    proptest! {
        #[test]
        fn whatever_is_pushed_leaves_in_order_however_it_is_taken(
            pushes in proptest::collection::vec((any::<bool>(), 0u64..300, 0usize..40), 0..30),
            takes in proptest::collection::vec((1usize..5, 1usize..100), 1..20),
        ) {
            let (mut out, mut expected, mut content) = (Outbuf::default(), Vec::new(), 0);
            for (is_content, offset, len) in pushes {
                if is_content {
                    let span = Span { offset, len: len as u64 };
                    out.push_content(store(), span);
                    expected.extend(flatten(&[Chunk::Content(store(), span)]));
                    content += span.len;
                } else {
                    out.push_bytes(&vec![(offset % 251) as u8; len]);
                    expected.extend(vec![(offset % 251) as u8; len]);
                }
            }
            let (mut sent, mut sent_content) = (Vec::new(), 0);
            for (max_chunks, max_bytes) in takes.into_iter().cycle() {
                let mut chunks = Vec::new();
                out.chunks(max_chunks, max_bytes, &mut chunks);
                let some = flatten(&chunks);
                if some.is_empty() {
                    break;
                }
                prop_assert!(some.len() <= max_bytes && chunks.len() <= max_chunks);
                sent_content += out.advance(some.len());
                sent.extend(some);
            }
            prop_assert!(out.is_empty());
            prop_assert_eq!(sent, expected);
            prop_assert_eq!(sent_content, content);
        }
    }
}
