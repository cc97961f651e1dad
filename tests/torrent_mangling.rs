//! A torrent among peers that send whatever they like, with a disk that may fail: no call of the engine panics, takes too many
//! steps, or leaves an invariant broken.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::Path;

use proptest::prelude::*;

mod common;
#[path = "fuzz/torrent_feed.rs"]
mod torrent_feed;

use common::tree;
use torrent_feed::feed;

#[test]
fn scripts_that_once_failed_are_harmless() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found/torrent");
    tree(&found).0.iter().for_each(|script| feed(&std::fs::read(found.join(script)).unwrap()));
}

/// The number of every shape of content, the longest included, as a downloader, a link, a seed and nearly a seed.
#[test]
fn peers_that_do_everything_once_are_harmless_to_every_shape() {
    for shape in [0, 1, 2, 3, 4, 5, 6, 7, 255] {
        for kind in 0..4 {
            let mut script = vec![shape, kind, 0, 0, 0, 0];
            (0..24).for_each(|message| script.extend([12, message, message, 4, 1, 2, 3, 4, 5]));
            (0..8).for_each(|answer| script.extend([6, 0, answer * 2, 5]));
            script.extend([4, 90, 90]);
            feed(&script);
        }
    }
}

/// A script in which most operations have a peer.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let operation = proptest::collection::vec(any::<u8>(), 1..10);
    let shape = prop_oneof![40 => 0..248_u8, 1 => Just(255)];
    (shape, any::<u8>(), proptest::collection::vec(operation, 0..120))
        .prop_map(|(shape, kind, operations)| [vec![shape, kind, 0, 0, 2, 1, 1, 0], operations.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_script_is_harmless(script in script()) {
        feed(&script);
    }
}
