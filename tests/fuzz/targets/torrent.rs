//! Fuzz target for torrents whose peers send whatever they like, and a disk that may fail.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../torrent_feed.rs"]
mod torrent_feed;

fuzz_target!(|script: &[u8]| torrent_feed::feed(script));
