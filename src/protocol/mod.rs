//! One protocol each, as a state machine; none knows a torrent.

pub mod catalog;
pub mod dht;
pub mod dns;
pub mod http;
pub mod lsd;
pub mod metadata;
pub mod mse;
pub mod outbuf;
pub mod peer;
pub mod pex;
pub mod redis;
pub mod socks;
pub mod tls;
pub mod tracker;
