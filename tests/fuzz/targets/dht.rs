//! A node of the DHT among strangers who send whatever they like, whenever they like.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../dht_feed.rs"]
mod dht_feed;

fuzz_target!(|script: &[u8]| dht_feed::feed(script));
