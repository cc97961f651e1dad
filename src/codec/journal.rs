//! Format of the files that hold the daemon's state: a head with the file's random key, then entries of a name and its value.
//!
//! A later entry of a name replaces an earlier one; an entry without a value removes the name. Most of what entries hold was chosen by
//! strangers (names, tracker URLs, metainfo), so bytes inside an entry must never be taken for an entry, whatever a torn write or a bad
//! disk leaves of the file. Therefore the header of an entry has a check of its own, keyed with a secret of the file (a CRC is linear and has
//! no key: strangers can compute it), and the check covers the entry's offset, so that a copied header is not valid elsewhere. An entry is
//! skipped by its length only if its header checks; otherwise reading continues at the next header that checks.
//!
//! The value's check is keyed too. A CRC-32C would be faster, but the author of a value could choose it so that the value with its
//! tail replaced by zeros (a torn write) has the same CRC.

pub mod v1;

use std::hash::Hasher;
use std::io;
use std::ops::Range;

use siphasher::sip::{SipHasher13, SipHasher24};

/// What each copy of the head begins with.
const MAGIC: &[u8; 16] = b"swarm journal 2\n";
/// Bytes of the head: two copies of the key, each at the start of a block of a disk's 4 KiB. The first entry follows.
pub const HEAD_LEN: u64 = 2 * COPY_STEP;
/// Distance of the copies.
const COPY_STEP: u64 = 4096;
/// Bytes of one copy: magic, key, check.
const COPY_LEN: usize = 16 + 16 + 8;

/// Length limit of a name, bytes. Longer ones are never written, and a header that claims one is damaged.
pub const NAME_LEN_MAX: usize = 1024;
/// Length limit of a value, bytes. Longer ones are never written, and a header that claims one is damaged.
pub const VALUE_LEN_MAX: usize = 80 << 20;

/// What every entry begins with, so that a search need not compute a check at every byte.
const MARK: [u8; 4] = *b"\xFFsj2";
/// The value length of an entry without a value.
const NO_VALUE: u32 = u32::MAX;
/// Mark, check of the header, length of the name, length of the value, check of the value. The name follows, then the value.
const FIXED_LEN: usize = 4 + 8 + 2 + 4 + 8;
/// Length limit of a header with its name, bytes.
pub const HEADER_LEN_MAX: usize = FIXED_LEN + NAME_LEN_MAX;
/// Bytes that a search for a header reads at a time.
const WINDOW_LEN: usize = 1 << 20;

/// The secret of one file. Not shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 16]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The key with these bytes, which must be random.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The check of the header at offset `at`: everything behind the check itself, the name included.
    fn header_check(&self, at: u64, rest: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&at.to_be_bytes());
        hasher.write(rest);
        hasher.finish()
    }
}

/// The check of a value, computed piece by piece. It is another function than that of headers.
#[derive(Debug, Clone)]
pub struct ValueCheck(SipHasher13);

impl ValueCheck {
    /// The check of an empty value.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        Self(SipHasher13::new_with_key(&key.0))
    }

    /// Adds bytes of the value.
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The check of what was added.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn of(key: &Key, value: &[u8]) -> u64 {
        let mut check = Self::new(key);
        check.write(value);
        check.finish()
    }
}

/// The head of a file with `key`.
#[must_use]
pub fn head(key: &Key) -> Vec<u8> {
    let mut head = vec![0; usize::try_from(HEAD_LEN).expect("it is small")];
    for copy in 0..2 {
        let at = usize::from(copy) * usize::try_from(COPY_STEP).expect("it is small");
        head[at..at + 16].copy_from_slice(MAGIC);
        head[at + 16..at + 32].copy_from_slice(&key.0);
        let check = copy_check(copy, &head[at..at + 32]);
        head[at + 32..at + COPY_LEN].copy_from_slice(&check.to_be_bytes());
    }
    head
}

fn copy_check(copy: u8, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&[copy; 16]);
    hasher.write(bytes);
    hasher.finish()
}

/// The key in the first bytes of a file, and whether both copies are intact. `None` if neither is.
#[must_use]
pub fn parse_head(bytes: &[u8]) -> Option<(Key, bool)> {
    let copy = |copy: u8| {
        let at = usize::from(copy) * usize::try_from(COPY_STEP).ok()?;
        let (body, check) = bytes.get(at..at + COPY_LEN)?.split_at(32);
        let is_intact = body.starts_with(MAGIC) && copy_check(copy, body).to_be_bytes() == check;
        is_intact.then(|| Key(body[16..].try_into().expect("16 of 32 bytes")))
    };
    let (first, second) = (copy(0), copy(1));
    Some((first.or(second)?, first == second))
}

