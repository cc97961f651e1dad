//! The cli layer.

pub mod check;
pub mod convert;
pub mod create;
pub mod ctl;
pub mod get;
pub mod main;
pub mod seed;
pub mod show;
