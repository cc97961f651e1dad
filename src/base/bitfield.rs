//! A set of pieces (or blocks) with a fixed size, in the layout of BEP 3's `bitfield`: the high bit of byte 0 is index 0.

use crate::base::steps;

/// A fixed number of bits. Spare bits of the last byte are always zero. Keeps its count of ones.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bitfield {
    bytes: Box<[u8]>,
    len: u32,
    ones: u32,
}

impl std::fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitfield({} of {})", self.ones, self.len)
    }
}

impl Bitfield {
    /// `len` zeros.
    #[must_use]
    pub fn new(len: u32) -> Self {
        steps::add_bytes(len as usize / 8);
        Self { bytes: vec![0; len.div_ceil(8) as usize].into(), len, ones: 0 }
    }

    /// `len` ones.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut field = Self::new(len);
        field.set_all();
        field
    }

    /// What a stranger says it has: None unless `bytes` has just the right length and its spare bits are zero (BEP 3).
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        let spare = (8 - len % 8) % 8;
        if bytes.last().is_some_and(|last| last & !(0xff_u8 << spare) != 0) {
            return None;
        }
        steps::add_bytes(2 * bytes.len());
        let ones = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(Self { bytes: bytes.into(), len, ones })
    }

    /// The bytes as `bitfield` carries them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bits there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// True if there are no bits at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bits are one.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.ones
    }

    /// How many bits of `range` are one. Costs a look at each byte of the range.
    #[must_use]
    pub fn count_in(&self, range: std::ops::Range<u32>) -> u32 {
        let (start, end) = (range.start.min(self.len), range.end.min(self.len));
        if start >= end {
            return 0;
        }
        let (first, last) = (start as usize / 8, (end as usize - 1) / 8);
        let (head, tail) = (0xff_u8 >> (start % 8), 0xff_u8 << ((8 - end % 8) % 8));
        if first == last {
            return (self.bytes[first] & head & tail).count_ones();
        }
        let between = &self.bytes[first + 1..last];
        let (words, rest) = between.as_chunks::<8>();
        let whole: u32 = words.iter().map(|word| u64::from_be_bytes(*word).count_ones()).sum();
        let rest: u32 = rest.iter().map(|byte| byte.count_ones()).sum();
        (self.bytes[first] & head).count_ones() + whole + rest + (self.bytes[last] & tail).count_ones()
    }

    /// True if every bit is one.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// The bit at `index`; false outside.
    #[must_use]
    pub fn get(&self, index: u32) -> bool {
        index < self.len && self.bytes[index as usize / 8] & (0x80 >> (index % 8)) != 0
    }

    /// Sets the bit at `index` to one; true if it was zero.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn set(&mut self, index: u32) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        let (byte, mask) = (&mut self.bytes[index as usize / 8], 0x80 >> (index % 8));
        let changed = *byte & mask == 0;
        *byte |= mask;
        self.ones += u32::from(changed);
        changed
    }

    /// Sets the bit at `index` to zero; true if it was one.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn clear(&mut self, index: u32) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        let (byte, mask) = (&mut self.bytes[index as usize / 8], 0x80 >> (index % 8));
        let changed = *byte & mask != 0;
        *byte &= !mask;
        self.ones -= u32::from(changed);
        changed
    }

    /// Sets every bit to one.
    pub fn set_all(&mut self) {
        steps::add_bytes(self.bytes.len());
        self.bytes.fill(0xff);
        let spare = (8 - self.len % 8) % 8;
        if let Some(last) = self.bytes.last_mut() {
            *last &= 0xff << spare;
        }
        self.ones = self.len;
    }

    /// Sets every bit to zero.
    pub fn clear_all(&mut self) {
        steps::add_bytes(self.bytes.len());
        self.bytes.fill(0);
        self.ones = 0;
    }

    /// The indexes of the ones, in order.
    pub fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        steps::add_bytes(self.bytes.len());
        bits(self.len, 0, |index| self.word(index))
    }

    /// The indexes at or after `from` that are ones in both fields, in order. Both must have the same length.
    pub fn ones_in_both<'f>(&'f self, other: &'f Self, from: u32) -> impl Iterator<Item = u32> + 'f {
        debug_assert_eq!(self.len, other.len, "two fields of one torrent");
        bits(self.len, from, |index| self.word(index) & other.word(index))
    }

    /// The indexes at or after `from` that are zeros in all of `fields`, in order. All must have the same length.
    pub fn zeros_in_all<'f, const N: usize>(fields: [&'f Self; N], from: u32) -> impl Iterator<Item = u32> + 'f {
        bits(fields[0].len, from, move |index| !fields.iter().fold(0, |ones, field| ones | field.word(index)))
    }

    /// True if all bits of `range` are ones.
    #[must_use]
    pub fn is_full_in(&self, range: std::ops::Range<u32>) -> bool {
        Self::zeros_in_all([self], range.start).next().is_none_or(|zero| zero >= range.end)
    }

    /// Bits `64 * index` to `64 * index + 63`, the first one highest; zeros behind the end.
    fn word(&self, index: u32) -> u64 {
        let rest = self.bytes.get(index as usize * 8..).unwrap_or_default();
        rest.first_chunk::<8>().map_or_else(
            || {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                u64::from_be_bytes(last)
            },
            |word| u64::from_be_bytes(*word),
        )
    }

    /// A field with a one wherever this one has a zero.
    #[must_use]
    pub fn complement(&self) -> Self {
        steps::add_bytes(self.bytes.len());
        let mut field =
            Self { bytes: self.bytes.iter().map(|byte| !byte).collect(), len: self.len, ones: self.len - self.ones };
        let spare = (8 - self.len % 8) % 8;
        if let Some(last) = field.bytes.last_mut() {
            *last &= 0xff << spare;
        }
        field
    }

    /// The indexes of the zeros, in order.
    pub fn zeros(&self) -> impl Iterator<Item = u32> + '_ {
        Self::zeros_in_all([self], 0)
    }

    /// Sets every bit that `other` has. Both must have the same length.
    pub fn add_all(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len, "two fields of one torrent");
        steps::add_bytes(2 * self.bytes.len());
        self.ones = 0;
        for (mine, theirs) in self.bytes.iter_mut().zip(&other.bytes) {
            *mine |= theirs;
            self.ones += mine.count_ones();
        }
    }

    /// The first index at or after `from` that is a one here, a zero in `other`, and a one in `among` if that is given. All must
    /// have the same length.
    #[must_use]
    pub fn first_beyond(&self, other: &Self, among: Option<&Self>, from: u32) -> Option<u32> {
        debug_assert_eq!(self.len, other.len, "two fields of one torrent");
        let among = |index| among.map_or(u64::MAX, |among| among.word(index));
        let found = bits(self.len, from, |index| self.word(index) & !other.word(index) & among(index)).next();
        steps::add_bytes((found.unwrap_or(self.len).saturating_sub(from) / 8) as usize);
        found
    }
}

