//! The protocol layer.

pub mod dns;
pub mod http;
pub mod outbuf;
pub mod peer;
pub mod tls;
pub mod tracker;
