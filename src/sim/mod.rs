//! The engine's other driver: a whole swarm on a virtual clock, repeatable from its seed.
//!
//! Below the engine everything is replaced (time, chance, streams, datagrams, disks); in it, nothing. A [`World`] is nodes, the
//! network between them and one queue of what will happen. `scenario` describes one, `faults` is what befalls it,
//! `checks` what must hold after every event, `secrets` what must not be said, `ledger` what trackers may tell, `lookups` what
//! searches in the DHT came to, `report` what is said of it, `picture` draws that.

pub mod checks;
pub mod crowd;
pub mod faults;
pub mod hostile;
pub mod ledger;
pub mod liar;
#[cfg(test)]
mod loading_tests;
pub mod lookups;
pub mod network;
pub mod node;
pub mod picture;
pub mod random;
pub mod redis;
pub mod report;
pub mod scenario;
mod secrets;
pub mod storage;
pub mod stream;
pub mod swarm;
pub mod trace;
pub mod tracker;
mod world;

pub use world::World;
