//! [`LANES`] hashes at once by the SHA instructions of x86-64 processors.
//!
//! The unsafety is that of asking for instructions after looking whether they are there, and of loading sixteen bytes from an
//! array of sixteen. Words and rounds are those of FIPS 180-4; what a step does is described with the instructions, in Intel's
//! manual.
#![allow(unsafe_code, reason = "instructions that not every processor has")]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_xor_si128,
};

use crate::base::hash::{HashKind, PieceHash, Sha1Hash, Sha256Hash};
use crate::base::lanes::{LANES, UNIT};

/// `a` to `e` of SHA-1 before the first block (FIPS 180-4, 5.3.1), and three words that it has not.
const SHA1_BEGIN: [u32; 8] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0, 0, 0, 0];
/// `a` to `h` of SHA-256 before the first block (FIPS 180-4, 5.3.3).
const SHA256_BEGIN: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
/// What SHA-256 adds in each round, four by four (FIPS 180-4, 4.2.2).
const SHA256_K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// A vector for each lane.
type Vectors = [__m128i; LANES];
/// The last sixteen words of each lane's schedule, four by four in a ring.
type Words = [[__m128i; 4]; LANES];

/// The state of each lane. Made only where the instructions are.
#[derive(Clone)]
pub(super) struct States {
    kind: HashKind,
    lanes: [[u32; 8]; LANES],
    /// Bytes that each has taken.
    len: u64,
}

impl States {
    /// None where the processor lacks the instructions.
    pub(super) fn new(kind: HashKind) -> Option<Self> {
        let begin = match kind {
            HashKind::Sha1 => SHA1_BEGIN,
            HashKind::Sha256 => SHA256_BEGIN,
        };
        let can =
            is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1");
        can.then_some(Self { kind, lanes: [begin; LANES], len: 0 })
    }

    pub(super) fn update(&mut self, blocks: [&[[u8; UNIT]]; LANES]) {
        self.len += (blocks[0].len() * UNIT) as u64;
        // SAFETY: `new` made this, so the processor has the instructions.
        unsafe {
            match self.kind {
                HashKind::Sha1 => compress_sha1(&mut self.lanes, blocks),
                HashKind::Sha256 => compress_sha256(&mut self.lanes, blocks),
            }
        }
    }

    /// The end of a message (FIPS 180-4, 5.1.1) is a block of its own: what was taken filled whole ones.
    pub(super) fn finish(mut self) -> [PieceHash; LANES] {
        let mut last = [0; UNIT];
        last[0] = 0x80;
        last[UNIT - 8..].copy_from_slice(&(self.len * 8).to_be_bytes());
        self.update([&[last]; LANES]);
        self.lanes.map(|state| match self.kind {
            HashKind::Sha1 => PieceHash::Sha1(Sha1Hash(bytes_of(state))),
            HashKind::Sha256 => PieceHash::Sha256(Sha256Hash(bytes_of(state))),
        })
    }
}

fn bytes_of<const N: usize>(state: [u32; 8]) -> [u8; N] {
    let mut hash = [0; N];
    hash.as_chunks_mut::<4>().0.iter_mut().zip(state).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
    hash
}

/// The words of block `number` of each lane, each word's bytes in the order that `order` tells.
#[target_feature(enable = "ssse3")]
#[inline]
fn words_of(blocks: [&[[u8; UNIT]]; LANES], number: usize, order: __m128i) -> Words {
    let mut words = [[_mm_setzero_si128(); 4]; LANES];
    for (ring, blocks) in words.iter_mut().zip(blocks) {
        for (word, bytes) in ring.iter_mut().zip(blocks[number].as_chunks::<16>().0) {
            // SAFETY: sixteen bytes are read from an array of sixteen.
            *word = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }, order);
        }
    }
    words
}

