//! Any bytes are replies of a Redis server or none, however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarmtorrent::protocol::redis::reader::ReplyReader;

fuzz_target!(|bytes: &[u8]| {
    let (mut whole, mut cut) = (Vec::new(), Vec::new());
    let is_whole = ReplyReader::default().read(bytes, &mut whole).is_ok();
    let mut reader = ReplyReader::default();
    let is_cut = bytes.chunks(3).all(|part| reader.read(part, &mut cut).is_ok());
    assert_eq!((is_whole, whole), (is_cut, cut));
});
