//! A journal with any damage loses only the entries that the damage touches, and returns only entries that were
//! written.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use proptest::prelude::*;

#[path = "fuzz/journal_feed.rs"]
mod journal_feed;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn damage_costs_only_the_entries_it_touches(script in proptest::collection::vec(any::<u8>(), 0..600)) {
        journal_feed::feed(&script);
    }
}
