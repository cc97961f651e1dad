//! The reactor layer.

pub mod clock;
pub mod datagrams;
pub mod listeners;
pub mod signals;
pub mod sockets;
