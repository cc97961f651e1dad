//! Stamps of the files of a torrent, packed: a record of a million files is written again and again while they change, and most
//! of them are not there, or were made one after another.
//!
//! A list is a sequence of integers, seven bits a byte with the lowest first, the highest bit set in all bytes but the last:
//! `0 N` is N files that are not there; `1 LEN TIME INODE` is a file, with the differences of its time and its inode to the file
//! before it, the sign in the lowest bit.

use crate::base::storage::Stamp;

/// Bytes of the longest integer.
const INTEGER_LEN_MAX: usize = 10;

/// Stamps by file, packed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackedStamps {
    bytes: Vec<u8>,
    count: usize,
}

impl PackedStamps {
    /// Packs the stamps of all files, in order; [`Stamp::default`] is a file that is not there.
    #[must_use]
    pub fn pack(stamps: impl IntoIterator<Item = Stamp>) -> Self {
        let (mut bytes, mut count, mut absent) = (Vec::new(), 0, 0);
        let mut before = Stamp::default();
        for stamp in stamps {
            count += 1;
            if stamp == Stamp::default() {
                absent += 1;
                continue;
            }
            write_absent(&mut bytes, &mut absent);
            bytes.push(1);
            write_integer(&mut bytes, stamp.len);
            write_integer(&mut bytes, zigzag(stamp.modified_nanos.wrapping_sub(before.modified_nanos)));
            write_integer(&mut bytes, zigzag(stamp.inode.wrapping_sub(before.inode).cast_signed()));
            before = stamp;
        }
        write_absent(&mut bytes, &mut absent);
        Self { bytes, count }
    }

    /// Reads a packed list of at most `most` files. `None` if it is damaged, or longer.
    #[must_use]
    pub fn parse(bytes: &[u8], most: usize) -> Option<Self> {
        let mut count = 0_usize;
        let mut rest = bytes;
        while let Some(run) = read_run(&mut rest, &mut Stamp::default())? {
            count = count.checked_add(run.len()).filter(|count| *count <= most)?;
        }
        Some(Self { bytes: bytes.to_vec(), count })
    }

    /// The packed list.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many files there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// True if there is no file.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The stamps of all files.
    #[must_use]
    pub fn unpack(&self) -> Vec<Stamp> {
        let mut stamps = Vec::with_capacity(self.count);
        let (mut rest, mut before) = (&self.bytes[..], Stamp::default());
        while let Some(Some(run)) = read_run(&mut rest, &mut before) {
            match run {
                Run::Absent(count) => stamps.resize(stamps.len() + count, Stamp::default()),
                Run::File => stamps.push(before),
            }
        }
        stamps
    }
}

impl FromIterator<Stamp> for PackedStamps {
    fn from_iter<I: IntoIterator<Item = Stamp>>(stamps: I) -> Self {
        Self::pack(stamps)
    }
}

/// What stands at one place of the list.
enum Run {
    /// So many files that are not there.
    Absent(usize),
    /// One file.
    File,
}

impl Run {
    const fn len(&self) -> usize {
        if let Self::Absent(count) = self { *count } else { 1 }
    }
}

/// Takes the next run from the front of `rest`, and makes the stamp before it that of its file. `Some(None)` at the end, `None`
/// if the list is damaged.
fn read_run(rest: &mut &[u8], before: &mut Stamp) -> Option<Option<Run>> {
    if rest.is_empty() {
        return Some(None);
    }
    let run = match read_integer(rest)? {
        0 => Run::Absent(usize::try_from(read_integer(rest)?).ok()?),
        1 => {
            before.len = read_integer(rest)?;
            before.modified_nanos = before.modified_nanos.wrapping_add(unzigzag(read_integer(rest)?));
            before.inode = before.inode.wrapping_add_signed(unzigzag(read_integer(rest)?));
            Run::File
        }
        _ => return None,
    };
    Some(Some(run))
}

fn write_absent(bytes: &mut Vec<u8>, absent: &mut u64) {
    if *absent > 0 {
        bytes.push(0);
        write_integer(bytes, *absent);
        *absent = 0;
    }
}

fn write_integer(bytes: &mut Vec<u8>, mut integer: u64) {
    loop {
        let low = u8::try_from(integer & 0x7f).expect("seven bits");
        integer >>= 7;
        if integer == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn read_integer(rest: &mut &[u8]) -> Option<u64> {
    let mut integer = 0;
    for (at, &byte) in rest.iter().take(INTEGER_LEN_MAX).enumerate() {
        let low = u64::from(byte & 0x7f);
        integer |= low.checked_shl(7 * u32::try_from(at).expect("a few")).filter(|high| high >> (7 * at) == low)?;
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Some(integer);
        }
    }
    None
}

/// Small numbers of either sign become small ones.
const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamps() -> impl Strategy<Value = Vec<Stamp>> {
        let file = (any::<u64>(), any::<i64>(), any::<u64>());
        let file = file.prop_map(|(len, modified_nanos, inode)| Stamp { len, modified_nanos, inode });
        proptest::collection::vec(prop_oneof![Just(Stamp::default()), file], 0..50)
    }

    #[test]
    fn a_million_files_that_are_not_there_take_a_few_bytes_and_those_made_in_a_row_less_than_ten() {
        let packed = PackedStamps::pack(std::iter::repeat_n(Stamp::default(), 1_000_000));
        assert_eq!((packed.as_bytes().len(), packed.len(), packed.unpack().len()), (4, 1_000_000, 1_000_000));
        let made = |file: u64| Stamp { len: 4000, modified_nanos: (file * 50_000).cast_signed(), inode: 7 + file };
        let packed = PackedStamps::pack((0..1000).map(made));
        assert!(packed.as_bytes().len() < 10_000, "{}", packed.as_bytes().len());
    }

    #[test]
    fn more_files_than_there_may_be_are_refused() {
        let packed = PackedStamps::pack([Stamp::default(); 6]);
        assert_eq!(PackedStamps::parse(packed.as_bytes(), 5), None);
        assert_eq!(PackedStamps::parse(packed.as_bytes(), 6), Some(packed));
        let endless = [&[0][..], &[0xff; 9], &[1]].concat();
        assert_eq!(PackedStamps::parse(&endless, usize::MAX - 1), None);
    }

    proptest! {
        #[test]
        fn stamps_are_read_back_as_they_were_packed(stamps in stamps()) {
            let packed = PackedStamps::pack(stamps.iter().copied());
            prop_assert_eq!(packed.unpack(), &stamps[..]);
            prop_assert_eq!(PackedStamps::parse(packed.as_bytes(), stamps.len()), Some(packed));
        }

        #[test]
        fn whatever_is_parsed_has_as_many_stamps_as_it_says(bytes: Vec<u8>) {
            if let Some(packed) = PackedStamps::parse(&bytes, 10_000) {
                prop_assert_eq!(packed.unpack().len(), packed.len());
            }
        }
    }
}
