//! What we do for others; torrents are seen as plain snapshots.

pub mod control;
pub mod tracker;
