//! The message of peer exchange (BEP 11, `ut_pex`): who came to the sender since its last one, and who left it.
//!
//! Parsing is tolerant, as in all of the extension protocol: a list of the wrong type is as good as absent, one of the wrong
//! length ends with its last whole address, a flag that is not there is zero. Whether an address makes sense is for whoever
//! wants to dial it.

use std::net::SocketAddr;

use crate::codec::bencode::{self, Dict, DictWriter};
use crate::codec::compact::{parse_addrs, write_addr};

/// Added contacts of both families that a message holds; further ones are passed over (BEP 11).
pub const ADDED_MAX: usize = 50;
/// And that the first message of a peer may hold; further ones are passed over.
pub const ADDED_FIRST_MAX: usize = 100;
/// Dropped contacts of both families that a message holds; further ones are passed over.
pub const DROPPED_MAX: usize = 50;
/// Values in a message; one with more is as good as garbage. BEP 11 knows six keys.
const VALUES_MAX: usize = 64;

/// What is said of a contact; bits that BEP 11 does not name are kept as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// It would rather be spoken with in cipher.
    pub const ENCRYPTION: Self = Self(0x01);
    /// It has everything, or wants nothing more (BEP 21).
    pub const SEED: Self = Self(0x02);
    /// The sender dialled it, so it can be reached.
    pub const REACHABLE: Self = Self(0x10);

    /// True if all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These, and `other` too if `is_so`.
    #[must_use]
    pub const fn with(self, other: Self, is_so: bool) -> Self {
        if is_so { Self(self.0 | other.0) } else { self }
    }
}

/// Somebody who can be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What else is known of it.
    pub flags: Flags,
}

/// One message. Those of IPv4 come first in what was parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PexMessage {
    /// Who came.
    pub added: Vec<Contact>,
    /// Who left.
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// The message in `payload`, with up to `added_max` of those who came and [`DROPPED_MAX`] of those who left; none if it is
    /// no bencoded dictionary, or one that is too large.
    #[must_use]
    pub fn parse(payload: &[u8], added_max: usize) -> Option<Self> {
        let (document, _) = bencode::parse_front(payload, VALUES_MAX).ok()?;
        let dict = document.as_dict()?;
        let mut added = contacts(dict, b"added", b"added.f", false, added_max);
        added.extend(contacts(dict, b"added6", b"added6.f", true, added_max - added.len()));
        let mut dropped = addrs(dict, b"dropped", false, DROPPED_MAX);
        dropped.extend(addrs(dict, b"dropped6", true, DROPPED_MAX - dropped.len()));
        Some(Self { added, dropped })
    }

    /// Appends the dictionary to `out`, its keys in order. A list without an entry is left out; BEP 11 wants one at least.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut dict = DictWriter::begin(out);
        for (v6, key, flags_key) in [(false, "added", "added.f"), (true, "added6", "added6.f")] {
            let of_family = || self.added.iter().filter(|contact| contact.addr.is_ipv6() == v6);
            let flags: Vec<u8> = of_family().map(|contact| contact.flags.0).collect();
            if !flags.is_empty() {
                dict.bytes(key, &compact(of_family().map(|contact| contact.addr)));
                dict.bytes(flags_key, &flags);
            }
        }
        for (v6, key) in [(false, "dropped"), (true, "dropped6")] {
            let addrs = compact(self.dropped.iter().copied().filter(|addr| addr.is_ipv6() == v6));
            if !addrs.is_empty() {
                dict.bytes(key, &addrs);
            }
        }
        dict.end();
    }
}

fn addrs(dict: &Dict<'_>, key: &[u8], v6: bool, most: usize) -> Vec<SocketAddr> {
    dict.bytes(key).map(|bytes| parse_addrs(bytes, v6, most)).unwrap_or_default()
}

fn contacts(dict: &Dict<'_>, key: &[u8], flags_key: &[u8], v6: bool, most: usize) -> Vec<Contact> {
    let flags = dict.bytes(flags_key).unwrap_or_default().iter().copied().chain(std::iter::repeat(0)).map(Flags);
    addrs(dict, key, v6, most).into_iter().zip(flags).map(|(addr, flags)| Contact { addr, flags }).collect()
}

