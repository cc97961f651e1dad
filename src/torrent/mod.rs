//! One torrent: what it knows and decides. It knows no sockets.
//!
//! `torrent` holds the parts, and what it wants from outside; its rooms are `run`, `sleep`, `announcing`, `peers`, `metadata`, `download`, `upload`, `check`, `proposals`, `persist`, `disk`,
//! `exchange`, `followed`, `goals`, `lsd`, `pace`, `policy`, `path_conflict`, `relocation`, `reload`, `settings`, `super_seed`, `report` and `why`. The
//! parts that know nothing of one another: `layout`, `picker`, `partial`, `blame`, `choker`, `candidates`, `announces` (with
//! `scrapes`).

pub mod announces;
mod announcing;
pub mod blame;
pub mod candidates;
mod check;
pub mod choker;
pub mod command;
pub mod create;
mod dht_announces;
pub mod dht_command;
pub mod disk;
pub mod download;
pub mod event;
pub(crate) mod exchange;
pub mod followed;
mod goals;
mod import;
pub(crate) mod interest;
pub mod layout;
pub mod listing;
mod lsd;
mod metadata;
pub mod pace;
pub mod partial;
pub mod path_conflict;
pub mod peers;
mod persist;
pub mod picker;
mod policy;
mod proposals;
mod reload;
pub mod relocation;
pub mod renaming;
mod report;
mod run;
pub mod scrapes;
pub mod settings;
pub mod share;

pub mod sleep;
pub mod snapshot;
mod super_seed;
#[expect(clippy::module_inception, reason = "the torrent itself, among its parts")]
pub mod torrent;
pub mod touched_files;
pub mod tracker_state;
mod upload;
pub mod why;

#[cfg(test)]
mod tests;