/// A header that checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name.
    pub name: &'a str,
    /// Length of the value, bytes. `None` if the entry removes the name.
    pub value_len: Option<usize>,
    /// What [`ValueCheck`] must say of the value.
    pub value_check: u64,
}

impl Header<'_> {
    /// Bytes of the header with its name.
    #[must_use]
    pub fn header_len(&self) -> usize {
        FIXED_LEN + self.name.len()
    }

    /// Bytes of the whole entry.
    #[must_use]
    pub fn entry_len(&self) -> usize {
        self.header_len() + self.value_len.unwrap_or(0)
    }

    /// Appends the header to `out`, for an entry at offset `at` of the file with `key`.
    ///
    /// # Panics
    /// If the name or the value is longer than it may be.
    pub fn write(&self, out: &mut Vec<u8>, key: &Key, at: u64) {
        assert!(self.name.len() <= NAME_LEN_MAX, "{} is too long a name", self.name);
        assert!(self.value_len.is_none_or(|len| len <= VALUE_LEN_MAX), "the value of {} is too long", self.name);
        let from = out.len();
        out.extend(MARK);
        out.extend([0; 8]);
        out.extend(u16::try_from(self.name.len()).expect("compared above").to_be_bytes());
        let value_len = self.value_len.map_or(NO_VALUE, |len| u32::try_from(len).expect("compared above"));
        out.extend(value_len.to_be_bytes());
        out.extend(self.value_check.to_be_bytes());
        out.extend(self.name.as_bytes());
        let check = key.header_check(at, &out[from + 12..]);
        out[from + 4..from + 12].copy_from_slice(&check.to_be_bytes());
    }
}

/// Appends a whole entry to `out`, for offset `at` of the file with `key`.
///
/// # Panics
/// If the name or the value is longer than it may be.
pub fn write(out: &mut Vec<u8>, key: &Key, at: u64, name: &str, value: Option<&[u8]>) {
    write_header(out, key, at, name, value);
    out.extend(value.unwrap_or_default());
}

/// Appends the header of an entry to `out`, as [`write()`] does. The value must follow.
///
/// # Panics
/// If the name or the value is longer than it may be.
pub fn write_header(out: &mut Vec<u8>, key: &Key, at: u64, name: &str, value: Option<&[u8]>) {
    let value_check = ValueCheck::of(key, value.unwrap_or_default());
    Header { name, value_len: value.map(<[u8]>::len), value_check }.write(out, key, at);
}

/// The header that `bytes`, which lie at offset `at` of the file with `key`, begin with. `None` if it does not check.
#[must_use]
pub fn parse_header<'a>(key: &Key, at: u64, bytes: &'a [u8]) -> Option<Header<'a>> {
    let (mark, rest) = bytes.split_first_chunk::<4>()?;
    let (check, rest) = rest.split_first_chunk::<8>()?;
    let (name_len, tail) = rest.split_first_chunk::<2>()?;
    let (value_len, tail) = tail.split_first_chunk::<4>()?;
    let (value_check, tail) = tail.split_first_chunk::<8>()?;
    let name_len = usize::from(u16::from_be_bytes(*name_len));
    let value_len = u32::from_be_bytes(*value_len);
    let has_value = value_len != NO_VALUE;
    if *mark != MARK || name_len > NAME_LEN_MAX || (has_value && value_len as usize > VALUE_LEN_MAX) {
        return None;
    }
    let name = tail.get(..name_len)?;
    let covered = &rest[..FIXED_LEN - 12 + name_len];
    if key.header_check(at, covered) != u64::from_be_bytes(*check) {
        return None;
    }
    Some(Header {
        name: std::str::from_utf8(name).ok()?,
        value_len: has_value.then_some(value_len as usize),
        value_check: u64::from_be_bytes(*value_check),
    })
}

/// The entry that `bytes`, which lie at offset `at` of the file with `key`, begin with: its header and value. `None` if it is not intact.
#[must_use]
pub fn parse<'a>(key: &Key, at: u64, bytes: &'a [u8]) -> Option<(Header<'a>, &'a [u8])> {
    let header = parse_header(key, at, bytes)?;
    let value = bytes.get(header.header_len()..header.entry_len())?;
    (ValueCheck::of(key, value) == header.value_check).then_some((header, value))
}

/// The position in `bytes`, which lie at offset `at` of the file with `key`, of the first header that checks.
fn find(key: &Key, at: u64, bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        from += bytes.get(from..)?.iter().position(|byte| *byte == MARK[0])?;
        if parse_header(key, at + from as u64, &bytes[from..]).is_some() {
            return Some(from);
        }
        from += 1;
    }
}

/// Bytes of a file.
pub trait Source {
    /// Fills `buf` with the bytes from offset `at` on.
    ///
    /// # Errors
    /// What the system reports.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()>;
}

