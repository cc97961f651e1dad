//! (show)