fn compact(addrs: impl Iterator<Item = SocketAddr>) -> Vec<u8> {
    let mut bytes = Vec::new();
    addrs.for_each(|addr| write_addr(&mut bytes, addr));
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contact(text: &str, flags: u8) -> Contact {
        Contact { addr: text.parse().unwrap(), flags: Flags(flags) }
    }

    fn bytes_of(message: &PexMessage) -> Vec<u8> {
        let mut out = Vec::new();
        message.write(&mut out);
        out
    }

    #[test]
    fn a_message_has_its_keys_in_order_and_both_families() {
        let message = PexMessage {
            added: vec![contact("1.2.3.4:6881", 0x13), contact("[2001:db8::1]:6882", 2)],
            dropped: vec!["5.6.7.8:80".parse().unwrap(), "[2001:db8::2]:81".parse().unwrap()],
        };
        let expected = [
            &b"d5:added6:\x01\x02\x03\x04\x1a\xe17:added.f1:\x13"[..],
            b"6:added618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe28:added6.f1:\x02",
            b"7:dropped6:\x05\x06\x07\x08\0\x50",
            b"8:dropped618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x51e",
        ];
        assert_eq!(bytes_of(&message), expected.concat());
        assert_eq!(bytes_of(&PexMessage { added: vec![], ..message }).first_chunk(), Some(b"d7:dropped"));
    }

    #[test]
    fn lists_of_a_wrong_length_end_with_their_last_whole_address() {
        let parse = |payload: &[u8]| PexMessage::parse(payload, ADDED_MAX).unwrap();
        let cut = parse(
            b"d5:added11:\x01\x02\x03\x04\x1a\xe1\x01\x02\x03\x04\x1a7:added.f0:7:dropped5:\x01\x02\x03\x04\x1ae",
        );
        assert_eq!(cut, PexMessage { added: vec![contact("1.2.3.4:6881", 0)], dropped: vec![] });
        let wrong = parse(b"d5:addedi7e7:added.f3:\x01\x02\x036:added63:abc7:droppedli1ee8:dropped6dee");
        assert_eq!(wrong, PexMessage::default());
        let flagged = parse(b"d5:added12:\x01\x02\x03\x04\x1a\xe1\x01\x02\x03\x05\x1a\xe17:added.f1:\x02e");
        assert_eq!(flagged.added, [contact("1.2.3.4:6881", 2), contact("1.2.3.5:6881", 0)], "a missing flag is zero");
    }

    #[test]
    fn no_more_is_looked_at_than_a_message_may_hold() {
        let many = |text: &str, count: usize| vec![text.parse::<SocketAddr>().unwrap(); count];
        let added = [many("1.2.3.4:5", 30), many("[::5]:5", 5000)].concat();
        let message = PexMessage {
            added: added.into_iter().map(|addr| Contact { addr, flags: Flags(1) }).collect(),
            dropped: [many("[::5]:5", 5000), many("1.2.3.4:5", 45)].concat(),
        };
        for most in [ADDED_MAX, ADDED_FIRST_MAX] {
            let read = PexMessage::parse(&bytes_of(&message), most).unwrap();
            let v6 = |addrs: &[SocketAddr]| addrs.iter().filter(|addr| addr.is_ipv6()).count();
            let added: Vec<SocketAddr> = read.added.iter().map(|contact| contact.addr).collect();
            assert_eq!((added.len(), v6(&added)), (most, most - 30));
            assert_eq!((read.dropped.len(), v6(&read.dropped)), (DROPPED_MAX, 5));
        }
    }

    #[test]
    fn what_is_no_dictionary_or_too_large_a_one_is_refused() {
        let large = [&b"d1:xl"[..], &b"0:".repeat(VALUES_MAX), b"ee"].concat();
        for bad in [&b""[..], b"i1e", b"d", b"le", b"d5:added6:abc", b"d5:added99999999999:", &large] {
            assert_eq!(PexMessage::parse(bad, ADDED_MAX), None, "{}", bad.escape_ascii());
        }
        assert_eq!(PexMessage::parse(b"de", ADDED_MAX), Some(PexMessage::default()));
    }

    fn message() -> impl Strategy<Value = PexMessage> {
        let v4 = || proptest::collection::vec(any::<([u8; 4], u16)>().prop_map(SocketAddr::from), 0..25);
        let v6 = || proptest::collection::vec(any::<([u8; 16], u16)>().prop_map(SocketAddr::from), 0..25);
        (v4(), v6(), v4(), v6(), proptest::collection::vec(any::<u8>(), 50)).prop_map(
            |(came4, came6, left4, left6, flags)| PexMessage {
                added: came4
                    .into_iter()
                    .chain(came6)
                    .zip(flags)
                    .map(|(addr, flags)| Contact { addr, flags: Flags(flags) })
                    .collect(),
                dropped: [left4, left6].concat(),
            },
        )
    }

    proptest! {
        #[test]
        fn messages_are_read_as_they_were_written(message in message()) {
            prop_assert_eq!(PexMessage::parse(&bytes_of(&message), ADDED_MAX), Some(message));
        }

        #[test]
        fn mangled_messages_are_refused_or_bounded(
            message in message(), at: usize, to: u8, cut: usize, most in 0..ADDED_FIRST_MAX,
        ) {
            let mut bytes = bytes_of(&message);
            let len = bytes.len();
            prop_assert_eq!(PexMessage::parse(&bytes[..cut % len], most), None, "cut");
            bytes[at % len] = to;
            if let Some(read) = PexMessage::parse(&bytes, most) {
                prop_assert!(read.added.len() <= most && read.dropped.len() <= DROPPED_MAX);
            }
        }
    }
}