/// The indexes of the ones at or after `from` and below `len`, in order, of a field whose words (as in [`Bitfield::word`]) are these.
fn bits<'f>(len: u32, from: u32, word: impl Fn(u32) -> u64 + 'f) -> impl Iterator<Item = u32> + 'f {
    let first = from / 64;
    let ones = (first..len.div_ceil(64)).flat_map(move |index| {
        let mut rest = word(index);
        if index == first {
            rest &= u64::MAX >> (from % 64);
        }
        std::iter::from_fn(move || {
            let bit = rest.leading_zeros();
            rest &= !(1_u64 << 63).checked_shr(bit).unwrap_or(0);
            (bit < 64).then_some(index * 64 + bit)
        })
    });
    ones.take_while(move |bit| *bit < len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_beyond_another_field_is_found_wherever_it_is() {
        let mut other = Bitfield::full(150);
        let all = Bitfield::full(150);
        assert_eq!(all.first_beyond(&other, None, 0), None);
        for bit in 0..150 {
            other.clear(bit);
            assert_eq!(all.first_beyond(&other, None, 0), Some(bit));
            assert_eq!(all.first_beyond(&other, None, bit), Some(bit));
            assert_eq!(all.first_beyond(&other, None, bit + 1), None);
            assert_eq!(all.first_beyond(&other, Some(&other), 0), None, "{bit} is not among the others");
            assert_eq!(other.first_beyond(&all, None, 0), None);
            other.set(bit);
        }
    }

    #[test]
    fn ones_of_a_range_are_counted_wherever_it_begins_and_ends() {
        let mut field = Bitfield::new(150);
        (0..150).filter(|bit| bit % 3 == 0 || bit % 7 == 2).for_each(|bit| _ = field.set(bit));
        for start in 0..152 {
            for end in 0..152 {
                let expected = (start..end).filter(|bit| field.get(*bit)).count();
                assert_eq!(field.count_in(start..end) as usize, expected, "{start}..{end}");
            }
        }
    }

    #[test]
    fn bits_are_numbered_from_the_high_end_and_counted() {
        let mut field = Bitfield::new(10);
        assert!(field.set(0) && field.set(9) && !field.set(9));
        assert_eq!(field.as_bytes(), [0x80, 0x40]);
        assert_eq!(field.ones().collect::<Vec<_>>(), [0, 9]);
        assert_eq!(field.zeros().count(), 8);
        assert_eq!((field.count(), field.get(10)), (2, false));
        assert!(field.clear(0) && !field.clear(0));
        assert_eq!(field.count(), 1);
        field.set_all();
        assert!(field.is_full() && field.as_bytes() == [0xff, 0xc0]);
        assert_eq!(field, Bitfield::full(10));
    }

    #[test]
    fn ones_in_both_begin_at_any_bit_and_end_with_the_field() {
        for len in [1, 63, 64, 65, 130] {
            let (mut mine, mut theirs) = (Bitfield::new(len), Bitfield::full(len));
            for bit in (0..len).step_by(3) {
                mine.set(bit);
            }
            theirs.clear(0);
            for from in 0..=len {
                let expected: Vec<u32> = (from.max(1)..len).filter(|bit| bit.is_multiple_of(3)).collect();
                assert_eq!(mine.ones_in_both(&theirs, from).collect::<Vec<_>>(), expected, "{len} {from}");
            }
            let (rest, none) = (mine.complement(), Bitfield::new(len));
            for from in 0..=len {
                let zeros: Vec<u32> = (from..len).filter(|bit| !bit.is_multiple_of(3)).collect();
                assert_eq!(Bitfield::zeros_in_all([&mine, &none], from).collect::<Vec<_>>(), zeros, "{len} {from}");
            }
            assert!((0..len).all(|bit| rest.get(bit) != mine.get(bit)) && rest.count() == len - mine.count());
            assert_eq!(rest.complement(), mine);
        }
    }

    #[test]
    fn a_strangers_field_must_have_the_right_length_and_no_spare_bits() {
        assert!(Bitfield::from_bytes(&[0xff, 0xc0], 10).is_some_and(|field| field.is_full()));
        assert!(Bitfield::from_bytes(&[0xff, 0xe0], 10).is_none());
        assert!(Bitfield::from_bytes(&[0xff], 10).is_none());
        assert!(Bitfield::from_bytes(&[0xff], 8).is_some());
        assert!(Bitfield::from_bytes(&[], 0).is_some());
    }
}
