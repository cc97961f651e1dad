//! Any datagram is a message of the DHT or none; a message that can be written is read as it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarmtorrent::codec::krpc::Message;

fuzz_target!(|packet: &[u8]| {
    if let Some(message) = Message::parse(packet) {
        let mut written = Vec::new();
        message.write(&mut written);
        let again = Message::parse(&written).expect("what we write can be read");
        assert_eq!(again.transaction, message.transaction);
        assert_eq!(std::mem::discriminant(&again.body), std::mem::discriminant(&message.body));
    }
});
