//! The daemon layer.

pub mod args;
pub mod config;
pub mod load;
pub mod log;
pub mod main;
pub mod notify;
pub mod watch;
