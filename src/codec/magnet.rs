//! (magnet)
