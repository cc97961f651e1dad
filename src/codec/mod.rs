//! Bytes ⇄ values: no state, no time. Each format has `parse` and `write` in one file, tested as inverses.

pub mod bencode;
pub mod blocklist;
pub mod catalog;
pub mod compact;
pub mod control;
pub mod dht_state;
pub mod dns;
pub mod extension;
pub mod followed;
pub mod http;
pub mod http_request;
pub mod http_tracker;
pub mod journal;
pub mod krpc;
pub mod lsd;
pub mod magnet;
pub mod metadata;
pub mod metainfo;
pub mod pex;
pub mod resp;
pub mod resume;
pub mod st;
pub mod udp_tracker;
pub mod units;
pub mod url;
pub mod wire;
