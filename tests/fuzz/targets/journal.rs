//! Fuzz target for a journal with any damage.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../journal_feed.rs"]
mod journal_feed;

fuzz_target!(|script: &[u8]| journal_feed::feed(script));
