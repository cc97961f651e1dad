//! Hashes that nobody outside can foresee: of addresses for tables, of info hashes for the table of swarms.

use std::hash::BuildHasher;

use siphasher::sip::SipHasher13;

use crate::base::rng::Rng;

/// Spreads hosts over the slots of a table. Two multiplications: whoever does not know the key cannot make hosts collide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mix {
    key: u64,
    factor: u64,
}

impl Mix {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { key: rng.u64(), factor: rng.u64() | 1 }
    }

    /// The first slot of a host in a table of `mask` + 1, a power of two.
    pub(super) fn slot(self, host: u64, mask: usize) -> usize {
        let (low, high) = (host ^ self.key).carrying_mul(self.factor, 0);
        let folded = low ^ high;
        usize::try_from(folded.wrapping_mul(self.factor) >> 32).expect("32 bits") & mask
    }
}

/// Builds the hashers of one table: SipHash-1-3 with a key of its own.
#[derive(Debug, Clone)]
pub(super) struct Keyed([u8; 16]);

impl Keyed {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self(rng.bytes())
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}
