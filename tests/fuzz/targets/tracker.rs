//! A tracker server among strangers who send whatever they like, with a store that says whatever it likes.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../tracker_feed.rs"]
mod tracker_feed;

fuzz_target!(|script: &[u8]| tracker_feed::feed(script));
