//! Turns any bytes into a damaged journal: entries, some of which contain bytes of other entries, then a cut, changed
//! bytes, and parts that are copied to another offset. The fuzz target and the tests use it.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "it fails where it stands")]

use std::ops::Range;

use swarmtorrent::base::hash::Sha1Hash;
use swarmtorrent::codec::journal::{self, HEAD_LEN, Key, Verify};

/// The limit of the number of entries in one journal; a journal has fewer.
const ENTRIES_MAX: usize = 40;

/// Builds and damages a journal. Panics if the scan returns an entry that was not written, or lacks an entry that the
/// damage did not touch.
pub fn feed(script: &[u8]) {
    // Raw bytes first: without knowledge of the key they never contain an entry. The key depends on all of them, because a
    // fuzzer sees what its input is compared with, and so learns the check of an entry under a key that stays the same.
    let key = Key::new(*Sha1Hash::of(script).0.first_chunk().unwrap());
    let raw = [&vec![0; usize::try_from(HEAD_LEN).unwrap()], script].concat();
    let contents = journal::scan(&raw[..], raw.len() as u64, &key, Verify::All).unwrap();
    assert!(contents.entries.is_empty() && contents.end == HEAD_LEN);
    drop(journal::v1::read(script));
    drop(journal::v1::read(&[journal::v1::HEAD, script].concat()));

    let mut script = script.iter().copied();
    let mut byte = || usize::from(script.next().unwrap_or(0));
    let mut bytes = journal::head(&key);
    let mut written: Vec<(String, Option<Vec<u8>>, Range<usize>)> = Vec::new();
    for _ in 0..byte() % ENTRIES_MAX {
        let name = "abcdefgh"[..byte() % 9].to_owned();
        let value = match byte() % 5 {
            0 => None,
            // The value is the bytes of an existing entry: the best that a stranger with read access to the file could
            // do.
            1 if !written.is_empty() => Some(bytes[written[byte() % written.len()].2.clone()].to_vec()),
            2 => Some(vec![u8::try_from(byte()).unwrap(); byte() * 9]),
            _ => Some((0..byte() % 32).map(|_| u8::try_from(byte()).unwrap()).collect()),
        };
        let from = bytes.len();
        journal::write(&mut bytes, &key, from as u64, &name, value.as_deref());
        written.push((name, value, from..bytes.len()));
    }
    let intact = bytes.clone();
    bytes.extend(vec![0; byte() * 16]);
    let head = usize::try_from(HEAD_LEN).unwrap();
    for _ in 0..byte() % 6 {
        let place = |high: usize, low: usize, bytes: &[u8]| head + (high * 256 + low) % (bytes.len() - head + 1);
        let (at, from) = (place(byte(), byte(), &bytes), place(byte(), byte(), &bytes));
        match byte() % 4 {
            0 => bytes.truncate(at),
            1 => {
                let len = byte().min(bytes.len() - at);
                bytes[at..at + len].fill(0);
            }
            2 => {
                let len = (byte() * 4).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + len, at);
            }
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (from % 8)),
        }
    }
    let contents = journal::scan(&bytes[..], bytes.len() as u64, &key, Verify::All).unwrap();
    let found: Vec<_> = contents.entries.iter().map(|entry| entry.range.clone()).collect();
    let range = |range: &Range<usize>| range.start as u64..range.end as u64;
    for entry in &contents.entries {
        let whose = written.iter().find(|(_, _, at)| range(at) == entry.range).expect("entry was written");
        let value = entry
            .value
            .as_ref()
            .map(|value| bytes[usize::try_from(value.start).unwrap()..usize::try_from(value.end).unwrap()].to_vec());
        assert!(whose.0 == entry.name && whose.1 == value, "entry has another name or value");
    }
    for (_, _, at) in &written {
        let is_untouched = bytes.get(at.clone()) == intact.get(at.clone());
        assert_eq!(is_untouched, found.contains(&range(at)), "an entry is found if and only if it is untouched");
    }
    assert!(contents.end <= contents.torn_end && contents.torn_end <= bytes.len().max(head) as u64);
}