impl Source for [u8] {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let bytes = at.checked_add(buf.len()).and_then(|end| self.get(at..end)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// An entry of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name.
    pub name: String,
    /// Where the entry lies.
    pub range: Range<u64>,
    /// Where its value lies. `None` if the entry removes the name.
    pub value: Option<Range<u64>>,
    value_check: u64,
}

/// Damage in the middle of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it lies.
    pub range: Range<u64>,
    /// Whose entry it is. `None` if the header is damaged, too.
    pub name: Option<String>,
}

/// What a file contains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// The entries, in order.
    pub entries: Vec<Found>,
    /// What is damaged and has intact entries behind it, in order.
    pub damage: Vec<Damage>,
    /// Where the last intact entry ends.
    pub end: u64,
    /// Where the last byte behind `end` that is not zero ends; `end` if there is none. Zeros are free space.
    pub torn_end: u64,
}

/// Which values [`scan`] verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// All.
    All,
    /// The last one, and those in so many bytes before it: a crash tears nothing that was synced.
    Last(u64),
}

/// Reads the `len` bytes of a file with `key`. Values that are not verified are not read.
///
/// # Errors
/// What `source` reports.
pub fn scan<S: Source + ?Sized>(source: &S, len: u64, key: &Key, verify: Verify) -> io::Result<Contents> {
    let mut contents = Contents::default();
    let mut buf = Vec::new();
    let mut at = HEAD_LEN;
    while at < len {
        read(source, &mut buf, at, len, HEADER_LEN_MAX)?;
        let Some(header) = parse_header(key, at, &buf) else {
            let Some(next) = next_header(source, &mut buf, at + 1, len, key)? else { break };
            contents.damage.push(Damage { range: at..next, name: None });
            at = next;
            continue;
        };
        let value = at + header.header_len() as u64..at + header.entry_len() as u64;
        if value.end > len {
            break;
        }
        contents.entries.push(Found {
            name: header.name.to_owned(),
            range: at..value.end,
            value: header.value_len.map(|_| value.clone()),
            value_check: header.value_check,
        });
        at = value.end;
    }
    let from = match (verify, contents.entries.last()) {
        (Verify::Last(before), Some(last)) => last.range.start.saturating_sub(before),
        _ => 0,
    };
    let first = contents.entries.partition_point(|entry| entry.range.start < from);
    for entry in contents.entries.split_off(first) {
        if is_intact(source, &mut buf, key, &entry)? {
            contents.entries.push(entry);
        } else {
            contents.damage.push(Damage { range: entry.range, name: Some(entry.name) });
        }
    }
    contents.end = contents.entries.last().map_or(HEAD_LEN, |entry| entry.range.end);
    contents.damage.retain(|damage| damage.range.start < contents.end);
    contents.damage.sort_unstable_by_key(|damage| damage.range.start);
    contents.torn_end = last_used(source, &mut buf, contents.end, len)?;
    Ok(contents)
}

/// Fills `buf` with the bytes from `at` on, at most `most` and none beyond `len`.
fn read<S: Source + ?Sized>(source: &S, buf: &mut Vec<u8>, at: u64, len: u64, most: usize) -> io::Result<()> {
    let most = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(most);
    buf.resize(most, 0);
    source.read_at(buf, at)
}

fn next_header<S: Source + ?Sized>(
    source: &S,
    buf: &mut Vec<u8>,
    mut at: u64,
    len: u64,
    key: &Key,
) -> io::Result<Option<u64>> {
    while at < len {
        read(source, buf, at, len, WINDOW_LEN + HEADER_LEN_MAX)?;
        if let Some(next) = find(key, at, buf) {
            return Ok(Some(at + next as u64));
        }
        // A header that begins in the last bytes may not end in them.
        at += WINDOW_LEN as u64;
    }
    Ok(None)
}

fn is_intact<S: Source + ?Sized>(source: &S, buf: &mut Vec<u8>, key: &Key, entry: &Found) -> io::Result<bool> {
    let mut check = ValueCheck::new(key);
    let Range { start: mut at, end } = entry.value.clone().unwrap_or_default();
    while at < end {
        read(source, buf, at, end, WINDOW_LEN)?;
        check.write(buf);
        at += buf.len() as u64;
    }
    Ok(check.finish() == entry.value_check)
}

fn last_used<S: Source + ?Sized>(source: &S, buf: &mut Vec<u8>, end: u64, len: u64) -> io::Result<u64> {
    let (mut at, mut used) = (end, end);
    while at < len {
        read(source, buf, at, len, WINDOW_LEN)?;
        if let Some(last) = buf.iter().rposition(|byte| *byte != 0) {
            used = at + last as u64 + 1;
        }
        at += buf.len() as u64;
    }
    Ok(used)
}

#[cfg(test)]
mod tests;
