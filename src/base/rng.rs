//! Chance, handed in: one cryptographic, seedable generator, forked by purpose.
//!
//! The driver seeds the first one (from the kernel in the programs, from a number in the simulator); every part
//! gets its own fork, so that what one part draws never changes what another one sees.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use sha2::{Digest, Sha256};

/// A random generator (ChaCha, 12 rounds). Equal seeds and equal calls give equal values.
pub struct Rng(State);

/// Its buffer of a few blocks is there only while it is in use: a sleeping torrent has four generators.
enum State {
    /// So many words of the seed's stream were drawn.
    Resting {
        seed: [u8; 32],
        drawn: u64,
    },
    InUse(Box<ChaCha12Rng>),
}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rng(..)") // the state would tell every secret still to be drawn
    }
}

impl Rng {
    /// The generator of a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(State::Resting { seed, drawn: 0 })
    }

    /// The generator of a number, for simulations and tests.
    #[must_use]
    pub fn from_number(seed: u64) -> Self {
        Self(State::InUse(Box::new(ChaCha12Rng::seed_from_u64(seed))))
    }

    fn generator(&mut self) -> &mut ChaCha12Rng {
        if let State::Resting { seed, drawn } = self.0 {
            let mut generator = ChaCha12Rng::from_seed(seed);
            generator.set_word_pos(u128::from(drawn));
            self.0 = State::InUse(Box::new(generator));
        }
        match &mut self.0 {
            State::InUse(generator) => generator,
            State::Resting { .. } => unreachable!("it was just taken into use"),
        }
    }

    /// Gives its memory back until something is drawn again, which is what would have been drawn anyway.
    pub fn rest(&mut self) {
        if let State::InUse(generator) = &self.0 {
            // A generator that has drawn more than 2⁶⁴ words is older than this machine.
            if let Ok(drawn) = u64::try_from(generator.get_word_pos()) {
                self.0 = State::Resting { seed: generator.get_seed(), drawn };
            }
        }
    }

    /// An independent generator for `purpose`; draws from this one.
    #[must_use]
    pub fn fork(&mut self, purpose: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.bytes::<32>());
        hasher.update(purpose.as_bytes());
        Self::from_seed(hasher.finalize().into())
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.generator().fill_bytes(&mut bytes);
        bytes
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.generator().fill_bytes(bytes);
    }

    /// A random `u32`.
    pub fn u32(&mut self) -> u32 {
        self.generator().next_u32()
    }

    /// A random `u64`.
    pub fn u64(&mut self) -> u64 {
        self.generator().next_u64()
    }

    /// A number in `0..bound`. The bias is below 2⁻⁶⁴ × `bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below zero");
        ((u128::from(self.generator().next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something of `len` entries.
    ///
    /// # Panics
    /// If `len` is zero.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// One entry of `slice`; none if it is empty.
    pub fn choose<'a, T>(&mut self, slice: &'a [T]) -> Option<&'a T> {
        if slice.is_empty() { None } else { Some(&slice[self.index(slice.len())]) }
    }

    /// Puts `slice` into a random order.
    pub fn shuffle<T>(&mut self, slice: &mut [T]) {
        for last in (1..slice.len()).rev() {
            let other = self.index(last + 1);
            slice.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_values_and_forks_differ() {
        let (mut a, mut b) = (Rng::from_number(7), Rng::from_number(7));
        assert_eq!(a.u64(), b.u64());
        let (mut picker, mut choker) = (a.fork("picker"), b.fork("choker"));
        assert_ne!(picker.u64(), choker.u64());
        assert_eq!(a.u64(), b.u64(), "a fork draws the same from its parent whatever its purpose");
    }

    #[test]
    fn who_rests_draws_what_it_would_have_drawn() {
        let (mut a, mut b) = (Rng::from_number(7).fork("x"), Rng::from_number(7).fork("x"));
        for round in 0..300_usize {
            let mut bytes = [vec![0; round % 7], vec![0; round % 7]];
            a.fill(&mut bytes[0]);
            b.fill(&mut bytes[1]);
            assert_eq!(bytes[0], bytes[1]);
            assert_eq!((a.u32(), a.below(1000)), (b.u32(), b.below(1000)), "round {round}");
            b.rest();
        }
    }

    #[test]
    fn below_stays_below_and_reaches_everything() {
        let mut rng = Rng::from_number(1);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[rng.index(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
