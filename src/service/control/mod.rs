//! The control socket's conversation, protocol 1, without the socket: [`Session`] for one client.
//!
//! ```text
//! bytes → session (lines, order, bounds) → commands (words → Request) → the daemon → text | json → bytes
//! ```
//!
//! It knows no torrent and reads no file: a [`Request`] says what is asked, and a [`Report`] what there is to tell.

pub mod commands;
mod dht;
mod json;
pub mod place;
mod printer;
pub mod request;
mod session;
mod table;
mod text;
mod tracker;
mod watch;

pub use request::{Alternatively, Field, Host, Report, Request, Verdict};
pub use session::{Session, WAITING_MAX};

#[cfg(test)]
mod tests;
