//! (listeners)
