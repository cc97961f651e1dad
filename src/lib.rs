#![doc = include_str!("ARCHITECTURE.md")]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "tests cast numbers that they chose"))]

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
