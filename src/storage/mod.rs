//! The storage layer.

pub mod files;
pub mod map;
pub mod place;
pub mod scan;
pub mod state;
