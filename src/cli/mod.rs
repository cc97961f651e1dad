//! The tool `swarmtorrent`: a file a command.

pub mod check;
pub mod completions;
pub mod convert;
pub mod create;
pub mod ctl;
pub(crate) mod daemon;
pub mod direct;
pub mod get;
pub mod import;
pub mod ls;
pub mod main;
pub(crate) mod node;
pub(crate) mod output;
pub(crate) mod paint;
pub(crate) mod progress;
pub mod seed;
pub mod show;
pub mod simulate;
pub mod top;
pub mod tracker;
