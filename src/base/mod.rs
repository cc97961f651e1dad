//! What every layer speaks of: time, chance, ids, pieces, hashes, rates, the config and the `Storage` trait.

pub mod addr;
pub mod arena;
pub mod bitfield;
pub mod blocklist;
pub mod buffer;
pub mod bytes;
pub mod config;
pub mod files;
pub mod geometry;
pub mod hash;
pub mod ids;
pub mod lanes;
pub mod merge_sort;
pub mod names;
pub mod net;
pub mod queue;
pub mod rate;
pub mod rng;
pub mod rules;
pub mod sabotage;
pub mod steps;
pub mod storage;
pub mod tally;
pub mod time;
pub mod timers;
