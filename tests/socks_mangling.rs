//! What a SOCKS5 proxy says, mangled: it is understood, refused, or waited for, and nothing else.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use proptest::prelude::*;

mod common;
#[path = "fuzz/socks_feed.rs"]
mod socks_feed;

use common::mangled;
use socks_feed::feed;

/// What a proxy says in a good run: a method, perhaps a login, an answer; and what follows.
fn good() -> impl Strategy<Value = Vec<u8>> {
    let place = prop_oneof![
        any::<[u8; 6]>().prop_map(|rest| [&[1][..], &rest].concat()),
        any::<[u8; 18]>().prop_map(|rest| [&[4][..], &rest].concat()),
        "[a-z.]{1,255}".prop_map(|name| [&[3, u8::try_from(name.len()).unwrap()], name.as_bytes(), &[0, 80]].concat()),
    ];
    let before = prop_oneof![Just(&[5, 0][..]), Just(&[5, 2, 1, 0][..]), Just(&[][..])];
    (before, 0..10_u8, place, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(before, code, place, rest)| {
        // Without what comes before it is, but for two bytes, a datagram.
        let head = if before.is_empty() { [0; 3] } else { [5, code, 0] };
        [before, &head, &place, &rest].concat()
    })
}

/// A name of 86 bytes that are not UTF-8: as text, with a replacement character of 3 bytes for each, it is longer than
/// any name.
#[test]
fn datagram_with_a_name_that_is_not_text_is_read() {
    let datagram = [&[0, 0, 0, 3, 86][..], &[0xff; 86], &[0, 80], b"payload"].concat();
    feed(&datagram);
}

proptest! {
    /// Datagrams and answers with every kind of address, names of any bytes among them.
    #[test]
    fn place_of_any_bytes_is_read_or_refused(
        head in prop_oneof![Just(vec![0; 3]), Just(vec![5, 0, 5, 0, 0])], kind in 0..6_u8,
        name in proptest::collection::vec(prop_oneof![Just(0xff), any::<u8>()], 0..=255),
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let len = u8::try_from(name.len()).unwrap();
        feed(&[&head[..], &[kind, len], &name, &rest].concat());
    }

    #[test]
    fn a_proxy_that_says_anything_is_understood_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        feed(&bytes);
    }

    #[test]
    fn a_mangled_proxy_is_understood_or_not(
        bytes in good(), flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), cut in any::<usize>(),
    ) {
        feed(&bytes);
        feed(&mangled(&bytes, &flips, cut));
    }
}
