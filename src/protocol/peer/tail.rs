//! What was received and not yet stepped through: the only bytes that a connection keeps between two turns.

/// The bytes of an unfinished message, and before them what the turn did not get to because it had taken its steps: no more than one
/// read. An unfinished message is no longer than its own limit, which is judged at its prefix; of payload of blocks nothing is kept but
/// what such a turn left.
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
