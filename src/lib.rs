#![doc = include_str!("ARCHITECTURE.md")]

pub mod base;
pub mod cli;
pub mod codec;
pub mod daemon;
pub mod engine;
pub mod protocol;
pub mod reactor;
pub mod service;
pub mod sim;
pub mod storage;
pub mod torrent;
