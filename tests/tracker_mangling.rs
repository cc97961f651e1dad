//! A tracker server among strangers who send whatever they like: it never panics, spins, or goes beyond a bound.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use proptest::prelude::*;

#[path = "fuzz/tracker_feed.rs"]
mod tracker_feed;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_life_is_lived_through(script in proptest::collection::vec(any::<u8>(), 0..3000)) {
        tracker_feed::feed(&script);
    }
}
