//! The program `swarmtorrentd`: config, control socket, watch directories, signals and the log around a driven engine.
//!
//! `main` starts and turns the loop, `commands` carries out what clients ask, `reload` reads the config again, everything else is one thing each.

pub mod allow;
pub mod args;
pub mod block;
pub mod clients;
mod commands;
pub mod config;
mod hooks;
mod inotify;
pub mod load;
pub mod log;
pub mod main;
pub mod notify;
mod reload;
mod schedule;
mod share;
pub mod watch;
