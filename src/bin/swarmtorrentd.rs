//! The program `swarmtorrentd`.

fn main() {}
