//! Whatever a SOCKS5 proxy says.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../socks_feed.rs"]
mod socks_feed;

fuzz_target!(|bytes: &[u8]| socks_feed::feed(bytes));
