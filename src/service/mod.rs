//! The service layer.

pub mod control;
