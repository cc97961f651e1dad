//! The engine's other driver: a whole swarm on a virtual clock, repeatable from its seed.
//!
//! Below the engine everything is replaced (time, chance, streams, datagrams, disks); in it, nothing. What stands here is
//! the smallest world that moves a torrent: nodes, links with a delay and a rate, and a UDP tracker.

pub mod network;
pub mod node;
pub mod storage;
pub mod tracker;

pub use network::World;
