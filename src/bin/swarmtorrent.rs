//! The program `swarmtorrent`.

fn main() {}
