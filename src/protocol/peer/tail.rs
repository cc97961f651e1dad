//! What was received of a message that is not complete: the only bytes that a connection keeps between two turns.

/// The bytes of an unfinished message. No longer than the message's own limit, which is judged at its prefix; payload of blocks is
/// never kept.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts what was kept at the front of `buf`; returns how many bytes that are.
    pub fn take_into(&mut self, buf: &mut [u8]) -> usize {
        let kept = std::mem::take(&mut self.0);
        buf[..kept.len()].copy_from_slice(&kept);
        kept.len()
    }

    /// Keeps `rest` until the next turn.
    pub fn keep(&mut self, rest: &[u8]) {
        self.0 = rest.to_vec();
    }
}
