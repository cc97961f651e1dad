//! (announces)
