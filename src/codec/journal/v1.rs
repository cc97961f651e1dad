//! The journal of version 0.1.0. The daemon reads such a journal once and rewrites it in the current format.
//!
//! Each entry follows a mark and its CRC-32C. A stranger can compute the CRC, so bytes inside a damaged entry must not
//! be searched for entries: reading continues after a damaged entry only if an intact entry begins exactly at the end
//! that the lengths in the damaged one give.

use std::collections::BTreeMap;
use std::ops::Range;

/// The first bytes of the file.
pub const HEAD: &[u8] = b"swarm journal 1\n";
const MARK: [u8; 4] = *b"\xFFsj\n";
/// The length of the fixed part of an entry: mark, CRC, length of the name, length of the value.
const FIXED_LEN: usize = 4 + 4 + 2 + 4;
/// The value length of an entry without a value.
const NO_VALUE: u32 = u32::MAX;

/// The contents of a journal of version 0.1.0.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents<'a> {
    /// The newest value of each name.
    pub values: BTreeMap<&'a str, &'a [u8]>,
    /// The byte ranges of the file that could not be read.
    pub damage: Vec<Range<usize>>,
}

/// Returns two lengths of the entry at the start of `bytes`: that of the header with the name, and that of the whole
/// entry. `None` if `bytes` end within the fixed part.
fn lens(bytes: &[u8]) -> Option<(usize, usize)> {
    let fixed = bytes.first_chunk::<FIXED_LEN>()?;
    let name_len = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let value_len = u32::from_be_bytes([fixed[10], fixed[11], fixed[12], fixed[13]]);
    let value_len = if value_len == NO_VALUE { 0 } else { usize::try_from(value_len).ok()? };
    Some((FIXED_LEN + name_len, FIXED_LEN + name_len + value_len))
}

/// Returns the name, value and length of the entry at the start of `bytes`. `None` if that entry is not intact.
fn parse(bytes: &[u8]) -> Option<(&str, Option<&[u8]>, usize)> {
    let (value, end) = lens(bytes)?;
    let entry = bytes.get(..end)?;
    if entry[..4] != MARK || crc32c::crc32c(&entry[8..]).to_be_bytes() != entry[4..8] {
        return None;
    }
    let name = std::str::from_utf8(&entry[FIXED_LEN..value]).ok()?;
    let has_value = entry[10..14] != NO_VALUE.to_be_bytes();
    Some((name, has_value.then(|| &entry[value..]), end))
}

/// Reads a journal of version 0.1.0. Returns `None` if `bytes` are not such a journal.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Contents<'_>> {
    let mut contents = Contents::default();
    let mut at = bytes.starts_with(HEAD).then_some(HEAD.len())?;
    while at < bytes.len() {
        if let Some((name, value, len)) = parse(&bytes[at..]) {
            match value {
                Some(value) => contents.values.insert(name, value),
                None => contents.values.remove(name),
            };
            at += len;
            continue;
        }
        let next = lens(&bytes[at..]).map(|(_, len)| at + len);
        let next = next.filter(|next| bytes.get(*next..).is_some_and(|rest| parse(rest).is_some()));
        let next = next.unwrap_or(bytes.len());
        contents.damage.push(at..next);
        at = next;
    }
    Some(contents)
}

/// Appends an entry in the format of version 0.1.0.
#[cfg(test)]
pub(crate) fn write(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    let at = out.len();
    out.extend(MARK);
    out.extend([0; 4]);
    out.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    out.extend(value.map_or(NO_VALUE, |value| u32::try_from(value.len()).unwrap()).to_be_bytes());
    out.extend(name.as_bytes());
    out.extend(value.unwrap_or_default());
    let crc = crc32c::crc32c(&out[at + 8..]);
    out[at + 4..at + 8].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_journal_gives_the_newest_value_of_each_name() {
        let mut bytes = HEAD.to_vec();
        for (name, value) in
            [("a", Some(&b"1"[..])), ("b", Some(b"2")), ("a", Some(b"3")), ("b", None), ("c", Some(b""))]
        {
            write(&mut bytes, name, value);
        }
        let contents = read(&bytes).unwrap();
        assert_eq!(contents.values, BTreeMap::from([("a", &b"3"[..]), ("c", b"")]));
        assert!(contents.damage.is_empty());
        assert_eq!(read(b"swarm journal 2\n"), None);
    }

    #[test]
    fn planted_entry_is_not_read_when_its_carrier_is_torn_at_any_byte() {
        let mut planted = Vec::new();
        write(&mut planted, "other", None);
        let mut before = HEAD.to_vec();
        write(&mut before, "other", Some(b"kept"));
        let mut whole = before.clone();
        write(&mut whole, "carrier", Some(&[&[0; 700][..], &planted, &[0; 700]].concat()));
        for torn in before.len()..whole.len() {
            let contents = read(&whole[..torn]).unwrap();
            assert_eq!(contents.values, BTreeMap::from([("other", &b"kept"[..])]), "torn at {torn}");
        }
        for at in before.len()..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            let contents = read(&damaged).unwrap();
            assert_eq!(contents.values.get("other"), Some(&&b"kept"[..]), "damaged at {at}");
        }
    }

    #[test]
    fn damaged_value_costs_no_other_entry() {
        let mut bytes = HEAD.to_vec();
        write(&mut bytes, "a", Some(b"1"));
        let end = bytes.len();
        write(&mut bytes, "b", Some(b"2"));
        bytes[end - 1] ^= 1;
        let contents = read(&bytes).unwrap();
        assert_eq!(contents.values, BTreeMap::from([("b", &b"2"[..])]));
        assert!(contents.damage.len() == 1 && contents.damage[0] == (HEAD.len()..end));
    }
}
