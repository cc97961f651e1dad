//! SwarmTorrent: a BitTorrent node on one thread.
//!
//! The [`engine`] is a whole node without sockets, files, threads or a clock. A *driver* owns those: the
//! [`reactor`] in the programs, [`sim`] in tests. Start reading at `engine/mod.rs`, then follow a byte:
//! `engine/pump.rs`, `protocol/peer`, `torrent/torrent.rs`, `storage/mod.rs`.
//!
//! A file imports only from its own layer and from those before it:
//!
//! ```text
//! base → codec → protocol → torrent → service → engine ─┬→ storage → reactor ─┬→ daemon
//!                                                       └→ sim ───────────────┴→ cli
//! ```

pub mod base;
pub mod cli;
pub mod codec;
pub mod daemon;
pub mod engine;
pub mod protocol;
pub mod reactor;
pub mod service;
pub mod sim;
pub mod storage;
pub mod torrent;
