//! Fuzz target for every codec; the first byte chooses the codec.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../codecs_feed.rs"]
mod codecs_feed;

fuzz_target!(|script: &[u8]| codecs_feed::feed(script));
