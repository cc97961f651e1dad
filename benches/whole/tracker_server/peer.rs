//! The peers that fill the swarms: from many addresses, each of which has a few ports in a swarm.

/// Addresses that they have.
pub const SOURCES: usize = 64;

/// The swarm and the port of one, whose ports that are a multiple of eight are complete.
pub fn of(number: usize, swarms: usize) -> (usize, u16) {
    (number % swarms, u16::try_from(1024 + number / swarms).expect("some peers a swarm"))
}

/// Which address one has.
pub fn source(number: usize, swarms: usize) -> usize {
    (number + number / swarms) % SOURCES
}

/// What its transaction is called.
pub fn low(number: usize) -> u32 {
    u32::try_from(number & 0xffff_ffff).expect("it was cut")
}
