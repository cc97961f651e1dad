//! What a call costs, counted in steps, so that a test can compare it with a bound and get the same result in every run.
//!
//! A step is roughly 20 ns of work: a look at one piece, block, peer, file or value in a loop, or at 64 bytes of a sequential
//! pass. Every loop whose length a stranger can choose calls [`add`], once for the whole loop where its length is known. The
//! simulator takes the count after every event and compares it with [`TURN_MAX`]; work in slices ends its slice by it.
//!
//! The count belongs to the thread, because the code that counts is far below the code that asks, and there is one engine a thread.

use std::cell::Cell;

/// Steps that one call of the engine may take: about 2 ms.
pub const TURN_MAX: u64 = 100_000;

/// Bytes of a sequential pass that count as one step.
pub const BYTES_PER_STEP: usize = 64;

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Counts so many steps.
pub fn add(steps: usize) {
    STEPS.set(STEPS.get().saturating_add(steps as u64));
}

/// Counts a sequential pass over so many bytes.
pub fn add_bytes(bytes: usize) {
    add(bytes / BYTES_PER_STEP + 1);
}

/// Steps since the last [`take`].
#[must_use]
pub fn so_far() -> u64 {
    STEPS.get()
}

/// Steps since the last call; the next one begins at zero.
pub fn take() -> u64 {
    STEPS.take()
}

/// Steps that a slice of work may take before it ends. What it spends is counted by [`add`], too.
#[derive(Debug)]
pub struct Allowance {
    left: u64,
}

impl Allowance {
    /// An allowance of so many steps.
    #[must_use]
    pub const fn new(steps: u64) -> Self {
        Self { left: steps }
    }

    /// An allowance that never ends, for tools and tests.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self { left: u64::MAX }
    }

    /// Spends so many steps.
    pub fn spend(&mut self, steps: usize) {
        add(steps);
        self.left = self.left.saturating_sub(steps as u64);
    }

    /// Spends a sequential pass over so many bytes.
    pub fn spend_bytes(&mut self, bytes: usize) {
        self.spend(bytes / BYTES_PER_STEP + 1);
    }

    /// Whether the slice is to end.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_until_they_are_taken() {
        take();
        add(3);
        add_bytes(64 * 10);
        assert_eq!((so_far(), take(), take()), (14, 14, 0));
    }
}
