//! Entries of the journal that the daemon keeps its state in: a name, and what it says now.
//!
//! A later entry of a name replaces an earlier one; one without a value takes it out. Each stands behind its own mark and CRC-32C, so
//! that a torn end is noticed, and damage in the middle costs no entry but those it touches.

/// What a journal begins with.
pub const HEAD: &[u8] = b"swarm journal 1\n";
/// Bytes of a name; longer ones are never written.
pub const NAME_LEN_MAX: usize = 1024;
/// Bytes of a value; a longer one is never written, and none of ours comes near.
pub const VALUE_LEN_MAX: usize = 80 << 20;

/// What every entry begins with. The first byte begins no UTF-8 text and no bencode.
const MARK: [u8; 4] = *b"\xFFsj\n";
/// The length that says: there is no value.
const NO_VALUE: u32 = u32::MAX;
/// Mark, checksum, length of the name, length of the value.
const FIXED_LEN: usize = 4 + 4 + 2 + 4;

/// One entry, borrowed from the journal's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is about.
    pub name: &'a str,
    /// What is said of it; none if nothing is any more.
    pub value: Option<&'a [u8]>,
    /// Bytes of the whole entry.
    pub len: usize,
}

/// Appends an entry to `out`.
///
/// # Panics
/// If the name or the value is longer than it may be.
pub fn write(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    assert!(name.len() <= NAME_LEN_MAX && value.is_none_or(|value| value.len() <= VALUE_LEN_MAX), "{name} is too long");
    let at = out.len();
    out.extend(MARK);
    out.extend([0; 4]);
    let name_len = u16::try_from(name.len()).expect("it was just compared");
    let value_len = value.map_or(NO_VALUE, |value| u32::try_from(value.len()).expect("it was just compared"));
    out.extend(name_len.to_be_bytes());
    out.extend(value_len.to_be_bytes());
    out.extend(name.as_bytes());
    out.extend(value.unwrap_or_default());
    let crc = crc32c::crc32c(&out[at + 8..]);
    out[at + 4..at + 8].copy_from_slice(&crc.to_be_bytes());
}

/// The entry that `bytes` begins with; none if that is not whole and right.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Entry<'_>> {
    let fixed = bytes.first_chunk::<FIXED_LEN>()?;
    let (mark, rest) = fixed.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (name_len, value_len) = rest.split_first_chunk::<2>()?;
    let name_len = usize::from(u16::from_be_bytes(*name_len));
    let value_len = u32::from_be_bytes(value_len.try_into().ok()?);
    let has_value = value_len != NO_VALUE;
    let value_len = if has_value { value_len as usize } else { 0 };
    if *mark != MARK || name_len > NAME_LEN_MAX || value_len > VALUE_LEN_MAX {
        return None;
    }
    let len = FIXED_LEN + name_len + value_len;
    let entry = bytes.get(..len)?;
    if crc32c::crc32c(&entry[8..]) != u32::from_be_bytes(*crc) {
        return None;
    }
    let (name, value) = entry[FIXED_LEN..].split_at(name_len);
    Some(Entry { name: std::str::from_utf8(name).ok()?, value: has_value.then_some(value), len })
}

/// Where the next entry that is whole and right begins, from `from` on.
#[must_use]
pub fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.windows(MARK.len()).position(|window| window == MARK)?;
        if parse(&bytes[at..]).is_some() {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(name: &str, value: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, name, value);
        bytes
    }

    proptest! {
        #[test]
        fn an_entry_is_read_back_as_it_was_written(
            name in ".{0,40}",
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            after in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let bytes = [written(&name, value.as_deref()), after.clone()].concat();
            let expected = Entry { name: &name, value: value.as_deref(), len: bytes.len() - after.len() };
            prop_assert_eq!(parse(&bytes), Some(expected));
        }

        #[test]
        fn any_damage_makes_it_no_entry(at: usize, flip in 1..=255_u8, cut: usize) {
            let bytes = written("name", Some(b"value"));
            let mut damaged = bytes.clone();
            damaged[at % bytes.len()] ^= flip;
            prop_assert_eq!(parse(&damaged), None);
            prop_assert_eq!(parse(&bytes[..cut % bytes.len()]), None);
        }
    }

    #[test]
    fn what_comes_after_damage_is_found() {
        let (first, second) = (written("a", Some(b"1")), written("b", Some(&MARK)));
        let mut bytes = [first.clone(), second.clone()].concat();
        bytes[9] ^= 1;
        assert_eq!(find(&bytes, 0), Some(first.len()));
        assert_eq!(find(&bytes, first.len() + 1), None, "a mark alone is no entry");
        assert_eq!(find(&bytes, bytes.len() + 1), None);
    }
}