/// Four of the eighty rounds of SHA-1 in every lane: the `i`th of twenty times. `abcd` and, from the times before, `before` are
/// the state.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn four_rounds<const FUNCTION: i32>(i: usize, abcd: &mut Vectors, before: &mut Vectors, words: &mut Words) {
    for lane in 0..LANES {
        let ring = &mut words[lane];
        if i >= 4 {
            let mixed = _mm_sha1msg1_epu32(ring[i % 4], ring[(i + 1) % 4]);
            ring[i % 4] = _mm_sha1msg2_epu32(_mm_xor_si128(mixed, ring[(i + 2) % 4]), ring[(i + 3) % 4]);
        }
        let word = ring[i % 4];
        // At first `before` holds `e` itself, later the `abcd` from which it comes.
        let e = if i == 0 { _mm_add_epi32(before[lane], word) } else { _mm_sha1nexte_epu32(before[lane], word) };
        before[lane] = abcd[lane];
        abcd[lane] = _mm_sha1rnds4_epu32::<FUNCTION>(abcd[lane], e);
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_sha1(states: &mut [[u32; 8]; LANES], blocks: [&[[u8; UNIT]]; LANES]) {
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    let begin = states.map(|state| state.map(u32::cast_signed));
    let mut abcd = begin.map(|[a, b, c, d, ..]| _mm_set_epi32(a, b, c, d));
    let mut e = begin.map(|state| _mm_set_epi32(state[4], 0, 0, 0));
    for number in 0..blocks[0].len() {
        let (abcd_before, e_before) = (abcd, e);
        let mut words = words_of(blocks, number, order);
        (0..5).for_each(|i| four_rounds::<0>(i, &mut abcd, &mut e, &mut words));
        (5..10).for_each(|i| four_rounds::<1>(i, &mut abcd, &mut e, &mut words));
        (10..15).for_each(|i| four_rounds::<2>(i, &mut abcd, &mut e, &mut words));
        (15..20).for_each(|i| four_rounds::<3>(i, &mut abcd, &mut e, &mut words));
        for lane in 0..LANES {
            e[lane] = _mm_sha1nexte_epu32(e[lane], e_before[lane]);
            abcd[lane] = _mm_add_epi32(abcd[lane], abcd_before[lane]);
        }
    }
    for (state, (abcd, e)) in states.iter_mut().zip(abcd.into_iter().zip(e)) {
        let [a, b, c, d] = highest_first(abcd);
        *state = [a, b, c, d, highest_first(e)[0], 0, 0, 0];
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_sha256(states: &mut [[u32; 8]; LANES], blocks: [&[[u8; UNIT]]; LANES]) {
    let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let begin = states.map(|state| state.map(u32::cast_signed));
    let mut abef = begin.map(|[a, b, _, _, e, f, ..]| _mm_set_epi32(a, b, e, f));
    let mut cdgh = begin.map(|[_, _, c, d, _, _, g, h]| _mm_set_epi32(c, d, g, h));
    for number in 0..blocks[0].len() {
        let (abef_before, cdgh_before) = (abef, cdgh);
        let mut words = words_of(blocks, number, order);
        for (i, k) in SHA256_K.iter().enumerate() {
            // SAFETY: sixteen bytes are read from an array of four words.
            let k = unsafe { _mm_loadu_si128(k.as_ptr().cast()) };
            for lane in 0..LANES {
                let ring = &mut words[lane];
                if i >= 4 {
                    let (last, before_last) = (ring[(i + 3) % 4], ring[(i + 2) % 4]);
                    let mixed = _mm_sha256msg1_epu32(ring[i % 4], ring[(i + 1) % 4]);
                    let mixed = _mm_add_epi32(mixed, _mm_alignr_epi8::<4>(last, before_last));
                    ring[i % 4] = _mm_sha256msg2_epu32(mixed, last);
                }
                let word = _mm_add_epi32(ring[i % 4], k);
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], word);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32::<0x0e>(word));
            }
        }
        for lane in 0..LANES {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    for (state, (abef, cdgh)) in states.iter_mut().zip(abef.into_iter().zip(cdgh)) {
        let ([a, b, e, f], [c, d, g, h]) = (highest_first(abef), highest_first(cdgh));
        *state = [a, b, c, d, e, f, g, h];
    }
}

/// The four words of a vector.
#[target_feature(enable = "sse4.1")]
#[inline]
fn highest_first(vector: __m128i) -> [u32; 4] {
    let words = [
        _mm_extract_epi32::<3>(vector),
        _mm_extract_epi32::<2>(vector),
        _mm_extract_epi32::<1>(vector),
        _mm_extract_epi32::<0>(vector),
    ];
    words.map(i32::cast_unsigned)
}
