//! (candidates)
