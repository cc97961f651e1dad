//! The sim layer.

pub mod network;
pub mod node;
pub mod storage;
