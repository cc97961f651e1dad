//! The torrent layer.

pub mod announces;
pub mod candidates;
pub mod choker;
pub mod command;
pub mod create;
pub mod layout;
pub mod partial;
pub mod peers;
pub mod picker;
pub mod resume;
pub mod snapshot;
#[expect(clippy::module_inception, reason = "the torrent itself, among its parts")]
pub mod torrent;
pub mod verify;
